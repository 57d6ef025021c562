"""Everything that is known of one sample: its conversation with kept and pruned tokens, scores, reason.

Read from a run's tables and its corpus. Where those are gone, the subset Parquet alone still has the token
ids and masks of the samples in it, and the text is decoded from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq

from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError
from datapruner.explaining.explanation import (
    Change,
    Column,
    Explanation,
    NearDuplicate,
    Piece,
    ShownStep,
    ShownToken,
    ShownTurn,
    Span,
    State,
    find,
    in_corpus,
    pieces_of,
)
from datapruner.explaining.prompts import prompt_of, reading_of, tokenizer_of
from datapruner.explaining.reasoning import about_reasoning, changes, shown_steps, with_rewriting
from datapruner.request.config import RunConfig
from datapruner.rewriting.reasoning import last_assistant
from datapruner.rows.sql_text import identifier
from datapruner.runs import named, published
from datapruner.runs.columns import COUNTS
from datapruner.runs.reasons import NEAR
from scorers.conversations.conversation import Conversation

Spans = Mapping[int, Sequence[Span]]
"""By turn, which characters fared how."""

_SCORES_LEFT_OUT = {"sample_id", "row", "keep", "reason", "status", "quadrant", "input_ids", "attention_mask"}
_SCORES_LEFT_OUT |= {"labels", "token_keep", "token_weight", "messages", "tools", "steps", "removed"}


def explain(target: str, sample: str, home: Path) -> Explanation:
    """Explain a sample of a run.

    `target`: a subset Parquet, a `.run.json`, "latest", or the start of a run id. `sample`: the start of a
    sample id, or `row:12`. Raises UsageError when either names nothing or more than one, InputError when
    `target` is a file that cannot be read or the run's files are gone.
    """
    path = Path(target)
    if path.suffix == ".parquet" and path.is_file():
        document = named.document_of(path)
        run = named.of_document(document, home)
        if run is None:
            return _from_parquet(path, document, sample, home)
    else:
        run = named.find(target, home)
    return explain_run(run, published.corpus_path(run, home), sample, home, home)


# From a run


def explain_run(run: published.Run, corpus_file: Path, sample: str, signals: Path, home: Path) -> Explanation:
    """Explain a sample of a published run whose corpus is `corpus_file`. `sample` is as for `explain`;
    `signals` and `home` as for `prompts`.

    Raises NotFoundError when `sample` names nothing, UsageError when it names more than one. Without the
    corpus the text is left out and a note says so.
    """
    with duckdb.connect(str(run.database), read_only=True) as connection:
        scores, copies = find(
            sample, lambda column, value: _records(connection, column, value), f"run {run.run_id}"
        )
        lists = _token_lists(connection, run.tokens, scores)
        ranked, ranks = (0, {}) if lists is None else _ranks(connection, scores)
        rewrite = None if run.config.rewrite is None else _rewrite(connection, scores["row"])
        near = _near(connection, scores)
    notes: list[str] = []
    if rewrite is not None and run.config.methods:  # else the row's own reason says it
        notes.append(f"its reasoning: {rewrite['status']}, {rewrite['reason']}")
    try:
        with Corpus(corpus_file) as corpus:
            conversation, source = in_corpus(corpus, scores)
    except InputError as error:
        conversation, source = None, {}
        notes.append(f"the text cannot be shown: {error}")
    prompt: str | None = None
    if lists is not None:
        try:
            reading = reading_of(run, scores["sample_id"], signals)
            lists["el2n"] = reading.el2n or lists["el2n"]
            prompt = prompt_of(run, reading, home)
        except InputError as error:
            notes.append(f"the prompt as the model reads it cannot be shown: {error}")
    turns: list[ShownTurn] = []
    steps: tuple[ShownStep, ...] = ()
    changed: tuple[Change, ...] = ()
    if conversation is not None:
        turns = _turns(
            conversation, _spans(lists) if run.config.methods else _whole(conversation, run, scores)
        )
        if rewrite is not None:
            steps = tuple(shown_steps(conversation, rewrite))
            turns = list(with_rewriting(turns, conversation, rewrite))
            changed = tuple(changes(conversation, rewrite))
    return Explanation(
        run=run.run_id,
        row=scores["row"],
        sample_id=scores["sample_id"],
        status=scores["status"],
        reason=scores["reason"],
        quadrant=scores.get("quadrant"),
        scores=_shown_scores(scores) | about_reasoning(rewrite or {}),
        thresholds=run.report.thresholds,
        turns=tuple(turns),
        tokens=_tokens(conversation, lists),
        copies=copies,
        notes=tuple(notes),
        source=source,
        ranks=ranks,
        ranked=ranked,
        steps=steps,
        prompt=prompt,
        changes=changed,
        near=near,
    )


def _rewrite(connection: duckdb.DuckDBPyConnection, row: int) -> dict[str, Any] | None:
    """What became of the row's reasoning; None when it was not kept until then."""
    found = connection.sql("SELECT * FROM rewrites WHERE row = ?", params=[row]).to_arrow_table().to_pylist()
    return found[0] if found else None


