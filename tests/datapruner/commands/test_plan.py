"""`datapruner plan`, and the run that says how far it was off, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datapruner.result import Result
from tests.command_line import Said
from tests.pipeline import Prune

Command = Callable[..., Said]


def test_what_is_measured_already_takes_no_time_and_the_run_finds_the_forecast(
    command: Command, prune: Prune, first_run: Result, corpus_file: Path, tiny_folder: Path
) -> None:
    home = first_run.home
    asked = [str(corpus_file), "--method", "donod", "--keep", "0.4", "--model", str(tiny_folder)]
    wishes = ["--gpus", "8xH100", "--train-model-size", "7B", "--epochs", "3"]
    said = command("plan", *asked, *wishes, home=home)
    assert said.code == 0, said.err
    for shown in ("Forecast of", "Tokens", "all of it there", "measuring", "8 × H100", "3 epochs"):
        assert shown in said.out
    assert "Tried" not in said.out
    document = command("plan", *asked, "--json", home=home).json
    assert document["passes"][0]["cached"] == document["passes"][0]["samples"] == document["samples"]
    assert document["seconds"] == {"value": 0.0, "low": 0.0, "high": 0.0}

    run = command("prune", *asked, home=home)
    assert run.code == 0, run.err
    [line] = [line for line in run.out.splitlines() if line.startswith("response tokens")]
    once = first_run.scores.unique("sample_id")["n_response_tokens"].sum()
    assert line.split()[2:] == [f"{once:,}"] * 2 + ["+0.0", "%"]
    found = command("prune", *asked, "--json", home=home).json["forecast"]
    assert found["plan"] == document["id"]
    assert {each["what"] for each in found["outcomes"]} >= {"tokens", "signals on disk", "rows kept"}


def test_a_forecast_of_a_recipe_fits_a_narrow_terminal(
    command: Command, first_run: Result, corpus_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "nightly.yaml"
    recipe.write_text(f"methods: qtuning\nkeep: 0.4\nmeasuring: {{model: {tiny_folder}}}\n")
    asked = ("plan", corpus_file, "--recipe", recipe, "--gpus", "8xH100", "--price-per-gpu-hour", "2.5")
    said = command(*asked, home=first_run.home, terminal=True)
    assert said.code == 0, said.err
    assert "(1) not measured: 30 % of the published 989 TFLOP/s is assumed" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    for given in (["--keep", "0.5"], ["--method", "qtuning"], ["--option", "ppl=1"], ["--map", "prompt=q"]):
        refused = command("plan", corpus_file, "--recipe", recipe, *given, home=first_run.home)
        assert refused.code == 2
        assert "a recipe says all of the run (leave out the other settings)" in refused.err
    assert "no rows are given" in command("plan", home=first_run.home).err


def test_a_run_without_a_forecast_says_nothing_of_one(first_run: Result) -> None:
    assert first_run.forecast is None


def test_gpus_of_no_known_kind_are_refused(
    command: Command, corpus_file: Path, tiny_folder: Path, home: Path
) -> None:
    said = command("plan", corpus_file, "--gpus", "8xP9000", "--model", tiny_folder, home=home)
    assert said.code == 2
    assert "error: gpus: '8xP9000' is not a number of GPUs of a known kind (such as 8xH100" in said.err
