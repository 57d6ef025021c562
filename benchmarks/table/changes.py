"""A change against random rows, as the findings have it."""

from __future__ import annotations

from typing import Any

from datapruner.schemas.evaluations import Against


def told(against: Against, trained_tokens: float) -> dict[str, Any]:
    """What an evaluation says of an arm, trained on so many tokens, against random rows."""
    return {
        "difference": against.nats_per_token.difference,
        "low": against.nats_per_token.low,
        "high": against.nats_per_token.high,
        "verdict": against.verdict,
        "seeds": against.seeds,
        "rows": against.rows,
        "trained_tokens": trained_tokens,
    }
