"""What a step of curation decided of every ingested row: keep it, or drop it and why.

Defects of the text, duplicates and contamination are found without a proxy model, before anything is
measured; what they leave is written as plain rows that every other command reads. ingested = kept + dropped +
rejected, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import NothingSurvivedError
from datapruner.rows import row_files
from datapruner.rows.writable import Rows


@dataclass(frozen=True, slots=True, repr=False)
class Verdicts:
    """One step's result.

    table: a line per ingested row, in row order: row, sample_id (null for a rejected row), status (kept,
    dropped, rejected), reason (null for a kept row), and columns of the step's own. corpus: the file that
    was judged. settings: all that decided. notes: counts beside those of the status, by name.
    """

    step: str
    corpus: Path
    table: pl.DataFrame
    settings: Mapping[str, Any]
    notes: Mapping[str, int]

    def __repr__(self) -> str:
        counts = self.counts
        return f"Verdicts({self.step}: {counts['kept']:,} of {counts['ingested']:,} rows kept)"

    @property
    def counts(self) -> dict[str, int]:
        """Rows by what became of them: ingested, and kept, dropped, rejected that add up to it."""
        found = dict(self.table["status"].value_counts().iter_rows())
        return {"ingested": len(self.table)} | {
            status: found.get(status, 0) for status in ("kept", "dropped", "rejected")
        }

    @property
    def kept_rows(self) -> list[int]:
        return self.table.filter(status="kept")["row"].to_list()

    def export(self, path: str | Path) -> int:
        """Write the kept rows as they came, in the format of `path` (`rows.formats`); their number.

        Raises UsageError when the file cannot be written, NothingSurvivedError when no row is kept.
        """
        target = Path(path)
        row_files.check_target(target)
        rows = self.kept_rows
        if not rows:
            raise NothingSurvivedError(f"{self.step} left none of {len(self.table):,} rows")
        with Corpus(self.corpus) as corpus:
            return row_files.write(target, corpus.original_rows(rows))

    def export_table(self, path: str | Path) -> int:
        """Write the table in the format of `path` (`rows.formats`); its length. Raises UsageError."""
        return row_files.write(Path(path), Rows.of(row_files.plain_table(self.table), self.step))


def settled(
    step: str, corpus: Corpus, dropped: pl.DataFrame, settings: Mapping[str, Any], notes: Mapping[str, int]
) -> Verdicts:
    """The verdicts on all rows, given those on the dropped ones (row, reason, and columns of the step).

    An exact copy of a dropped row, where it has no verdict of its own, has that of the first of its kind.
    """
    index = corpus.sample_index().select("row", "sample_id", first=pl.coalesce("duplicate_of", "row"))
    own = index.filter(pl.col("row").is_in(dropped["row"].implode()))
    copies = index.filter(~pl.col("row").is_in(dropped["row"].implode()))
    judged = pl.concat(
        [
            own.join(dropped, on="row", how="left", maintain_order="left").drop("first"),
            copies.join(dropped.rename({"row": "first"}), on="first", how="left", maintain_order="left").drop(
                "first"
            ),
        ]
    ).with_columns(
        status=pl.when(pl.col("reason").is_null()).then(pl.lit("kept")).otherwise(pl.lit("dropped"))
    )
    why = pl.concat_str(pl.col("reason"), pl.format(" ({})", "remedy").fill_null(""))
    refused = corpus.rejects().select("row", reason=why, status=pl.lit("rejected"))
    table = pl.concat([judged, refused], how="diagonal").sort("row")
    assert len(table) == corpus.counts().rows, f"{corpus.counts().rows} rows in, {len(table)} accounted for"
    first = ("row", "sample_id", "status", "reason")
    table = table.select(*first, pl.exclude(*first))
    return Verdicts(step, corpus.path, table, settings, notes)
