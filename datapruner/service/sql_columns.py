"""What every column that SQL can read means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
from sqlalchemy.orm import Session

from datapruner.catalog import mounts
from datapruner.rewriting import tables as rewritten
from datapruner.runs import columns

_TEXT, _WHOLE, _REAL, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us")
_ROW = "0-based index in the input, rejected rows included; the key that joins the tables of a corpus"
_SAMPLE_ID = "hash of the conversation; the same in every version and run"


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A table of the default schema, made from the catalog: its columns, and where its rows come from."""

    columns: Mapping[str, tuple[pa.DataType, str]]
    rows: Callable[[Session, str], list[mounts.CatalogRow]]

    def of(self, session: Session, project_id: str) -> pa.Table:
        return pa.Table.from_pylist(self.rows(session, project_id), self._schema())

    def empty(self) -> pa.Table:
        return self._schema().empty_table()

    def _schema(self) -> pa.Schema:
        return pa.schema([(name, kind) for name, (kind, _) in self.columns.items()])


CATALOG_TABLES: Mapping[str, CatalogTable] = {
    "datasets": CatalogTable(
        {
            "dataset": (_TEXT, "name"),
            "dataset_id": (_TEXT, "id; also a name of the schema"),
            "schema": (_TEXT, "schema that holds its latest version and run; others: `{dataset}_v{version}`"),
            "version": (_WHOLE, "latest version; null before the first"),
            "rows": (_WHOLE, "rows of that version: accepted + rejected"),
            "accepted": (_WHOLE, "rows that are samples, duplicates included"),
            "rejected": (_WHOLE, "rows that are no samples; the table `rejects` says why"),
            "duplicates": (_WHOLE, "accepted rows that repeat an earlier one exactly"),
            "new_rows": (_WHOLE, "rows that the version before did not have"),
            "bytes": (_WHOLE, "size of the corpus file"),
            "latest_run_id": (_TEXT, "run whose scores and masks the schema shows; null: none published yet"),
            "created_at": (_TIME, "when the dataset was made, UTC"),
            "version_created_at": (_TIME, "when that version was published, UTC"),
        },
        mounts.datasets,
    ),
    "runs": CatalogTable(
        {
            "run_id": (_TEXT, "id; also the name of a schema with its scores and masks"),
            "dataset": (_TEXT, "name of the dataset"),
            "dataset_id": (_TEXT, "id of the dataset"),
            "version": (_WHOLE, "version that it read; null until that is ingested"),
            "state": (_TEXT, "queued, running, succeeded, failed or cancelled"),
            "method": (_TEXT, "method, or several joined by +"),
            "keep_share": (_REAL, "share of the samples to keep; null: not so asked"),
            "keep_count": (_WHOLE, "number of samples to keep; null: not so asked"),
            "keep_tokens": (_WHOLE, "response tokens to keep; null: not so asked"),
            "ingested": (_WHOLE, "kept + pruned + rejected + errored; null until published"),
            "kept": (_WHOLE, "samples in the subset; all scored ones where nothing was to be pruned"),
            "pruned": (_WHOLE, "samples left out"),
            "rejected": (_WHOLE, "rows that are no samples"),
            "errored": (_WHOLE, "samples that could not be measured"),
            "response_tokens": (_WHOLE, "response tokens before pruning"),
            "kept_tokens": (_WHOLE, "response tokens trained on in what is exported"),
            "measured": (_WHOLE, "samples that went through the proxy model for this run"),
            "seconds": (_REAL, "time that it took"),
            "content_id": (_TEXT, "hash of configuration and lineage: equal for equal results"),
            "created_at": (_TIME, "when it was asked for, UTC"),
            "published_at": (_TIME, "when its files were there, UTC; null until then"),
        },
        mounts.runs,
    ),
}

_FILE_TABLES: Mapping[str, Mapping[str, str]] = {
    "samples": {
        "row": _ROW,
        "sample_id": _SAMPLE_ID,
        "shape": "how the row wrote its conversation: alpaca, sharegpt, messages, ...",
        "n_turns": "turns, the system's included",
        "n_chars": "characters of all turns",
        "duplicate_of": "row of the first identical sample; null for the first itself",
        "source": "file or other source that the row came from",
        "line": "1-based line, or row, in the source",
        "tools": "tool definitions of the conversation, JSON; null without any",
    },
    "turns": {
        "row": _ROW,
        "turn": "0-based place in the conversation",
        "role": "system, user, assistant or tool",
        "content": "text",
        "tool_calls": "calls of an assistant turn, JSON; null without any",
        "tool_call_id": "call that a tool turn answers, as the row names it; null where it does not",
        "name": "tool that a tool turn comes from, as the row names it; null where it does not",
        "untrained": "why an assistant turn is not to be trained on, as the row says; null where it is",
        "null_content": "whether the row's content was null beside calls, and not empty text",
    },
    "rejects": {
        "row": _ROW,
        "source": "file or other source that the row came from",
        "line": "1-based line, or row, in the source",
        "field": "what of the row is at fault; null: all of it",
        "code": "stable name of the reason",
        "reason": "why the row is no sample",
        "remedy": "what to do about it",
        "excerpt": "start of the row's text",
    },
    "originals": {"row": _ROW, "json": "the row's own text"},
    "provenance": {
        "format_version": "of the corpus file",
        "corpus_hash": "hash of the ordered sample ids and the rejects",
        "sources": "what was read: name, size and sha256 of each, JSON",
        "mapping": "columns by role, as given, JSON",
        "limits": "on rows, JSON",
        "counts": "rows, accepted, rejected, duplicates, JSON",
        "shapes": "samples by shape, JSON",
        "columns": "columns by shape, JSON",
        "versions": "of the packages that read it, JSON",
        "original_schema": "Arrow schema of a typed source, IPC; null for JSON",
    },
    "masks": {
        "sample_id": _SAMPLE_ID,
        "row": _ROW,
        "kept_tokens": "kept response tokens, as indices in input_ids",
        "kept_spans": "the same as character ranges of turns: turn, start, end",
        "token_weight": "factors of the kept tokens' loss; null where the run weights no tokens",
    },
    "scored": {"row": "row of a sample whose tokens are in token_scores"},
    "rewrites": {name: text for name, (_, text) in rewritten.COLUMNS.items()},
}
_NOT_HERE = "score of a method that is not installed here"
_OF_SOURCE = "column of the source, as it was there"


def descriptions(table: str, names: Collection[str]) -> dict[str, str]:
    """What these columns of a table mean. Raises KeyError when there is none that could be called so."""
    if table in CATALOG_TABLES:
        return {name: CATALOG_TABLES[table].columns[name][1] for name in names}
    if table == "originals":
        return {name: _FILE_TABLES[table].get(name, _OF_SOURCE) for name in names}
    if table == "sample_scores":
        return dict.fromkeys(names, _NOT_HERE) | columns.sample_texts(names)
    if table == "token_scores":
        return dict.fromkeys(names, _NOT_HERE) | columns.token_texts(names)
    return {name: _FILE_TABLES[table][name] for name in names}
