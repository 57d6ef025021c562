"""The rows of a corpus through a rewriter: find each one's reasoning, ask, and make its line of the table.

Notable choices:
- a row without reasoning is kept as it was: mixed corpora are the rule;
- rows go in batches, and a batch's lines are there before the next one is read, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError, UsageError
from datapruner.measuring.measure import Measurement
from datapruner.progress import Progress
from datapruner.request.parts import Rewrite
from datapruner.rewriting import methods, tables
from datapruner.rewriting.checks import checked
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningFinder, ReasoningRow, last_assistant
from datapruner.rewriting.rewriters import (
    Counter,
    MeasuredReasoning,
    SignalRewriter,
    TeacherRewriter,
    TextRewriter,
)
from datapruner.teacher import TeacherError
from datapruner.teacher.asking import in_batches
from scorers.conversations.conversation import Conversation
from scorers.models.sources import ProxyFolder

_SIGNALS = ("turn", "char_start", "char_end", "nll", "n_truncated")
_NO_REASONING = "no reasoning found"

Found = tuple[int, str, Conversation, ReasoningRow | None]


def check(wanted: Rewrite) -> None:
    """Raise UsageError, naming the setting, when nothing can be rewritten so."""
    methods.find(wanted.method).settings(wanted.options)
    ReasoningFinder(wanted.pattern)


def rewritten(
    corpus: Corpus,
    wanted: Rewrite,
    proxy: ProxyFolder,
    progress: Progress,
    *,
    measurement: Measurement | None,
    teacher: Any,
    rows: Sequence[int] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Batches of lines for `tables.write`, of these rows, by default of every sample that is no copy.

    `proxy` has the tokens that are counted, `measurement` the signals for methods that read them; `teacher`
    is for methods that ask one. Raises UsageError, ModelError, and what stops a teacher.
    """
    method = methods.find(wanted.method)
    count = _counter(proxy)
    rewriter = method.make(method.settings(wanted.options), count)
    found = _find(corpus, ReasoningFinder(wanted.pattern), wanted.answers, rows)
    if method.asks == "teacher":
        lines = _by_teacher(found, cast(TeacherRewriter, rewriter), teacher, count)
    elif method.asks == "nobody":
        lines = _by_text(found, cast(TextRewriter, rewriter))
    else:
        assert measurement is not None, wanted.method
        lines = _by_signals(found, cast(SignalRewriter, rewriter), measurement)
    progress.stage("rewriting", corpus.counts().unique if rows is None else len(rows), "samples")
    return _counted(lines, progress)


def found_rows(corpus: Corpus, wanted: Rewrite) -> Iterator[list[Found]]:
    """Batches of all samples that are no copies, with their reasoning if any. Raises UsageError."""
    return _find(corpus, ReasoningFinder(wanted.pattern), wanted.answers, None)


def _counted(batches: Iterator[list[dict[str, Any]]], progress: Progress) -> Iterator[list[dict[str, Any]]]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress.at(done)


def _find(
    corpus: Corpus, finder: ReasoningFinder, answers: str | None, rows: Sequence[int] | None
) -> Iterator[list[Found]]:
    """Batches of samples with their reasoning where they have any."""
    for batch in corpus.conversations(rows):
        known = _references(corpus, [row for row, _, _ in batch], answers)
        yield [
            (row, sample_id, conversation, finder.find(sample_id, conversation, right))
            for (row, sample_id, conversation), right in zip(batch, known, strict=True)
        ]


def _references(corpus: Corpus, rows: list[int], column: str | None) -> list[str | None]:
    """The original column that holds the right answers, as text. Raises UsageError when there is none."""
    if column is None:
        return [None] * len(rows)
    values: list[str | None] = []
    for table in corpus.originals(rows):
        if column not in table.schema.names:
            raise UsageError(
                f"the rows have no column {column!r}",
                remedy=f"their columns are {', '.join(table.schema.names)}",
                field="answers",
            )
        values += [None if value is None else str(value) for value in table[column].to_pylist()]
    return values


