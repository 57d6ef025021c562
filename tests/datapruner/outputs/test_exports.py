"""Subsets as files: masks, labels and spans that agree, original columns that come out as they went in."""

from __future__ import annotations

import csv
import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers as tf

import datapruner
from datapruner.errors import UsageError
from datapruner.outputs import exports, training_rows
from datapruner.result import Result
from scorers.models import fingerprint
from tests import tiny_model
from tests.pipeline import Prune


@pytest.fixture(scope="module")
def qtuned(prune: Prune) -> Result:
    """A run that keeps some samples whole and some in part, the multi-turn ones among them."""
    return prune("qtuning", 0.8, token_keep=0.4)


@pytest.fixture(scope="module")
def samples(qtuned: Result, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of the canonical Parquet."""
    path = tmp_path_factory.mktemp("export") / "subset.parquet"
    assert qtuned.export(path) == qtuned.report.kept
    return pq.read_table(path).to_pylist()


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return tf.AutoTokenizer.from_pretrained(tiny_folder)


def chats(rows: list[int]) -> list[dict[str, Any]]:
    """Some single-turn lines of the corpus, whose chats are measured already."""
    lines = [tiny_model.LINES[row] for row in rows]
    return [{"instruction": line["instruction"], "output": line["output"]} for line in lines]  # type: ignore[index]


# Masks


def test_labels_flags_and_kept_tokens_agree_token_by_token(
    samples: list[dict[str, Any]], qtuned: Result, tokenizer: Any
) -> None:
    kept_tokens = dict(qtuned.masks.select("row", "kept_tokens").iter_rows())
    assert [sample["row"] for sample in samples] == list(kept_tokens)
    assert {24, 25} & set(kept_tokens), "a multi-turn sample should be among the kept"
    pruned_somewhere = 0
    for sample in samples:
        ids, response = tiny_model.rendered(
            tokenizer, tiny_model.messages_of({k: v for k, v in sample.items() if v is not None})
        )
        # Pruned tokens are still in the input.
        assert sample["input_ids"] == ids
        assert sample["attention_mask"] == [1] * len(ids)
        assert len(sample["labels"]) == len(sample["token_keep"]) == len(ids)
        for position, (token, label, flag) in enumerate(
            zip(ids, sample["labels"], sample["token_keep"], strict=True)
        ):
            assert (flag is None) == (position not in response)
            assert label == (token if flag else -100)
            assert (position in kept_tokens[sample["row"]]) == bool(flag)
            pruned_somewhere += flag is False
        assert sample["n_kept_tokens"] == len(kept_tokens[sample["row"]])
        assert sample["n_prompt_tokens"] + sample["n_response_tokens"] == len(ids)
    assert (
        pruned_somewhere
        == sum(sample["n_response_tokens"] - sample["n_kept_tokens"] for sample in samples)
        > 0
    )


def test_spans_cut_out_the_text_of_the_kept_tokens(
    samples: list[dict[str, Any]], qtuned: Result, tokenizer: Any
) -> None:
    spans = dict(qtuned.masks.select("row", "kept_spans").iter_rows())
    special = set(tokenizer.all_special_ids)
    compared = 0
    for sample in samples:
        messages = tiny_model.messages_of({k: v for k, v in sample.items() if v is not None})
        cut = "".join(messages[s["turn"]]["content"][s["start"] : s["end"]] for s in spans[sample["row"]])
        if not cut.isascii():  # a character kept in part has no text of its own
            continue
        kept = [token for token in sample["labels"] if token != -100 and token not in special]
        assert cut == tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        compared += bool(kept)
    assert compared > 10


def test_labels_are_not_shifted_and_the_loss_on_them_is_that_of_the_kept_tokens(
    samples: list[dict[str, Any]], qtuned: Result, tiny_folder: Path
) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float64).eval()
    for sample in samples[:6]:
        with torch.no_grad():
            loss = model(
                input_ids=torch.tensor([sample["input_ids"]]),
                attention_mask=torch.tensor([sample["attention_mask"]]),
                labels=torch.tensor([sample["labels"]]),
            ).loss.item()
        kept = qtuned.token_scores.filter((pl.col("row") == sample["row"]) & pl.col("keep"))
        assert loss == pytest.approx(kept["nll"].cast(pl.Float64).mean(), rel=1e-5)


def test_a_method_that_prunes_no_tokens_trains_on_every_response_token(prune: Prune) -> None:
    for sample in prune("donod", 0.5).subset.to_list():
        assert sum(label != -100 for label in sample["labels"]) == sample["n_response_tokens"]
        assert False not in sample["token_keep"]


def test_how_many_samples_are_written_at_once_changes_nothing(
    qtuned: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qtuned.export(tmp_path / "whole.parquet")
    monkeypatch.setattr(training_rows, "_BATCH", 3)
    qtuned.export(tmp_path / "parts.parquet")
    whole, parts = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert whole.equals(parts, check_metadata=True)


def test_the_subset_in_memory_is_the_subset_on_disk(qtuned: Result, samples: list[dict[str, Any]]) -> None:
    assert qtuned.subset.to_list() == samples


def test_the_file_says_where_it_comes_from(qtuned: Result, tiny_folder: Path, tmp_path: Path) -> None:
    qtuned.export(tmp_path / "subset.parquet")
    said = json.loads(pq.read_schema(tmp_path / "subset.parquet").metadata[b"datapruner"])
    beside = json.loads((tmp_path / "subset.run.json").read_text())
    assert said == {name: beside[name] for name in ("run", "config", "lineage")}
    assert said["run"] == qtuned.run.run_id
    assert said["lineage"]["tokenizer"] == fingerprint.of_folder(tiny_folder)


# Original columns


def typed_table(rows: list[int]) -> pa.Table:
    n = len(rows)
    texts = chats(rows)
    return pa.table(
        {
            "instruction": pa.array([text["instruction"] for text in texts], pa.large_string()),
            "output": [text["output"] for text in texts],
            "small": pa.array(range(n), pa.int8()),
            "exact": pa.array([Decimal(i).scaleb(-2) for i in range(n)], pa.decimal128(9, 2)),
            "when": pa.array([dt.datetime(2024, 1, 1 + i) for i in range(n)], pa.timestamp("ms", "UTC")),
            "tags": pa.array([["a", None]] * (n - 1) + [None], pa.list_(pa.string())),
            "nested": pa.array([{"x": i, "y": [{"z": b"\x00"}]} for i in range(n)]),
            "kind": pa.array(["u", "v"] * (n // 2), pa.dictionary(pa.int8(), pa.string())),
            "nothing": pa.nulls(n),
        },
        metadata={"made": "by hand"},
    )


def test_typed_columns_come_out_with_their_values_and_types(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    table = typed_table([0, 1, 2, 3, 4, 5])
    pq.write_table(table, tmp_path / "in.parquet")
    read = pq.read_table(tmp_path / "in.parquet")
    result = datapruner.prune(tmp_path / "in.parquet", "ppl", 3, home=home, **options)
    kept = result.masks["row"].to_list()
    result.export(tmp_path / "out.parquet")
    result.export(tmp_path / "plain.parquet", plain=True)
    canonical = pq.read_table(tmp_path / "out.parquet").select(read.column_names)
    assert canonical.schema.types == read.schema.types
    assert canonical.to_pylist() == read.take(kept).to_pylist()
    plain = pq.read_table(tmp_path / "plain.parquet")
    assert plain.schema.equals(read.schema)
    assert plain.to_pylist() == read.take(kept).to_pylist()


def test_json_lines_come_out_verbatim(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    second, third = chats([7, 4])
    lines = [
        '{"output" :  "Blue.",   "instruction": "Name a colour.", "big": 12345678901234567890123, "f": 1.0}',
        json.dumps(second, ensure_ascii=True),
        json.dumps(third | {"deep": {"z": [1, {"a": None}], "b": 1e-9}}, ensure_ascii=False),
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    result = datapruner.prune(tmp_path / "in.jsonl", "random", 2, home=home, **options)
    assert result.run.measured == 0
    assert result.export(tmp_path / "plain.jsonl", plain=True) == 2
    kept = [lines[row] for row in result.masks["row"]]
    assert (tmp_path / "plain.jsonl").read_text(encoding="utf-8") == "\n".join(kept) + "\n"
    assert json.loads((tmp_path / "plain.run.json").read_text())["run"] == result.run.run_id


def test_plain_parquet_of_json_rows_has_their_columns_and_no_other(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{**row, "n": i, "score": i / 2} for i, row in enumerate(chats([0, 1, 2, 3]))]
    result = datapruner.prune(rows, "length", 2, home=home, **options)
    assert result.export(tmp_path / "plain.parquet", plain=True) == 2
    assert pq.read_table(tmp_path / "plain.parquet").to_pylist() == [rows[i] for i in result.masks["row"]]


def test_a_typed_source_comes_out_as_json_lines_too(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{**row, "n": i} for i, row in enumerate(chats([0, 1, 2, 3]))]
    result = datapruner.prune(pa.Table.from_pylist(rows), "length", 2, home=home, **options)
    result.export(tmp_path / "plain.jsonl", plain=True)
    found = [json.loads(line) for line in (tmp_path / "plain.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == [rows[i] for i in result.masks["row"]]


TAKEN = {
    "row": 100,
    "keep": "k",
    "labels": [5, 6],
    "label": 1,
    "ppl": -1.0,
    "input_ids": [9],
    "sample_id": "mine",
    "original_row": "hm",
    "Reason": "r",
}
"""Columns with names of ours, with one that collators look for, and with one that such are given."""

RENAMED = {
    "row": "original_original_row",
    "labels": "original_labels",
    "label": "original_label",
    "ppl": "original_ppl",
    "input_ids": "original_input_ids",
    "sample_id": "original_sample_id",
    "Reason": "original_Reason",
}


@pytest.mark.parametrize("typed", [False, True])
def test_original_columns_with_our_names_and_those_of_trainers_are_called_original(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path, typed: bool
) -> None:
    rows = [{**row, **TAKEN} for row in chats([0, 1, 2, 3])]
    source = pa.Table.from_pylist(rows) if typed else rows
    result = datapruner.prune(source, "ppl", 2, home=home, **options)
    for suffix in ("parquet", "jsonl", "csv"):
        result.export(tmp_path / f"subset.{suffix}")
    found = pq.read_table(tmp_path / "subset.parquet")
    assert len(set(found.column_names)) == len(found.column_names)
    assert json.loads(found.schema.metadata[b"datapruner"])["renamed"] == RENAMED
    kept = result.masks["row"].to_list()
    originals = found.select([RENAMED.get(name, name) for name in rows[0]]).to_pylist()
    assert originals == [{RENAMED.get(name, name): value for name, value in rows[i].items()} for i in kept]
    scores = result.scores.filter(pl.col("keep"))
    for name in ("row", "ppl", "sample_id", "reason"):
        assert found[name].to_pylist() == scores[name].to_list()
    for ids, labels in zip(found["input_ids"].to_pylist(), found["labels"].to_pylist(), strict=True):
        assert len(ids) > 1
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    assert result.subset.column_names == found.column_names
    lines = [json.loads(line) for line in (tmp_path / "subset.jsonl").read_text().splitlines()]
    assert lines == found.to_pylist()
    with (tmp_path / "subset.csv").open(newline="") as file:
        assert [row["labels"] for row in csv.DictReader(file)] == [
            json.dumps(labels, separators=(",", ":")) for labels in found["labels"].to_pylist()
        ]
    result.export(tmp_path / "plain.jsonl", plain=True)
    plain = [json.loads(line) for line in (tmp_path / "plain.jsonl").read_text().splitlines()]
    assert plain == [rows[i] for i in kept]


# Other files than Parquet


@pytest.fixture
def ragged(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> tuple[Result, list[dict[str, Any]]]:
    """A run over rows of JSON of which no two have the same keys, and the rows that it kept."""
    rows = [{**row} for row in chats([0, 1, 2, 3])]
    more = ({"meta": {"a": 1}}, {"meta": {"b": [{}]}, "é": "x,\n"}, {"n": 10**30}, {})
    rows = [row | own for row, own in zip(rows, more, strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = datapruner.prune(tmp_path / "in.jsonl", "length", 3, home=home, **options)
    return result, [rows[row] for row in result.masks["row"]]


def test_the_subset_as_json_lines_has_the_rows_as_they_came_and_our_columns(
    ragged: tuple[Result, list[dict[str, Any]]], tmp_path: Path
) -> None:
    result, rows = ragged
    assert result.export(tmp_path / "subset.jsonl") == 3
    result.export(tmp_path / "subset.parquet")
    found = [
        json.loads(line) for line in (tmp_path / "subset.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    table = pq.read_table(tmp_path / "subset.parquet")
    ours = table.column_names[-(len(found[0]) - len(rows[0])) :]
    assert [{name: row[name] for name in row if name not in ours} for row in found] == rows
    assert [{name: row[name] for name in ours} for row in found] == table.select(ours).to_pylist()


def test_the_subset_as_csv_has_all_columns_with_lists_and_objects_as_json(
    ragged: tuple[Result, list[dict[str, Any]]], tmp_path: Path
) -> None:
    result, rows = ragged
    assert result.export(tmp_path / "subset.csv") == 3
    result.export(tmp_path / "subset.parquet")
    with (tmp_path / "subset.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "subset.parquet")
    assert list(found[0]) == table.column_names
    assert [json.loads(row["input_ids"]) for row in found] == table["input_ids"].to_pylist()
    for row, came in zip(found, rows, strict=True):
        assert row["instruction"] == came["instruction"]
        assert row["meta"] == (json.dumps(came["meta"]) if "meta" in came else "")
        assert row["n"] == (str(came["n"]) if "n" in came else "")
        assert row["é"] == came.get("é", "")


def test_rows_of_csv_come_out_as_csv_with_the_same_text(
    first_run: Result, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    rows = [
        {**row, "id": f"00{n}", "note": 'a "b", c\n' if n else ""} for n, row in enumerate(chats([0, 1, 2]))
    ]
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    result = datapruner.prune(tmp_path / "in.csv", "length", 2, home=home, **options)
    result.export(tmp_path / "out.csv", plain=True)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [rows[row] for row in result.masks["row"]]


def test_a_column_that_a_dataset_cannot_hold_is_told_with_what_to_do(
    first_run: Result, home: Path, options: dict[str, Any]
) -> None:
    table = pa.Table.from_pylist(chats([0, 1]))
    table = table.append_column("m", pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())))
    result = datapruner.prune(table, "length", "50%", home=home, **options)
    with pytest.raises(UsageError, match=r"map<string, int64>.*\(export them to a file"):
        _ = result.subset


@pytest.mark.parametrize(
    ("method", "written"), [("donod", {"don", "nod", "donod"}), ("qtuning", {"quadrant"})]
)
def test_scores_that_no_method_set_are_not_written(
    prune: Prune, tmp_path: Path, method: str, written: set[str]
) -> None:
    result = prune(method, 0.5)
    result.export(tmp_path / "subset.parquet")
    result.export_scores(tmp_path / "scores.parquet")
    for name in ("subset", "scores"):
        names = set(pq.read_schema(tmp_path / f"{name}.parquet").names)
        assert names & {"don", "nod", "donod", "quadrant"} == written


# Scores


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_scores_are_written_in_the_format_of_the_name(qtuned: Result, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scores.{suffix}"
    assert qtuned.export_scores(path) == len(tiny_model.LINES)
    readers = {
        "parquet": pl.read_parquet,
        "csv": lambda p: pl.read_csv(p, schema_overrides=dict(qtuned.scores.schema)),
        "jsonl": lambda p: pl.read_ndjson(p, infer_schema_length=None),
    }
    found = readers[suffix](path)
    assert found.columns == [name for name in qtuned.scores.columns if name not in ("don", "nod", "donod")]
    assert found["reason"].to_list() == qtuned.scores["reason"].to_list()
    assert np.allclose(found["ppl"].drop_nulls(), qtuned.scores["ppl"].drop_nulls(), rtol=1e-12)
    assert (tmp_path / "scores.run.json").is_file()


# Places that cannot be written


@pytest.mark.parametrize(
    ("name", "plain", "message"),
    [
        ("subset.xlsx", False, r"cannot write \.xlsx \(one of \.parquet, \.csv, \.jsonl\)"),
        ("subset", True, r"cannot write a file without a suffix"),
        ("no/where/subset.parquet", False, r"the folder .*no/where does not exist \(create it first\)"),
        ("folder.parquet", False, r"folder\.parquet is a folder \(name a file\)"),
    ],
)
def test_a_place_that_cannot_be_written_is_a_usage_error(
    qtuned: Result, tmp_path: Path, name: str, plain: bool, message: str
) -> None:
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UsageError, match=message):
        qtuned.export(tmp_path / name, plain=plain)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.parquet"]


def test_a_score_file_of_another_kind_is_a_usage_error(qtuned: Result, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write \.xlsx \(one of \.parquet, \.csv, \.jsonl\)"):
        qtuned.export_scores(tmp_path / "scores.xlsx")


def test_when_writing_breaks_off_the_file_that_was_there_stays(
    qtuned: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "subset.parquet"
    path.write_text("an older subset")
    real = exports._training_columns
    calls = []

    def full(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(training_rows, "_BATCH", 3)
    monkeypatch.setattr(exports, "_training_columns", full)
    with pytest.raises(UsageError, match=r"cannot write .*subset\.parquet: No space left on device"):
        qtuned.export(path)
    assert path.read_text() == "an older subset"
    assert [each.name for each in tmp_path.iterdir()] == ["subset.parquet"]


# Weights of tokens


def test_the_subset_of_a_run_that_weights_tokens_has_their_weights(weighted: Result) -> None:
    masks = {
        row: dict(zip(*both, strict=True))
        for row, *both in weighted.masks.select("row", "kept_tokens", "token_weight").iter_rows()
    }
    for sample in weighted.subset:
        assert sample["token_weight"] == [
            masks[sample["row"]].get(at, 0.0) for at in range(len(sample["input_ids"]))
        ]


def test_other_subsets_have_no_such_column_and_an_original_one_is_called_otherwise(
    prune: Prune, samples: list[dict[str, Any]], home: Path, options: dict[str, Any]
) -> None:
    assert "token_weight" not in samples[0]
    own = [row | {"token_weight": 3} for row in chats([0, 2, 3])]
    found = datapruner.prune(own, "token-prob", 1.0, options={"mode": "weight"}, home=home, **options).subset
    assert found["original_token_weight"] == [3, 3, 3]
    assert all(isinstance(each, list) for each in found["token_weight"])
