"""The command line: help, exit codes, one line per error, one document with --json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer

from datapruner import cli, errors, library
from datapruner.commands import options
from scorers.methods.findings import measured
from tests.command_line import Said, installed

Command = Callable[..., Said]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Name a colour.", "output": "Blue."}\n')
    return path


# Start-up and help


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'polars', 'duckdb', 'pyarrow', 'numpy', 'datasets', 'torch', 'transformers', 'pydantic'}"
    program = (
        "import sys; from datapruner import cli; code = cli.main(['--help']); "
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_documents_commands_and_exit_codes(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    for name in ("prune", "score", "replay", "explain", "sql", "runs", "methods", "models", "doctor"):
        assert re.search(rf"^│ {name} ", said.out, re.MULTILINE), name
    text = " ".join(said.out.split())
    for promise in ("0 fine", "1 our fault", "2 bad usage or input", "3 nothing survived", "130 interrupted"):
        assert promise in text


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, found in group.commands.items():
        if getattr(found, "commands", None) and not found.invoke_without_command:
            yield from leaves(found, (*path, name))
        else:
            yield (*path, name), found
            yield from leaves(found, (*path, name)) if getattr(found, "commands", None) else ()


def test_every_command_that_says_anything_says_it_in_json_on_request() -> None:
    found = dict(leaves(typer.main.get_command(cli.app)))
    assert {("prune",), ("serve",), ("models",), ("models", "pull"), ("schedules", "fires")} <= set(found)
    silent = {("worker",), ("mcp",)}  # it only logs, in JSON by DATAPRUNER_LOG_FORMAT; it speaks JSON alone
    without = {words for words, one in found.items() if not any("--json" in each.opts for each in one.params)}
    assert without == silent


def test_without_a_command_the_help_is_shown(command: Command) -> None:
    assert "Usage: datapruner" in command().out


@pytest.mark.parametrize(
    "name", ["prune", "score", "replay", "explain", "sql", "runs", "methods", "models", "doctor"]
)
def test_each_command_has_help_that_fits(command: Command, name: str) -> None:
    said = command(name, "--help")
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80


def test_the_version_is_shown(command: Command) -> None:
    assert re.fullmatch(r"datapruner \d+\.\d+\.\d+\n", command("--version").out)


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prune"], "Missing argument 'SOURCE'"),
        (["nope"], "No such command 'nope'"),
        (["prune", "ROWS", "--nope"], "No such option"),
        (["prune", "ROWS"], "keep_tokens, or a preset that says (paper-12.5x50"),
        (["prune", "ROWS", "-m", "ppl"], "give keep (0.25, 25% or 500), keep_tokens, or a preset that says"),
        (["prune", "ROWS", "--preset", "x"], "no preset 'x' (known: paper-12.5x50"),
        (["prune", "ROWS", "--keep", "7x"], "or a count of samples, as in 500, not '7x'"),
        (["prune", "ROWS", "--keep", "0"], "keep: a share over 0 and at most 1, as in 0.25 or 25%"),
        (["prune", "ROWS", "--keep", "1.5"], "keep: a share over 0 and at most 1"),
        (["prune", "ROWS", "--keep", "1"], "keep: 1 may mean one sample or all of them"),
        (
            ["prune", "ROWS", "--keep", "0.5", "--keep-tokens", "5"],
            "a share or count, or a token budget, not both",
        ),
        (["prune", "ROWS", "--keep-tokens", "0"], "keep_tokens: must be at least 1, not '0'"),
        (["prune", "ROWS", "--seed", "x"], "seed: must be a whole number, not 'x'"),
        (["prune", "ROWS", "--token-keep", "x"], "token_keep: must be a number, not 'x'"),
        (["prune", "ROWS", "--keep", "0.5", "-m", "nope"], "unknown method 'nope'"),
        (["prune", "ROWS", "--keep", "0.5", "-o", "nope=1"], "no option 'nope' (known: batch_size"),
        (["prune", "ROWS", "--keep", "0.5", "-o", "exact"], "--option 'exact' is not NAME=VALUE"),
        (["prune", "ROWS", "--keep", "0.5", "-o", "exact=1", "-o", "exact=0"], "exact is given twice"),
        (["prune", "ROWS", "--keep", "0.5", "-o", "exact=maybe"], "allowed is true or false"),
        (["prune", "ROWS", "--keep", "0.5", "--token-keep", "2"], "option token_keep is 2.0: allowed is"),
        (["prune", "ROWS", "--keep", "0.5", "-m", "ppl", "--token-keep", "0.5"], "no option 'token_keep'"),
        (["prune", "ROWS", "--overflow", "x"], "measuring.overflow: must be 'truncate' or 'error'"),
        (["prune", "ROWS", "--keep", "0.5", "--map", "x"], "--map 'x' is not NAME=VALUE"),
        (["prune", "ROWS", "--keep", "0.5", "--device", "tpu"], "tpu"),
        (["prune", "ROWS", "--keep", "0.5", "--out", "x.xlsx"], "x.xlsx: cannot write .xlsx"),
        (["prune", "ROWS", "--keep", "0.5", "--out", "no/x.parquet"], "the folder no does not exist"),
        (["prune", "ROWS", "--keep", "0.5", "--out", f"{'x' * 300}.csv"], "File name too long"),
        (["prune", "ROWS", "--keep", "0.5", "--plain", "x.xlsx"], "x.xlsx: cannot write .xlsx"),
        (["prune", "ROWS", "--keep", "0.5", "--out", "x.parquet", "--plain", "x.parquet"], "the same file"),
        (["prune", "nope.json", "--keep", "0.5"], "nope.json: no such file or folder"),
        (["score", "ROWS", "-m", "ppl", "-m", "donod", "-o", "prefer=low"], "write ppl.prefer=low"),
        (["score", "ROWS", "-m", "ppl", "-o", "donod.don_sign=1"], "method donod is not among ppl"),
        (["score", "ROWS", "--out", "x.txt"], "x.txt: cannot write .txt"),
        (["replay", "ROWS"], "not a run file"),
        (["explain", "latest", "row:0"], "there is no run yet"),
        (["explain", "abc", "row:0"], "no run with an id that starts with 'abc'"),
        (["sql", "select 1"], "there is no run yet"),
        (["sql", "select 1", "--json", "--format", "csv"], "--json and --format csv are both given"),
        (["sql", "select 1", "--format", "parquet"], "give --out FILE"),
        (["sql", "select 1", "--format", "table", "--out", "x"], "a table does not go to a file"),
        (["sql", "select 1", "--out", "x.txt"], "the suffix does not say how"),
        (["methods", "nope"], "unknown method 'nope'"),
        (["models", "pull", "nope"], "no alias called 'nope'"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_two(
    command: Command, rows: Path, arguments: list[str], said: str
) -> None:
    answer = command(*(str(rows) if each == "ROWS" else each for each in arguments))
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    if "--json" not in arguments:
        assert answer.out == ""


@pytest.mark.parametrize(
    "wrong", [{"max_length": "1"}, {"seed": str(2**63)}, {"reference": "x"}, {"keep": "7x"}]
)
def test_the_installed_command_refuses_settings_in_the_words_of_the_library(
    rows: Path, tmp_path: Path, wrong: dict[str, str]
) -> None:
    settings = {"keep": "0.5", **wrong}
    with pytest.raises(errors.UsageError) as caught:
        library.prune(rows, home=tmp_path, **settings)  # type: ignore[arg-type]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    done = installed(["prune", str(rows), *words, "--json"], tmp_path)
    assert done.returncode == 2
    about = json.loads(done.stdout)["error"]
    assert (about["message"], about["field"]) == (str(caught.value), caught.value.field)
    assert done.stderr == f"error: {caught.value}\n"


def test_a_mapping_with_an_unknown_role_is_refused_before_measuring(command: Command, rows: Path) -> None:
    said = command("prune", rows, "--keep", "1.0", "--map", "nope=q")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "nope" in said.err


def test_input_in_which_no_row_is_usable_is_an_input_error(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    said = command("prune", path, "--keep", "0.5")
    assert said.code == 2
    assert "empty.jsonl" in said.err


def test_an_error_with_json_is_a_document_too(command: Command, rows: Path) -> None:
    said = command("prune", rows, "--keep", "0.5", "-m", "nope", "--json")
    assert said.code == 2
    assert said.json == {
        "error": {
            "type": "UsageError",
            "message": said.err.removeprefix("error: ").rstrip("\n"),
            "remedy": "see `datapruner methods`",
            "field": "method",
            "exit_code": 2,
        }
    }
    assert command("prune", "--json").json["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.UsageError("a\nb"), 2, "error: a b"),
        (errors.InputError("x", remedy="y"), 2, "error: x (y)"),
        (errors.ModelError("x"), 2, "error: x"),
        (errors.NothingSurvivedError("x"), 3, "error: x"),
        (errors.WorkerError("x"), 1, "error: x"),
        (
            errors.UsageError("Parser Error: no\n\nLINE 1: selec\n        ^^^^^ (do)"),
            2,
            "no LINE 1: selec (do)",
        ),
        (errors.UsageError("\x1b[2J"), 2, "error: ␛[2J"),
        (PermissionError(13, "Permission denied", "/home"), 2, "cannot use /home: Permission denied"),
        (FileNotFoundError(2, "No such file", "x"), 1, "datapruner is at fault: FileNotFoundError"),
        (ModuleNotFoundError("No module named 'x'"), 1, "see `datapruner doctor`"),
        (KeyError("x"), 1, "DATAPRUNER_DEBUG=1"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    command: Command, rows: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(library, "run", fail)
    answer = command("prune", rows, "--keep", "0.5")
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_the_traceback_is_shown_on_request(
    command: Command, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPRUNER_DEBUG", "1")
    said = command("prune", rows, "--keep", "0.5", "-m", "nope")
    assert "Traceback" in said.err
    assert said.err.endswith("(see `datapruner methods`)\n")


def test_a_home_that_cannot_be_written_is_named(command: Command, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = command("prune", rows, "--keep", "0.5", home=tmp_path / "file" / "home")
    assert said.code == 2
    assert str(tmp_path / "file") in said.err


# Option values


@pytest.mark.parametrize(
    ("method", "given", "value"),
    [
        ("qtuning", {"token_keep": "0.5"}, 0.5),
        ("qtuning", {"batch_size": "64"}, 64),
        ("qtuning", {"exact": "yes"}, True),
        ("qtuning", {"shuffle": "False"}, False),
        ("qtuning", {"scope": "batch"}, "batch"),
        ("donod", {"don_sign": "-1"}, -1),
        ("donod", {"learning_rate": "1e-5"}, 1e-5),
        ("qtuning", {"batch_size": "many"}, "many"),
        ("qtuning", {"unheard": "1"}, "1"),
        ("ifd", {"mode": "ppl"}, "ppl"),
    ],
)
def test_option_values_get_the_types_that_the_method_declares(
    method: str, given: dict[str, str], value: object
) -> None:
    [read] = options.method_options(method, given).values()
    assert read == value
    assert type(read) is type(value)


def test_values_may_hold_equals_signs() -> None:
    assert options.assignments(["prompt=a=b", "x="], "--map") == {"prompt": "a=b", "x": ""}


# What there is


def test_methods_are_listed_with_papers_and_presets(command: Command) -> None:
    said = command("methods", terminal=True)
    assert said.code == 0
    assert "arXiv 2509.23873" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    listed = command("methods", "--json").json["methods"]
    assert [method["name"] for method in listed][:2] == ["qtuning", "donod"]


def test_a_method_shows_its_options_presets_and_columns(command: Command) -> None:
    said = command("methods", "qtuning")
    assert "token_keep" in said.out
    assert "paper-25x50" in said.out
    assert "nominal_quadrant" in said.out
    about = command("methods", "qtuning", "--json").json
    option = {option["name"]: option for option in about["options"]}["token_keep"]
    assert (option["default"], option["allowed"]) == (0.5, "a number over 0 and at most 1")
    paper = about["presets"]["paper-12.5x50"]
    assert (paper["keep"], paper["token_keep"], paper["batch_size"]) == (0.125, 0.5, 8)
    alpha = {column["name"]: column for column in about["columns"]}["alpha"]
    assert (alpha["of"], alpha["at_least"], alpha["at_most"]) == ("threshold", 0, 0.49)


def test_a_method_shows_what_it_was_found_to_keep_of_how_much(command: Command) -> None:
    [found] = measured().of("length")
    kept = found.kept[0]
    said = command("methods", "length").out
    assert f"{kept.kept:,} of {kept.rows:,}" in said
    assert "measured with\nsmollm2-135m" in said
    about = command("methods", "length", "--json").json
    assert about["findings"][0]["kept"][0] == asdict(kept)
    assert about["measured_with"] == list(measured().sizes)


def test_models_say_whether_they_are_here(command: Command) -> None:
    assert "no" in command("models").out
    assert command("models", "--json").json["models"][0]["path"] is None


def test_pulling_a_model_that_is_there_does_nothing(command: Command, smollm2: Path) -> None:
    home = smollm2.parent.parent
    said = command("models", "pull", "smollm2-135m", "--json", home=home)
    assert said.json == {"name": "smollm2-135m", "path": str(smollm2)}
    assert "is in" in command("models", "pull", "smollm2-135m", home=home).out


def test_no_runs_is_no_error(command: Command) -> None:
    assert command("runs").out.startswith("no run in")
    assert command("runs", "--json").json == {"runs": []}


def test_main_takes_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["datapruner", "--version"])
    assert cli.main() == 0
    assert capsys.readouterr().out.startswith("datapruner ")
