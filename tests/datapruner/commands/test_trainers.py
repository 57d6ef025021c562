"""`export`: a run's subset again, and as trainers take it; what it prints trains on what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml

from datapruner.outputs.trainers import registry
from datapruner.result import Result
from datapruner.runs import evaluations
from tests.command_line import Said
from tests.evaluations import evaluation
from tests.pipeline import Prune

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def run(prune: Prune) -> Result:
    return prune("qtuning", 0.85, token_keep=0.5)


def test_it_writes_the_rows_and_prints_what_to_train_them_with(
    command: Command, run: Result, home: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    path = tmp_path / "rows.parquet"
    said = command("export", run.run.run_id, "--for", "axolotl", "--out", path, home=home)
    assert (said.code, said.err) == (0, "")
    heading, _, configuration = said.out.partition("\n\n")
    lengths = [len(ids) for ids in pq.read_table(path)["input_ids"].to_pylist()]
    assert " ".join(heading.split()) == (
        f"Written {path}: {run.report.kept} rows, {run.report.kept_tokens:,} of {sum(lengths):,} tokens "
        f"trained on Card {tmp_path / 'rows.card' / 'README.md'} Longest {max(lengths)} tokens"
    )
    assert yaml.safe_load(configuration) == {
        "base_model": str(tiny_folder),
        "datasets": [{"path": str(path), "ds_type": "parquet", "type": None}],
        "sequence_len": max(lengths),
        "excess_length_strategy": "raise",
    }
    document = json.loads(path.with_suffix(".run.json").read_text())
    assert document["run"] == run.run.run_id


def test_a_limit_is_told_with_every_row_that_it_cost(
    command: Command, run: Result, home: Path, tmp_path: Path
) -> None:
    limit = ("--max-length", 30)
    out = ("--for", "trl", "--out", tmp_path / "rows.parquet")
    cut = command("export", run.run.run_id, *out, *limit, "--json", home=home).json["counts"]
    assert cut["rows"] == cut["written"] + cut["untrained"] == run.report.kept
    assert cut["trained_tokens"] + cut["lost_tokens"] == run.report.kept_tokens
    assert min(cut["cut"], cut["untrained"], cut["lost_tokens"]) > 0
    assert cut["longest"] == 30
    shown = command("export", run.run.run_id, *out, *limit, "--too-long", "drop", home=home).out
    words = " ".join(shown.split())
    assert f"Too long {cut['cut'] + cut['untrained']} rows left out" in words
    assert "Lost" in words


# By itself, TRL asks transformers for something by its old name.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_the_printed_program_trains_as_it_stands(
    command: Command, run: Result, home: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "it's.parquet"
    document = command("export", run.run.run_id, "--for", name, "--out", path, "--json", home=home).json
    assert repr(str(path)) in document["configuration"]
    assert str(document["counts"]["longest"]) in document["configuration"]
    # TRL takes a GPU for granted.
    exec(document["configuration"].replace('SFTConfig("trained"', 'SFTConfig("trained", use_cpu=True'), {})
    [state] = Path("trained").glob("checkpoint-*/trainer_state.json")
    trained = json.loads(state.read_text())
    assert trained["global_step"] == 3 * -(-run.report.kept // trained["train_batch_size"])


@pytest.mark.parametrize("trainer", [None, "trl"])
def test_shards_are_found_by_load_dataset_whole_and_streaming(
    command: Command, run: Result, home: Path, tmp_path: Path, trainer: str | None
) -> None:
    folder, single = tmp_path / "shards", tmp_path / "single.parquet"
    kind = () if trainer is None else ("--for", trainer)
    arguments = ("export", run.run.run_id, *kind, "--quiet", "--out")
    assert command(*arguments, folder, "--shard-rows", 7, home=home).code == 0
    assert command(*arguments, single, home=home).code == 0
    names = sorted(path.name for path in folder.glob("*.parquet"))
    assert len(names) == -(-run.report.kept // 7) > 2
    assert names[-1] == f"train-{len(names) - 1:05}-of-{len(names):05}.parquet"
    assert [pq.read_metadata(folder / name).num_rows for name in names[:-1]] == [7] * (len(names) - 1)
    expected = pq.read_table(single).to_pylist()
    for place in (folder, single.parent):
        files: dict[str, Any] = {} if place == folder else {"data_files": "single.parquet"}
        for streaming in (False, True):
            loaded = datasets.load_dataset(
                str(place), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"), **files
            )
            assert list(loaded) == expected
    assert pq.read_schema(folder / names[0]).metadata == pq.read_schema(single).metadata


ROWS = {"llamafactory": "", "ms-swift": "rows.jsonl", "verl": "rows.parquet", "megatron": "train.idx.parquet"}
"""Where the rows are in the folders that some trainers take."""


@pytest.mark.parametrize("trainer", registry.TRAINERS)
def test_rows_for_every_trainer_are_loaded_by_datasets_whole_and_streaming(
    run: Result, tmp_path: Path, trainer: str
) -> None:
    written = tmp_path / ("rows" if trainer in ROWS else "rows.parquet")
    counts = run.export_for(trainer, written, max_length=60).counts
    if trainer == "llamafactory":
        whole = datasets.load_from_disk(str(written))["train"]
        streamed = whole.to_iterable_dataset()
    else:
        path = written / ROWS[trainer] if trainer in ROWS else written
        given: dict[str, Any] = {
            "path": "json" if path.suffix == ".jsonl" else "parquet",
            "data_files": str(path),
            "split": "train",
            "cache_dir": str(tmp_path / "cache"),
        }
        whole = datasets.load_dataset(**given)
        streamed = datasets.load_dataset(**given, streaming=True)
    assert list(streamed) == list(whole)
    if trainer == "megatron":
        assert 0 < len(whole) < counts.written
    else:
        assert len(whole) == counts.written


def test_without_a_trainer_it_writes_what_pruning_writes(
    command: Command, run: Result, home: Path, tmp_path: Path
) -> None:
    run.export(tmp_path / "expected.jsonl")
    run.export(tmp_path / "plain_expected.jsonl", plain=True)
    ours = command("export", run.run.run_id, "--out", tmp_path / "all.jsonl", home=home)
    card = tmp_path / "all.card" / "README.md"
    assert ours.out == f"{tmp_path / 'all.jsonl'}: {run.report.kept} rows; its card: {card}\n"
    plain = command("export", run.run.run_id, "--out", tmp_path / "plain.jsonl", "--plain", home=home)
    lost = sum(run.subset["n_response_tokens"]) - run.report.kept_tokens
    assert f"plain rows have no token masks: {lost:,} pruned tokens will be trained on" in plain.out
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()
    assert (tmp_path / "plain.jsonl").read_bytes() == (tmp_path / "plain_expected.jsonl").read_bytes()


def test_a_verdict_that_is_asked_for_has_to_be_there(
    command: Command, prune: Prune, home: Path, tmp_path: Path
) -> None:
    run = prune("length", 0.4).run
    arguments = ("export", run.run_id, "--for", "trl", "--out", tmp_path / "rows.parquet")
    asked = (*arguments, "--require-verdict", "better")
    unknown = command(*asked, home=home)
    assert unknown.code == 2
    assert f"run {run.run_id} was not evaluated" in unknown.err
    evaluations.write(run.folder, evaluation(run=run.run_id, verdict="worse", said="It is worse."))
    worse = command(*asked, home=home)
    assert worse.code == 2
    assert "does not say better: It is worse." in worse.err
    assert not list(tmp_path.glob("*.parquet"))
    evaluations.write(run.folder, evaluation(run=run.run_id))
    assert command(*asked, home=home).code == 0
    assert (tmp_path / "rows.parquet").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--for", "nobody"), f"no trainer is called 'nobody' (one of {', '.join(registry.TRAINERS)})"),
        (("--for", "trl", "--plain"), "--plain rows have no token masks"),
        (("--max-length", "9"), "a limit of length is of rows for trainers (give --for as well)"),
        (("--too-long", "drop"), "a limit of length is of rows for trainers"),
        (("--for", "trl", "--out", "rows.jsonl"), "rows for trl are .parquet files (name it rows.parquet)"),
        (("--for", "trl", "--out", "no/where/rows.parquet"), "no/where does not exist"),
        (("--for", "trl", "--out", "folder.parquet"), "folder.parquet is a folder"),
        (("--for", "trl", "--shard-rows", "5", "--out", "full"), "full: there is something already"),
        (("--shard-rows", "5", "--out", "full"), "full: there is something already"),
        (("--for", "trl", "--max-length", "1"), "--max-length"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy_and_nothing_is_written(
    command: Command,
    run: Result,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.parquet").mkdir()
    Path("full").mkdir()
    Path("full", "mine").touch()
    out = () if "--out" in arguments else ("--out", "rows.parquet")
    done = command("export", run.run.run_id, *arguments, *out, home=home)
    assert done.code == 2
    assert said in done.err
    assert sorted(str(path) for path in Path().rglob("*")) == ["folder.parquet", "full", "full/mine"]


def test_a_limit_that_leaves_nothing_leaves_no_file_and_the_one_that_was_there(
    command: Command, run: Result, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.parquet").write_text("an older one")
    for out in (("rows.parquet",), ("shards", "--shard-rows", 3)):
        place = (tmp_path / str(out[0]), *out[1:])
        arguments = ("--for", "trl", "--max-length", 2, "--out", *place)
        done = command("export", run.run.run_id, *arguments, home=home)
        assert done.code == 3
        assert "no row has a token to train on within 2 tokens" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert (tmp_path / "rows.parquet").read_text() == "an older one"


def test_a_run_that_rewrote_has_no_masks_to_export(
    command: Command, home: Path, options: dict[str, Any], first_run: Result, tmp_path: Path
) -> None:
    import datapruner

    row = {"instruction": "Name a colour.", "output": "<think>It is a colour.\n\nBlue is one.</think>Blue."}
    run = datapruner.rewrite([row], "asap", max_tokens=4, home=home, **options).run
    done = command("export", run.run_id, "--for", "trl", "--out", tmp_path / "rows.parquet", home=home)
    assert done.code == 2
    assert "has token ids of the texts before" in done.err


def test_weights_of_tokens_are_told_of_and_refused_where_they_would_be_lost(
    command: Command, weighted: Result, home: Path, tmp_path: Path
) -> None:
    def export(name: str, *how: str) -> Said:
        return command("export", weighted.run.run_id, "--out", tmp_path / name, *how, home=home)

    swift = export("swift", "--for", "ms-swift")
    assert "loss_scale" in " ".join(swift.out.split())
    assert "--is_binary_loss_scale false" in swift.out
    refused = export("axolotl.parquet", "--for", "axolotl")
    assert refused.code == 2
    assert "axolotl cannot take the weights" in refused.err
    assert "plain rows have no weights" in export("plain.jsonl", "--plain").out
    checked = command("check", tmp_path / "swift", "--model", weighted.run.config.measuring.model, home=home)
    assert "of tokens, in" in checked.out
