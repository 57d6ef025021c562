"""Whatever the README and its pages tell to type is typed, in their order, and does what the text promises.

It is typed into shells, in a folder with what a clone has, with a home of its own. Three things are not as
for a reader: the default model is a tiny one, the service listens on a free port, and nothing is downloaded.
Of what needs a container engine, and of what would begin these tests anew, the text is checked only. Of our
commands, `make demo` and the service start as for a reader; the others are forked, which is quicker.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
import typer

from datapruner.cli import app
from tests import compose, docs, readme
from tests.compose import ROOT
from tests.datapruner.client.unruly import unruly_server
from tests.datapruner.rewriting.lessons import EASY, judged
from tests.datapruner.teacher.scripted import says
from tests.readers_folder import write
from tests.readme import QuickTerminal, Step, Terminal, Tour
from tests.tiny_model import FACTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(sys.prefix, "bin", "activate").is_file(), reason="the README is about a virtual environment"
    ),
]
TEXT = "\n".join(docs.without_tables(page.read_text(encoding="utf-8")) for page in readme.pages())
_REPLAY = "datapruner replay subset.run.json --out again.parquet"
_INLINE = (_REPLAY,)
"""Commands within the text that are to be typed, and not only named."""


Check = Callable[[Tour, Step], None]
CHECKS: list[tuple[str, Check]] = []
"""What to check of each step, by its name, in the order of the pages."""


def promised(name: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CHECKS.append((name, check))
        return check

    return add


# What is there before


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("clone")
    [recipe] = readme.blocks(TEXT, "yaml")
    write(folder, recipe)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DATAPRUNER_")}
    plain |= {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "DATAPRUNER_PORT": "0"}
    with contextlib.ExitStack() as stack:
        teacher = stack.enter_context(unruly_server())
        teacher.will(says(judged("easy", EASY)))
        asking = {"BASE_URL": f"{teacher.url}/v1", "MODEL": "m"}
        environment = plain | {f"DATAPRUNER_TEACHER_{name}": value for name, value in asking.items()}
        typing, serving = QuickTerminal(folder, environment), Terminal(folder, environment)
        for terminal in (typing, serving):
            stack.callback(terminal.close)
        assert typing.type("source .venv/bin/activate").code == 0
        assert typing.type("type -P datapruner").out == f"{sys.prefix}/bin/datapruner\n"
        yield Tour(folder, typing, serving)


# The steps


def is_a_quarter(kept: int) -> bool:
    """Whether so many are one of four of the 364 samples, as near as Q-Tuning's bisection comes to it."""
    return 82 <= kept <= 100


@promised("make demo")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    assert "364 samples measured" in out
    for shown in ("kept", "pruned", "rejected", "Reasons", "Planted defects and what became of them"):
        assert shown in out
    assert (
        len(tour.rows("demo-output/rows.jsonl"))
        == pq.read_table(tour.folder / "demo-output/subset.parquet").num_rows
    )


@promised("make test")
def _(tour: Tour, step: Step) -> None:
    commands = tour.type(step, "make --dry-run test").out
    assert re.search(r"ruff check .*mypy.*lint-imports\n.*pytest", commands, re.DOTALL)


@promised("datapruner recommend alpaca.json --out alpaca.yaml")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    recipe = (tour.folder / "alpaca.yaml").read_text(encoding="utf-8")
    assert recipe.strip() in out
    assert "# 404 rows: 364 different samples, 20 exact copies, 20 that cannot be read." in recipe


@promised("datapruner run alpaca.yaml --plain kept.jsonl")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    for stage in ("gate", "dedup"):
        assert re.search(rf"^  {stage}: \d+ rows? dropped", out, re.MULTILINE), out
    assert f"{len(tour.rows('kept.jsonl')):,} rows" in out


@promised("datapruner prune alpaca.json --method qtuning --keep 0.25 --token-keep 0.5 --out subset.parquet")
def _(tour: Tour, step: Step) -> None:
    tour.type(step)
    table = pq.read_table(tour.folder / "subset.parquet")
    assert table.column_names[:5] == ["id", "instruction", "input", "output", "planted"]
    assert {
        "sample_id",
        "row",
        "ppl",
        "quadrant",
        "input_ids",
        "attention_mask",
        "labels",
        "token_keep",
    } <= set(table.column_names)
    report = json.loads((tour.folder / "subset.run.json").read_text(encoding="utf-8"))["report"]
    assert table.num_rows == report["kept"]
    assert is_a_quarter(table.num_rows)
    cut = [False in keep for keep in table["token_keep"].to_pylist()]
    assert any(cut)


