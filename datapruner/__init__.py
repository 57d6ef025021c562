"""Find the samples, and the tokens inside them, that an SFT corpus is worth training on.

import datapruner
result = datapruner.prune("alpaca.json", method="qtuning", keep=0.25, token_keep=0.5)
result.subset      # datasets.Dataset with input_ids, labels and token_keep
result.scores      # one line per row: scores, quadrant, keep, reason
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datapruner.beforehand import plan, recommend
    from datapruner.client import AsyncClient, Client
    from datapruner.curation.calibration import calibrate
    from datapruner.curation.contamination import decontaminate
    from datapruner.curation.duplicates import deduplicate
    from datapruner.curation.gate import gate
    from datapruner.errors import DataprunerError
    from datapruner.library import (
        evaluate,
        prune,
        replay,
        report,
        rewrite,
        run_recipe,
        score,
    )
    from datapruner.result import Result

__all__ = [
    "AsyncClient",
    "Client",
    "DataprunerError",
    "Result",
    "calibrate",
    "decontaminate",
    "deduplicate",
    "evaluate",
    "gate",
    "plan",
    "prune",
    "recommend",
    "replay",
    "report",
    "rewrite",
    "run_recipe",
    "score",
]
_MODULES = {"AsyncClient": "client", "Client": "client", "DataprunerError": "errors"}
_MODULES |= {"calibrate": "curation.calibration", "decontaminate": "curation.contamination"}
_MODULES |= {"plan": "beforehand", "recommend": "beforehand"}
_MODULES |= {"deduplicate": "curation.duplicates", "gate": "curation.gate", "Result": "result"}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    # Importing the API takes a second of libraries; workers and `--help` do without.
    if name not in __all__:
        raise AttributeError(f"module 'datapruner' has no attribute {name!r}")
    return getattr(import_module(f"datapruner.{_MODULES.get(name, 'library')}"), name)