def _records(connection: duckdb.DuckDBPyConnection, column: Column, value: Any) -> list[dict[str, Any]]:
    condition = "row = ?" if column == "row" else "starts_with(sample_id, ?)"
    query = f"SELECT * FROM sample_scores WHERE {condition} ORDER BY row"  # noqa: S608 (of two fixed conditions)
    found: list[dict[str, Any]] = connection.sql(query, params=[value]).to_arrow_table().to_pylist()
    return found


def _near(connection: duckdb.DuckDBPyConnection, scores: Mapping[str, Any]) -> tuple[NearDuplicate, ...]:
    """The near duplicates of a row, as the reasons tell of them, the most alike first."""
    own = re.search(NEAR, scores["reason"] or "")
    if own is not None:
        return (NearDuplicate(int(own["row"]), float(own["jaccard"])),)
    begins = f"duplicate of row {scores['row']} at "
    found = connection.execute(
        "SELECT row, reason FROM sample_scores WHERE starts_with(reason, ?)", [begins]
    ).fetchall()
    told = ((row, re.search(NEAR, reason)) for row, reason in found)
    near = [NearDuplicate(row, float(match["jaccard"])) for row, match in told if match is not None]
    return tuple(sorted(near, key=lambda each: (-each.jaccard, each.row)))


def _token_lists(
    connection: duckdb.DuckDBPyConnection, tokens: Path, scores: Mapping[str, Any]
) -> dict[str, list[Any]] | None:
    """The sample's response tokens; None when it was not measured. Of a copy, none is kept."""
    query = "SELECT row FROM scored JOIN sample_scores USING (row) WHERE sample_id = ?"
    found = connection.execute(query, [scores["sample_id"]]).fetchall()
    if not found:
        return None
    [(row,)] = found
    # By its row: for that, most of the file need not be read.
    table = pl.scan_parquet(tokens, glob=False).filter(pl.col("row") == row).collect()
    lists = table.drop("sample_id", "row").to_dict(as_series=False)
    lists["el2n"] = [None] * len(table)
    if row != scores["row"]:
        lists["keep"] = [False] * len(table)
        lists["token_weight"] = [None if each is None else 0.0 for each in lists["token_weight"]]
    return lists