@promised('datapruner sql "select quadrant, count(*), avg(ppl) from sample_scores group by 1"')
def _(tour: Tour, step: Step) -> None:
    _, _, *lines = tour.type(step).out.splitlines()
    groups = {line.split()[0]: line.split()[1:] for line in lines}
    assert {"Q1", "Q2", "Q3", "Q4"} & set(groups), lines
    assert len(groups) > 2
    assert all(float(mean) > 1 for group, (_, mean) in groups.items() if group != "–")


@promised("datapruner explain latest row:17")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    assert re.search(r"^Row +17\b", out, re.MULTILINE)
    assert re.search(r"^Status +(kept|pruned|rejected)", out, re.MULTILINE)
    assert "Least expected tokens" in out


@promised("datapruner export latest --for trl --out train.parquet")
def _(tour: Tour, step: Step) -> None:
    assert "SFTConfig(" in tour.type(step).out
    subset = pq.read_table(tour.folder / "subset.parquet", columns=["labels"])
    assert pq.read_table(tour.folder / "train.parquet", columns=["labels"]).equals(subset)


@promised("datapruner report latest --out report.html")
def _(tour: Tour, step: Step) -> None:
    assert "ingested" in tour.type(step).out
    assert (tour.folder / "report.html").read_text().count("data-plot=") > 5


@promised("datapruner prune alpaca.json --method donod --keep 0.3 --out subset.parquet")
def _(tour: Tour, step: Step) -> None:
    assert "all there already, nothing measured" in tour.type(step).out
    assert pq.read_table(tour.folder / "subset.parquet").num_rows == 110


@promised("datapruner run examples/recipe.yaml")
def _(tour: Tour, step: Step) -> None:
    assert re.search(r"^  kept +\d+", tour.type(step).out, re.MULTILINE)


@promised("datapruner doctor")
def _(tour: Tour, step: Step) -> None:
    said = tour.typing.type(step.text)
    assert said.code in (0, 1)
    states = [line.split()[:2] for line in said.out.splitlines()[2:] if line[:2].strip()]
    assert [name for _, name in states] == [
        "python", "packages", "storage", "memory", "processors", "gpu", "model", "pip",
    ]  # fmt: skip
    assert ("fail" in dict(map(reversed, states)).values()) == (said.code == 1)  # type: ignore[arg-type]


@promised("import datapruner result = datapruner.prune")
def _(tour: Tour, step: Step) -> None:
    found = tour.python(
        step,
        "{'subset': [type(result.subset).__name__, result.subset.column_names],"
        " 'scores': [type(result.scores).__module__, len(result.scores), result.scores.columns],"
        " 'masks': [len(result.masks), result.masks.columns],"
        " 'report': [getattr(result.report, name) for name in"
        " ('ingested', 'kept', 'pruned', 'rejected', 'errored')]}",
    )
    kind, columns = found["subset"]
    assert kind == "Dataset"
    assert {"instruction", "ppl", "input_ids", "labels", "token_keep"} <= set(columns)
    kind, rows, columns = found["scores"]
    assert kind.startswith("polars")
    assert (rows, {"keep", "reason", "status"} <= set(columns)) == (404, True)
    assert is_a_quarter(found["masks"][0])
    assert {"kept_tokens", "kept_spans"} <= set(found["masks"][1])
    ingested, *parts = found["report"]
    assert ingested == sum(parts) == 404
    assert is_a_quarter(pq.read_table(tour.folder / "subset.parquet").num_rows)


@promised(_REPLAY)
def _(tour: Tour, step: Step) -> None:
    tour.type(step)
    assert (tour.folder / "again.parquet").read_bytes() == (tour.folder / "subset.parquet").read_bytes()


@promised("datapruner methods qtuning")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    for shown in ("token_keep", "a number over 0 and at most 1", "paper-12.5x50"):
        assert shown in out


@promised("datapruner score alpaca.json --method qtuning --method donod --out scores.parquet")
def _(tour: Tour, step: Step) -> None:
    assert "nothing measured" in tour.type(step).out
    scores = pl.read_parquet(tour.folder / "scores.parquet")
    assert len(scores) == 404
    assert scores.select("ppl", "entropy", "don", "nod", "donod").null_count().row(0) == (20,) * 5


