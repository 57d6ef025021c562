"""A row's page: its tokens in colours, why it fared so, and the row as it came; and two runs side by side."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import Visit
from tests.served import Server

EVIL = "<img src=x onerror=alert(1)> \u202e</blockquote><script>document.title='owned'</script>"
ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n} {EVIL}", "output": f"Here is {n}, as you said: {EVIL} {'more ' * n}."}
    for n in range(12)
]
ENDLESS = {
    "messages": [{"role": role, "content": "Hm?"} for _ in range(500) for role in ("user", "assistant")]
}
HUGE = {"instruction": "Say a lot.", "output": "word " * 200_000}


@pytest.fixture(scope="module")
def made(server: Server) -> dict[str, str]:
    """Two runs over the same rows, by their methods."""
    measuring = {"model": server.model, "max_length": 512}
    asked = {"rows": [*ROWS, ENDLESS, HUGE, {"no": "row"}], "name": "shown_rows", "measuring": measuring}
    asked |= {"method": "qtuning", "keep": 0.5, "options": {"token_keep": 0.5}}
    started = server.client.post("/v1/prune", json=asked).raise_for_status()
    first = server.wait(started.headers["Location"])
    assert first["state"] == "succeeded", first
    again = {"dataset": "shown_rows", "method": "length", "keep": 0.5, "measuring": measuring}
    started = server.client.post("/v1/runs", json=again).raise_for_status()
    second = server.wait(started.headers["Location"])
    return {"qtuning": first["result"]["run_id"], "length": second["result"]["run_id"]}


def test_a_row_shows_each_token_with_its_numbers(admin: Visit, server: Server, made: dict[str, str]) -> None:
    known = (server.client.get(f"/v1/runs/{made['qtuning']}/samples/{row}").json() for row in range(12))
    listed = next(each for each in known if {True, False} <= {token["keep"] for token in each["tokens"]})
    row = listed["row"]
    page = admin.open(f"/runs/{made['qtuning']}/rows/{row}")
    expect(page.get_by_label("colour tokens by")).to_be_visible()
    tokens = page.locator(".token")
    shown = [each for each in listed["tokens"] if not each["is_end"]]
    assert 0 < tokens.count() <= len(shown)  # tokens of one character are shown together
    assert page.locator("blockquote").last.inner_text().startswith("".join(tokens.all_inner_texts()))
    nll = listed["tokens"][0]["nll"]
    title = tokens.first.get_attribute("title") or ""
    assert float(re.findall(r"nll ([\d.]+)", title)[0]) == pytest.approx(nll, rel=0.01)
    assert 0 < page.locator("del.token").count() <= sum(each["keep"] is False for each in shown)
    assert "⟨U+202E⟩" in page.locator("blockquote").last.inner_text()
    assert page.title() == f"Row {row} of shown_rows · datapruner"
    page.get_by_label("colour tokens by").select_option("entropy")
    admin.usable()


@pytest.mark.parametrize(("row", "said"), [(12, "800 more turns"), (13, "more characters"), (14, "no")])
def test_rows_without_end_and_rejected_ones_are_shown_as_far_as_it_helps(
    admin: Visit, made: dict[str, str], row: int, said: str
) -> None:
    page = admin.open(f"/runs/{made['qtuning']}/rows/{row}")
    expect(page.locator("main")).to_contain_text(said)
    assert len(page.content()) < 3_000_000


def test_two_runs_are_compared_from_a_runs_page(admin: Visit, server: Server, made: dict[str, str]) -> None:
    page = admin.open(f"/runs/{made['qtuning']}")
    page.get_by_label("compare with").select_option(made["length"])
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url(f"**/compare/{made['length']}")
    both = server.client.get(f"/v1/runs/{made['qtuning']}/compare/{made['length']}").json()
    row = page.get_by_role("row", name="both")
    assert row.get_by_role("cell").first.inner_text() == str(both["kept_by_both"])
    admin.usable()
