"""A run's page: what became of the rows, and samples that are outlined on the plane are listed."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import Visit
from tests.served import Server

EVIL = "<img src=x onerror=alert(1)><script>document.title='owned'</script>{{ 7 * 7 }} \u202e"
ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n} {EVIL}", "output": f"Here is {n}, as you said, and {'more ' * n}."}
    | {"about": {"topic": "<i>code</i>" if n % 3 else "history"}}
    for n in range(24)
]


@pytest.fixture(scope="module")
def run(server: Server) -> str:
    """A run over rows whose texts are markup."""
    measuring = {"model": server.model, "max_length": 512}
    asked = {"rows": ROWS, "name": "looked_into", "method": "qtuning", "keep": 0.5, "measuring": measuring}
    started = server.client.post("/v1/prune", json=asked).raise_for_status()
    job = server.wait(started.headers["Location"])
    assert job["state"] == "succeeded", job
    return str(job["result"]["run_id"])


def test_a_run_shows_its_counts_reasons_and_plane(admin: Visit, run: str) -> None:
    page = admin.open(f"/runs/{run}")
    assert page.get_by_role("heading", level=1).inner_text().startswith("looked_into")
    expect(page.get_by_role("heading", name="From 24 rows to 12")).to_be_visible()
    expect(page.locator("#plane-said")).to_have_text(
        "24 samples, each a point. Draw a line around some to list their rows."
    )
    assert page.title().startswith("looked_into")
    expect(page.locator("#try-said")).to_contain_text("12 of 24 (50.0 %) samples")
    admin.usable()


def test_numbers_stand_beside_the_pointer_and_thresholds_stay_when_zoomed(admin: Visit, run: str) -> None:
    page = admin.open(f"/runs/{run}")
    place = admin.plane()
    tip = page.locator(".tip")
    at = page.evaluate(
        """async (address) => {
          const view = await (await fetch(address)).json();
          const { xaxis, yaxis } = document.getElementById("plane")._fullLayout;
          const drawn = (axis, value) => (axis.scale === "log" ? Math.log10(value) : value);
          const part = (axis, range, value) => (drawn(axis, value) - range[0]) / (range[1] - range[0]);
          const [x, y] = [view.points.x[7], view.points.y[7]];
          return [part(view.x, xaxis.range, x), part(view.y, yaxis.range, y), x, view.points.row[7]];
        }""",
        f"/runs/{run}/plane.json",
    )
    page.mouse.move(place["x"] + at[0] * place["width"], place["y"] + (1 - at[1]) * place["height"])
    expect(tip).to_contain_text(f"entropy {at[2]:.4g}")
    expect(tip).to_contain_text("status")
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()
    lines = page.locator("#plane .shapelayer path")
    expect(lines).to_have_count(4)
    page.locator("#plane [data-attr=dragmode][data-val=zoom]").click()
    page.mouse.move(place["x"] + 1, place["y"] + 1)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.9, place["y"] + place["height"] * 0.9, steps=5)
    page.mouse.up()
    expect(page.locator("#plane-said")).not_to_contain_text("24 samples")
    expect(lines).to_have_count(4)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#plane-said")).to_contain_text("24 samples")


def test_rows_are_seen_over_any_column_before_and_after(admin: Visit, run: str) -> None:
    page = admin.open(f"/runs/{run}")
    column = page.get_by_label("column", exact=True)
    column.focus()
    expect(page.locator("#spread-columns option[value='about.topic']")).to_have_count(1)
    column.fill("about.topic")
    page.get_by_role("button", name="Show", exact=True).click()
    found = page.locator("#spread-found")
    expect(found.locator("tbody tr")).to_have_count(2)
    expect(found).to_contain_text("<i>code</i>")
    column.fill("n_chars")
    column.press("Enter")
    expect(found.locator(".plot .main-svg").first).to_be_visible()
    column.fill("about")
    column.press("Enter")
    expect(page.locator("#spread-said")).to_contain_text("choose a key of them: about.key")
    admin.expected.append("422")
    admin.usable()


def test_a_line_around_samples_lists_their_rows(admin: Visit, run: str) -> None:
    page = admin.open(f"/runs/{run}")
    admin.outline()
    expect(page.get_by_role("heading", name="24 samples, 12 of them kept")).to_be_visible()
    found = page.locator("#found tbody tr")
    expect(found).to_have_count(24)
    assert "<img src=x onerror=alert(1)>" in found.first.inner_text()
    assert found.first.get_by_role("link").get_attribute("href") == f"/runs/{run}/rows/0"


def test_a_part_can_be_chosen_by_numbers_and_read_page_by_page(
    admin: Visit, run: str, server: Server
) -> None:
    sql = (
        "SELECT half, (SELECT count(*) FROM looked_into.sample_scores WHERE n_response_tokens >= half) FROM "
        "(SELECT median(n_response_tokens) AS half FROM looked_into.sample_scores)"
    )
    half, longer = server.client.post("/v1/sql", json={"sql": sql}).json()["rows"][0]
    assert 0 < longer < 24
    page = admin.open(f"/runs/{run}")
    expect(page.locator("#plane-said")).to_contain_text("24 samples")
    page.get_by_label("across").first.select_option("n_response_tokens")
    expect(page.locator("#part-x")).to_have_text("n_response_tokens")
    page.get_by_text("Choose a part by numbers").click()
    page.locator("#plane-part input[name=x0]").fill(str(half))
    page.get_by_role("button", name="List rows").click()
    expect(page.locator("#found tbody tr")).to_have_count(longer)


@pytest.mark.parametrize("asked", ["x=nothing&y=ppl", "x=entropy&y=ppl&colour=nothing", "x=entropy&y=reason"])
def test_columns_that_there_are_not_are_refused_by_name(server: Server, run: str, asked: str) -> None:
    with server.as_token(None) as client:
        client.post("/sign-in", data={"token": server.token})
        answer = client.get(f"/runs/{run}/plane.json?{asked}")
        assert answer.status_code == 422
        assert "there are" in answer.json()["remedy"]


def test_a_run_of_another_project_is_not_there_by_any_address(server: Server, run: str) -> None:
    with server.as_token(None) as client:
        client.post("/sign-in", data={"token": server.new_token("read", project="onlookers")})
        for address in (
            "",
            "/details",
            "/columns.json",
            "/plane.json?x=entropy&y=ppl",
            "/spread.json",
            "/spread?column=n_chars",
            "/rows.json?x=entropy&y=ppl",
        ):
            answer = client.get(f"/runs/{run}{address}")
            assert answer.status_code == 404, address
            assert "looked_into" not in answer.text


def test_another_ratio_is_tried_with_a_slider_and_started_as_a_run(admin: Visit, run: str) -> None:
    page = admin.open(f"/runs/{run}")
    slider = page.get_by_label("samples", exact=True)
    assert slider.input_value() == "50"
    slider.fill("25")
    expect(page.locator("#try-said")).to_contain_text("6 of 24 (25.0 %) samples")
    page.get_by_role("button", name="Start this run").click()
    page.wait_for_url(lambda address: run not in address)
    expect(page.get_by_role("heading", name="From 24 rows to 6")).to_be_visible()
