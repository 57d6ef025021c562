"""Every error that datapruner raises on purpose.

    DataprunerError
    ├── UsageError           an option or argument is wrong                       exit 2
    ├── InputError           the data given cannot be read or used                exit 2
    ├── ModelError           the proxy model cannot be found, checked or loaded   exit 2
    ├── NothingSurvivedError everything was rejected, errored or pruned           exit 3
    └── WorkerError          our own machinery failed                             exit 1

Each message says what is wrong, where (file, row, field), and what to do about it.
"""

from __future__ import annotations


class DataprunerError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message if remedy is None else f"{message} ({remedy})")
        self.remedy = remedy


class UsageError(DataprunerError):
    """An option or argument is wrong."""

    exit_code = 2


class InputError(DataprunerError):
    """The data given cannot be read or used."""

    exit_code = 2


class ModelError(DataprunerError):
    """The proxy model cannot be found, verified or loaded."""

    exit_code = 2


class NothingSurvivedError(DataprunerError):
    """Every sample was rejected, errored or pruned."""

    exit_code = 3


class WorkerError(DataprunerError):
    """A measuring process failed in a way that is not the input's fault."""
