"""What became of the rows: counts that add up, and the steps from all of them to those kept."""

from __future__ import annotations

import re
from collections.abc import Iterable

from datapruner.reporting.tables import Tables
from datapruner.request.config import RunConfig
from datapruner.rows.sql_text import literal
from datapruner.runs.published import Report
from datapruner.runs.reasons import (
    CALIBRATED,
    CONTAMINATED,
    COPY,
    DEFECTIVE,
    FILTERED,
    NEAR,
    OF_SINGLE_ROWS,
)
from datapruner.runs.tables import DROPPED, FAILED
from datapruner.schemas.reports import (
    STEPS,
    TEXT_CHARACTERS,
    AtRandom,
    Failures,
    Funnel,
    FunnelStep,
    ReasonCount,
    ReportCounts,
    ReportTokens,
)

_REASONS = 20
"""Most reasons of a step that are told apart."""
_FIRST_ROWS = 20


def counts(report: Report, tables: Tables) -> ReportCounts:
    return ReportCounts(
        selected=tables.selected,
        ingested=report.ingested,
        kept=report.kept,
        pruned=report.pruned,
        rejected=report.rejected,
        errored=report.errored,
        duplicates=report.duplicates,
    )


def tokens(report: Report, config: RunConfig) -> ReportTokens | None:
    """None where nothing was measured."""
    if not report.response_tokens:
        return None
    kept = report.kept_tokens if config.has_subset and config.methods else None
    return ReportTokens(before=report.response_tokens, kept=kept, truncated=report.truncated_tokens)


def at_random(tables: Tables) -> AtRandom | None:
    """What random rows would hold; None where nothing was kept or pruned, or no tokens were counted."""
    if not tables.selected:
        return None
    samples, kept, length, every, trained = tables.row("""
        SELECT count(*), count(*) FILTER (is_kept), avg(n_response_tokens) FILTER (is_kept),
               avg(n_response_tokens), sum(n_kept_tokens) FILTER (is_kept)
        FROM samples WHERE n_response_tokens IS NOT NULL
    """)
    if not kept or not every or trained is None:
        return None
    return AtRandom(
        samples=samples,
        kept=kept,
        shared=kept * kept / samples,
        tokens=length,
        tokens_at_random=every,
        rows=float(trained) / every,
    )


def funnel(tables: Tables, config: RunConfig) -> Funnel:
    """Every reason, in the step that gives it. Copies of samples fare alike and count where those do, unless
    copies are dropped as such."""
    step = _step_of(config)
    reason = f"left(coalesce(reason, ''), {TEXT_CHARACTERS})"
    for pattern, common in OF_SINGLE_ROWS:
        replacement = literal(re.sub(r"\$\{(\d)\}", r"\\\1", common))
        reason = f"regexp_replace({reason}, {literal(pattern)}, {replacement})"
    found = tables.rows(f"""
        WITH reasons AS (
            SELECT {step} AS step, status, {reason} AS reason, count(*) AS rows
            FROM scores GROUP BY ALL
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY step ORDER BY rows DESC, status, reason) AS place
            FROM reasons
        )
        SELECT step, least(place, {_REASONS + 1}) AS place, any_value(status), any_value(reason),
               sum(rows)::BIGINT, count(*)
        FROM ranked GROUP BY step, least(place, {_REASONS + 1}) ORDER BY step, place
    """)  # noqa: S608
    ingested = left = sum(rows for *_, rows, _ in found)
    steps = []
    for name in STEPS:
        of_step = [line[1:] for line in found if line[0] == name]
        if removed := sum(line[3] for line in of_step):
            left -= removed
            steps.append(
                FunnelStep.model_validate({"step": name, "removed": removed, "left": left, **_told(of_step)})
            )
    kept = _told([line[1:] for line in found if line[0] == "kept"])
    kept["kept"] = kept.pop("reasons")
    return Funnel.model_validate({"ingested": ingested, "steps": steps, **kept})


def _told(lines: Iterable[tuple[int, str, str, int, int]]) -> dict[str, object]:
    """The reasons of a step that are told apart, and how many more there are."""
    told: dict[str, object] = {"reasons": []}
    reasons = []
    for place, status, reason, rows, distinct in lines:
        if place > _REASONS:
            told |= {"other_reasons": distinct, "other_rows": rows}
        else:
            reasons.append(ReasonCount(status=status, reason=reason, rows=rows))
    return told | {"reasons": reasons}


def _step_of(config: RunConfig) -> str:
    """SQL for the step that took a row away, `kept` where none did."""

    def begins(text: str) -> str:
        return f"starts_with(reason, {literal(text)})"

    cases = [("status = 'rejected'", "read"), ("status IN ('kept', 'scored')", "kept")]
    if config.rewrite is not None:
        cases.append((f"{begins(DROPPED)} OR {begins(FAILED)}", "rewrite"))
    cases += [
        ("status = 'error'", "measure"),
        (f"regexp_matches(reason, {literal(COPY)})", "exact duplicates"),
    ]
    if config.gate is not None:
        cases.append((begins(DEFECTIVE), "gate"))
    if config.dedup is not None:
        cases.append((f"regexp_matches(reason, {literal(NEAR)})", "near duplicates"))
    if config.contamination is not None:
        cases.append((f"regexp_matches(reason, {literal(CONTAMINATED)})", "contamination"))
    if config.filter is not None:
        cases.append((f"reason = {literal(FILTERED + config.filter)}", "filter"))
    if config.calibrate is not None:
        cases.append((begins(CALIBRATED), "calibrate"))
    told = " ".join(f"WHEN {condition} THEN '{step}'" for condition, step in cases)
    return f"CASE {told} ELSE 'select' END"


def failures(tables: Tables) -> list[Failures] | None:
    """Rows that failed, by reason, the commonest first; None where none did."""
    found = tables.rows(f"""
        SELECT left(coalesce(reason, ''), {TEXT_CHARACTERS}) AS why, count(*) AS rows,
               min(row, {_FIRST_ROWS})
        FROM scores WHERE status = 'error' GROUP BY why ORDER BY rows DESC, why LIMIT {_REASONS}
    """)  # noqa: S608
    return [Failures(reason=why, rows=rows, first=first) for why, rows, first in found] or None
