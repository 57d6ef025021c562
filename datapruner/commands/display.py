"""How things look on a terminal: numbers, tables, progress bars, and which stream says what.

Notable choices:
- results go to standard output, notes and progress to standard error, so that a pipe gets results only;
- text of samples is untrusted: control characters are made visible, for a row must not steer the terminal;
- on a terminal, a table that would not fit is shown as one block per row, and ids are cut short;
- elsewhere, in a pipe or a file, nothing is wrapped or cut, however long: lines are for other programs there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from datapruner.progress import Progress as Listener
from datapruner.progress import Silent

if TYPE_CHECKING:
    from datapruner.teacher import Estimate

_ID_LENGTH = 12
_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_CONTROL |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}
_MIN_COLUMN = 9  # narrower columns than this are not worth reading
_MAX_ALIGNED = 48  # characters up to which columns are aligned without a terminal
_ENDLESS = 1 << 30  # characters of a line where there is no terminal
_SPEED_WINDOW = 120  # seconds of history behind an estimate: batches of long rows are slow and uneven


def clean(text: str) -> str:
    """`text` with control characters replaced by visible ones, length unchanged."""
    return text.translate(_CONTROL)


def number(value: Any) -> str:
    """A value as people read it: 1,234 or 3.142 or 1.2e-07 or yes; a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return number(int(value) if value == value.to_integral_value() else float(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        size = abs(value)
        return f"{value:,.0f}" if 1e4 <= size < 1e9 else f"{value:.4g}"
    return clean(str(value))


def share(part: float, whole: float) -> str:
    """`part` of `whole` in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def plural(count: int, noun: str) -> str:
    """`1 sample`, `1,234 samples`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`0.8 s` below ten seconds, `0:12:34` above."""
    return f"{seconds:.1f} s" if seconds < 10 else str(timedelta(seconds=round(seconds)))


def size(count: float) -> str:
    """Bytes in a unit that suits."""
    unit = "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def short_ids(ids: Iterable[str | None]) -> dict[str, str]:
    """Each id's first twelve characters, or as many as tell all of them apart."""
    known = {each for each in ids if each}
    longest = max(map(len, known), default=0)
    length = next(
        (n for n in range(_ID_LENGTH, longest) if len({each[:n] for each in known}) == len(known)), longest
    )
    return {each: each[:length] for each in known}


def table(*columns: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns in `right` are aligned to the right."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=None if title is None else whole(title),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for name in columns:
        made.add_column(clean(name), justify="right" if name in right else "left", overflow="fold")
    return made


def whole(text: str) -> Text:
    """Text that stays in one line where a table would fold it to its own width: titles, captions."""
    return Text(text, no_wrap=True, overflow="ignore")


def warnings(texts: Iterable[str]) -> Text:
    """What to mind, each on a line of its own."""
    return Text("\n".join(f"warning: {clean(text)}" for text in texts), style="yellow")


def pairs(values: Mapping[str, Any]) -> Table:
    """Names and values side by side."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(clean(name), value if isinstance(value, Text | Table) else number(value))
    return made


def rows_table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None
) -> list[RenderableType]:
    """Any rows as a table, or as one block per row where `width` characters are too few for the columns.

    Without a width each row is one line: nothing is cut, and breaks inside of values become visible signs.
    """
    shortened = {
        at: short_ids(row[at] for row in rows if isinstance(row[at], str))
        for at, name in enumerate(names)
        if name == "sample_id" and width is not None
    }
    shown = [
        [shortened[at].get(v, number(v)) if at in shortened else number(v) for at, v in enumerate(row)]
        for row in rows
    ]
    least = sum(min(_MIN_COLUMN, _widest(name, shown, at)) + 2 for at, name in enumerate(names))
    if width is not None and least > width:
        return [Padding(pairs(dict(zip(names, map(Text, row), strict=True))), (0, 0, 1, 0)) for row in shown]
    numeric = (int, float, Decimal)
    right = [
        name
        for at, name in enumerate(names)
        if any(isinstance(row[at], numeric) and not isinstance(row[at], bool) for row in rows)
    ]
    if width is None:
        return [_aligned(names, shown, right)]
    made = table(*names, right=right)
    for row in shown:
        made.add_row(*map(Text, row))
    return [made]


def _aligned(names: Sequence[str], shown: Sequence[Sequence[str]], right: Sequence[str]) -> Text:
    """A line per row. What is long is not waited for by the rows around it: a column of texts would fill a
    pipe with spaces."""
    lines = [list(map(clean, names)), *([cell.replace("\n", "␊") for cell in row] for row in shown)]
    widths = [min(_MAX_ALIGNED, max(cell_len(line[at]) for line in lines)) for at in range(len(names))]
    lines.insert(1, ["─" * width for width in widths])
    padded = []
    for line in lines:
        spaces = [" " * (width - cell_len(cell)) for width, cell in zip(widths, line, strict=True)]
        cells = zip(names, line, spaces, strict=True)
        row = (space + cell if name in right else cell + space for name, cell, space in cells)
        padded.append("   ".join(row).rstrip())
    return Text("\n".join(padded))


def _widest(name: str, shown: Sequence[Sequence[str]], at: int) -> int:
    return max([len(name), *(len(row[at]) for row in shown)])


class Output:
    """Where a command says things. With `as_json`, standard output holds one JSON document and no more."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.console = console(sys.stdout)
        self._errors = console(sys.stderr)

    @property
    def width(self) -> int | None:
        """Characters of a line of the terminal; None where standard output is none."""
        return None if self.console.width == _ENDLESS else self.console.width

    def show(self, *parts: RenderableType) -> None:
        """Print for people; silent with --json or --quiet."""
        if not (self.as_json or self.quiet):
            for part in parts:
                self.console.print(part)

    def document(self, document: Any) -> None:
        """Print for scripts; silent without --json."""
        if self.as_json:
            sys.stdout.write(as_json(document) + "\n")
            sys.stdout.flush()  # `serve` goes on

    def estimate(self, found: Estimate) -> None:
        """What a teacher would be asked."""
        self.document(asdict(found))
        self.show(str(found))

    def note(self, text: str) -> None:
        """A remark beside the result."""
        if not self.quiet:
            self._errors.print(Text(text))

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """A listener that draws bars, on a terminal; elsewhere one that says nothing."""
        if self.quiet or not self._errors.is_terminal:
            yield Silent()
            return
        with Bars(self._errors) as bars:
            yield bars


def console(stream: TextIO) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no guessed colours, and without a
    terminal no line breaks of its own."""
    width = None if stream.isatty() else _ENDLESS
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def as_json(document: Any) -> str:
    """Strict JSON: what is not a number there becomes null."""
    return json.dumps(_finite(document), ensure_ascii=False, indent=2, allow_nan=False, default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes) else str(value)


class _Amount(ProgressColumn):
    """Done and total, in the stage's unit."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit == "bytes":
            done, total = size(task.completed), None if task.total is None else size(task.total)
            return Text(done if total is None else f"{done} of {total}")
        of = "" if task.total is None else f"/{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{of} {unit}" if task.completed or of else "")


class Bars:
    """Draws one bar per stage while the block runs, and takes them away after it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            _Amount(),
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
            expand=True,
            speed_estimate_period=_SPEED_WINDOW,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int | None, unit: str) -> None:
        if self._task is not None:
            done = self._progress.tasks[-1].completed
            self._progress.update(self._task, total=done or 1, completed=done or 1, note="")
        self._task = self._progress.add_task(clean(name), total=total, unit=unit, note="")

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total, note=clean(note))

    def measured(self, rows: int, tokens: int) -> None:
        """The rate is in the note."""

    def note(self, text: str) -> None:
        self._progress.console.print(Text(clean(text)))
