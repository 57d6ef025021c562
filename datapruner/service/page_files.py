"""Files that the service's pages share with reports."""

from __future__ import annotations

from pathlib import Path

from datapruner.reporting import page
from datapruner.reporting.page import SCRIPT_FILE, STYLE_FILE, plotly_file


def shared() -> dict[str, Path]:
    """Each by the name under which pages ask for it. Raises DataprunerError when plotly is not installed."""
    return {"report.css": STYLE_FILE, "report.js": SCRIPT_FILE, "plotly.js": plotly_file()}


def sheets() -> list[str]:
    """Ids of elements that a page with plots needs, as `reporting.page.sheets`."""
    return page.sheets()
