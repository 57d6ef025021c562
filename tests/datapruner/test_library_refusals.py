"""What the Python API refuses, and what it says of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.errors import (
    InputError,
    ModelError,
    NothingSurvivedError,
    UsageError,
)
from scorers.methods.registry import OWN
from tests import tiny_model
from tests.pipeline import Prune

METHODS = [method.name for method in OWN]
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"method": "qtunning", "keep": 0.5},
            "unknown method 'qtunning'; known are qtuning.*see `datapruner methods`",
        ),
        (
            {"keep": 0.5, "options": {"tokenkeep": 1}},
            "qtuning has no option 'tokenkeep' .known: .*token_keep",
        ),
        ({"keep": 0.5, "token_keep": 1.5}, "qtuning: option token_keep is 1.5: allowed is"),
        ({"method": "ppl", "keep": 0.5, "token_keep": 0.5}, "ppl has no option 'token_keep'"),
        ({"preset": "paper"}, "qtuning has no preset 'paper' .known: paper-12.5x50"),
        ({}, "how much to keep is missing .give keep .*, keep_tokens, or a preset"),
        ({"keep": 0.5, "keep_tokens": 10}, "not both"),
        ({"keep": 1.5}, "keep: a share over 0 and at most 1, .*, not 1.5"),
        ({"keep": 1}, "keep: 1 may mean one sample or all of them"),
        (
            {"keep": 999},
            f"asked to keep 999 samples, but only {len(tiny_model.MEASURED)} were measured .keep fewer",
        ),
        (
            {"method": "length", "keep_tokens": 1},
            "budget of 1 tokens does not hold even the one sample that length",
        ),
        ({"keep": 0.5, "dtype": "int8"}, "dtype: .*'float32'"),
        ({"keep": 0.5, "max_length": 1}, "max_length: must be at least 2, not 1"),
        ({"keep": 0.5, "seed": -1}, "seed: must be at least 0, not -1"),
        ({"keep": 0.5, "device": "gpu"}, "no device is called 'gpu' .auto, cpu"),
        ({"keep": 0.5, "device": ""}, "no device is called ''"),
    ],
)
def test_a_wrong_argument_is_named_with_a_remedy(
    prune: Prune, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prune(**arguments)


@pytest.mark.parametrize("spelling", ["method", "methods"])
@pytest.mark.parametrize("given", ["ppl", ["ppl"]])
def test_prune_and_score_take_both_spellings_and_a_name_or_a_list(
    prune: Prune, corpus_file: Path, home: Path, options: dict[str, Any], spelling: str, given: Any
) -> None:
    pruned = datapruner.prune(corpus_file, **{spelling: given}, keep=0.5, home=home, **options)
    assert pruned.run.run_id == prune("ppl", 0.5).run.run_id
    scored = datapruner.score(corpus_file, **{spelling: given}, home=home, **options)
    assert [choice.name for choice in scored.run.config.methods] == ["ppl"]
    assert scored.run.config.keep is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["ppl", "length"]}, "methods: pruning takes exactly one method"),
        ({"method": "ppl", "methods": "ppl"}, "two spellings of one setting"),
        ({"methods": []}, "methods: must be the name of a method, or a list of names"),
    ],
)
def test_pruning_by_no_method_or_by_several_is_refused(
    corpus_file: Path, home: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        datapruner.prune(corpus_file, **given, keep=0.5, home=home)


def test_the_module_lists_what_is_public() -> None:
    assert dir(datapruner) == sorted(datapruner.__all__)
    assert all(getattr(datapruner, name) is not None for name in dir(datapruner))


def test_one_sample_is_kept_when_it_is_asked_for_by_name(prune: Prune) -> None:
    assert prune("ppl", {"count": 1}).report.kept == prune("ppl", "count=1").report.kept == 1
    assert prune("ppl", {"share": 1}).report.kept == len(tiny_model.MEASURED)


def test_a_share_of_the_measured_samples_rounds_up(prune: Prune) -> None:
    n = len(tiny_model.MEASURED)
    assert prune("ppl", 1.01 / n).report.kept == 2
    assert prune("ppl", 1e-9).report.kept == 1


def test_options_of_a_method_that_is_not_asked_for_are_refused(
    corpus_file: Path, home: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="options for donod, which is not among the methods"):
        datapruner.score(corpus_file, ["ppl"], options={"donod": {"don_sign": 1}}, home=home, **options)


def test_a_home_that_cannot_be_made_is_a_usage_error(tmp_path: Path, corpus_file: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/home: cannot keep files there"):
        datapruner.prune(corpus_file, "ppl", 0.5, home=tmp_path / "file" / "home")


def test_a_source_that_is_not_there_is_an_input_error(home: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        datapruner.prune("nowhere.jsonl", "ppl", 0.5, home=home, **options)


def test_a_model_that_is_not_there_is_a_model_error(corpus_file: Path, home: Path) -> None:
    with pytest.raises(ModelError, match=r"no model called '/nowhere/at/all'"):
        datapruner.prune(corpus_file, "ppl", 0.5, home=home, model="/nowhere/at/all", device="cpu")


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_a_model_error(
    corpus_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"cannot load the model in .*incomplete metadata"):
        datapruner.prune(corpus_file, "ppl", 0.5, home=tmp_path / "home", model=str(folder), device="cpu")


def test_when_no_sample_can_be_measured_the_first_reason_is_told(home: Path, options: dict[str, Any]) -> None:
    rows = [tiny_model.LINES[row] for row in tiny_model.TOO_LONG]
    with pytest.raises(NothingSurvivedError, match=r"none of 1 samples .*the first: no response token left"):
        datapruner.prune(rows, "ppl", 0.5, home=home, **options)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[]", InputError, "not a run file: it lacks run, config or lineage"),
        ("{", InputError, "not a run file"),
        ('{"run": "r", "lineage": {}, "config": {"methods": []}}', UsageError, "run file, methods"),
        (
            '{"run": "r", "lineage": {}, "config": {"methods": [{"name": "gone"}]}}',
            UsageError,
            "unknown method",
        ),
    ],
)
def test_a_run_file_that_cannot_be_replayed_says_why(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "x.run.json").write_text(content)
    with pytest.raises(error, match=message):
        datapruner.replay(tmp_path / "x.run.json", home=tmp_path)
