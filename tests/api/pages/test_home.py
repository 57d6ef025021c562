"""The first page: a file becomes a dataset before one's eyes, and what is another project's stays unseen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser import Visit
from tests.served import SELDOM, WAIT, Server

ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n}.", "output": f"Here is {n}, <b>as</b> you said."} for n in range(6)
]


def test_a_newcomer_goes_from_a_file_to_the_plane_of_its_run(
    admin: Visit, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "Dropped Rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"no": "sample"}]))
    page = admin.page
    page.get_by_label("Drop a file here").set_input_files(file)
    assert page.get_by_label("Name").input_value() == "dropped_rows"
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/*")
    assert page.get_by_role("heading", level=1).inner_text().startswith("dropped_rows")
    expect(page.get_by_role("table", name="The first 1 of 1")).to_contain_text("no")
    admin.usable()
    page.get_by_role("radio", name="length").check()
    expect(page.locator("#options")).to_have_text("It has none.")
    page.get_by_label("share of the samples").fill("50")
    expect(page.locator("#keep-said")).to_have_text("about 3 of 6 samples")
    page.get_by_label("proxy model").fill(server.model)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_role("heading", name="From 7 rows to 3")).to_be_visible()


def test_a_name_in_use_is_refused_on_the_page(admin: Visit, server: Server, tmp_path: Path) -> None:
    server.client.post(
        "/v1/datasets", json={"name": "taken_name", "rows": ROWS}, headers=WAIT
    ).raise_for_status()
    file = tmp_path / "taken_name.json"
    file.write_text(json.dumps(ROWS))
    admin.expected = ["status of 409"]
    page = admin.page
    page.get_by_label("Drop a file here").set_input_files(file)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("taken_name")
    expect(page.get_by_role("button", name="Upload")).to_be_enabled()


def test_runs_jobs_and_schedules_are_listed(admin: Visit, server: Server) -> None:
    measuring = {"model": server.model, "max_length": 64}
    asked = {"rows": ROWS, "name": "listed_rows", "method": "length", "keep": 0.5, "measuring": measuring}
    started = server.client.post("/v1/prune", json=asked).raise_for_status()
    job = server.wait(started.headers["Location"])
    schedule = {
        "dataset": "listed_rows",
        "cron": SELDOM,
        "run": {"method": "length", "keep": 0.5, "measuring": measuring},
    }
    server.client.post("/v1/schedules", json=schedule).raise_for_status()
    page = admin.open("/")
    run = page.get_by_role("region", name="Runs").get_by_role("row", name=job["result"]["run_id"])
    assert run.get_by_role("cell").all_inner_texts()[:5] == [
        "listed_rows version 1",
        "length",
        "succeeded",
        "6",
        "3 50.0 %",
    ]
    expect(page.get_by_role("region", name="Jobs").get_by_role("row", name=job["id"])).to_contain_text(
        "prune"
    )
    expect(page.get_by_role("region", name="Schedules")).to_contain_text(SELDOM)
    admin.usable()


def test_what_is_of_another_project_is_nowhere_on_the_page(visit: Visit, server: Server) -> None:
    server.client.post(
        "/v1/datasets", json={"name": "ours_alone", "rows": ROWS}, headers=WAIT
    ).raise_for_status()
    page = visit.sign_in(server.new_token("read", project="neighbours"))
    assert "ours_alone" not in page.content()
    assert page.get_by_text("None yet.").count() == 4
    assert page.get_by_role("button", name="Upload").count() == 0
