"""What a run would keep: one at another ratio, or one that is not started."""

from __future__ import annotations

from pydantic import Field

from datapruner.schemas.common import Answer, Request


class Try(Request):
    """share: of the samples. token_keep: of the method, if it has that option; by default the run's."""

    share: float = Field(gt=0, le=1)
    token_keep: float | None = Field(None, gt=0, le=1)


class Tried(Answer):
    """What would be kept of a run's measured `samples`, which have so many response `tokens`.

    `quadrants`: kept samples of each, where the method has them.
    """

    samples: int
    kept: int
    tokens: int
    kept_tokens: int
    thresholds: dict[str, float]
    quadrants: dict[str, int]
    warnings: list[str]


class Foreseen(Answer):
    """What a run would keep of a version's `samples`: `found`, from cached signals; where these do not say,
    `why`, and `about` how many, null where not even that is known."""

    samples: int
    found: Tried | None
    about: int | None
    why: str | None
