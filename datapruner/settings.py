"""Where datapruner keeps its files: one folder, `DATAPRUNER_HOME` or `~/.datapruner`."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The storage root: models, corpora, signals and runs live below it."""
    return Path(os.environ.get("DATAPRUNER_HOME") or Path.home() / ".datapruner").expanduser()
