"""When a request is tried again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

_BUSY = (502, 503, 504)  # a proxy or the service is not up; nothing was done, or it is safe to repeat
_WHEN_TOLD = (409, 429)  # a lasting answer unless it says when to come again
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """`count` repetitions, waiting `first` seconds, then twice as long each time up to `longest`; jittered.

    A Retry-After is obeyed when it asks for at most `patience` seconds.
    """

    count: int = 5
    first: float = 0.5
    longest: float = 15.0
    patience: float = 120.0

    def pause(self, failures: int, told: float | None = None) -> float | None:
        """Seconds until the next attempt after `failures` (from 1 on); None: give up."""
        if failures > self.count or (told is not None and told > self.patience):
            return None
        usual = min(self.longest, self.first * 2.0 ** (failures - 1))
        # Clients that failed together must not come back together.
        jitter = random.uniform(0.5, 1.0)  # noqa: S311
        return usual * jitter if told is None else told + min(usual, 1.0) * jitter


def repeatable(method: str, error: httpx.RequestError) -> bool:
    """Whether a request that got no answer may be sent again.

    A POST may, for its Idempotency-Key; a DELETE only when it never left, for its repetition would find
    nothing to delete.
    """
    if not isinstance(error, httpx.TransportError) or isinstance(
        error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
    ):
        return False
    return method != "DELETE" or isinstance(error, _UNSENT)


def refused_for_now(response: httpx.Response) -> bool:
    """Whether an answer asks to come again."""
    if response.status_code in _WHEN_TOLD:
        return "Retry-After" in response.headers
    return response.status_code in _BUSY


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that a Retry-After asks for, which is a number or a date."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
