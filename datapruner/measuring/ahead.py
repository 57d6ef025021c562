"""Measuring processes that load their model while rows are still ingested.

Notable choice: one starts when it is known to be needed. That is at once where nothing was measured yet the
way the run wants it, else with the first ingested sample whose signals are missing. So a corpus that is fully
measured starts none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datapruner.measuring.measure import Machine, Pass, worker_spec
from datapruner.measuring.signal_cache import SignalCache
from datapruner.measuring.workers import local


class Ahead:
    """What starts processes for a pass over samples that are being ingested.

    They are left to `machine`, for the first measuring on it, and end with that or with `close`. A machine
    that keeps processes anyway gets none, nor does one that has a cluster measure.
    """

    def __init__(self, wanted: Pass | None, home: Path, machine: Machine) -> None:
        self._begun = local.IdleWorkers()
        self.machine = replace(machine, begun=self._begun)
        self._wanted = wanted if machine.idle is None and machine.cluster is None else None
        keys = () if wanted is None else (wanted.key, wanted.fuller)
        self._caches = [SignalCache(home, key) for key in keys if key is not None]
        if not any(cache.shards() for cache in self._caches):
            self._start()

    def see(self, ids: Sequence[str]) -> None:
        """Start them if one of these samples has to be measured."""
        if self._wanted is None:
            return
        known = {each for cache in self._caches for each in cache.status(ids)["sample_id"]}
        if not known.issuperset(ids):
            self._start()

    def close(self) -> None:
        """End those that nothing has taken."""
        self._begun.close()

    def _start(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        spec = worker_spec(wanted, self.machine)
        with_model = wanted.key.has_signals
        for device in self.machine.devices if with_model else (spec.device,):
            worker = local.WORKER if with_model else local.TOKENISER
            self._begun.begin(worker, replace(spec, device=device))