def _by_text(found: Iterator[list[Found]], rewriter: TextRewriter) -> Iterator[list[dict[str, Any]]]:
    for batch in found:
        yield [_line(each, None if each[3] is None else rewriter.rewrite(each[3])) for each in batch]


def _by_signals(
    found: Iterator[list[Found]], rewriter: SignalRewriter, measurement: Measurement
) -> Iterator[list[dict[str, Any]]]:
    for batch in found:
        wanted = [
            (sample_id, last_assistant(conversation), row)
            for _, sample_id, conversation, row in batch
            if row is not None and sample_id not in measurement.errors
        ]
        measured = _measured(measurement, wanted)

        def outcome(sample_id: str, row: ReasoningRow) -> Rewritten:
            if sample_id in measurement.errors:
                return Rewritten("error", None, measurement.errors[sample_id])
            return rewriter.rewrite(row, measured[sample_id])  # noqa: B023 (called within this turn)

        yield [_line(each, None if each[3] is None else outcome(each[1], each[3])) for each in batch]


def _measured(
    measurement: Measurement, wanted: Sequence[tuple[str, int, ReasoningRow]]
) -> dict[str, MeasuredReasoning]:
    """Signals of the responses that hold reasoning: sample id, turn and row of each are given."""
    if not wanted:
        return {}
    columns = measurement.cache.columns([sample_id for sample_id, _, _ in wanted], _SIGNALS)
    made = {}
    for (sample_id, turn, row), values in zip(wanted, columns.iter_rows(named=True), strict=True):
        # Of a column of lists, a row is a Python list; one sample at a time this is cheap enough.
        inside = np.asarray(values["turn"]) == turn
        shift = len(row.opening)
        made[sample_id] = MeasuredReasoning(
            start=np.asarray(values["char_start"], dtype=np.int64)[inside] - shift,
            end=np.asarray(values["char_end"], dtype=np.int64)[inside] - shift,
            nll=np.asarray(values["nll"], dtype=np.float32)[inside],
            n_truncated=values["n_truncated"],
        )
    return made


def _by_teacher(
    found: Iterator[list[Found]], rewriter: TeacherRewriter, teacher: Any, count: Counter
) -> Iterator[list[dict[str, Any]]]:
    """Rows of a batch are asked about at once; how many at a time is the teacher's to bound."""

    async def outcome(row: ReasoningRow) -> Rewritten:
        try:
            made = await rewriter.rewrite(row, teacher)
        except TeacherError as error:
            return Rewritten("error", None, f"the teacher gave no usable answer: {error.reason}")
        return made if made.tokens_before is not None else _with_tokens(made, row, count)

    async def lined(each: Found) -> dict[str, Any]:
        return _line(each, None if each[3] is None else await outcome(each[3]))

    with ExitStack() as last:
        if hasattr(rewriter, "close"):
            last.callback(rewriter.close)
        yield from in_batches(found, lined, teacher)


def _with_tokens(made: Rewritten, row: ReasoningRow, count: Counter) -> Rewritten:
    """The outcome with the tokens of the reasoning, in the proxy model's, filled in."""
    after = None
    if made.text is not None:
        after = count(row.left(made.text))
    return replace(made, tokens_before=count(row.reasoning), tokens_after=after)


def _line(found: Found, outcome: Rewritten | None) -> dict[str, Any]:
    index, sample_id, conversation, row = found
    turn = last_assistant(conversation)
    if row is None or outcome is None:
        text = conversation.turns[turn].content
        return tables.line(index, sample_id, Rewritten("original", text, _NO_REASONING))
    return tables.line(index, sample_id, checked(row, outcome), (turn, len(row.opening)))


def _counter(proxy: ProxyFolder) -> Counter:
    """Counts the proxy model's tokens in a text. Raises ModelError when the tokenizer is not there."""
    try:
        tokenizer = Tokenizer.from_file(str(proxy.path / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more specific
        raise ModelError(f"{proxy.path}: the tokenizer cannot be read: {error}") from error
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
