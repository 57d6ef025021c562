"""Numbers, tables and bars look right and fit, and untrusted text cannot steer a terminal."""

from __future__ import annotations

import io
import json
import math
import re
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from datapruner.commands import display
from datapruner.commands.display import Bars, Output


def on_terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    environment = {"TERM": "xterm-256color"}  # whatever terminal the tests run in
    console = Console(file=text, width=width, force_terminal=True, markup=False, _environ=environment)
    return console, text


def rendered(*parts: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (3.14159265, "3.142"),
        (123456.7, "123,457"),
        (8.149368992648056e-08, "8.149e-08"),
        (0.0, "0"),
        (math.inf, "inf"),
        (Decimal(12345), "12,345"),
        ("\x1b[2J", "␛[2J"),
    ],
)
def test_values_are_rounded_and_grouped(value: object, shown: str) -> None:
    assert display.number(value) == shown


def test_shares_durations_and_sizes_read_well() -> None:
    assert (display.share(1, 8), display.share(0, 0)) == ("12.5 %", "–")
    assert (display.duration(0.84), display.duration(754)) == ("0.8 s", "0:12:34")
    assert (display.size(512), display.size(1536), display.size(80 << 30)) == ("512 B", "1.5 KiB", "80.0 GiB")
    assert (display.plural(1, "row"), display.plural(1200, "row")) == ("1 row", "1,200 rows")


def test_control_characters_become_visible_and_keep_their_place() -> None:
    text = "a\x1b]0;title\x07b\x9bc\x7f\n\td"
    assert display.clean(text) == "a␛]0;title␇b\ufffdc␡\n\td"
    assert len(display.clean(text)) == len(text)


def test_ids_are_cut_to_twelve_characters_unless_that_would_confuse_two() -> None:
    assert display.short_ids(["0123456789abcdef", None]) == {"0123456789abcdef": "0123456789ab"}
    alike = ["0123456789abcdef", "0123456789abcxyz"]
    assert sorted(display.short_ids(alike).values()) == ["0123456789abcd", "0123456789abcx"]
    assert display.short_ids(["short"]) == {"short": "short"}


def test_rows_that_fit_become_a_table_and_others_one_block_each() -> None:
    names = ["sample_id", "ppl"]
    table = rendered(*display.rows_table(names, [["f" * 32, 1.23456], ["e" * 32, None]], 80))
    assert table.split()[:2] == names
    assert "ffffffffffff   1.235" in table
    wide = [f"column_{i}" for i in range(20)]
    blocks = rendered(*display.rows_table(wide, [list(range(20))] * 2, 80))
    assert blocks.count("column_19") == 2


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_is_never_wider_than_the_terminal(width: int) -> None:
    rows = [["a" * 300, "b" * 300, 1.5]]
    lines = rendered(*display.rows_table(["one", "two", "three"], rows, width), width=width).splitlines()
    assert max(map(len, lines)) <= width


def test_markup_in_data_is_shown_as_it_is() -> None:
    assert "[bold]x[/bold] :smile:" in rendered(display.pairs({"text": "[bold]x[/bold] :smile:"}))


def test_json_has_no_nan_and_knows_what_sql_returns() -> None:
    document = {"a": [math.nan, 1.5], "b": Decimal("2"), "c": Decimal("2.5"), "d": b"\x00\xff", 3: (1,)}
    assert json.loads(display.as_json(document)) == {
        "a": [None, 1.5],
        "b": 2,
        "c": 2.5,
        "d": "00ff",
        "3": [1],
    }


def test_with_json_only_the_document_reaches_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.show("for people")
    output.document({"for": "scripts"})
    output.note("beside")
    said = capsys.readouterr()
    assert json.loads(said.out) == {"for": "scripts"}
    assert said.err == "beside\n"


def test_without_a_terminal_no_table_is_folded_or_cut(capsys: pytest.CaptureFixture[str]) -> None:
    made = display.table("id", "why", title="A title that is longer than all of the table under it is wide")
    made.add_row("f" * 300, "because " * 40)
    output = Output()
    output.show(made, display.pairs({"Name": "x" * 500}), "y" * 500)
    output.note("z" * 500)
    said = capsys.readouterr()
    title, _, _, row, pair, text = (line.strip() for line in said.out.splitlines())
    assert title.endswith("it is wide")
    assert row == f"{'f' * 300}   {('because ' * 40).strip()}"
    assert (pair, text, said.err) == (f"Name  {'x' * 500}", "y" * 500, "z" * 500 + "\n")
    assert output.width is None


def test_rows_without_a_terminal_are_lines_with_all_of_their_ids() -> None:
    ids = ["0" * 32, "1" * 32]
    [text] = display.rows_table(
        ["sample_id", "text", "n"], [[ids[0], "a\nb", 1], [ids[1], "c" * 99, 10]], None
    )
    lines = rendered(text, width=1 << 20).splitlines()
    assert lines[2] == f"{ids[0]}   a␊b{' ' * 45}    1"
    assert lines[3] == f"{ids[1]}   {'c' * 99}   10"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.show("for people")
    output.document({"for": "scripts"})
    output.note("beside")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_are_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().progress() as progress:
        progress.stage("measuring", 10, "samples")
        progress.at(10)
    assert capsys.readouterr() == ("", "")


def test_bars_show_rows_rate_and_stay_inside_the_terminal() -> None:
    console, text = on_terminal(80)
    with Bars(console) as bars:
        bars.stage("ingesting", None, "bytes")
        bars.at(2048, 4096, "20 rows")
        bars.stage("measuring", 5000, "samples")
        bars.at(1234, note="455 tokens/s")
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()))
    assert max(map(len, drawn)) <= 80
    assert "2.0 KiB of 2.0 KiB" in text.getvalue()  # a stage that is over is complete
    assert "1,234/5,000 samples" in text.getvalue()
    assert "455 tokens/s" in text.getvalue()


def test_progress_before_any_stage_is_ignored() -> None:
    console, _ = on_terminal()
    with Bars(console) as bars:
        bars.at(3)
