"""Files of rows to train on, held against models: their own, others, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig

from datapruner.errors import InputError, ModelError, UsageError
from datapruner.outputs import checking
from datapruner.outputs.checking import Difference, Findings, Piece, check
from datapruner.outputs.trainers.registry import TRAINERS
from datapruner.outputs.trainers.trainer import AsFile, Trainer
from datapruner.result import Result
from tests import chat_templates as ct
from tests.pipeline import Prune
from tests.tiny_model import POSITIONS

Row = dict[str, Any]


@pytest.fixture(scope="module")
def pruned(prune: Prune) -> Result:
    return prune("qtuning", 0.8, token_keep=0.4)


@pytest.fixture(scope="module")
def exported(pruned: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file for TRL."""
    folder = tmp_path_factory.mktemp("exported")
    pruned.export_for("trl", folder / "train.parquet")
    return folder / "train.parquet"


@pytest.fixture(scope="module")
def rows(exported: Path) -> list[Row]:
    return [
        {name: row[name] for name in ("input_ids", "labels")} for row in pq.read_table(exported).to_pylist()
    ]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with other tokens and another template."""
    folder = tmp_path_factory.mktemp("other")
    tokenizer = ct.byte_level(ct.LLAMA3)
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64).save_pretrained(folder)
    return folder


def shards(result: Result, _: list[Row], path: Path) -> Path:
    result.export_for("trl", path / "shards", shard_rows=5)
    return path / "shards"


def canonical(suffix: str) -> Callable[[Result, list[Row], Path], Path]:
    def write(result: Result, _: list[Row], path: Path) -> Path:
        result.export(path / f"subset.{suffix}")
        return path / f"subset.{suffix}"

    return write


def splits(_: Result, rows: list[Row], path: Path) -> Path:
    made = {"train": rows[3:], "validation": rows[:3]}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(part) for name, part in made.items()}
    ).save_to_disk(path / "splits")
    return path / "splits"


def chats(_: Result, rows: list[Row], path: Path) -> Path:
    lines = [
        {
            "messages": [
                {"role": "user", "content": ""},
                {
                    "role": "assistant",
                    "content": {
                        "token_ids": row["input_ids"],
                        "loss_scale": [float(label != -100) for label in row["labels"]],
                    },
                },
            ],
            "add_eos": False,
        }
        for row in rows
    ]
    (path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path / "chats.jsonl"


def packs(_: Result, rows: list[Row], path: Path) -> Path:
    """Two rows after each other, with a mask of what follows each token."""
    made = []
    for at in range(0, len(rows), 2):
        pair = rows[at : at + 2]
        masks = [[*(label != -100 for label in row["labels"][1:]), 0] for row in pair]
        made.append(
            {
                "input_ids": [each for row in pair for each in row["input_ids"]],
                "loss_mask": [int(each) for mask in masks for each in mask],
                "seq_start_id": [0, len(pair[0]["input_ids"])][: len(pair)],
            }
        )
    (path / "packs").mkdir()
    pq.write_table(pa.Table.from_pylist(made), path / "packs" / "train.idx.parquet")
    (path / "packs" / "packs.json").write_text("[]")
    return path / "packs"


FORMS = {
    "shards": shards,
    **{suffix: canonical(suffix) for suffix in ("parquet", "csv", "jsonl")},
    "splits": splits,
    "chats": chats,
    "packs": packs,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_subset_is_fine_for_the_model_that_measured_it(
    pruned: Result, rows: list[Row], tiny_folder: Path, home: Path, tmp_path: Path, form: str
) -> None:
    found = check(FORMS[form](pruned, rows, tmp_path), str(tiny_folder), home)
    assert found.ok, found
    assert found.described == (form not in ("splits", "chats", "packs"))
    assert found.rows == len(rows)
    assert found.tokens == sum(len(row["input_ids"]) for row in rows)
    assert found.trained_tokens == sum(label != -100 for row in rows for label in row["labels"])
    assert found.longest == found.max_length == POSITIONS
    assert found.same == found.tried == len(rows)
    assert found.first.keys() == {"ended"}


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=list(TRAINERS))
def test_what_is_written_for_any_trainer_is_read_with_the_same_tokens_to_train_on(
    pruned: Result, rows: list[Row], tiny_folder: Path, home: Path, tmp_path: Path, trainer: Trainer
) -> None:
    path = tmp_path / f"rows{trainer.suffix if isinstance(trainer, AsFile) else ''}"
    pruned.export_for(trainer.name, path, max_length=POSITIONS)
    found = check(path, str(tiny_folder), home)
    assert found.ok, found
    assert found.described
    assert found.rows == found.same == len(rows)
    assert found.trained_tokens == sum(label != -100 for row in rows for label in row["labels"])


@pytest.mark.parametrize(
    ("about", "labels", "ok"),
    [
        ({}, [-100, 6, 7], True),
        ({"trainer": "automodel"}, [6, 7, -100], True),
        ({"trainer": "automodel"}, [-100, 6, 7], False),
        ({}, [6, 7, -100], False),
    ],
)
def test_labels_are_of_the_next_token_only_for_the_trainer_that_wants_them_so(
    tiny_folder: Path, home: Path, tmp_path: Path, about: dict[str, str], labels: list[int], ok: bool
) -> None:
    table = pa.table({"input_ids": [[5, 6, 7]], "labels": [labels]})
    said = {b"datapruner": json.dumps(about).encode()}
    pq.write_table(table.replace_schema_metadata(said), tmp_path / "x.parquet")
    assert check(tmp_path / "x.parquet", str(tiny_folder), home).ok == ok


def test_the_example_is_the_first_row_with_what_is_trained_on_told_apart(
    exported: Path, rows: list[Row], tiny_folder: Path, home: Path
) -> None:
    from transformers import AutoTokenizer

    example = check(exported, str(tiny_folder), home).example
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert "".join(piece.text for piece in example) == tokenizer.decode(rows[0]["input_ids"])
    assert example[0] == Piece("<|im_start|>user\n", False) or not example[0].trained
    trained = [label for label in rows[0]["labels"] if label != -100]
    assert "".join(piece.text for piece in example if piece.trained) == tokenizer.decode(trained)


def test_another_model_s_tokenizer_template_and_special_tokens_are_told(
    exported: Path, other: Path, home: Path
) -> None:
    found = check(exported, str(other), home)
    assert not found.ok
    told = {each.what: (each.file, each.model) for each in found.differences}
    assert told["tokens in the vocabulary"] == ("400", "333")
    assert told["eos token"] == ("'<|im_end|>' (2)", "'</s>' (321)")
    assert {"vocabulary", "rules of the tokenizer", "chat template"} < told.keys()
    assert (found.max_length, found.too_long > 0) == (64, True)


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ({"max_position_embeddings": 5, "n_positions": 9}, 5),
        ({"n_positions": 9}, 9),
        ({"text_config": {"max_position_embeddings": 7}}, 7),
        ({"max_position_embeddings": "5", "text_config": []}, None),
    ],
)
def test_the_limit_of_length_is_what_the_model_s_configuration_says(
    tiny_folder: Path, home: Path, tmp_path: Path, said: Row, limit: int | None
) -> None:
    model = shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    (model / "config.json").write_text(json.dumps(said))
    (tmp_path / "x.jsonl").write_text('{"input_ids": [5, 6], "labels": [-100, 6]}\n')
    assert check(tmp_path / "x.jsonl", str(model), home).max_length == limit


def test_a_file_that_says_nothing_is_told_by_its_ids(
    rows: list[Row], tiny_folder: Path, smollm2: Path, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bare.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert check(path, str(tiny_folder), home).ok
    found = check(path, str(smollm2), home)
    assert not found.described
    assert not found.outside
    [difference] = found.differences
    assert difference.what == "ids, as text and back"
    assert found.same * 2 < found.tried


def test_rows_are_counted_by_what_is_wrong_with_them(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    bad: list[Any] = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 2]},
        {"input_ids": [5, 400], "labels": [-100, 400]},
        {"input_ids": [-1, 6], "labels": [-100, 6]},
        {"input_ids": [5, 6, 7], "labels": [-100] * 3},
        {"input_ids": [5] * 9, "labels": [-100] * 8 + [5]},
        {"input_ids": [5, 6], "labels": [-100]},
        {"input_ids": [5, 6.5], "labels": [-100, 6]},
        {"input_ids": [5, None], "labels": [-100, 6]},
        {"input_ids": [], "labels": []},
        {"input_ids": "[5, 6", "labels": "[5, 6]"},
        {"input_ids": [5, 2**70], "labels": [-100, -100]},
        {"input_ids": [[5], [6]], "labels": [5, 6]},
        {"input_ids": [5, 6]},
        {"messages": [{"role": "assistant", "content": "text"}]},
        {"messages": [{"content": {"token_ids": [1, 2], "loss_scale": [1]}}]},
        {"text": "hi"},
        {"input_ids": [5, 6], "loss_mask": [1]},
        {"input_ids": [5, 6], "loss_mask": [1, 0], "seq_start_id": [1]},
        {"input_ids": [5, 6], "loss_mask": [1, 0], "seq_start_id": [0, 2]},
        [],
        {"input_ids": [5, 6], "labels": [-100, 6]},
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, bad)) + "\n{ no JSON\n")
    found = check(path, str(tiny_folder), home, max_length=8)
    assert not found.ok
    kinds = ("altered", "outside", "untrained", "too_long", "unreadable")
    assert {name: getattr(found, name) for name in kinds} == {
        "altered": 1,
        "outside": 2,
        "untrained": 1,
        "too_long": 1,
        "unreadable": 16,
    }
    assert found.rows == len(bad) + 1
    assert {name: found.first[name] for name in kinds} == {
        "altered": 0,
        "outside": 1,
        "untrained": 3,
        "too_long": 4,
        "unreadable": 5,
    }
    assert found.reason == "bad.jsonl, row 6: 2 input_ids, but 1 labels"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', "messages are text, which has no token masks"),
        (b'{"a": 1}', "neither input_ids nor messages with token_ids, but a"),
        (b"PAR1 and no more", "truncated"),
        (b"\x00\x01\x02", "a binary file"),
    ],
)
def test_a_file_without_rows_of_ids_is_refused(
    tiny_folder: Path, home: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / ("x.parquet" if content.startswith(b"PAR1") else "x")
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        check(path, str(tiny_folder), home)


@pytest.mark.parametrize(
    "said", [b"{", b"[]", b'{"lineage": 3}', b'{"lineage": {"tokenizer": [1]}}', b'{"carried": null}']
)
def test_what_a_hostile_file_says_of_itself_is_no_more_than_words(
    rows: list[Row], tiny_folder: Path, home: Path, tmp_path: Path, said: bytes
) -> None:
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"datapruner": said})
    pq.write_table(table, tmp_path / "x.parquet")
    if said == b"{":
        with pytest.raises(InputError, match=r"is not JSON: .*\(write the rows again with"):
            check(tmp_path / "x.parquet", str(tiny_folder), home)
    else:
        found = check(tmp_path / "x.parquet", str(tiny_folder), home)
        assert (found.ok, found.described) == (True, False)


@pytest.mark.parametrize("name", ["dataset_dict.json", "datapruner.json"])
def test_a_large_file_beside_the_rows_is_not_read(
    tiny_folder: Path, home: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"input_ids": [5, 6], "labels": [-100, 6]}\n')
    with (tmp_path / name).open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(InputError, match=rf"{name}: of 16,777,217 bytes, more than the 16,777,216"):
        check(tmp_path, str(tiny_folder), home)


def test_a_description_of_the_wrong_types_is_a_difference(
    rows: list[Row], tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    said = json.dumps({"lineage": {"tokenizer": {"tokens": [1], "special": {"eos_token": 7}}}})
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"datapruner": said.encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    found = check(tmp_path / "x.parquet", str(tiny_folder), home)
    assert Difference("tokens in the vocabulary", "[1]", "400") in found.differences
    assert Difference("eos token", "none", "'<|im_end|>' (2)") in found.differences


def test_the_folder_that_one_is_in_can_be_checked(
    pruned: Result, tiny_folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned.export_for("ms-swift", tmp_path / "rows-0.5")
    monkeypatch.chdir(tmp_path / "rows-0.5")
    found = check(Path(), str(tiny_folder), home)
    assert (found.ok, found.described) == (True, True)


def test_only_so_much_text_is_turned_into_ids_again(
    exported: Path, rows: list[Row], tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sum(len(row["input_ids"]) for row in rows[:2])
    monkeypatch.setattr(checking, "_TRIED_TOKENS", first)
    found = check(exported, str(tiny_folder), home)
    assert (found.rows, found.tried, found.same) == (len(rows), 2, 2)


def test_what_is_not_there_is_told(exported: Path, tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        check(tmp_path / "none", str(tiny_folder), home)
    with pytest.raises(ModelError, match="not a model folder"):
        check(exported, str(tmp_path), home)


def test_findings_without_a_fault_are_fine_and_any_fault_is_not() -> None:
    assert Findings("f", "m", None, untrained=3, too_long=2).ok
    for fault in ("unreadable", "outside", "altered"):
        assert not Findings("f", "m", None, **{fault: 1}).ok


# Weights of tokens


@pytest.mark.parametrize("name", ["trl", "transformers", "ms-swift", "verl"])
def test_weights_in_what_is_written_for_trainers_are_found_and_fine(
    name: str, weighted: Result, tiny_folder: Path, tmp_path: Path, home: Path
) -> None:
    path = tmp_path / ("rows.parquet" if isinstance(TRAINERS[name], AsFile) else "rows")
    counts = weighted.export_for(name, path).counts
    found = check(path, str(tiny_folder), home)
    assert (found.ok, found.weighted, found.unweighable) == (True, counts.written, 0)
    assert (found.rows, found.trained_tokens) == (counts.written, counts.trained_tokens)


@pytest.mark.parametrize(
    ("weights", "ok"),
    [
        ([0, 0.5, 2.0], True),
        ([0, 1, 1], True),
        ([0.5, 0.5, 0.5], False),
        ([0, 0, 0.5], False),
        ([0, -1.0, 0.5], False),
        ([0, float("nan"), 0.5], False),
    ],
)
def test_weights_that_cannot_be_trained_with_fail_the_check(
    weights: list[float], ok: bool, tiny_folder: Path, tmp_path: Path, home: Path
) -> None:
    row = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "token_weight": weights}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    found = check(tmp_path / "rows.parquet", str(tiny_folder), home)
    assert (found.weighted, found.unweighable) == (1, int(not ok))


def test_as_many_weights_as_tokens_are_asked_for(tiny_folder: Path, tmp_path: Path, home: Path) -> None:
    rows = [{"input_ids": [5, 6], "labels": [5, 6], "token_weight": [1.0] * n} for n in (1, 2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = check(tmp_path / "rows.parquet", str(tiny_folder), home)
    assert found.unreadable == 1
    assert "2 input_ids, but 1 weights of tokens" in str(found.reason)
