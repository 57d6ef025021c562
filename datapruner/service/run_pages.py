"""What pages show of a published run: the report as a part of a page, and its samples to look into.

Notable choice: a report is made once and kept while it stands, as it takes seconds of a million rows: a
published run does not change, but is evaluated again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from datapruner.catalog import evaluations, runs
from datapruner.catalog.models import Version
from datapruner.corpora.corpus import Corpus
from datapruner.runs import published
from datapruner.schemas.neighbours import NearestRows
from datapruner.schemas.planes import FoundRows, Look, Outline, PlaneColumns, PlaneView
from datapruner.schemas.ranking import RankedRows, Ranking
from datapruner.schemas.spreads import SpreadColumns
from datapruner.service import results
from datapruner.service.held import Held
from datapruner.service.instance import Service
from datapruner.service.runs import full_report
from datapruner.service.tokens import Caller

T = TypeVar("T")
MOST_CHARACTERS = 10_000
"""Of a column of a row that is shown."""
_NEAREST = 8
_bodies: Held[str] = Held(16_000_000, len)


def body(service: Service, caller: Caller, run: str) -> str:
    """The report of a run as HTML, a part of a page. Raises as `runs.full_report`."""
    from datapruner.reporting import page  # with libraries that few requests need

    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        evaluated = evaluations.listing(session, row.id, limit=1)
        key = (str(service.settings.home), row.id, *(each.evaluation.id for each in evaluated))
    return _bodies.get(key, lambda: page.body(full_report(service, caller, run)))


def columns(service: Service, caller: Caller, run: str) -> PlaneColumns:
    """What of a run can be drawn, as `reporting.looking.columns`."""
    from datapruner.reporting import looking

    return _looked(service, caller, run, looking.columns)


def plane(service: Service, caller: Caller, run: str, asked: Look) -> PlaneView:
    """A part of a run's plane, as `reporting.looking.view`."""
    from datapruner.reporting import looking

    return _looked(service, caller, run, lambda found, corpus: looking.view(found, corpus, asked))


def rows(service: Service, caller: Caller, run: str, asked: Outline) -> FoundRows:
    """The rows in it, as `reporting.looking.rows`."""
    from datapruner.reporting import looking

    return _looked(service, caller, run, lambda found, corpus: looking.rows(found, corpus, asked))


def nearest(service: Service, caller: Caller, run: str, sample_id: str) -> NearestRows:
    """The samples most like one of a run, as `explaining.neighbours.nearest`."""
    from datapruner.explaining import neighbours

    signals = service.storage.folder(f"projects/{caller.project_id}")
    return _looked(
        service,
        caller,
        run,
        lambda found, corpus: neighbours.nearest(found, corpus, signals, sample_id, _NEAREST),
    )


def spread_columns(service: Service, caller: Caller, run: str) -> SpreadColumns:
    """The columns that rows can be seen over, as `reporting.spread.columns`."""
    from datapruner.reporting import spread

    return _looked(service, caller, run, spread.columns)


def spread_over(service: Service, caller: Caller, run: str, column: str) -> str:
    """How the rows of a run are spread over a column, as HTML, a part of a page."""
    from datapruner.reporting import page, spread

    return page.spread_part(
        _looked(service, caller, run, lambda found, corpus: spread.spread(found, corpus, column))
    )


def ranked(service: Service, caller: Caller, run: str, asked: Ranking) -> RankedRows:
    """Rows of a run by a score, as `reporting.ranking.ranked`."""
    from datapruner.reporting import ranking

    return _looked(service, caller, run, lambda found, corpus: ranking.ranked(found, corpus, asked))


def original(service: Service, caller: Caller, run: str, row: int) -> dict[str, str] | None:
    """The columns of a row as it came, each as text and cut to `MOST_CHARACTERS`; None for a rejected row."""
    with service.db.read() as session:
        found = runs.find_published(session, caller.project_id, run)
        key = session.get_one(Version, found.version_id).key
    with Corpus(service.storage.local(key)) as corpus:
        line = next(corpus.originals_json([row]), None)
    if line is None:
        return None
    values = json.loads(line)
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - MOST_CHARACTERS
    return text if more <= 0 else f"{text[:MOST_CHARACTERS]} … ({more:,} more characters)"


def _looked(service: Service, caller: Caller, run: str, look: Callable[[published.Run, Path], T]) -> T:
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        corpus = session.get_one(Version, row.version_id).key
    return results.looked_into(service.storage, row, corpus, look)
