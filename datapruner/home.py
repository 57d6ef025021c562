"""The folder that everything is kept in. It is found without the libraries that check the other settings."""

from __future__ import annotations

import os
from pathlib import Path

from datapruner.errors import UsageError


def home_folder() -> Path:
    """The storage root: models, corpora, signals and runs live below it."""
    return Path(os.environ.get("DATAPRUNER_HOME") or Path.home() / ".datapruner").expanduser().absolute()


def made_home(given: str | Path | None) -> Path:
    """The storage root given, by default that of the environment, made if need be. Raises UsageError."""
    place = home_folder() if given is None else Path(given).absolute()  # for processes that start elsewhere
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{place}: cannot keep files there: {error.strerror or error}", remedy="give another home"
        ) from error
    return place
