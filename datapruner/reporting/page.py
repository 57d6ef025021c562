"""The report of a run as one HTML page that needs nothing else: no network, no other file.

Notable choices:
- texts of rows are hostile: the template escapes everything, the numbers for the plots are a block of data in
  which no character can end it, and the page's policy runs only the scripts whose hashes it names;
- characters that would steer what stands around them, such as those that turn the direction of writing, are
  shown as their numbers;
- everything is in tables too, which need no script. plotly's JavaScript draws the plots; of its package only
  that file is read.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from datapruner.errors import DataprunerError, UsageError
from datapruner.reporting.dotted import flat
from datapruner.schemas.reports import STEPS, RunReport
from datapruner.schemas.spreads import Spread
from datapruner.shown import templates
from datapruner.system.files import check_file, publishing

_FILES = Path(__file__).with_name("page_files")
STYLE_FILE, SCRIPT_FILE = _FILES / "report.css", _FILES / "report.js"
# Style sheets of maps, which plotly adds to every page that has no element of their name.
_SHEETS = re.compile(r'document\.getElementById\("([0-9a-f]{64})"\)')
_EMPTY = ""
"""The style sheet that plotly makes and then adds rules to."""


def check_target(path: Path) -> None:
    """Find out before the work starts that a page cannot be written there. Raises UsageError."""
    if path.suffix != ".html":
        raise UsageError(f"{path}: a report is written as .html", remedy="its numbers alone: --json")
    check_file(path)


def write(path: Path, report: RunReport) -> None:
    """Publish the page as a file. Raises UsageError."""
    check_target(path)
    with publishing(path) as file:
        for piece in page(report):
            file.write(piece.encode())


def page(report: RunReport) -> Iterator[str]:
    """The page, in pieces."""
    template = _environment().get_template("report.html")
    yield from template.generate(
        policy=policy(),
        report=report,
        steps=STEPS,
        data=_data(report),
        sheets=sheets(),
        plotly=Markup(plotly()),  # noqa: S704 (not of a row)
        script=Markup(_own("report.js")),  # noqa: S704
        style=Markup(_own("report.css")),  # noqa: S704
    )


def body(report: RunReport) -> str:
    """What the page shows, for another page that has its style sheet and its script."""
    return (
        _environment().get_template("report_part.html").render(report=report, steps=STEPS, data=_data(report))
    )


def spread_part(found: Spread) -> str:
    """How rows are spread over a column, likewise."""
    plotted = {"distributions": [] if found.numbers is None else [found.numbers.model_dump(mode="json")]}
    return _environment().get_template("spread.html").render(found=found, data=htmlsafe_json_dumps(plotted))


@cache
def sheets() -> list[str]:
    """Ids of elements that keep plotly from adding style sheets of maps, which no policy allows."""
    return sorted(set(_SHEETS.findall(plotly())))


@cache
def policy() -> str:
    """The Content-Security-Policy of a page: nothing is fetched, only its own scripts and styles are used.

    plotly sets attributes of style on what it draws, so those are allowed; the template writes none.
    """
    scripts, styles = _hashes(plotly(), _own("report.js")), _hashes(_own("report.css"), _EMPTY)
    return (
        f"default-src 'none'; script-src {scripts}; style-src-elem {styles}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hashes(*texts: str) -> str:
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)


def plotly_file() -> Path:
    """The file of plotly's JavaScript. Raises DataprunerError when the package is not there."""
    found = find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise DataprunerError("plotly is not installed, which draws the plots", remedy="pip install plotly")
    return Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


@cache
def plotly() -> str:
    """plotly's JavaScript. Raises DataprunerError when the package is not there."""
    return _as_element(plotly_file().read_text(encoding="utf-8"))


@cache
def _own(name: str) -> str:
    return _as_element((_FILES / name).read_text(encoding="utf-8"))


def _as_element(text: str) -> str:
    """What can stand inside a script or style element as it is."""
    assert not re.search(r"</(script|style)|<!--\s*<script", text, re.IGNORECASE), "it would end its element"
    return text.replace("\r\n", "\n")  # as a browser reads it, before it takes the hash


def _data(report: RunReport) -> Markup:
    """What the plots need of the document, as a block of data."""
    data = json.loads(report.model_dump_json())  # numbers that JSON has no words for are null there
    return htmlsafe_json_dumps(_plotted(data))


def _plotted(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("plane", "distributions", "by_length", "rewriting") if name in data}


@cache
def _environment() -> Environment:
    made = templates(_FILES)
    made.filters["flat"] = flat
    return made
