"""Every setting, method, command and route has its place in docs/, and what the pages name is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests import docs, readme
from tests.compose import ROOT

PAGES = [*readme.pages(), ROOT / "ARCHITECTURE.md"]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
_OF_A_PROCESS_OF_OURS = {"DATAPRUNER_PARENT"}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def spoken(page: Path) -> list[str]:
    """What stands in a page as code within its lines."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL))


@by_page
def test_the_tables_are_those_of_the_code(page: Path) -> None:
    assert text(page) == docs.written(text(page)), "run `python -m tests.docs`"


def test_every_table_is_in_a_page_once() -> None:
    found = Counter(name for page in PAGES for name in re.findall(r"<!-- table: (\w+) -->", text(page)))
    assert found == Counter(docs.TABLES.keys())


@pytest.mark.parametrize("name", docs.TABLES)
def test_every_line_of_a_table_says_something(name: str) -> None:
    lines = [line for line in docs.TABLES[name]() if line.startswith("| ")]
    assert len(lines) > 1
    assert [line for line in lines if line.endswith("|  |")] == []


def test_every_variable_that_the_code_reads_is_among_the_settings() -> None:
    """Those of the two classes of settings are in the tables."""
    read = {
        name
        for package in ("api", "datapruner", "scorers")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r'"(DATAPRUNER_[A-Z_]*[A-Z])"', path.read_text(encoding="utf-8"))
    }
    assert "DATAPRUNER_HOME" in read
    assert read - _OF_A_PROCESS_OF_OURS <= set(re.findall(r"DATAPRUNER_\w+", text(docs.DOCS / "settings.md")))


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text(page)):
        found = page.parent / target if target else page
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", text(found), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@by_page
def test_routes_that_the_text_names_are_there(page: Path) -> None:
    known = {re.sub(r"{\w+}", "{}", route) for route, _ in docs.routes()}
    named = [each for each in spoken(page) if re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) /v1/[\w{}/]+", each)]
    assert [each for each in named if re.sub(r"{\w+}|tour", "{}", each) not in known] == []


@by_page
def test_options_that_the_text_names_are_there(page: Path) -> None:
    """Options of docker are another matter."""
    known = {name for _, command in docs.commands() for each in command.params for name in each.opts}
    said = [each for each in spoken(page) if not re.match(r"(docker|--build-arg)\s", each)]
    assert {name for each in said for name in re.findall(r"(?<!\S)--[a-z][a-z-]+", each)} <= known | {
        "--help"
    }
