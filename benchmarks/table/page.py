"""The findings as one table in Markdown, for the benchmarks' page and the methods' page."""

from __future__ import annotations

from collections.abc import Iterator

from scorers.methods.findings import Change, Corpus, Findings

MARKS = ("<!-- findings -->\n", "<!-- end of findings -->\n")


_NONE = "–"


def head(found: Findings) -> list[str]:
    """The columns' names, each kind with how many rows there are of it; a corpus of which one kind tells
    all has its own name."""
    kinds = [
        f"{kind if len(corpus.shown) > 1 else corpus.name} ({rows:,})" for corpus, kind, rows in _kinds(found)
    ]
    settings = [f"{each.name}: change, nats a token" for each in found.settings]
    return ["method", *kinds, "tokens", "length", *settings]


def rows(found: Findings) -> Iterator[list[str]]:
    """A row of cells for each method and variant; a dash where nothing was measured."""
    for each in found.methods:
        kept = {(one.corpus, one.kind): one for one in each.kept}
        shares = [
            f"{kept[corpus.name, kind].share:.0%}" if (corpus.name, kind) in kept else _NONE
            for corpus, kind, _ in _kinds(found)
        ]
        tokens = _NONE if each.tokens is None else f"{each.tokens:.0%}"
        length = _NONE if each.length is None else f"{each.length.correlation:+.2f}"
        changes = {one.setting: one for one in each.changes}
        told = [_change(changes.get(setting.name)) for setting in found.settings]
        yield [f"`{each.label}`", *shares, tokens, length, *told]


def markdown(found: Findings) -> str:
    """The table, and beneath it what was left out."""
    first, *others = head(found)
    lines = [[first, *others], ["---", *("--:" for _ in others)], *rows(found)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
    missing = [f"- `{each.label}`: {why}" for each in found.methods for why in each.left_out]
    return text + ("\nNot measured:\n\n" + "\n".join(missing) + "\n" if missing else "")


def put(page: str, found: Findings) -> str:
    """The page with the table, and the sizes, between its marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    sizes = "\n".join(f"- {line}" for line in found.sizes)
    return f"{before}{MARKS[0]}\n{markdown(found)}\nMeasured with:\n\n{sizes}\n\n{MARKS[1]}{after}"


def _kinds(found: Findings) -> Iterator[tuple[Corpus, str, int]]:
    """The kinds of rows shown, with most rows that a method had of it."""
    for corpus in found.corpora:
        for kind in corpus.shown:
            counts = [
                one.rows
                for each in found.methods
                for one in each.kept
                if (one.corpus, one.kind) == (corpus.name, kind)
            ]
            if counts:
                yield corpus, kind, max(counts)


def _change(change: Change | None) -> str:
    if change is None:
        return _NONE
    return change.text if change.verdict == "no difference" else f"**{change.verdict}** {change.text}"
