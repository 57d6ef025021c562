"""The SQL page: a statement is written, run, plotted, downloaded, ended, and no row steers the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.browser import Visit
from tests.served import WAIT, Server

HOSTILE = "<img src=x onerror=alert(1)> \u202eesrever"
ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"


@pytest.fixture(scope="module")
def rows(server: Server) -> None:
    """A dataset of ten rows, all of them hostile."""
    found: list[dict[str, Any]] = [
        {"instruction": f"{HOSTILE} {n}", "output": f"Here is {n}.", "order": n} for n in range(10)
    ]
    asked = {"name": "asked_rows", "rows": found}
    server.client.post("/v1/datasets", json=asked, headers=WAIT).raise_for_status()


def test_a_statement_is_built_of_columns_run_plotted_and_downloaded(
    admin: Visit, rows: None, tmp_path: Path
) -> None:
    page = admin.page
    page.get_by_role("link", name="SQL").click()
    expect(page.get_by_text("A statement may take 10 s, 1024 MiB of memory")).to_be_visible()
    editor = page.get_by_label("One SELECT")
    editor.fill('SELECT "row", length(content), content, 9007199254740993 AS exact, ')
    page.get_by_label("Search").fill("asked_rows.turns content")
    page.get_by_role("button", name="content", exact=True).click()
    assert editor.input_value().endswith("exact, content")
    editor.press_sequentially(" FROM asked_rows.turns WHERE role = 'user' ORDER BY 1")
    editor.press("Control+Enter")
    expect(page.get_by_text("10 rows, in")).to_be_visible()
    first = page.get_by_role("region", name="Rows").get_by_role("row").nth(1).get_by_role("cell")
    hostile = "<img src=x onerror=alert(1)> ⟨U+202E⟩esrever 0"
    assert first.all_inner_texts() == ["0", "39", hostile, "9007199254740993", hostile]

    page.get_by_text("Plot", exact=True).click()
    expect(page.locator("#plot .point")).to_have_count(10)
    page.locator("select[name='kind']").select_option("bars")
    page.get_by_label("across").select_option("content")
    page.get_by_label("up").select_option("row")
    expect(page.locator("#plot .xtick text").first).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img").count() == 0
    admin.usable()

    kept = {}
    for kind in ("csv", "parquet", "json"):
        with page.expect_download() as coming:
            page.get_by_role("button", name=f"Download {kind}").click()
        kept[kind] = tmp_path / coming.value.suggested_filename
        coming.value.save_as(kept[kind])
    assert pq.read_table(kept["parquet"]).column("exact").to_pylist() == [9007199254740993] * 10
    assert len(json.loads(kept["json"].read_text())["rows"]) == 10
    assert HOSTILE in kept["csv"].read_text()


def test_an_error_is_said_beside_the_editor_and_the_caret_put_to_its_place(admin: Visit) -> None:
    admin.expected = ["status of 422"]
    page = admin.open("/sql")
    editor = page.get_by_label("One SELECT")
    editor.fill("SELECT 1,\n  2 FRUM 'there'")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("syntax error")
    marked = editor.evaluate("field => field.value.slice(field.selectionStart, field.selectionEnd)")
    assert marked == "'there'"
    admin.usable()


def test_a_statement_is_ended_and_another_runs_after_it(admin: Visit) -> None:
    page = admin.open("/sql")
    editor = page.get_by_label("One SELECT")
    editor.fill(ENDLESS)
    editor.press("Control+Enter")
    expect(page.get_by_text("Running …")).to_be_visible()
    page.get_by_role("button", name="End it").click()
    expect(page.get_by_text("Ended before there was an answer.")).to_be_visible()
    editor.fill("SELECT range FROM range(1500)")
    editor.press("Control+Enter")
    expect(page.get_by_text("1,500 rows; 1,000 are shown, in")).to_be_visible()
    assert page.get_by_role("region", name="Rows").get_by_role("row").count() == 1001


def test_a_statement_is_saved_for_the_project_opened_again_and_deleted(admin: Visit, server: Server) -> None:
    page = admin.open("/sql")
    editor, saved = page.get_by_label("One SELECT"), page.get_by_label("Saved")
    for sql in ("SELECT 1", "SELECT '</textarea><script>alert(1)</script>'"):
        editor.fill(sql)
        page.get_by_label("Name").fill("hostile_query")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("hostile_query is saved.")).to_be_visible()
        editor.press_sequentially(" AS changed")
    page.reload()
    saved.select_option("hostile_query")
    assert editor.input_value() == "SELECT '</textarea><script>alert(1)</script>'"
    admin.usable()
    with server.as_token(server.new_token("sql")) as colleague:
        listed = colleague.get("/v1/sql/saved").json()["items"]
        assert [(one["name"], one["sql"]) for one in listed] == [("hostile_query", editor.input_value())]
        wrong = colleague.put("/v1/sql/saved/Wrong Name", json={"sql": "SELECT 1"})
        assert wrong.status_code == 422
        assert "small letter" in wrong.text
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("hostile_query is deleted.")).to_be_visible()
    assert server.client.get("/v1/sql/saved").json()["items"] == []
    assert server.client.delete("/v1/sql/saved/hostile_query").status_code == 404


def test_without_its_scope_there_is_no_sql_page(server: Server) -> None:
    with server.as_token(None) as reader:
        reader.post("/sign-in", data={"token": server.new_token("read"), "next": "/"})
        assert "/sql" not in reader.get("/").text
        refused: httpx.Response = reader.get("/sql")
    assert refused.status_code == 403
    assert "scope sql" in refused.text
