"""The stage that rewrites what was kept: the rows that it writes, and what becomes of scores and counts.

Notable choices:
- a sample that rewriting drops is pruned, one that it fails on is an error; both with its reason;
- after rewriting every count is of what is exported: whole texts, rewritten or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import Measurement
from datapruner.progress import Progress
from datapruner.request.config import RunConfig
from datapruner.runs.selection import Scored
from datapruner.runs.tables import DROPPED, FAILED
from scorers.method import Selection
from scorers.selection.ranking import all_tokens
from scorers.signals.columns import Bools, Ints, Signals

UNMASKED = "; its text is exported whole, as rewritten rows have no token masks"
"""Added to the reason of samples that a method would have trained on in part."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What became of the rows that were to be rewritten. outcomes: row, sample_id, status and reason of each.
    tokens: by sample id, how many tokens of a rewritten text are trained on. warnings: where the method could
    not do what was asked."""

    outcomes: pl.DataFrame
    tokens: dict[str, int]
    warnings: tuple[str, ...]


def rewrite(
    path: Path,
    corpus: Corpus,
    config: RunConfig,
    base: Measurement,
    rows: Iterable[int],
    teacher: Any,
    progress: Progress,
) -> Rewriting:
    """Rewrite these rows, none a copy, into the table `rewrites` of a new file, with their copies if those
    stay.

    Raises UsageError, ModelError, and what stops a teacher.
    """
    from datapruner.rewriting import counting, methods, tables
    from datapruner.rewriting import rows as rewriting
    from datapruner.rewriting.shortening import off_budget

    assert config.rewrite is not None, "there is nothing to rewrite by"
    chosen = sorted(rows)
    lines = rewriting.rewritten(
        corpus, config.rewrite, base.proxy, progress, measurement=base, teacher=teacher, rows=chosen
    )
    tokens: dict[str, int] = {}
    if config.methods:  # what they counted is of texts before; alone, rewriting does without a chat template
        shown = counting.renderer(base.proxy, config.measuring.train_on)
        lines = counting.counted(lines, corpus, shown, tokens)
    copies = corpus.sample_index().filter(pl.col("duplicate_of").is_not_null())
    tables.write(path, lines, copies if config.keeps_copies else None)
    found = pl.from_arrow(
        tables.read(path, "SELECT row, sample_id, status, reason FROM rewrites ORDER BY row")
    )
    assert isinstance(found, pl.DataFrame), type(found)
    found = found.unique("sample_id", keep="first", maintain_order=True)
    assert found["row"].to_list() == chosen, "a row was lost in rewriting"
    method = methods.find(config.rewrite.method)
    warnings = (
        *method.warnings(method.settings(config.rewrite.options), base.proxy),
        *off_budget(path, method.name),
    )
    return Rewriting(found, tokens, warnings)


def rewriting_counts(path: Path) -> dict[str, int]:
    """What became of the rows in the table `rewrites`, how hard they are, and how much reasoning is left."""
    from datapruner.rewriting import tables

    counts = tables.read(
        path, "SELECT status, count(*) AS rows FROM rewrites GROUP BY status ORDER BY status"
    )
    [totals] = tables.read(
        path,
        'SELECT sum(tokens_before) AS "reasoning tokens before", '
        'sum(tokens_after) AS "reasoning tokens after", '
        "sum(greatest(budget - tokens_after, 0)) FILTER (status = 'rewritten') "
        'AS "tokens under the budget", '
        'sum(greatest(tokens_after - budget, 0)) AS "tokens over the budget", '
        'sum(dangling_references) AS "dangling references", sum(dangling_colons) AS "dangling colons", '
        'sum(broken_blocks) AS "broken blocks", '
        'sum(len(steps)) AS "steps before", sum(len(list_filter(steps, lambda s: s.kept))) AS "steps after" '
        "FROM rewrites WHERE text IS NOT NULL",
    ).to_pylist()
    levels = tables.read(
        path,
        "SELECT level, count(*) AS rows FROM rewrites WHERE level IS NOT NULL GROUP BY level ORDER BY level",
    )
    found: dict[str, int] = {line["status"]: line["rows"] for line in counts.to_pylist()}
    judged = {f"judged {line['level']}": line["rows"] for line in levels.to_pylist()}
    return {"dropped": 0} | found | judged | {name: int(value or 0) for name, value in totals.items()}


def after_rewriting(
    scored: Scored, signals: Signals, outcomes: pl.DataFrame
) -> tuple[Scored, dict[str, str]]:
    """The scores without the samples that rewriting dropped or failed on; the failures by sample id.

    What is kept is trained on whole: what a run that rewrote exports are conversations, without token masks.
    """
    selection = scored.selection
    assert selection is not None, "nothing was selected"
    lost = outcomes.filter(pl.col("status").is_in(["dropped", "error"]))
    keep, reason, told = selection.keep.copy(), selection.reason.copy(), list(selection.reasons)
    weighted = selection.token_weight is not None
    masked = keep & (weighted | (signals.counted(selection.token_keep) < signals.lengths))
    for number in np.unique(reason[masked]).tolist():
        told[number] += UNMASKED
    reasons = lost["reason"].unique(maintain_order=True).to_list()
    number_of = {each: len(told) + index for index, each in enumerate(reasons)}
    place = {sample_id: index for index, sample_id in enumerate(signals.ids.tolist())}
    at = np.array([place[sample_id] for sample_id in lost["sample_id"]], dtype=np.int64)
    keep[at] = False
    reason[at] = [number_of[each] for each in lost["reason"]]
    told += [DROPPED + each for each in reasons]
    changed: Selection = replace(
        selection,
        keep=keep,
        reason=reason,
        reasons=tuple(told),
        token_keep=all_tokens(signals),
        token_weight=None,
    )
    failed = lost.filter(status="error").select("sample_id", FAILED + pl.col("reason"))
    return replace(scored, selection=changed), dict(failed.iter_rows())


def exported_tokens(
    signals: Signals, truncated: NDArray[np.generic], keep: Bools, tokens: Mapping[str, int]
) -> Ints:
    """Trained tokens of each sample in what a run that rewrote exports, (N,): 0 for pruned ones.

    truncated: (N,) those that measuring cut off, which are in an exported text again. tokens: of new texts.
    """
    whole = signals.lengths + truncated.astype(np.int64)
    counts = [tokens.get(sample_id, n) for sample_id, n in zip(signals.ids.tolist(), whole, strict=True)]
    return np.where(keep, np.array(counts, dtype=np.int64), 0)
