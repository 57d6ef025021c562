"""Tasks of lm-eval, its own by name or a YAML file of yours, for a trained model to be measured by.

A task's YAML may name Python to run and data to fetch, as lm-eval says: tasks are taken from whoever types
the command, and never from what comes over HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from datapruner.errors import InputError, UsageError
from datapruner.tuning.training import Trainee

Scores = dict[str, dict[str, float]]
"""Metrics by task."""


class Tasks:
    """Tasks by their names or files, and what lm-eval knows them by. `identity`: of the files, their hashes.

    Raises UsageError when lm-eval is missing or knows none of that name, InputError for a file that is none.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise UsageError(
                "--lm-eval takes the package lm-eval", remedy="install the extra `eval`", field="lm_eval"
            ) from error
        files = [Path(each) for each in wanted if Path(each).is_file()]
        self.identity = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        self.names = [_name(Path(each)) if Path(each).is_file() else each for each in wanted]
        folders = [str(folder) for folder in dict.fromkeys(path.resolve().parent for path in files)]
        only_files = len(files) == len(wanted)  # those that come with lm-eval take seconds to find
        self._manager: Any = TaskManager(include_path=folders or None, include_defaults=not only_files)
        for name in self.names:
            if not self._manager.match_tasks([name]):
                raise UsageError(
                    f"lm-eval knows no task {name!r}", remedy="see `lm-eval ls tasks`", field="lm_eval"
                )

    def scores(self, trainee: Trainee) -> Scores:
        """What the model reaches in each task: its metrics, without their errors. The same each time."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        model = HFLM(pretrained=trainee.model, tokenizer=trainee.tokenizer, batch_size=8)
        found = simple_evaluate(
            model=model, tasks=self.names, task_manager=self._manager, bootstrap_iters=0, log_samples=False
        )
        return {
            name: {
                metric.removesuffix(",none"): float(value)
                for metric, value in found["results"][name].items()
                if isinstance(value, int | float) and "_stderr" not in metric and metric != "sample_len"
            }
            for name in self.names
        }


def _name(path: Path) -> str:
    """What a task's file calls it."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8").replace("!function", ""))
        return str(found["task"])
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a task of lm-eval: {error}", remedy="give its YAML, with a name under `task`"
        ) from error
