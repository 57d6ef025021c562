"""The page of a report: one file that loads nothing, in which no row of a corpus is more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.errors import UsageError
from datapruner.reporting.page import page
from datapruner.result import Result
from datapruner.runs import evaluations
from datapruner.schemas.reports import RunReport
from datapruner.shown import plain
from tests.command_line import Said
from tests.evaluations import evaluation

EVIL = "</script><script>document.title = 'owned'</script><img src=x onerror='document.title = 1'>{{ 7 * 7 }}"
TURNING = "\u202eabc\u2066\u2028next\u2029\u0007שלום"
ROWS: list[dict[str, Any]] = [
    {"instruction": EVIL, "output": EVIL},
    {"instruction": TURNING, "output": TURNING},
    {"instruction": "A large one.", "output": "x " * 50_000},
    {"instruction": EVIL, "output": None},
    *({"instruction": f"What is {n}?", "output": f"<b>{n}</b>"} for n in range(6)),
]


class Parsed(HTMLParser):
    """What is in a page: its elements with their attributes, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)
            self.texts.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, *tags: str) -> str:
        return "".join(text for tag, text in self.texts if tag in tags)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]) -> RunReport:
    """Of a run over hostile rows from a file with a hostile name, evaluated."""
    folder = tmp_path_factory.mktemp("hostile")
    source = folder / "<img src=x onerror=alert(1)>.jsonl"
    source.write_text("\n".join(map(json.dumps, ROWS)) + "\n{</script>", encoding="utf-8")
    made = datapruner.prune(source, "qtuning", 0.5, home=folder / "home", **options)
    evaluations.write(made.run.folder, evaluation(run=made.run.run_id, said=EVIL))
    return datapruner.report(made)


@pytest.fixture(scope="module")
def html(report: RunReport) -> str:
    return "".join(page(report))


@pytest.fixture(scope="module")
def parsed(html: str) -> Parsed:
    return Parsed(html)


def test_what_rows_say_is_text_and_no_element(parsed: Parsed) -> None:
    tags = [tag for tag, _ in parsed.elements]
    assert not {"img", "i", "iframe", "object", "link", "a", "form", "base"} & set(tags)
    assert tags.count("script") == 3
    assert not any(name.startswith("on") or name == "style" for _, each in parsed.elements for name in each)
    assert EVIL in parsed.said("blockquote")
    assert "<img src=x onerror=alert(1)>.jsonl" in parsed.said("bdi")
    assert EVIL in parsed.said("bdi")  # of the evaluation


def test_the_policy_names_the_scripts_and_styles_that_are_there_and_nothing_is_loaded(
    html: str, parsed: Parsed
) -> None:
    [policy] = [each["content"] for each in parsed.of("meta") if "http-equiv" in each]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))

    def hashes(pattern: str) -> set[str]:
        found = re.findall(pattern, html, re.DOTALL)
        return {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found}

    scripts, styles = hashes(r"<script(?: type=\"module\")?>(.*?)</script>"), hashes(r"<style>(.*?)</style>")
    assert (len(scripts), len(styles)) == (2, 1)
    assert scripts | styles | hashes("^()") == allowed
    assert not any(
        name in ("src", "href", "srcset", "action") for _, each in parsed.elements for name in each
    )


def test_the_block_of_data_is_that_of_the_document_and_nothing_can_end_it(
    report: RunReport, html: str
) -> None:
    [block] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert not set(block) & set("<>&'\u2028\u2029")
    document = json.loads(report.model_dump_json())
    names = ("plane", "distributions", "by_length")
    assert json.loads(block) == {name: document[name] for name in names}


def test_texts_are_cut_and_characters_that_steer_are_shown_by_number(html: str, parsed: Parsed) -> None:
    assert plain(TURNING) in parsed.said("blockquote")
    own = html[: html.index("plotly.js v")]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x07]", own)
    assert len(own) < 400_000
    assert "… of 100,000 characters" in own


def test_the_numbers_are_in_tables_which_need_no_script(report: RunReport, parsed: Parsed) -> None:
    cells = parsed.said("td", "th", "strong", "bdi", "dd", "caption")
    for step in report.funnel.steps:
        assert f"−{step.removed:,}" in cells
    assert report.distributions is not None
    for each in report.distributions:
        assert each.column in cells
    assert report.replay is not None
    assert report.replay in parsed.said("code")
    assert report.evaluations is not None
    [told] = report.evaluations
    for arm in told.arms:
        assert f"{arm.trained_tokens:,g}" in cells
    for against in (*told.overall, *(each for held_out in told.held_out for each in held_out.against)):
        assert f"{against.nats_per_token.difference:+.4f}" in cells
    assert len(parsed.of("table")) > 5


def test_a_page_is_written_whole_and_only_as_html(
    first_run: Result, home: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    out = tmp_path / "report.html"
    said = command("report", first_run.run.run_id, "--out", out, home=home)
    assert said.out.endswith(f"{out}: the page, for any browser\n")
    assert out.read_text(encoding="utf-8").endswith("</html>")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(UsageError, match=r"is written as \.html"):
        datapruner.report(first_run, tmp_path / "report.pdf")
    with pytest.raises(UsageError, match="does not exist"):
        datapruner.report(first_run, tmp_path / "no" / "report.html")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page in")
def test_a_browser_draws_every_plot_and_has_nothing_to_complain_of(html: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html, encoding="utf-8", newline="")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    flags += [f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=20000"]
    done = subprocess.run(
        ["chromium", *flags, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr
    plots = re.findall(r'data-plot="[^"]*"', html)
    assert done.stdout.count('<svg class="main-svg"') >= len(plots) > 5
    assert re.search(r"<title>qtuning: run \w+</title>", done.stdout)
