"""Runs followed by what the user keeps track of runs with: MLflow, Weights & Biases, trackio, OpenLineage.

Notable choices:
- nothing is sent unless it is asked for by name; where to, each tool's own settings say;
- a tracker that fails does not fail the run: that is said in words, once, and the run stands. Nor does one
  that is told when the job is to stop: the run is there already;
- addresses may hold passwords, which libraries quote in their errors;
- what a tracker prints goes to standard error, as standard output is the result's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from datapruner.errors import UsageError
from datapruner.progress import Progress
from datapruner.request.config import RunConfig
from datapruner.request.parts import Tracker
from datapruner.runs.published import Run
from datapruner.schemas.evaluations import Evaluation
from datapruner.system.files import write_json
from datapruner.tracking import entry, lineage
from datapruner.tracking.entry import Entry
from datapruner.tracking.lineage import Places

Warn = Callable[[str], None]
_OPENLINEAGE = "openlineage"
_SHOWN = 300
_PASSWORD = re.compile(r"//[^/@\s]*@")


def check(names: Iterable[str]) -> tuple[str, ...]:
    """The trackers of these names, each once. Raises UsageError for one that is unknown or not installed."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in get_args(Tracker):
            raise UsageError(
                f"no tracker is called {name!r}",
                remedy=f"known: {', '.join(get_args(Tracker))}",
                field="log_to",
            )
        if find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed", remedy=f"pip install 'datapruner[{name}]'", field="log_to"
            )
    return found


class Following:
    """Trackers and the run that they follow. `progress` is to be given to the run, as it counts tokens."""

    def __init__(
        self, teller: Teller, config: RunConfig, progress: Progress, about: Mapping[str, str], places: Places
    ) -> None:
        self.progress = Counting(progress)
        self._teller, self._about = teller, about
        self._events = lineage.Events(config, about, places) if _OPENLINEAGE in teller.names else None

    def done(self, run: Run, corpus: Path, written: Iterable[tuple[Path, int]] = ()) -> None:
        """Log a run that came to its end; `written`: files and folders of rows besides its own, and how many
        are in each."""
        if self._events is not None:
            events, self._events = self._events, None
            self._teller.tried(_OPENLINEAGE, lambda: events.completed(run, corpus, written))
        if self._teller.keepers:
            with TemporaryDirectory() as folder:
                place = Path(folder)
                self._teller.tried("any tracker: its report", lambda: _files(run, corpus, place))
                self._teller.log(entry.of_run(run, place, self.progress.tokens, self._about))

    def began(self) -> None:
        """The run begins."""
        if self._events is not None:
            self._teller.tried(_OPENLINEAGE, self._events.started)

    def ended(self, error: BaseException, *, stopped: bool) -> None:
        """The run came to nothing."""
        if self._events is not None:
            events, self._events = self._events, None
            self._teller.tried(_OPENLINEAGE, lambda: events.failed(error, stopped=stopped))


class Teller:
    """Trackers of these names, and who is told when one fails, and of the name before one is logged to.

    Raises UsageError as `check`.
    """

    def __init__(
        self, names: Iterable[str], warn: Warn, begin: Callable[[str], None] = lambda _: None
    ) -> None:
        self.names, self._warn, self._begin = check(names), warn, begin
        self._failed: set[str] = set()

    @property
    def keepers(self) -> list[str]:
        """Those that keep entries."""
        return [name for name in self.names if name != _OPENLINEAGE]

    def log(self, made: Entry) -> None:
        """Make the entry in each."""
        for name in self.keepers:
            tracker = import_module(f"datapruner.tracking.{name}")  # whose libraries take seconds
            self.tried(name, partial(tracker.log, made))

    def tried(self, name: str, do: Callable[[], object]) -> None:
        """Do it; when that fails, say so."""
        if name in self.names:
            with suppress(Exception):
                self._begin(name)
        try:
            with redirect_stdout(sys.stderr):
                do()
        except Exception as error:  # of many families, and none is the run's
            said = _PASSWORD.sub("//", " ".join(str(error).split()))[:_SHOWN]
            if name not in self._failed:
                self._warn(f"not logged to {name}: {type(error).__name__}: {said}")
            self._failed.add(name)


@contextmanager
def following(
    names: Iterable[str],
    config: RunConfig,
    progress: Progress,
    warn: Warn,
    *,
    about: Mapping[str, str] | None = None,
    places: Places | None = None,
    stops: tuple[type[Exception], ...] = (),
) -> Iterator[Following]:
    """Trackers of these names follow the run that is done in the block, which calls `done` at its end.

    `warn` is told of a tracker that fails; `about`: tags. `stops`: errors which mean that the run was stopped
    and did not fail. Raises UsageError as `check` does, and nothing of a tracker's.
    """
    teller = Teller(names, warn, lambda name: progress.stage(f"logging to {name}", None, "steps"))
    found = Following(teller, config, progress, about or {}, places or Places())
    found.began()
    try:
        yield found
    except BaseException as error:
        found.ended(error, stopped=not isinstance(error, Exception) or isinstance(error, stops))
        raise


def log_evaluations(names: Iterable[str], evaluations: Iterable[Evaluation], warn: Warn) -> None:
    """Log evaluations with what keeps entries; OpenLineage has no use for them. Raises UsageError."""
    teller = Teller(names, warn)
    for evaluation in evaluations if teller.keepers else ():
        with TemporaryDirectory() as folder:
            write_json(Path(folder) / "evaluation.json", evaluation.model_dump(mode="json"))
            teller.log(entry.of_evaluation(evaluation, Path(folder)))


def _files(run: Run, corpus: Path, place: Path) -> None:
    """What is kept with the entry of a run: its report, the card of its subset, what replays it."""
    from datapruner.reporting import card, document, page  # with libraries that few runs need
    from datapruner.runs import folders

    report = document.of_published(run, corpus)
    page.write(place / "report.html", report)
    said = folders.read_document(run.folder / folders.DOCUMENT)
    if run.config.has_subset:
        form = card.form(None, plain=False, rewritten=run.config.rewrite is not None)
        card.write(place, card.made(card.Exported(report, said, {}, run.report.kept, form)))
    else:
        write_json(place / folders.DOCUMENT, said)


class Counting:
    """Passes on what it hears, and adds up the tokens that went through the proxy model."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._before, self._now = progress, 0, 0

    @property
    def tokens(self) -> int:
        return self._before + self._now

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._before, self._now = self.tokens, 0
        self._progress.stage(name, total, unit)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self._progress.at(done, total, note)

    def measured(self, rows: int, tokens: int) -> None:
        self._now = tokens
        self._progress.measured(rows, tokens)

    def note(self, text: str) -> None:
        self._progress.note(text)