def _ranks(connection: duckdb.DuckDBPyConnection, scores: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """How many samples were measured, and the rank of each numeric score among them."""
    shown = _shown_scores(scores).items()
    names = [name for name, value in shown if isinstance(value, int | float) and name not in COUNTS]
    higher = "".join(f", count(*) FILTER ({identifier(name)} > ?) + 1" for name in names)
    # Exact copies are not scored, so that each sample counts once.
    query = f"SELECT count(*){higher} FROM sample_scores SEMI JOIN scored USING (row)"  # noqa: S608
    found = connection.execute(query, [scores[name] for name in names]).fetchall()[0]
    return found[0], dict(zip(names, found[1:], strict=True))


def _shown_scores(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in record.items() if name not in _SCORES_LEFT_OUT and value is not None
    }


def _spans(lists: Mapping[str, Any] | None) -> Spans:
    """The fate of each response token, by its turn."""
    spans: dict[int, list[Span]] = {}
    if lists is not None:
        for turn, start, end, is_end, keep in zip(
            lists["turn"], lists["char_start"], lists["char_end"], lists["is_end"], lists["keep"], strict=True
        ):
            spans.setdefault(turn, []).append((start, end, is_end, _state(keep)))
    return spans


def _whole(conversation: Conversation, run: published.Run, scores: Mapping[str, Any]) -> Spans:
    """Where nothing scored the tokens: the fate of whole turns, those that are trained on."""
    last, state = last_assistant(conversation), scores["status"]
    if state not in ("kept", "pruned"):
        return {}
    return {
        at: [(0, len(turn.content), False, state)]
        for at, turn in enumerate(conversation.turns)
        if turn.role == "assistant"
        and turn.untrained is None
        and (at == last or run.config.measuring.train_on == "all")
    }


def _turns(conversation: Conversation, spans: Spans) -> list[ShownTurn]:
    return [
        ShownTurn(
            turn.role, tuple(pieces_of(turn.content, spans.get(at, ()))), turn.tool_calls, turn.untrained
        )
        for at, turn in enumerate(conversation.turns)
    ]


def _state(keep: bool | None) -> State:
    return "scored" if keep is None else "kept" if keep else "pruned"


def _tokens(conversation: Conversation | None, lists: Mapping[str, Any] | None) -> tuple[ShownToken, ...]:
    if conversation is None or lists is None:
        return ()
    columns = (
        "position",
        "turn",
        "char_start",
        "char_end",
        "nll",
        "entropy",
        "el2n",
        "is_end",
        "keep",
        "token_weight",
    )
    return tuple(
        ShownToken(
            position,
            turn,
            start,
            end,
            conversation.turns[turn].content[start:end],
            nll,
            entropy,
            el2n,
            is_end,
            keep,
            weight,
        )
        for (position, turn, start, end, nll, entropy, el2n, is_end, keep, weight) in zip(
            *(lists[name] for name in columns), strict=True
        )
    )


# From a subset alone


def _from_parquet(path: Path, document: Mapping[str, Any], sample: str, home: Path) -> Explanation:
    """What the subset itself says, in our columns, which follow the original ones."""
    names = pq.read_schema(path).names
    if not {"sample_id", "row", "reason"} <= set(names):
        raise InputError(
            f"{path}: it has no scores, and run {document['run']} is not in {home}",
            remedy=f"bring the run back with: datapruner replay {path.with_suffix('.run.json')}",
        )
    first = names.index("sample_id")
    scan = pl.scan_parquet(path)

    def records(column: Column, value: Any) -> list[dict[str, Any]]:
        named = pl.col(column)
        chosen = named == value if column == "row" else named.str.starts_with(value)
        return scan.filter(chosen).select(names[first:]).head(2).collect().to_dicts()

    record, _ = find(sample, records, f"{path}, which has kept samples only and whose run is not in {home}")
    if "input_ids" in record:
        pieces, note = _decoded(record["input_ids"], record["token_keep"], document, home)
        turns = [ShownTurn(None, tuple(pieces))] if pieces else []
    else:  # of a run that rewrote
        turns, note = [_as_trained(message) for message in record["messages"]], ""
    left = "read from the subset alone: the run that made it is not here, so it has no token scores"
    return Explanation(
        run=document["run"],
        row=record["row"],
        sample_id=record["sample_id"],
        status="kept",
        reason=record["reason"],
        quadrant=record.get("quadrant"),
        scores=_shown_scores(record),
        thresholds={},
        turns=tuple(turns),
        notes=(left, note) if note else (left,),
    )


def _as_trained(message: Mapping[str, Any]) -> ShownTurn:
    untrained = "weight 0" if message.get("weight") == 0 else None
    trained = message["role"] == "assistant" and untrained is None
    piece = Piece(message["content"] or "", "kept" if trained else "untrained")
    return ShownTurn(message["role"], (piece,), message["tool_calls"], untrained)


def _decoded(
    ids: Sequence[int], keep: Sequence[bool | None], document: Mapping[str, Any], home: Path
) -> tuple[list[Piece], str]:
    """The rendered text in pieces, or none and why."""
    try:
        tokenizer = tokenizer_of(RunConfig(**document["config"]).measuring.model, home)
    except InputError as error:
        return [], f"the {error}"
    states: list[State] = ["untrained" if kept is None else _state(kept) for kept in keep]
    return [
        Piece(tokenizer.decode([each for each, _ in group], skip_special_tokens=False), state)
        for state, group in groupby(zip(ids, states, strict=True), key=lambda pair: pair[1])
    ], ""
