"""What is written for each trainer is read again with nothing but a reader of files, and compared row by row.

What the trainers themselves make of it: `tests.trainers`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import transformers as tf
import yaml

from datapruner.errors import NothingSurvivedError, UsageError
from datapruner.outputs.trainers import writing
from datapruner.outputs.trainers.megatron import packed
from datapruner.outputs.trainers.registry import find
from datapruner.outputs.trainers.trainer import AsFile
from tests.trainers.cases import LIMIT, Row, kept, training_rows, weights_of, within

Written = Callable[..., tuple[Path, str, list[Row]]]


@pytest.fixture(scope="module")
def rows(tiny_folder: Path) -> list[Row]:
    return kept(tf.AutoTokenizer.from_pretrained(tiny_folder))


@pytest.fixture
def written(rows: list[Row], tmp_path: Path) -> Written:
    """Writes the rows for a trainer; where, with which note, and what should be there."""

    def write(
        name: str, place: str = "it's [here] 😀", limit: int | None = None
    ) -> tuple[Path, str, list[Row]]:
        trainer, path = find(name), tmp_path / place
        given = training_rows(rows, "a model", limit)
        writing.write(trainer, path, given)
        return path, trainer.note(path, given), rows if limit is None else within(rows, limit)

    return write


def test_rows_say_for_whom_they_are_written_and_are_not_changed_by_it(
    rows: list[Row], tmp_path: Path
) -> None:
    given = training_rows(rows, "a model")
    before = dict(given.about)
    writing.write(find("automodel"), tmp_path / "rows.parquet", given)
    said = json.loads(pq.read_schema(tmp_path / "rows.parquet").metadata[b"datapruner"])
    assert said == before | {"trainer": "automodel"}
    assert given.about == before
    assert given.counts.written == len(rows)


def masked(ids: list[int], mask: list[int]) -> Row:
    return tuple(ids), tuple(token if on else -100 for token, on in zip(ids, mask, strict=True))


def unshifted(labels: list[int]) -> tuple[int, ...]:
    """Of the labels of tokens that follow, with none behind the last."""
    assert labels[-1] == -100
    return (-100, *labels[:-1])


def longest(rows: list[Row]) -> int:
    return max(len(ids) for ids, _ in rows)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_llamafactory_loads_a_tokenized_dataset_with_three_columns(
    written: Written, limit: int | None
) -> None:
    path, note, expected = written("llamafactory", limit=limit)
    configuration = yaml.safe_load(note)
    loaded = datasets.load_from_disk(configuration["tokenized_path"])
    assert list(loaded) == ["train"]
    assert loaded["train"].column_names == ["input_ids", "attention_mask", "labels"]
    assert [(tuple(row["input_ids"]), tuple(row["labels"])) for row in loaded["train"]] == expected
    assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in loaded["train"])
    assert configuration["cutoff_len"] == longest(expected)
    assert {each.name for each in path.iterdir()} == {"dataset_dict.json", "train"}


def test_saving_for_llamafactory_leaves_progress_bars_as_they_were(written: Written) -> None:
    before = datasets.is_progress_bar_enabled()
    written("llamafactory")
    assert datasets.is_progress_bar_enabled() == before


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_ms_swift_is_given_answers_as_token_ids_with_a_factor_of_the_loss_each(
    written: Written, limit: int | None
) -> None:
    path, note, expected = written("ms-swift", limit=limit)
    found = []
    for line in (path / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        [question, answer] = json.loads(line)["messages"]
        assert question == {"role": "user", "content": ""}
        assert answer["role"] == "assistant"
        found.append(masked(answer["content"]["token_ids"], answer["content"]["loss_scale"]))
    assert found == expected
    assert (path / "template.py").is_file()
    assert f"--max_length {longest(expected)}" in note


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_verls_dataset_class_gives_rows_and_masks(written: Written, limit: int | None) -> None:
    path, _, expected = written("verl", limit=limit)
    scope: dict[str, Any] = {"__name__": "dataset"}
    exec((path / "dataset.py").read_text(encoding="utf-8"), scope)  # as verl loads it: from the file alone
    config = {"pad_mode": "no_padding", "max_length": longest(expected)}
    read = scope["MaskedRows"]([str(path / "rows.parquet")], None, config)
    assert len(read) == len(expected)
    items = [read[at] for at in range(len(read))]
    assert [masked(each["input_ids"].tolist(), each["loss_mask"].tolist()) for each in items] == expected
    assert all(each["position_ids"].tolist() == list(range(len(each["input_ids"]))) for each in items)
    assert len(scope["MaskedRows"](str(path / "rows.parquet"), None, config, max_samples=2)) == 2
    with pytest.raises(ValueError, match="no_padding"):
        scope["MaskedRows"](str(path / "rows.parquet"), None, {"pad_mode": "right"})
    short = scope["MaskedRows"](str(path / "rows.parquet"), None, {"max_length": 3})
    with pytest.raises(ValueError, match=r"max_length is 3"):
        short[0]


def test_the_first_token_of_a_row_is_never_in_verls_mask(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    writing.write(find("verl"), path, training_rows([((4, 5), (4, 5)), ((6, 7), (6, -100))], "m"))
    assert pq.read_table(path / "rows.parquet")["loss_mask"].to_pylist() == [[0, 1], [0, 0]]


def unpacked(path: Path, size: int) -> Iterator[Row]:
    for pack in pq.read_table(path).to_pylist():
        ids, mask, starts = pack["input_ids"], pack["loss_mask"], pack["seq_start_id"]
        assert starts[0] == 0
        assert len(ids) == len(mask) <= size
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            assert mask[stop - 1] == 0
            yield masked(ids[start:stop], [0, *mask[start : stop - 1]])


@pytest.mark.parametrize("limit", [LIMIT, 192, 500])
def test_megatron_is_given_packs_with_the_mask_of_the_token_that_follows(
    written: Written, limit: int
) -> None:
    path, note, expected = written("megatron", limit=limit)
    assert Counter(unpacked(path / "train.idx.parquet", limit)) == Counter(expected)
    packs = pq.read_table(path / "train.idx.parquet").to_pylist()
    fed = [
        [
            stop - start - 1
            for start, stop in zip(
                p["seq_start_id"], [*p["seq_start_id"][1:], len(p["input_ids"])], strict=True
            )
        ]
        for p in packs
    ]
    assert json.loads((path / "packs.json").read_bytes()) == [
        {
            "pack_size": limit,
            "dataset_max_seqlen": max(max(each) for each in fed),
            "max_samples_per_bin": max(len(each) for each in fed),
            "min_packed_seqlen": min(sum(each) for each in fed),
        }
    ]
    assert f"packed_sequence_size={limit}" in note
    assert b"datapruner" in pq.read_schema(path / "train.idx.parquet").metadata


def test_megatron_asks_for_the_length_of_a_pack(written: Written, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="packed to a length") as error:
        written("megatron")
    assert error.value.field == "max_length"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="packed to a length"):
        writing.check_target(find("megatron"), tmp_path / "rows", None, None)
    writing.check_target(find("megatron"), tmp_path / "rows", None, 64)


def test_packs_hold_every_row_once_and_are_as_full_as_first_fit_decreasing_makes_them() -> None:
    some = np.random.default_rng(2)
    for size in (9, 20, 64):
        lengths = some.integers(1, size + 1, 300)
        packs: list[list[int]] = []
        for row in sorted(range(300), key=lambda row: (-lengths[row], row)):
            room = [pack for pack in packs if sum(lengths[pack]) + lengths[row] <= size]
            room[0].append(row) if room else packs.append([row])
        assert [pack.tolist() for pack in packed(lengths, size)] == packs


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_automodel_is_given_labels_of_the_tokens_that_follow(written: Written, limit: int | None) -> None:
    path, note, expected = written("automodel", "[rows] 😀.parquet", limit)
    read = pq.read_table(path)
    assert read.column_names == ["input_ids", "attention_mask", "labels"]
    assert [(tuple(row["input_ids"]), unshifted(row["labels"])) for row in read.to_pylist()] == expected
    said = yaml.safe_load(note)["dataset"]
    found = datasets.load_dataset(said["path"], data_files=said["data_files"], split=said["split"])
    assert found.to_list() == read.to_pylist()


def test_axolotl_is_given_three_columns(written: Written) -> None:
    path, note, expected = written("axolotl", "[rows] 😀.parquet")
    read = pq.read_table(path)
    assert read.column_names == ["input_ids", "attention_mask", "labels"]
    assert [(tuple(row["input_ids"]), tuple(row["labels"])) for row in read.to_pylist()] == expected
    said = yaml.safe_load(note)
    assert said["datasets"][0]["path"] == str(path)
    assert said["sequence_len"] == longest(expected)


def test_shards_are_found_in_a_folder_that_is_called_like_a_file(rows: list[Row], tmp_path: Path) -> None:
    trainer, path, given = (
        find("automodel"),
        tmp_path / "[rows].parquet",
        training_rows(rows, "a model", None),
    )
    writing.write(trainer, path, given, shard_rows=5)
    said = yaml.safe_load(trainer.note(path, given))["dataset"]
    found = datasets.load_dataset("parquet", data_files=said["data_files"], split="train")
    assert len(found) == len(rows) > 5


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift", "verl", "megatron"])
def test_a_folder_appears_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    untrained = training_rows([((4, 5), (-100, -100))], "m", 8)
    with pytest.raises(NothingSurvivedError):
        writing.write(find(name), tmp_path / "rows", untrained)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "mine").touch()
    with pytest.raises(UsageError, match="something already"):
        writing.write(find(name), tmp_path / "rows", training_rows([((4, 5), (-100, 5))], "m", 8))
    assert [each.name for each in tmp_path.rglob("*")] == ["rows", "mine"]


# Weights of tokens


def test_ms_swift_is_given_weights_as_factors_and_told_that_they_are_not_all_0_or_1(
    rows: list[Row], tmp_path: Path
) -> None:
    given = training_rows(rows, "a model", weighted=True)
    writing.write(find("ms-swift"), tmp_path / "rows", given)
    lines = (tmp_path / "rows" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line)["messages"][1]["content"]["loss_scale"] for line in lines]
    for scales, (_, labels) in zip(found, rows, strict=True):
        assert np.array_equal(np.array(scales, np.float32), weights_of(labels))
    assert "--is_binary_loss_scale false" in find("ms-swift").note(tmp_path, given)
    assert "binary" not in find("ms-swift").note(tmp_path, training_rows(rows, "a model"))


def test_verls_mask_is_the_weights(rows: list[Row], tmp_path: Path) -> None:
    writing.write(find("verl"), tmp_path / "rows", training_rows(rows, "a model", weighted=True))
    scope: dict[str, Any] = {"__name__": "dataset"}
    exec((tmp_path / "rows" / "dataset.py").read_text(encoding="utf-8"), scope)
    read = scope["MaskedRows"](str(tmp_path / "rows" / "rows.parquet"), None, {"max_length": longest(rows)})
    for at, (_, labels) in enumerate(rows):
        assert np.array_equal(read[at]["loss_mask"].numpy(), weights_of(labels))


@pytest.mark.parametrize("name", ["axolotl", "llamafactory", "megatron", "automodel"])
def test_trainers_that_take_no_weights_are_refused_them_before_anything_is_written(
    name: str, rows: list[Row], tmp_path: Path
) -> None:
    path = tmp_path / ("rows.parquet" if isinstance(find(name), AsFile) else "rows")
    with pytest.raises(UsageError, match=f"{name} cannot take the weights") as error:
        writing.write(find(name), path, training_rows(rows, "a model", 64, weighted=True))
    assert "trl, transformers, ms-swift, verl" in str(error.value.remedy)
    assert list(tmp_path.iterdir()) == []
