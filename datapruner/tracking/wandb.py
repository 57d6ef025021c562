"""An entry as a run of Weights & Biases, by WANDB_MODE, WANDB_PROJECT and the others of its settings.

What is not of the entry is not sent: no code, no output of the terminal, nothing about the machine.
"""

from __future__ import annotations

import os
from typing import Any

from datapruner.tracking.entry import PROJECT, Entry

_SECONDS = 30.0
"""Of waiting for the server, unless WANDB_INIT_TIMEOUT is set; wandb itself waits for 90."""


def log(entry: Entry) -> None:
    """Raises what wandb does when nobody is logged in, or its server cannot be used."""
    import wandb

    patience: dict[str, Any] = {} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": _SECONDS}
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        **patience,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        name=os.environ.get("WANDB_NAME") or entry.name,
        group=os.environ.get("WANDB_RUN_GROUP") or entry.run,
        job_type=entry.kind,
        config={"request": dict(entry.params), "lineage": dict(entry.tags)},
        reinit="create_new",  # a run that the caller has open goes on as it was
        settings=settings,
    )
    code = 1
    try:
        run.log(dict(entry.metrics))
        artifact = wandb.Artifact(f"datapruner-{entry.kind}-{entry.run}", type=f"datapruner-{entry.kind}")
        artifact.add_dir(str(entry.folder))
        run.log_artifact(artifact)
        code = 0
    finally:
        run.finish(exit_code=code)
