"""What can go wrong between us and a teacher.

    DataprunerError
    ├── TeacherError                this question has no usable answer; other questions may have
    │   └── UnreadableAnswerError   there is an answer, without what was asked for in it
    ├── TeacherUnavailableError     no question would be answered: stop
    └── LimitReachedError           requests, tokens or money are used up: stop

No message holds the key, nor anything of a row.
"""

from __future__ import annotations

from typing import Literal

from datapruner.errors import DataprunerError

Reason = Literal["time-out", "connection", "rate", "server", "malformed", "refused", "unreadable"]
"""For counting: out of time; cut or no connection; too many requests; its own fault (5xx); a reply that is
no chat completion; it will not answer this (4xx); the text is not in the form asked for."""


class TeacherError(DataprunerError):
    """The question of one row has no usable answer. Asking again, when the job is restarted, is allowed."""

    def __init__(self, message: str, *, reason: Reason, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.reason: Reason = reason


class UnreadableAnswerError(TeacherError):
    """An answer's text does not hold the fields asked for. A further attempt may."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="unreadable")


class TeacherUnavailableError(DataprunerError):
    """The teacher cannot be reached, refuses the key, or does not know the model: no row would succeed."""


class LimitReachedError(DataprunerError):
    """A limit of requests, tokens or money is reached. What was answered is stored; nothing more is asked."""
