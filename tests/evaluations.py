"""Evaluations as they would come of trainings, for tests of what stores and shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from datapruner.request.evaluating import EvaluationSettings
from datapruner.schemas.evaluations import (
    RANDOM,
    SUBSET,
    Against,
    Arm,
    Cost,
    Estimate,
    Evaluation,
    HeldOutSet,
)

RANDOM_IS_WORSE = Against(
    control=RANDOM,
    verdict="better",
    said="The subset is better than random rows: 0.120 nats per token less loss [0.050, 0.190].",
    nats_per_token=Estimate(difference=-0.12, low=-0.19, high=-0.05),
    exact_match=None,
    seeds=3,
    rows=40,
    covers_seeds=True,
)


def evaluation(**changed: Any) -> Evaluation:
    """One of a run that is better than random rows, with other fields as `changed`."""
    held_out = HeldOutSet(
        name="questions",
        source="questions.jsonl",
        corpus_hash="ab" * 32,
        rows=43,
        read=40,
        rejected=1,
        left_out=2,
        contaminated=4,
        tokens=900,
        losses={SUBSET: 2.1, RANDOM: 2.22},
        against=[RANDOM_IS_WORSE],
    )
    arms = [
        Arm(name=name, rows=25, tokens=4000, trained_tokens=1000, steps=7, seconds=2.5, seeds=[0, 1, 2])
        for name in (SUBSET, RANDOM)
    ]
    cost = Cost(
        proxy_parameters=1_000_000,
        measured_tokens=16_000,
        measuring_flops=3.2e10,
        measuring_seconds=4.0,
        all_tokens=16_000,
        subset_tokens=4_000,
        saved_trained_tokens=3_000,
        epochs=1,
        break_even_parameters=444_444.4,
        trained_parameters=1_000_000,
        pays=True,
        said="Selecting pays for models of more than 444 thousand parameters.",
    )
    fields: dict[str, Any] = {
        "id": "0123456789abcdef",
        "run": "fedcba9876543210",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "settings": EvaluationSettings(held_out={"questions": "questions.jsonl"}),
        "model": "smollm2-135m",
        "model_hash": "cd" * 32,
        "device": "cpu",
        "learning_rate": 1e-4,
        "confidence": 0.95,
        "arms": arms,
        "held_out": [held_out],
        "overall": [RANDOM_IS_WORSE],
        "verdict": "better",
        "said": RANDOM_IS_WORSE.said,
        "cost": cost,
        "seconds": 21.0,
        "packages": {"torch": "2.9.0"},
    }
    return Evaluation(**fields | changed)
