"""Files that the service's pages share with reports."""

from __future__ import annotations

from pathlib import Path

from datapruner.reporting.page import STYLE_FILE, plotly_file


def shared() -> dict[str, Path]:
    """Each by the name under which pages ask for it. Raises DataprunerError when plotly is not installed."""
    return {"report.css": STYLE_FILE, "plotly.js": plotly_file()}
