"""Files that were ingested before are found again by what is in them, and only by that."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.progress import Silent

Change = Callable[[Path], object]


class Listener(Silent):
    """Keeps what it is told, and counts how often it hears of rows that were read."""

    def __init__(self) -> None:
        self.read = 0
        self.notes: list[str] = []

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.read += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_rows(path: Path, *answers: str) -> Path:
    lines = (json.dumps({"instruction": f"say {each}", "output": each}) for each in answers)
    path.write_text("\n".join(lines) + "\n")
    return path


def ingested(rows: object, home: Path, **mapping: str) -> tuple[Path, Listener]:
    listener = Listener()
    return store.ingest_to(rows, mapping, home, listener), listener


@pytest.mark.parametrize("folder", [False, True])
def test_a_source_is_parsed_once_and_said_to_be_understood_each_time(tmp_path: Path, folder: bool) -> None:
    source = write_rows(tmp_path / "a.jsonl", "yes", "no")
    if folder:
        (source := tmp_path / "data").mkdir()
        write_rows(source / "a.jsonl", "yes")
        write_rows(source / "b.jsonl", "no")
    path, first = ingested(source, tmp_path / "home")
    made = path.stat().st_ino
    again, second = ingested(str(source), tmp_path / "home")
    assert (again, again.stat().st_ino) == (path, made)
    assert first.notes == second.notes == ["2 rows: 2 alpaca (instruction, output); 0 rejected"]
    assert (first.read > 0, second.read) == (True, 0)


def rewritten(path: Path) -> None:
    """Other bytes of the same length, at the same time."""
    before = path.stat()
    path.write_text(path.read_text().replace("yes", "yea"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewritten, lambda path: write_rows(path, "yes", "no", "maybe")])
def test_a_source_that_changed_is_parsed_again(tmp_path: Path, change: Change) -> None:
    source = write_rows(tmp_path / "a.jsonl", "yes", "no")
    path, _ = ingested(source, tmp_path / "home")
    change(source)
    changed, listener = ingested(source, tmp_path / "home")
    assert changed != path
    assert listener.read > 0
    with Corpus(changed) as corpus, Corpus(store.ingest_to(source, {}, tmp_path / "other", Silent())) as new:
        assert corpus.provenance == new.provenance


def test_another_mapping_or_name_is_parsed_again_and_kept_apart(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", "yes", "no")
    ingested(source, tmp_path / "home")
    mapped, listener = ingested(source, tmp_path / "home", prompt="output", response="instruction")
    assert listener.read > 0
    with Corpus(mapped) as corpus:
        assert corpus.provenance.shapes == {"mapped": 2}
    moved = source.rename(tmp_path / "b.jsonl")  # provenance, and so every run, names the file
    path, listener = ingested(moved, tmp_path / "home")
    assert listener.read > 0
    with Corpus(path) as corpus:
        assert [each["name"] for each in corpus.provenance.sources] == ["b.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:9000]),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_corpus_that_is_gone_or_broken_is_made_again(tmp_path: Path, damage: Change) -> None:
    source = write_rows(tmp_path / "a.jsonl", "yes", "no")
    path, _ = ingested(source, tmp_path / "home")
    damage(path)
    again, listener = ingested(source, tmp_path / "home")
    assert (again, listener.read > 0) == (path, True)
    with Corpus(again) as corpus:
        assert len(corpus.sample_index()) == 2


def test_rows_of_python_are_read_each_time(tmp_path: Path) -> None:
    rows = [{"instruction": f"say {each}", "output": each} for each in ("yes", "no")]
    for _ in range(2):
        path, listener = ingested(iter(rows), tmp_path / "home")
        assert listener.read > 0
        with Corpus(path) as corpus:
            assert corpus.counts().rows == 2


def test_a_source_that_was_refused_is_refused_again_in_the_same_words(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.jsonl", "yes")
    said = []
    for _ in range(2):
        with pytest.raises(UsageError, match="question") as caught:
            ingested(source, tmp_path / "home", prompt="question", response="output")
        said.append(str(caught.value))
    assert said[0] == said[1]
