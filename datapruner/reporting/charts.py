"""Small plots as SVG, which need no browser and no program: shapes and texts alone, on a white ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from datapruner.schemas.reports import Distribution
from datapruner.shown import number, plain

_WIDTH = 640
_BEFORE, _AFTER, _CUT, _INK = "#b8c4d0", "#2563a8", "#b3261e", "#24292f"
_LONGEST = 60


def counts(title: str, bars: Sequence[tuple[str, int]]) -> str:
    """A bar for each number, under its name."""
    most = max((count for _, count in bars), default=0) or 1
    shapes = []
    for place, (name, count) in enumerate(bars):
        top = 40 + 28 * place
        shapes.append(_text(200, top + 14, name, "end"))
        shapes.append(_bar(210, top, 330 * count / most, 20, _AFTER))
        shapes.append(_text(216 + 330 * count / most, top + 14, number(count)))
    return _drawing(title, 52 + 28 * len(bars), shapes)


def histogram(found: Distribution) -> str:
    """How a column is distributed before and after, with the thresholds that are on its scale."""
    left, right, top, bottom = 20.0, _WIDTH - 20.0, 68.0, 200.0
    scale = math.log10 if found.scale == "log" else float
    low, high = scale(found.edges[0]), scale(found.edges[-1])

    def at(value: float) -> float:
        return left + (right - left) * (scale(value) - low) / ((high - low) or 1)

    most = max([*found.before, *(found.after or [])]) or 1
    shapes = []
    for color, bins in ((_BEFORE, found.before), (_AFTER, found.after or [])):
        for place, count in enumerate(bins):
            if count:
                start, end = at(found.edges[place]), at(found.edges[place + 1])
                height = (bottom - top) * count / most
                shapes.append(_bar(start, bottom - height, max(end - start - 0.5, 0.5), height, color))
    for place, (name, cut) in enumerate(found.thresholds.items()):
        if found.edges[0] <= cut <= found.edges[-1] and not (found.scale == "log" and cut <= 0):
            where = f"{at(cut):.1f}"
            shapes.append(
                f'<line x1="{where}" x2="{where}" y1="{top:g}" y2="{bottom:g}" stroke="{_CUT}" '
                'stroke-dasharray="4 3"/>'
            )
            middle, above = min(max(at(cut), 90), _WIDTH - 90), top - 4 - 13 * (place % 2)
            shapes.append(_text(middle, above, name, "middle", _CUT))
    shapes.append(_text(left, bottom + 16, number(found.edges[0])))
    shapes.append(_text(right, bottom + 16, number(found.edges[-1]), "end"))
    legend = "grey: all rows" if found.after is None else "grey: all rows, blue: kept"
    scaled = ", logarithmic" if found.scale == "log" else ""
    shapes.append(_text(_WIDTH / 2, bottom + 16, f"{legend}{scaled}", "middle"))
    return _drawing(found.column, 226, shapes)


def _drawing(title: str, height: int, shapes: Sequence[str]) -> str:
    said = _shown(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" font-family="sans-serif" font-size="12">\n'
        f"<title>{said}</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="20" y="24" font-size="15" fill="{_INK}">{said}</text>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _bar(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", color: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{_shown(text)}</text>'


def _shown(text: str) -> str:
    flat = " ".join(plain(text).split())
    return escape(flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…")
