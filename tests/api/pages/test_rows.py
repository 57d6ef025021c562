"""A row's page: its tokens in colours, why it fared so, and the row as it came; and two runs side by side."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from datapruner import shown
from tests.browser import Visit
from tests.served import WAIT, Server

EVIL = "<img src=x onerror=alert(1)> \u202e</blockquote><script>document.title='owned'</script>"
ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n} {EVIL}", "output": f"Here is {n}, as you said: {EVIL} {'more ' * n}."}
    for n in range(12)
]
ENDLESS = {
    "messages": [{"role": role, "content": f"Hm {n}?"} for n in range(500) for role in ("user", "assistant")]
}
HUGE = {"instruction": "Say a lot.", "output": "word " * 200_000}
STEPS = ["Take 2 first.", "Add the other 2 to it now.", "Wait, is that right?", "So that is 4."]
REASONED = {
    "instruction": "What is 2 plus 2?",
    "output": "<think>\n" + "\n\n".join(STEPS) + "\n</think>\nIt is 4. " + EVIL,
}
SHORT = (*range(12), 15, 16, 17)
"""Rows that fit the model."""
RAIN = {
    "instruction": f"Explain rain. {EVIL}",
    "output": "Water rises as vapour, cools, and falls again in drops. " + EVIL,
}
NEAR = RAIN | {"output": RAIN["output"].replace("drops.", "drops!")}


@pytest.fixture(scope="module")
def made(server: Server) -> dict[str, str]:
    """Two runs over the same rows, by their methods."""
    measuring = {"model": server.model, "max_length": 512}
    rows = [*ROWS, ENDLESS, HUGE, {"no": "row"}, REASONED, RAIN, NEAR, RAIN]
    asked = {"rows": rows, "name": "shown_rows", "measuring": measuring}
    asked |= {"method": "qtuning", "keep": 0.7, "options": {"token_keep": 0.5}}
    started = server.client.post("/v1/prune", json=asked).raise_for_status()
    first = server.wait(started.headers["Location"])
    assert first["state"] == "succeeded", first
    recipe = {"dedup": {"threshold": 0.7}, "methods": ["ppl"], "keep": "100%", "measuring": measuring}
    recipe["rewrite"] = {"method": "asap", "options": {"max_token_ratio": 0.6}}
    again = {"dataset": "shown_rows", "recipe": recipe}
    second = server.client.post("/v1/runs", json=again, headers=WAIT).raise_for_status()
    return {"qtuning": first["result"]["run_id"], "recipe": second.json()["id"]}


def test_a_row_shows_each_token_with_its_numbers(admin: Visit, server: Server, made: dict[str, str]) -> None:
    known = (server.client.get(f"/v1/runs/{made['qtuning']}/samples/{row}").json() for row in SHORT)
    listed = next(each for each in known if {True, False} <= {token["keep"] for token in each["tokens"]})
    row = listed["row"]
    page = admin.open(f"/runs/{made['qtuning']}/rows/{row}")
    expect(page.get_by_label("colour tokens by")).to_be_visible()
    tokens = page.locator(".token")
    with_text = [each for each in listed["tokens"] if not each["is_end"]]
    assert 0 < tokens.count() <= len(with_text)  # tokens of one character are shown together
    response = page.locator("blockquote").last
    assert response.inner_text().startswith("".join(tokens.all_inner_texts()))
    title = tokens.first.get_attribute("title") or ""
    for name in ("nll", "entropy", "el2n"):
        [number] = re.findall(rf"{name} ([\d.]+)", title)
        assert float(number) == pytest.approx(listed["tokens"][0][name], rel=0.01)
    assert 0 < page.locator("del.token").count() <= sum(each["keep"] is False for each in with_text)
    assert "⟨U+202E⟩" in response.inner_text()
    assert page.title() == f"Row {row} of shown_rows · datapruner"
    page.get_by_label("colour tokens by").select_option("el2n")
    response.press("ArrowRight")
    expect(page.locator("output.numbers")).to_contain_text(title)
    response.press("ArrowRight")
    expect(page.locator("output.numbers")).to_contain_text(tokens.nth(1).get_attribute("title") or "")
    expect(page.locator(".chosen")).to_have_count(1)
    with page.expect_download() as started:
        page.get_by_role("region", name="Exports of the run").get_by_role("link", name="card").click()
    assert started.value.suggested_filename.endswith(".card.tar")
    admin.usable()


def test_a_rewritten_row_stands_beside_the_original_with_what_was_removed_struck(
    admin: Visit, server: Server, made: dict[str, str]
) -> None:
    page = admin.open(f"/runs/{made['recipe']}/rows/15")
    original, new = page.get_by_label("The original response"), page.get_by_label("The new response")
    removed = original.locator("del").all_inner_texts()
    assert removed
    left = shown.plain(REASONED["output"])
    assert original.inner_text() == left
    for each in removed:
        left = left.replace(each, "", 1)
    assert new.inner_text().split() == left.split()
    struck = page.get_by_label("assistant, turn 2").locator("del.token").all_inner_texts()
    assert "".join(struck).split() == "".join(removed).split()
    admin.usable()


def test_a_row_leads_to_its_duplicates_and_to_the_rows_most_like_it(
    admin: Visit, made: dict[str, str]
) -> None:
    page = admin.open(f"/runs/{made['recipe']}/rows/17")
    like = page.get_by_role("region", name="Duplicates, and rows like it")
    expect(like).to_contain_text("row 16 at Jaccard")
    like.get_by_role("link", name="row 16").click()
    expect(like.get_by_role("link", name="row 17")).to_be_visible()
    admin.open(f"/runs/{made['qtuning']}/rows/16")
    like.get_by_role("button", name="Find the rows most like it").click()
    nearest = like.get_by_role("row")
    expect(nearest).to_have_count(1 + 8)
    cosines = [float(each) for each in like.locator("td:nth-child(2)").all_inner_texts()]
    assert cosines == sorted(cosines, reverse=True)
    assert "⟨U+202E⟩" in nearest.nth(1).inner_text()
    admin.usable()
    admin.open(f"/runs/{made['qtuning']}/rows/18")
    like.get_by_role("link", name="row 16").click()
    expect(like.get_by_role("link", name="row 18")).to_be_visible()


@pytest.mark.parametrize(
    ("row", "said"), [(12, "Turns 1 to 200 of 1,000"), (13, "more characters"), (14, "'no'")]
)
def test_rows_without_end_and_rejected_ones_are_shown_as_far_as_it_helps(
    admin: Visit, made: dict[str, str], row: int, said: str
) -> None:
    page = admin.open(f"/runs/{made['qtuning']}/rows/{row}")
    expect(page.locator("main")).to_contain_text(said)
    assert len(page.content()) < 3_000_000


def test_all_turns_of_a_conversation_can_be_read(admin: Visit, made: dict[str, str]) -> None:
    page = admin.open(f"/runs/{made['qtuning']}/rows/12")
    seen = page.locator("blockquote").all_inner_texts()
    while (later := page.get_by_role("link", name="later turns")).count():
        later.click()
        seen += page.locator("blockquote").all_inner_texts()
    assert seen == [turn["content"] for turn in ENDLESS["messages"]]
    page.get_by_role("link", name="earlier turns").click()
    expect(page.locator("main")).to_contain_text("Turns 601 to 800 of 1,000")


def test_two_runs_are_compared_from_a_runs_page(admin: Visit, server: Server, made: dict[str, str]) -> None:
    page = admin.open(f"/runs/{made['qtuning']}")
    page.get_by_label("compare with").select_option(made["recipe"])
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url(f"**/compare/{made['recipe']}")
    both = server.client.get(f"/v1/runs/{made['qtuning']}/compare/{made['recipe']}").json()
    row = page.get_by_role("row", name="both")
    expect(row.get_by_role("cell").first).to_have_text(str(both["kept_by_both"]))
    first = both["own_scores"][0]
    expect(page.locator("#against-said")).to_contain_text(f"{first['samples']} samples have both")
    page.get_by_label("across, of the first").select_option("el2n")
    expect(page.locator("#against")).to_contain_text("el2n")
    admin.usable()
