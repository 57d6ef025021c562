"""What became of reasoning that was to be rewritten: rows by outcome, and its tokens before and after."""

from __future__ import annotations

from datapruner.reporting.distributions import Numbers, distribution
from datapruner.reporting.tables import Tables
from datapruner.schemas.reports import TEXT_CHARACTERS, ReasonOfRewriting, ReportRewriting

_REASONS = 20
_FLAWS = ("dangling_references", "dangling_colons", "broken_blocks")

# Of before and after on one line each, so that they are two halves of one column.
_BOTH = """(
    SELECT tokens_before AS tokens, false AS is_after FROM run.rewrites WHERE text IS NOT NULL
    UNION ALL SELECT tokens_after, true FROM run.rewrites WHERE text IS NOT NULL
)"""
_TOKENS = Numbers(
    "tokens", "tokens of the reasoning", True, _BOTH, "tokens", before="NOT is_after", after="is_after"
)


def rewriting(tables: Tables) -> ReportRewriting | None:
    """Of a run that rewrote and came to some row; None where it came to none."""
    outcomes = dict(tables.rows("SELECT status, count(*) FROM run.rewrites GROUP BY status ORDER BY status"))
    rows = sum(outcomes.values())
    if not rows:
        return None
    reasons = tables.rows(f"""
        SELECT status, left(coalesce(reason, ''), {TEXT_CHARACTERS}) AS why, count(*) AS rows
        FROM run.rewrites GROUP BY status, why ORDER BY rows DESC, status, why LIMIT {_REASONS}
    """)  # noqa: S608
    levels = tables.rows(
        "SELECT level, count(*) FROM run.rewrites WHERE level IS NOT NULL GROUP BY level ORDER BY level"
    )
    before, after = tables.row(
        "SELECT coalesce(sum(tokens_before), 0)::BIGINT, coalesce(sum(tokens_after), 0)::BIGINT "
        "FROM run.rewrites WHERE text IS NOT NULL"
    )
    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT" for name in _FLAWS)
    flaws = tables.row(f"SELECT {sums} FROM run.rewrites")  # noqa: S608
    return ReportRewriting(
        rows=rows,
        accepted=outcomes.get("rewritten", 0) / rows,
        outcomes=outcomes,
        reasons=[ReasonOfRewriting(status=status, reason=why, rows=count) for status, why, count in reasons],
        levels=dict(levels) or None,
        flaws={name: count for name, count in zip(_FLAWS, flaws, strict=True) if count},
        tokens_before=before,
        tokens_after=after,
        tokens=distribution(tables, _TOKENS),
    )
