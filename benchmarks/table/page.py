"""The findings as one table in Markdown, for the benchmarks' page and the methods' page."""

from __future__ import annotations

from collections.abc import Iterator

from scorers.methods.findings import Change, Corpus, Finding, Findings

MARKS = ("<!-- findings -->\n", "<!-- end of findings -->\n")


_NONE = "–"
_NAMED, _ALMOST_ALL = 3, 0.9
_CONTROLS = ("length", "random", "random-tokens", "random-steps", "longest-steps")


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


def summary(found: Findings) -> Iterator[str]:
    """In Markdown: of each kind of the first corpus, which methods keep least and most of it; and which do
    better than random rows, and which worse. Of the methods with their defaults, but for controls and what
    prunes tokens alone."""
    yield from ("| rows | kept least by | kept most by |", "|---|---|---|")
    plain = [each for each in found.methods if not each.words and each.method not in _CONTROLS]
    for corpus in found.corpora[:1]:
        plain = [each for each in plain if _kept(each, corpus) < _ALMOST_ALL * corpus.rows]
        for kind in corpus.shown:
            of_kind = [
                (one.share, each.label)
                for each in plain
                for one in each.kept
                if (one.corpus, one.kind) == (corpus.name, kind)
            ]
            least = sorted(of_kind)[:_NAMED]
            most = sorted(of_kind, key=lambda one: (-one[0], one[1]))[:_NAMED]
            yield f"| {kind} | {_named(least)} | {_named(most)} |"
    for setting in found.settings:
        told = [(c.verdict, each.label) for each in plain for c in each.changes if c.setting == setting.name]
        words = {
            verdict: ", ".join(f"`{label}`" for given, label in told if given == verdict) or "none shown"
            for verdict in ("better", "worse")
        }
        yield (
            f"| {setting.name}, of {len(told)} tried against random rows | worse: {words['worse']} "
            f"| better: {words['better']} |"
        )


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


def _kept(finding: Finding, corpus: Corpus) -> int:
    return sum(one.kept for one in finding.kept if one.corpus == corpus.name)


def _named(shares: list[tuple[float, str]]) -> str:
    return ", ".join(f"`{label}` {share:.0%}" for share, label in shares)


def _change(change: Change | None) -> str:
    if change is None:
        return _NONE
    return change.text if change.verdict == "no difference" else f"**{change.verdict}** {change.text}"
