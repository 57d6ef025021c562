"""What is logged of a run, and of its evaluation: the same for every tracker.

Notable choices:
- reasons become names of metrics; what trackers do not take in a name is replaced, and of names that are the
  same then the counts are added up;
- a threshold or rate that is not finite is left out, as some trackers refuse it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datapruner.reporting.dotted import flat
from datapruner.runs.published import Run
from datapruner.schemas.evaluations import RANDOM, SUBSET, Evaluation

PROJECT = "datapruner"
"""What holds the entries where a tracker's own settings name nothing else."""
_COUNTS = (
    "ingested",
    "kept",
    "pruned",
    "rejected",
    "errored",
    "duplicates",
    "response_tokens",
    "kept_tokens",
    "truncated_tokens",
)
_LONGEST = 200
_STRANGE = re.compile(r"[^\w.\- ]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry in a tracker. `run`: the id that its evaluations share with it; `params` and `tags` are by
    dotted names. `folder`: files to keep with it, which is gone afterwards."""

    name: str
    kind: str
    run: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    folder: Path


def of_run(run: Run, folder: Path, tokens: int, about: Mapping[str, str]) -> Entry:
    """A run that came to its end. `tokens` went through the proxy model for it; `about`: more tags."""
    said = run.report
    metrics: dict[str, float] = {name: getattr(said, name) for name in _COUNTS}
    for reason, count in said.reasons.items():
        name = f"reasons/{named(reason)}"
        metrics[name] = metrics.get(name, 0) + count
    for stage, counts in said.stages.items():
        metrics |= {f"stages/{named(stage)}/{named(name)}": count for name, count in counts.items()}
    metrics |= {f"thresholds/{named(name)}": cut for name, cut in said.thresholds.items()}
    metrics |= {"measured": run.measured, "seconds": run.seconds}
    if run.measured and run.seconds > 0:
        metrics["samples_per_second"] = run.measured / run.seconds
        if tokens:
            metrics["tokens_per_second"] = tokens / run.seconds
    return Entry(
        name=run.config.title,
        kind="run",
        run=run.run_id,
        params=dict(flat(run.config.model_dump(mode="json", exclude_none=True))),
        metrics=_finite(metrics),
        tags={"datapruner.run": run.run_id, **about} | dict(flat(run.lineage, "lineage")),
        folder=folder,
    )


def of_evaluation(evaluation: Evaluation, folder: Path) -> Entry:
    """An evaluation of a run."""
    metrics: dict[str, float] = {"seconds": evaluation.seconds}
    for against in evaluation.overall:
        about = f"against/{named(against.control)}"
        for field, value in against.nats_per_token.model_dump().items():
            metrics[f"{about}/nats_per_token/{field}"] = value
        if against.exact_match is not None:
            metrics[f"{about}/exact_match"] = against.exact_match.difference
    for held in evaluation.held_out:
        for arm, loss in held.losses.items():
            metrics[f"held_out/{named(held.name)}/loss/{named(arm)}"] = loss
        for arm, share in held.exact_match.items():
            metrics[f"held_out/{named(held.name)}/exact_match/{named(arm)}"] = share
    tags = {
        "datapruner.run": evaluation.run,
        "datapruner.evaluation": evaluation.id,
        "verdict": evaluation.verdict or "none",
        "said": evaluation.said,
        "model_hash": evaluation.model_hash,
    }
    tags |= {f"held_out.{held.name}": held.corpus_hash for held in evaluation.held_out}
    return Entry(
        name=f"{SUBSET} of {evaluation.run} against {RANDOM}",
        kind="evaluation",
        run=evaluation.run,
        params=dict(flat(evaluation.settings.model_dump(mode="json", exclude_none=True))),
        metrics=_finite(metrics),
        tags=tags,
        folder=folder,
    )


def named(text: str) -> str:
    """A text as part of the name of a metric: letters, digits, `_`, `-`, dots and spaces."""
    return _STRANGE.sub("_", text).strip("_ ")[:_LONGEST] or "_"


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
