"""Which proxy models a client may name: known aliases, Hub names, and what lies below an import root.

Asked twice: when a run is requested, so that the answer is immediate, and again by the worker before it loads
anything, as links may have been changed in between.

Notable choices:
- a path outside of the import roots is refused without a look at it, so that nobody learns what exists;
- a model on disk goes before one on the Hub, so a Hub name that is also a path here is judged as a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from datapruner.errors import DeniedError, UsageError
from datapruner.request.config import TUNED, Measuring
from datapruner.settings import Settings
from scorers.models.encoders import ENCODERS
from scorers.models.sources import ALIASES

_HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@[\w./-]+)?", re.ASCII)
_LONGEST = 1024


def check_models(settings: Settings, measuring: Measuring) -> None:
    """Raise as `check_model` does unless a client may have the service measure so."""
    check_model(settings, measuring.model)
    if measuring.reference not in (None, TUNED):
        assert measuring.reference is not None
        check_model(settings, measuring.reference, field="measuring.reference")
    if measuring.reward_model is not None:
        check_model(settings, measuring.reward_model, field="measuring.reward_model", aliases=())
    if measuring.embedder is not None:
        check_model(settings, measuring.embedder, field="measuring.embedder", aliases=ENCODERS)


def check_model(
    settings: Settings, name: str, *, field: str = "measuring.model", aliases: Collection[str] = ALIASES
) -> None:
    """Raise DeniedError or UsageError unless a client may have the service measure with `name`.

    `name` is as in `scorers.models.sources.resolve`. Whether the model exists, and can be loaded, is not
    looked at.
    """
    if len(name) > _LONGEST or not name.isprintable():
        raise UsageError("not the name of a model", remedy=_REMEDY, field=field)
    if name in aliases:
        return
    hub = _HUB_NAME.fullmatch(name)
    if hub is not None and ".." not in name and not name.endswith(".gguf") and not os.path.exists(name):  # noqa: PTH110 (Path.exists raises for names too long)
        if not settings.allow_hub:
            raise DeniedError(
                f"{name}: this service reads nothing from the Hub",
                remedy="whoever runs it can set DATAPRUNER_ALLOW_HUB=1",
                field=field,
            )
        return
    if name.startswith("~") or not _below_a_root(settings, Path(name)):
        raise DeniedError(
            f"{name}: neither a known model nor a path in the import roots", remedy=_REMEDY, field=field
        )


def _below_a_root(settings: Settings, path: Path) -> bool:
    if not path.is_absolute():
        return False
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return any(resolved.is_relative_to(root.expanduser().resolve()) for root in settings.import_roots)


_REMEDY = (
    f"an alias ({', '.join(ALIASES)}), a Hub name such as org/name, or an absolute path below one of the "
    "folders in DATAPRUNER_IMPORT_ROOTS"
)