@promised("datapruner prune alpaca.json --method judge --keep 25% --dry-run")
def _(tour: Tour, step: Step) -> None:
    assert "364 questions, 0 of them answered before" in tour.type(step).out


@promised("datapruner gate alpaca.json --out sound.jsonl --verdicts why.csv")
def _(tour: Tour, step: Step) -> None:
    assert re.search(r"^ingested +404 ", tour.type(step).out, re.MULTILINE)
    verdicts = pl.read_csv(tour.folder / "why.csv")
    assert len(verdicts) == 404
    assert len(tour.rows("sound.jsonl")) == verdicts.filter(status="kept").height > 350
    assert verdicts.filter(status="dropped")["reason"].str.starts_with("defect: ").all()


@promised("datapruner dedup alpaca.json --threshold 0.7 --out unique.jsonl")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    assert re.search(r"^exact duplicates +20$", out, re.MULTILINE)
    outputs = [(row["instruction"], row["output"]) for row in tour.rows("unique.jsonl")]
    assert len(outputs) == len(set(outputs)) <= 364


@promised("datapruner contamination train.jsonl --against gsm8k=gsm8k_test.jsonl --out clean.jsonl")
def _(tour: Tour, step: Step) -> None:
    assert "holds text of gsm8k row 0" in tour.type(step).out
    before, after = ({row["id"] for row in tour.rows(name)} for name in ("train.jsonl", "clean.jsonl"))
    assert "leaked" in before - after


@promised("datapruner calibrate alpaca.json --batches 8 --size 16 --out calibration.jsonl")
def _(tour: Tour, step: Step) -> None:
    assert "KL, nats a token" in tour.type(step).out
    assert len(tour.rows("calibration.jsonl")) == 16


@promised("datapruner recommend alpaca.json --keep-tokens 20000 --out budget.yaml")
def _(tour: Tour, step: Step) -> None:
    assert "keep:\n  tokens: 20000" in tour.type(step).out


@promised("datapruner run recipe.yaml")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    for stage in ("dedup", "contamination", "filter", "keep", "rewrite"):
        assert re.search(rf"^  {stage}: \d+ rows? dropped", out, re.MULTILINE), out
    rows = tour.rows("short.jsonl")
    assert f"rewritten {len(rows)}" in out
    assert all(len(row["messages"][-1]["content"]) < len(row["original_output"]) for row in rows)


@promised("datapruner rewrite asap traces.jsonl --max-token-ratio 0.5 --out short.jsonl")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    found = re.search(r"reasoning tokens before ([\d,]+), reasoning tokens after ([\d,]+)", out)
    assert found is not None
    before, after = (int(count.replace(",", "")) for count in found.groups())
    assert 0 < after <= before / 2
    texts = [row["messages"][-1]["content"] for row in tour.rows("short.jsonl")]
    assert len(texts) == len(FACTS)
    assert all(text.endswith("The result is \\boxed{14}.") for text in texts)  # answers stay as they were


@promised("datapruner explain short.run.json row:3")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    assert "Steps" in out
    assert re.search(r"^ *1 .* (yes|no) ", out, re.MULTILINE)
    assert " no " in out


