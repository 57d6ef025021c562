"""What is dropped onto a page to do harm: texts stay texts, on each page; what cannot be read says why, and
the page goes on; rows beyond measure are shown as far as it helps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser import Visit
from tests.served import MOST_UNPACKED, WAIT, Server

EVIL = "<img src=x onerror=alert(1)>\u202e</td></script><script>document.title='owned'</script>{{ 7 * 7 }}"
ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n} {EVIL}", "output": f"{n} {EVIL}", EVIL: EVIL, "source": EVIL} for n in range(4)
]
_DROP = """(form, [name, content]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([content], name));
  form.dispatchEvent(new DragEvent("dragover", { dataTransfer: carried, cancelable: true }));
  form.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
}"""


def drop(page: Page, name: str, content: str) -> None:
    """Drop a file on the first page, as a person does."""
    page.locator("#upload").evaluate(_DROP, [name, content])


def test_texts_names_and_columns_that_were_dropped_are_never_more_than_text(
    admin: Visit, server: Server
) -> None:
    page = admin.page
    drop(page, f"{EVIL}.jsonl", "".join(json.dumps(row) + "\n" for row in [*ROWS, {EVIL: EVIL}]))
    assert page.get_by_label("Name").input_value().startswith("img_src_x_onerror_alert_1")
    page.get_by_label("Name").fill("dropped")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/*")
    expect(page.get_by_role("table", name="The first 1 of 1")).to_contain_text("<img src=x")
    admin.usable()
    measuring = {"model": server.model, "max_length": 256}
    asked = {"dataset": "dropped", "method": "length", "keep": 0.5, "measuring": measuring}
    run = server.client.post("/v1/runs", json=asked, headers=WAIT).raise_for_status().json()["id"]
    admin.open(f"/runs/{run}")
    expect(page.get_by_role("heading", name="From 5 rows to 2")).to_be_visible()
    page.locator("[name=colour]").select_option("shape")
    _list_all_by_keys(page)
    rows = page.locator("#found tbody tr")
    expect(rows).to_have_count(4)
    assert "⟨U+202E⟩" in rows.first.inner_text()
    admin.usable()
    rows.first.get_by_role("link").press("Enter")
    page.wait_for_url("**/rows/0")
    original = page.get_by_role("region", name="The row as it came")
    expect(original.get_by_role("rowheader", name="onerror=alert(1)>⟨U+202E⟩")).to_be_visible()
    admin.usable()
    admin.open("/sql")
    statement = page.get_by_label("One SELECT")
    statement.fill(f'SELECT content, 1 AS "{EVIL}" FROM dropped.turns')
    statement.press("Control+Enter")
    expect(page.locator("#rows")).to_contain_text("onerror=alert(1)>⟨U+202E⟩")
    admin.usable()
    assert page.title().startswith("SQL")


def _list_all_by_keys(page: Page) -> None:
    """Choose all samples of the plane with no pointer."""
    expect(page.locator("#plane-said")).to_contain_text("4 samples")
    page.get_by_text("Choose a part by numbers").press("Enter")
    for key in ("Tab", "0", "Tab", "9", "9", "9", "Enter"):
        page.keyboard.press(key)


def test_a_file_that_cannot_be_read_says_why_and_the_next_one_is_taken(admin: Visit, tmp_path: Path) -> None:
    page = admin.page
    admin.expected = ["status of 4"]
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(json.dumps(ROWS[0]).encode() + b"\n" + b" " * (MOST_UNPACKED + 1)))
    said = page.get_by_role("alert")
    button = page.get_by_role("button", name="Upload")
    for name, content, why in (
        ("empty.jsonl", "", "empty"),
        ("hello.json", "<html>Hello</html>", "hello.json"),
        ("rows.parquet", "PAR1 and nothing else", "rows.parquet"),
        (None, None, f"{MOST_UNPACKED:,}"),
    ):
        if name is None:
            page.get_by_label("Drop a file here").set_input_files(bomb)
        else:
            drop(page, name, content)
        page.get_by_label("Name").fill("unread")
        button.click()
        expect(said).to_contain_text(why)
        expect(button).to_be_enabled()
    admin.usable()
    drop(page, "good.jsonl", json.dumps({"instruction": "Say hello.", "output": "Hello."}))
    page.get_by_label("Name").fill("read_after_all")
    button.click()
    page.wait_for_url("**/datasets/*")
    assert page.get_by_role("heading", level=1).inner_text().startswith("read_after_all")


def test_ten_thousand_turns_are_refused_in_words_and_a_megabyte_in_a_cell_is_shown_in_part(
    admin: Visit, server: Server
) -> None:
    pairs = range(5_000)
    turns = [{"role": role, "content": f"Hm {n}?"} for n in pairs for role in ("user", "assistant")]
    rows = [{"messages": turns}, {"instruction": "Say a lot.", "output": "word " * 200_000 + "!"}]
    page = admin.page
    drop(page, "long.json", json.dumps(rows))
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/*")
    refused = page.get_by_role("table", name="The first 1 of 1")
    expect(refused).to_contain_text("10,000 turns, the limit is 1,000")
    expect(refused).to_contain_text("split the conversation")
    assert len(page.content()) < 1_000_000
    admin.usable()
    measuring = {"model": server.model, "max_length": 64}
    asked = {"dataset": "long", "method": "length", "keep": 1.0, "measuring": measuring}
    run = server.client.post("/v1/runs", json=asked, headers=WAIT).raise_for_status().json()["id"]
    admin.open(f"/runs/{run}/rows/0")
    expect(page.locator("main")).to_contain_text("10,000 turns, the limit is 1,000")
    admin.open(f"/runs/{run}/rows/1")
    expect(page.locator("main")).to_contain_text("900,001 more characters")
    assert len(page.content()) < 1_000_000
    admin.usable()
