"""An entry as a run of trackio: in its folder on this machine, or where TRACKIO_SPACE_ID or
TRACKIO_SERVER_URL say."""

from __future__ import annotations

import os

from datapruner.tracking.entry import PROJECT, Entry


def log(entry: Entry) -> None:
    """Raises what trackio does when its store cannot be used."""
    import trackio

    run = trackio.init(
        os.environ.get("TRACKIO_PROJECT") or PROJECT,
        group=entry.run,
        config={"kind": entry.kind, "title": entry.name, **entry.params, **entry.tags},
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        run.log(dict(entry.metrics))
        if any(entry.folder.iterdir()):
            run.log_artifact(entry.folder, name=f"datapruner-{entry.kind}-{entry.run}", type=entry.kind)
    finally:
        run.finish()  # type: ignore[no-untyped-call]