@promised("datapruner rewrite dap traces.jsonl --answers answer --out short.jsonl")
def _(tour: Tour, step: Step) -> None:
    found = re.search(r"^  rewrite: 0 rows dropped; .*rewritten (\d+)", tour.type(step).out, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > 0
    assert any("## Summary" in row["messages"][-1]["content"] for row in tour.rows("short.jsonl"))


@promised("datapruner rewrite random-steps traces.jsonl --max-token-ratio 0.5 --coherent --out control.jsonl")
def _(tour: Tour, step: Step) -> None:
    tour.type(step)
    rows = tour.rows("control.jsonl")
    assert len(rows) == len(FACTS)
    assert all(row["tokens_after"] <= row["budget"] for row in rows)
    assert {row["dangling_references"] for row in rows} == {row["dangling_colons"] for row in rows} == {0}


@promised("source .venv/bin/activate")
def _(tour: Tour, step: Step) -> None:
    assert tour.serving.type(step.text).code == 0


@promised("datapruner serve")
def _(tour: Tour, step: Step) -> None:
    said = tour.serving.start(step.text, "listens on")
    token = tour.folder / "home" / ".datapruner" / "admin-token"
    listens = re.search(r"http://127\.0\.0\.1:(\d+) ", said.out)
    assert listens is not None
    tour.port = int(listens[1])
    assert str(token) in said.out
    assert token.read_text().strip() not in said.out + said.err


@promised("source .venv/bin/activate")
def _(tour: Tour, step: Step) -> None:
    tour.type(step)


@promised('T=$(cat ~/.datapruner/admin-token); U=http://127.0.0.1:8000/v1; H="Authorization: Bearer $T"')
def _(tour: Tour, step: Step) -> None:
    tour.type(step)
    assert tour.type(step, 'echo "$H"').out.startswith("Authorization: Bearer dpr_")


@promised(
    'curl -sH "$H" -H "Prefer: wait=300" -F file=@examples/instructions.jsonl -F name=tour '
    "-F method=qtuning -F keep=0.25 $U/prune -o subset.parquet"
)
def _(tour: Tour, step: Step) -> None:
    (tour.folder / "subset.parquet").unlink()
    tour.type(step)
    assert is_a_quarter(pq.read_table(tour.folder / "subset.parquet").num_rows)


@promised('curl -sH "$H" -H "Prefer: wait=60" --json \'{"dataset": "tour", "method": "donod"')
def _(tour: Tour, step: Step) -> None:
    run = json.loads(tour.type(step).out)
    assert (run["state"], run["measured"], run["report"]["kept"]) == ("succeeded", 0, 110)


@promised('curl -sH "$H" --json \'{"sql": "select s.status, count(*) from tour.sample_scores s')
def _(tour: Tour, step: Step) -> None:
    counts = dict(map(tuple, json.loads(tour.type(step).out)["rows"]))
    assert counts == {"kept": 110, "pruned": 274, "rejected": 20}


@promised('curl -sH "$H" --json \'{"dataset": "tour", "cron": "0 2 * * *", "timezone": "Europe/Berlin"')
def _(tour: Tour, step: Step) -> None:
    schedule = json.loads(tour.type(step).out)
    assert (schedule["name"], len(schedule["next_fires"])) == ("tour", 5)


@promised('curl -sH "$H" $U/jobs')
def _(tour: Tour, step: Step) -> None:
    jobs = json.loads(tour.type(step).out)["items"]
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert all({"progress", "error"} <= set(job) for job in jobs)
    events = tour.type(step, f'curl -sH "$H" $U/jobs/{jobs[0]["id"]}/events').out
    assert "event: job" in events


@promised("curl -s $U/ready")
def _(tour: Tour, step: Step) -> None:
    json.loads(tour.type(step).out)
    assert tour.type(step, "curl -sfo /dev/null $U/ready; echo $?").out == "0\n"


@promised("export DATAPRUNER_URL=http://127.0.0.1:8000")
def _(tour: Tour, step: Step) -> None:
    tour.type(step)


@promised("datapruner prune examples/instructions.jsonl --method qtuning --keep 0.25 --out subset.parquet")
def _(tour: Tour, step: Step) -> None:
    (tour.folder / "subset.parquet").unlink()
    assert f"at http://127.0.0.1:{tour.port}" in tour.type(step).out
    assert is_a_quarter(pq.read_table(tour.folder / "subset.parquet").num_rows)


@promised('datapruner sql "select status, count(*) from tour.sample_scores group by 1"')
def _(tour: Tour, step: Step) -> None:
    _, _, *lines = tour.type(step).out.splitlines()
    assert sorted(line.split() for line in lines) == [["kept", "110"], ["pruned", "274"], ["rejected", "20"]]


@promised("datapruner schedules list")
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    assert re.search(
        r"^tour +tour +0 2 \* \* \* +\d{4}-\d\d-\d\d 02:00\+0[12]:00 Europe/Berlin$", out, re.MULTILINE
    )


@promised("import datapruner with datapruner.Client() as client:")
def _(tour: Tour, step: Step) -> None:
    kind, kept = tour.python(
        step, "[str(type(subset)), __import__('polars').read_parquet('subset.parquet').height]"
    )
    assert is_a_quarter(kept), kind


@promised("cp .env.example .env")
def _(tour: Tour, step: Step) -> None:
    tour.type(step)
    assert "DATAPRUNER_SECRET=" in (tour.folder / ".env").read_text()


def services() -> dict[str, Any]:
    secrets = ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DATAPRUNER_SECRET")
    found: dict[str, Any] = compose.read(dict.fromkeys(secrets, "x" * 32))["services"]
    return found


@promised("docker compose up --detach --build")
def _(tour: Tour, step: Step) -> None:
    for name in ("api", "worker"):
        service = services()[name]
        assert "build" in service
        assert {"migrate", "bucket"} <= set(service["depends_on"])


@promised("docker compose exec api cat /data/admin-token")
def _(tour: Tour, step: Step) -> None:
    assert (compose.image_environment() | services()["api"]["environment"])["DATAPRUNER_HOME"] == "/data"


@promised("docker compose --profile gpu up --detach --build")
def _(tour: Tour, step: Step) -> None:
    assert [name for name, service in services().items() if "gpu" in service.get("profiles", [])] == [
        "worker-gpu"
    ]


@promised(
    "datapruner plan alpaca.json --method qtuning --keep 0.25 --gpus 8xH100 --train-model-size 7B --epochs 3"
)
def _(tour: Tour, step: Step) -> None:
    out = tour.type(step).out
    for shown in (
        "Forecast of",
        "all of it there",
        "8 × H100",
        "not measured",
        "for 3 epochs on what is kept",
    ):
        assert shown in out


@promised("datapruner prune examples/instructions.jsonl --keep 0.25 --engine ray --out on-ray.parquet")
def _(tour: Tour, step: Step) -> None:
    """What was measured before is not measured again, so that Ray is not started."""
    tour.type(step)
    assert is_a_quarter(pl.read_parquet(tour.folder / "on-ray.parquet").height)


@promised("kubectl apply -f docs/rayjob.yaml")
def _(tour: Tour, step: Step) -> None:
    assert (ROOT / step.text.split()[-1]).is_file()


@promised("kubectl get rayjob datapruner")
def _(tour: Tour, step: Step) -> None:
    assert "\n  name: datapruner\n" in (ROOT / "docs" / "rayjob.yaml").read_text(encoding="utf-8")


# All of them

NAMES = [name for name, _ in CHECKS]
STEPS = [step for step in readme.steps(TEXT) if step.kind != "inline" or step.name in _INLINE]


def test_the_readme_leads_to_every_page() -> None:
    assert set(readme.pages()) == {readme.README, *(ROOT / "docs").rglob("*.md")}


@pytest.mark.parametrize("page", readme.pages(), ids=lambda page: page.name)
def test_no_block_of_a_page_is_overlooked(page: Path) -> None:
    """Commands stand in blocks of these languages, and recipes in `yaml`."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", text, re.MULTILINE)
    assert fences[::2] == [language for language in fences[::2] if language in ("sh", "python", "yaml")]
    known = sum(len(readme.blocks(text, language)) for language in ("sh", "python", "yaml"))
    assert len(fences) == 2 * known
    assert (
        re.findall(r"^(?: {4,}|\t)(?:datapruner|make|curl|docker|pip|python)\b.*", text, re.MULTILINE) == []
    )


def test_every_command_of_the_pages_has_a_check_here_in_its_order() -> None:
    """A check is named by how its command begins."""
    checked = [next((name for name in NAMES if step.name.startswith(name)), step.name) for step in STEPS]
    assert checked == NAMES


@pytest.mark.parametrize("at", range(len(CHECKS)), ids=NAMES)
def test_a_step_does_what_the_page_says(tour: Tour, at: int) -> None:
    for number in range(tour.done, at):  # when this test is run alone
        with contextlib.suppress(AssertionError):
            CHECKS[number][1](tour, STEPS[number])
    tour.done = at + 1
    CHECKS[at][1](tour, STEPS[at])


@pytest.mark.parametrize("name", sorted({step.name for step in readme.steps(TEXT) if step.kind == "inline"}))
def test_a_command_that_the_text_names_is_one(name: str) -> None:
    command: Any = typer.main.get_command(app)
    _, *words = name.split()
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    alone = getattr(command, "invoke_without_command", False)
    assert alone or not getattr(command, "commands", None), f"no such command: {name}"
    if words:
        command.make_context(name, words)  # raises for an option that there is not
