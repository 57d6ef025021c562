"""The rows to train on of a run that rewrote, the same from every route: each has one truth, `messages`.

A row comes out as the conversation to train on (`messages`, and `tools` where there are any) with the columns
that it came with. Those of them that a trainer might take for the conversation hold what was cut: they are
called `original_<name>`, whether or not the rows were read from them.

Notable choices:
- such columns are those that were read, those with a name that a reader of ours or a trainer knows
  (`response`, `thinking`, `text`, `input_ids`, ...), and those that hold the whole reasoning of a rewritten
  row, whatever they are called and however deep it is in them;
- a column that has the name of one of ours moves likewise, so that rows have the same columns whether ours
  are written beside them or not;
- in JSON lines the values are the source's own text, and a key that a row did not have it still has not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from datapruner.corpora.corpus import Corpus
from datapruner.input.shapes.columns import KNOWN_COLUMNS
from datapruner.rewriting import tables
from datapruner.rewriting.reasoning import ReasoningFinder, last_assistant, with_response
from datapruner.rows.json_text import spliced
from datapruner.rows.set_aside import TOKEN_COLUMNS, has_name, renamed, renamed_keys
from scorers.conversations.conversation import Conversation

BATCH = 2048

# Arrow types of a message.
_MESSAGE = {"role": pa.string(), "content": pa.string(), "tool_calls": pa.string()}
# What few messages have; a turn that is not trained on gets weight 0.
_RARE = {"tool_call_id": pa.string(), "name": pa.string(), "weight": pa.int8()}

ABOUT = (
    "rewrite_status",
    "rewrite_reason",
    "level",
    "budget",
    "tokens_before",
    "tokens_after",
    "dangling_references",
    "dangling_colons",
    "broken_blocks",
    "steps",
    "removed",
)
"""What is said of a row beside its conversation, as the table `rewrites` has it."""

_OURS = frozenset({"messages", "tools", "sample_id", "row", *ABOUT})
_TRAINERS = TOKEN_COLUMNS | {"text", "chosen", "rejected"}
"""Names by which trainers find what to train on, besides those by which we do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows in order, as columns. trained: what to train on. about: what rewriting says of it (`ABOUT`).
    original: what they came with, under the names it has now."""

    rows: Sequence[int]
    trained: dict[str, pa.Array]
    about: dict[str, pa.Array]
    original: pa.Table


class RewrittenRows:
    """Of these rows, each with a text in the table `rewrites` of `database`, what to train on.

    rows: indices into the corpus, ascending. pattern: where reasoning is, as it was when they were rewritten.
    beside: names of other columns of ours. `names`: what each original column is called now.
    """

    def __init__(
        self,
        database: Path,
        corpus: Corpus,
        rows: Sequence[int],
        pattern: str | None,
        beside: Collection[str] = (),
    ) -> None:
        self._database, self._corpus, self._rows = database, corpus, rows
        self._has_tools = corpus.has_tools()
        rare = {"weight" if name == "untrained" else name for name in corpus.turn_fields()}
        self._message = _MESSAGE | {name: kind for name, kind in _RARE.items() if name in rare}
        kinds = _original_kinds(corpus, rows)
        ours = _OURS | set(beside)
        aside = {name for name in kinds if has_name(name, KNOWN_COLUMNS | _TRAINERS | ours)}
        aside |= {name for read in corpus.provenance.columns.values() for name in read}
        others = {name for name, kind in kinds.items() if name not in aside and _holds_text(kind)}
        if others:
            aside |= _holding_reasoning(database, corpus, rows, others, ReasoningFinder(pattern))
        self.names = renamed(list(kinds), aside, ours)

    def batches(self) -> Iterator[Batch]:
        """All of them, some thousands at a time, with one schema."""
        for rows in _some(self._rows):
            said, conversations = self._read(rows)
            kind = pa.list_(pa.struct(list(self._message.items())))
            trained = {"messages": pa.array(map(_messages, conversations), kind)}
            if self._has_tools:
                trained["tools"] = pa.array([each.tools for each in conversations], pa.string())
            original = pa.Table.from_batches(list(self._corpus.originals(rows, BATCH)))
            yield Batch(
                rows,
                trained,
                {name: said[name].combine_chunks() for name in ("row", "sample_id", *ABOUT)},
                original.rename_columns([self.names[name] for name in original.column_names]),
            )

    def lines(self, *, about: bool = False) -> Iterator[bytes]:
        """One JSON object for each row, on a line without its end; with `about`, with what is said of it."""
        for rows in _some(self._rows):
            said, conversations = self._read(rows)
            lines = self._corpus.originals_json(rows, BATCH)
            for record, conversation, line in zip(said.to_pylist(), conversations, lines, strict=True):
                trained: dict[str, Any] = {"messages": list(map(_without_nulls, _messages(conversation)))}
                if conversation.tools is not None:
                    trained["tools"] = conversation.tools
                ours = orjson.dumps(trained | record if about else trained)
                yield spliced(ours, renamed_keys(line, self.names))

    def _read(self, rows: Sequence[int]) -> tuple[pa.Table, list[Conversation]]:
        """What is said of these rows, and their conversations to train on."""
        said = tables.read(
            self._database,
            "SELECT text, row, sample_id, status AS rewrite_status, reason AS rewrite_reason, "
            "* EXCLUDE (row, sample_id, text, status, reason, reasoning_turn, reasoning_start) "
            "FROM rewrites WHERE text IS NOT NULL AND row BETWEEN ? AND ? ORDER BY row",
            [rows[0], rows[-1]],
        )
        before = _conversations(self._corpus, rows)
        return said.drop_columns("text"), [
            with_response(each, text) for each, text in zip(before, said["text"].to_pylist(), strict=True)
        ]


def _messages(conversation: Conversation) -> list[dict[str, str | int | None]]:
    return [
        {
            "role": turn.role,
            "content": None if turn.null and not turn.content else turn.content,
            "tool_calls": turn.tool_calls,
            "tool_call_id": turn.tool_call_id,
            "name": turn.name,
            "weight": None if turn.untrained is None else 0,
        }
        for turn in conversation.turns
    ]


def _without_nulls(message: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in message.items() if value is not None}


def _some(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _conversations(corpus: Corpus, rows: Sequence[int]) -> list[Conversation]:
    return [each for batch in corpus.conversations(rows, BATCH) for _, _, each in batch]


# Which columns are set aside


def _original_kinds(corpus: Corpus, rows: Sequence[int]) -> dict[str, pa.DataType]:
    """The original columns and their types."""
    schema = next(corpus.originals(rows[:1])).schema
    return dict(zip(schema.names, schema.types, strict=True))


def _holds_text(kind: pa.DataType) -> bool:
    """Whether there may be text in a column of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _holding_reasoning(
    database: Path, corpus: Corpus, rows: Sequence[int], columns: Collection[str], finder: ReasoningFinder
) -> set[str]:
    """Those of the columns in which the whole reasoning of a row that was rewritten stands."""
    changed = tables.read(database, "SELECT row FROM rewrites WHERE status = 'rewritten' ORDER BY row")
    chosen = sorted(set(changed["row"].to_pylist()).intersection(rows))
    found: set[str] = set()
    for some in _some(chosen):
        left = [name for name in columns if name not in found]
        if not left:
            break
        reasonings = []
        for conversation in _conversations(corpus, some):
            parts = finder.parts(conversation.turns[last_assistant(conversation)].content)
            reasonings.append(_words("" if parts is None else parts.reasoning))
        original = pa.Table.from_batches(list(corpus.originals(some, BATCH)))
        found |= {name for name in left if any(map(_holds, original[name].to_pylist(), reasonings))}
    return found


def _holds(value: object, reasoning: str) -> bool:
    """Whether the reasoning, as `_words` gives it, stands in a value as a whole."""
    text = " ".join(_texts(value))
    return len(text) >= len(reasoning) > 0 and reasoning in _words(text)


def _words(text: str) -> str:
    """The text with single spaces, however it was broken into lines or items."""
    return " ".join(text.split())


def _texts(value: object) -> Iterator[str]:
    """All strings in a value, those inside JSON text too."""
    if isinstance(value, str):
        inner: object = None
        if value[:1] in ("[", "{"):
            try:
                inner = orjson.loads(value)
            except orjson.JSONDecodeError:
                inner = None
        yield from (value,) if inner is None else _texts(inner)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
