"""The first page: a file becomes a dataset before one's eyes, and what is another project's stays unseen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from tests.browser import Visit
from tests.served import SELDOM, WAIT, Server

ROWS: list[dict[str, Any]] = [
    {"instruction": f"Say {n}.", "output": f"Here is {n}, <b>as</b> you said."} for n in range(6)
]


def test_a_newcomer_goes_from_what_serve_says_to_a_line_around_rows_of_their_file(
    visit: Visit, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "Dropped Rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0], {"no": "sample"}]))
    [address], [token_file] = (
        re.findall(pattern, server.said) for pattern in (r"listens on (\S+)", r"token is in ([^,\n]+)")
    )
    page = visit.page
    page.goto(address)
    page.get_by_label("Token").fill(Path(token_file).read_text())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/")
    page.get_by_label("Drop a file here").set_input_files(file)
    assert page.get_by_label("Name").input_value() == "dropped_rows"
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/*")
    dataset = page.url
    assert page.get_by_role("heading", level=1).inner_text().startswith("dropped_rows")
    expect(page.get_by_role("table", name="The first 1 of 1")).to_contain_text("no")
    expect(page.locator("#foreseen")).to_have_text("about 3 of 6 samples: nothing is measured yet")
    visit.usable()
    page.locator("[name=model]").fill(server.model)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_role("heading", name="From 8 rows to 3")).to_be_visible()
    visit.outline()
    expect(page.get_by_role("heading", name="6 samples, 3 of them kept")).to_be_visible()
    expect(page.locator("#found tbody tr")).to_have_count(6)
    _another_ratio_is_counted_exactly(page, server, dataset)


def _another_ratio_is_counted_exactly(page: Page, server: Server, dataset: str) -> None:
    page.goto(dataset)
    page.locator("[name=model]").fill(server.model)
    page.get_by_role("radio", name="el2n EL2N").check()
    page.locator("#keep").fill("34")
    expect(page.locator("#foreseen")).to_contain_text("keeps exactly 3 of 6 (50.0 %) samples, ")
    said = page.locator("#foreseen").inner_text()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    run = server.client.get(f"/v1{urlsplit(page.url).path}").raise_for_status().json()
    assert (run["measured"], run["report"]["kept"]) == (0, 3)
    assert f"samples, {run['report']['kept_tokens']} of " in said


def test_the_form_takes_what_a_method_compares_with(admin: Visit, server: Server) -> None:
    dataset, _ = (
        server.client.post("/v1/datasets", json={"name": name, "rows": ROWS}, headers=WAIT).json()["id"]
        for name in ("guided_rows", "guided_aims")
    )
    page = admin.open(f"/datasets/{dataset}")
    page.locator("[name=model]").fill(server.model)
    towards, reference = page.get_by_label("towards the rows of"), page.get_by_label("compared with")
    expect(towards).to_be_hidden()
    page.get_by_role("radio", name="rho").check()
    expect(towards).to_be_visible()
    reference.select_option("another model")
    expect(towards).to_be_hidden()
    expect(page.locator("#foreseen")).to_contain_text("rho needs a reference")
    page.get_by_role("radio", name="reward").check()
    expect(page.get_by_label("rated by the reward model")).to_be_visible()
    page.get_by_role("radio", name="judge").check()
    expect(page.get_by_text("DATAPRUNER_TEACHER_MODEL")).to_be_visible()
    page.get_by_role("radio", name="dealrec").check()
    expect(towards).to_be_hidden()
    page.locator("[name=risk]").select_option("target")
    expect(towards).to_be_visible()
    page.get_by_role("radio", name="target-cosine").check()
    towards.select_option("guided_aims")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    run = server.client.get(f"/v1{urlsplit(page.url).path}").raise_for_status().json()
    assert run["config"]["target"] == "guided_aims@1"


def test_what_a_run_would_keep_is_not_said_of_another_projects_rows(server: Server) -> None:
    rows = {"name": "not_foreseen", "rows": ROWS}
    made = server.client.post("/v1/datasets", json=rows, headers=WAIT).raise_for_status()
    with server.as_token(None) as client:
        client.post("/sign-in", data={"token": server.new_token("read", project="foreigners")})
        asked = {"dataset": made.json()["id"], "method": "ppl", "keep": 0.5}
        answer = client.post("/foreseen.json", json=asked)
    assert answer.status_code == 404


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


def test_a_schedule_is_fired_and_paused_and_its_history_says_why_it_failed(
    admin: Visit, server: Server
) -> None:
    server.client.post("/v1/datasets", json={"name": "fired_rows", "rows": ROWS}, headers=WAIT)
    run = {"method": "ppl", "keep": 0.5, "measuring": {"model": f"{server.model}-gone"}}
    asked = {"dataset": "fired_rows", "name": "often", "cron": SELDOM, "run": run}
    made = server.client.post("/v1/schedules", json=asked).raise_for_status().json()
    for n in range(26):
        server.change(
            "INSERT INTO fires (id, schedule_id, fire_at, outcome, created_at) VALUES (?, ?, ?, ?, ?)",
            *(f"a{n:02}", made["id"], f"2024-01-{n + 1:02} 02:00:00", "skipped", "2024-02-01 00:00:00"),
        )
    page = admin.open("/")
    page.get_by_role("region", name="Schedules").get_by_role("link", name="often").click()
    page.get_by_role("button", name="Fire now").click()
    row = page.get_by_role("table").get_by_role("row").nth(1)
    expect(row.get_by_role("cell").first).to_have_text("failed")
    expect(row).to_contain_text("no model called")
    admin.usable()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert server.client.get(f"/v1/schedules/{made['id']}").json()["paused"]
    expect(page.get_by_role("row", name="2024-01-03")).to_contain_text("the fire before was still at work")
    assert page.get_by_role("row", name="2024-01-02").count() == 0
    page.get_by_role("link", name="Earlier").click()
    expect(page.get_by_role("row", name="2024-01-02")).to_be_visible()
    assert page.get_by_role("table").get_by_role("row").count() == 3
    assert "no model called" in admin.open("/").get_by_role("region", name="Schedules").inner_text()


def test_a_job_that_waits_is_cancelled_with_a_button(admin: Visit, server: Server) -> None:
    server.client.post("/v1/datasets", json={"name": "cancelled_rows", "rows": ROWS}, headers=WAIT)
    done = server.newest_job()
    server.change(  # one that no worker takes for a while
        "INSERT INTO jobs (id, project_id, kind, payload, state, priority, attempt, failures, max_attempts, "
        "run_after, cancel_requested, sequence, created_at) SELECT 'job_waits', project_id, kind, payload, "
        "'queued', 0, 0, 0, 3, '2999-01-01 00:00:00', 0, 0, created_at FROM jobs WHERE id = ?",
        done,
    )
    page = admin.open("/")
    page.get_by_role("button", name="Cancel job job_waits").click()
    expect(page.get_by_role("row", name="job_waits").locator(".state")).to_have_text("cancelled")


def test_what_is_of_another_project_is_nowhere_on_the_page(visit: Visit, server: Server) -> None:
    server.client.post(
        "/v1/datasets", json={"name": "ours_alone", "rows": ROWS}, headers=WAIT
    ).raise_for_status()
    page = visit.sign_in(server.new_token("read", project="neighbours"))
    assert "ours_alone" not in page.content()
    assert page.get_by_text("None yet.").count() == 4
    assert page.get_by_role("link", name="its dataset").count() == 0
    assert page.get_by_role("button", name="Upload").count() == 0
