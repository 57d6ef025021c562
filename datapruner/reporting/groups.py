"""What was kept of whom: rows by the file that they are of, by their shape, and by their length."""

from __future__ import annotations

from datapruner.reporting.tables import Tables
from datapruner.rows.sql_text import identifier
from datapruner.schemas.reports import TEXT_CHARACTERS, Group, Groups, LengthGroup, Lengths

_GROUPS = 50
"""Most groups that are told apart."""
_PARTS = 10
_SOURCES = """
    SELECT row, source FROM corpus.samples UNION ALL SELECT row, source FROM corpus.rejects
"""
_SHAPES = "SELECT row, shape FROM corpus.samples"


def by_source(tables: Tables) -> Groups | None:
    """The rows of each source, rejected ones included, the largest source first."""
    return _groups(tables, _SOURCES, "source") if tables.has_corpus else None


def by_shape(tables: Tables) -> Groups | None:
    """The rows of each shape; rejected ones have none."""
    return _groups(tables, _SHAPES, "shape") if tables.has_corpus else None


def _groups(tables: Tables, rows: str, name: str) -> Groups:
    by_status = ", ".join(
        f"count(*) FILTER (status IN ({statuses}))"
        for statuses in ("'kept', 'scored'", "'pruned'", "'rejected'", "'error'")
    )
    found = tables.rows(f"""
        SELECT left({name}, {TEXT_CHARACTERS}) AS name, count(*) AS rows, {by_status},
               sum(n_response_tokens)::BIGINT, sum(n_kept_tokens)::BIGINT
        FROM scores JOIN ({rows}) USING (row) GROUP BY {name} ORDER BY rows DESC, {name} LIMIT {_GROUPS}
    """)  # noqa: S608
    names, total = tables.row(f"SELECT count(DISTINCT {name}), count(*) FROM ({rows})")  # noqa: S608
    fields = ("name", "rows", "kept", "pruned", "rejected", "errored", "tokens_before", "tokens_kept")
    shown = [Group(**dict(zip(fields, line, strict=True))) for line in found]
    return Groups(
        groups=shown, others=names - len(shown), other_rows=total - sum(each.rows for each in shown)
    )


def by_length(tables: Tables) -> Lengths | None:
    """What was kept of each tenth of the rows by response tokens, or where none were counted by characters.

    The groups end at the deciles, which are lengths that occur; a length that is several of them ends one.
    None where nothing was counted and the corpus is gone.
    """
    [counted] = tables.row("SELECT count(n_response_tokens) FROM scores")
    if counted:
        column, source = "n_response_tokens", "scores"
    elif tables.has_corpus:
        column, source = "n_chars", "scores JOIN corpus.samples USING (row)"
    else:
        return None
    shares = [part / _PARTS for part in range(1, _PARTS)]
    value = identifier(column)
    [cuts] = tables.row(f"SELECT quantile_disc({value}, {shares}) FROM {source}")  # noqa: S608
    ends = sorted(set(cuts))
    found = tables.rows(
        f"""
        SELECT min({value}), max({value}), count(*), count(*) FILTER (is_kept)
        FROM {source} WHERE {value} IS NOT NULL
        GROUP BY len(list_filter(?, lambda cut: cut < {value})) ORDER BY 1
    """,  # noqa: S608
        [ends],
    )
    groups = [
        LengthGroup(low=low, high=high, rows=rows, kept=kept if tables.selected else None)
        for low, high, rows, kept in found
    ]
    return Lengths(column=column, groups=groups)
