"""Explain a row of a rewriting run: its reasoning with what was removed, and each step's fate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError
from datapruner.explaining.explanation import (
    Column,
    Explanation,
    Piece,
    ShownTurn,
    State,
    find,
    in_corpus,
    pieces_of,
    shown_steps,
)
from datapruner.rewriting import run as rewriting
from datapruner.rewriting.reasoning import last_assistant
from datapruner.rewriting.run import RewriteRun
from scorers.conversations.conversation import Conversation

_TOKENS = ("tokens_before", "tokens_after")


def rewriting_run(target: Path, home: Path) -> RewriteRun | None:
    """The rewriting run that a file came from or that an id names, None when it is none of those."""
    if not target.is_file():
        return rewriting.load(str(target), home)
    try:
        if target.suffix == ".parquet":
            metadata = json.loads((pq.read_schema(target).metadata or {}).get(b"datapruner", b"{}"))
        elif target.name.endswith(rewriting.DOCUMENT):
            metadata = json.loads(target.read_bytes())
        else:
            return None
    except (pa.ArrowException, ValueError):
        return None  # what is wrong with it is said where it is read as a subset
    if "rewrite" not in metadata:
        return None
    found = rewriting.load(metadata["rewrite"], home)
    if found is None:
        raise InputError(
            f"{target}: rewriting run {metadata['rewrite']} is not in {home}", remedy="rewrite again"
        )
    return found


def explain_rewriting(run: RewriteRun, corpus_file: Path, sample: str) -> Explanation:
    """Explain a row of a rewriting run: its reasoning with what was removed, and each step's fate.

    `sample` is as for `explain`, and so are the errors raised. A response in new words is shown as a turn of
    its own, below the one that it takes the place of.
    """
    with duckdb.connect(str(run.database), read_only=True) as connection:

        def records(column: Column, value: Any) -> list[dict[str, Any]]:
            condition = "row = ?" if column == "row" else "starts_with(sample_id, ?)"
            query = f"SELECT * FROM rewrites WHERE {condition} ORDER BY row"  # noqa: S608 (of two fixed ones)
            found: list[dict[str, Any]] = connection.sql(query, params=[value]).to_arrow_table().to_pylist()
            return found

        record, copies = find(sample, records, f"rewriting run {run.run_id}")
    notes: list[str] = []
    try:
        with Corpus(corpus_file) as corpus:
            conversation, source = in_corpus(corpus, record)
    except InputError as error:
        conversation, source = None, {}
        notes.append(f"the text cannot be shown: {error}")
    return Explanation(
        run=run.run_id,
        row=record["row"],
        sample_id=record["sample_id"],
        status=record["status"],
        reason=record["reason"],
        quadrant=None,
        scores={name: record[name] for name in ("level", *_TOKENS) if record[name] is not None},
        thresholds={},
        turns=() if conversation is None else tuple(_rewritten_turns(conversation, record)),
        copies=copies,
        notes=tuple(notes),
        source=source,
        steps=() if conversation is None else tuple(shown_steps(conversation, record)),
    )


def _rewritten_turns(conversation: Conversation, record: Mapping[str, Any]) -> Iterator[ShownTurn]:
    in_new_words = record["status"] == "rewritten" and not record["removed"]
    last = last_assistant(conversation)
    for at, turn in enumerate(conversation.turns):
        fates: list[tuple[int, int, bool, State]] = []
        if at == last and record["status"] != "error":
            kept = record["text"] is not None and not in_new_words
            fates.append((0, len(turn.content), False, "kept" if kept else "pruned"))
        pieces = pieces_of(turn.content, fates)
        if at == last and record["removed"]:
            pieces = list(_cut_pieces(turn.content, record))
        yield ShownTurn(turn.role, tuple(pieces), turn.tool_calls, turn.untrained)
        if at == last and in_new_words:
            yield ShownTurn(f"{turn.role}, rewritten", (Piece(record["text"], "kept"),))


def _cut_pieces(content: str, record: Mapping[str, Any]) -> Iterator[Piece]:
    at, shift = 0, record["reasoning_start"]
    for span in record["removed"]:
        start, end = span["start"] + shift, span["end"] + shift
        if at < start:
            yield Piece(content[at:start], "kept")
        yield Piece(content[start:end], "pruned")
        at = end
    if at < len(content):
        yield Piece(content[at:], "kept")
