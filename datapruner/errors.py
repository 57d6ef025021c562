"""Every error that datapruner raises on purpose.

    DataprunerError
    ├── UsageError             an option or argument is wrong                       exit 2
    │   ├── NotFoundError      there is no such thing (for the one who asks)
    │   ├── ConflictError      it clashes with what is there
    │   │   └── RepeatedKeyError   the first request with an idempotency key is still being answered
    │   ├── ReusedKeyError     an idempotency key that belongs to another request
    │   ├── DeniedError        whoever asks may not
    │   └── QuotaError         a limit of the project or the service is reached
    │       └── BusyError      for the moment only
    ├── InputError             the data given cannot be read or used                exit 2
    ├── ModelError             the proxy model cannot be found, checked or loaded   exit 2
    ├── NothingSurvivedError   everything was rejected, errored or pruned           exit 3
    ├── StorageError           files cannot be stored or fetched                    exit 1
    ├── NotReadyError          the service cannot work now                          exit 1
    ├── WorkerError            our own machinery failed                             exit 1
    └── ServiceError           a service cannot be reached, or fails                exit 1

Each message says what is wrong, where (file, row, field), and what to do about it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datapruner.problem import Problem

_PATH = re.compile(
    r"""(?P<quote>["'])(?:/|projects/)[^"'\n]*/(?P<quoted>[^/"'\n]+)/?(?P=quote)"""
    r"""|(?:(?<=:///)|(?<=://)|(?<![\w.:/~-])~?)(?:/[^\s/:;,"'()]+|projects)(?:/[^\s/:;,"'()]+)*/(?P<bare>[^\s/:;,"'()]+)/?"""
)


def without_paths(text: str) -> str:
    """`text` with every absolute path, and every key of our storage, told by its last part.

    For whoever sees what a service says: where its files lie is not theirs to know.
    """
    return _PATH.sub(r"\g<quote>\g<quoted>\g<bare>\g<quote>", text)


class DataprunerError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with, `field` the argument at fault.

    `problem` is the service's own document, on errors that a client got from one.
    """

    exit_code = 1
    problem: Problem | None = None

    def __init__(self, message: str, *, remedy: str | None = None, field: str | None = None) -> None:
        super().__init__(message if remedy is None else f"{message} ({remedy})")
        self.message = message
        self.remedy = remedy
        self.field = field


class UsageError(DataprunerError):
    """An option or argument is wrong."""

    exit_code = 2


class NotFoundError(UsageError):
    """There is no such thing, or none that the caller may know of."""


class ConflictError(UsageError):
    """What is asked for clashes with what is there."""


class RepeatedKeyError(ConflictError):
    """An idempotency key whose first request is still being answered."""


class ReusedKeyError(UsageError):
    """An idempotency key that belongs to another request."""


class DeniedError(UsageError):
    """Whoever asks may not do this."""


class QuotaError(UsageError):
    """A limit of the project or of the service is reached."""


class BusyError(QuotaError):
    """So many are at work on the like of it that this must come again in a few seconds."""


class InputError(DataprunerError):
    """The data given cannot be read or used."""

    exit_code = 2


class ModelError(DataprunerError):
    """The proxy model cannot be found, verified or loaded."""

    exit_code = 2


class NothingSurvivedError(DataprunerError):
    """Every sample was rejected, errored or pruned."""

    exit_code = 3


class StorageError(DataprunerError):
    """Files cannot be stored or fetched: a full disk, a read-only folder, an object store that refuses."""


class NotReadyError(DataprunerError):
    """The service cannot work now: it stops, or its database or storage do not answer."""


class WorkerError(DataprunerError):
    """A measuring process failed in a way that is not the input's fault."""


class ServiceError(DataprunerError):
    """A datapruner service cannot be reached, or fails in a way that is not the request's fault."""
