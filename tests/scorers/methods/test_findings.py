"""The findings that are published are of methods that there are, and add up."""

from __future__ import annotations

import pytest

from scorers.methods import registry
from scorers.methods.findings import Finding, measured

each_finding = pytest.mark.parametrize("found", measured().methods, ids=lambda found: found.label)


def test_are_of_methods_that_there_are_each_once() -> None:
    labels = [each.label for each in measured().methods]
    assert len(labels) == len(set(labels)) > 1
    assert {each.method for each in measured().methods} <= {method.name for method in registry.OWN}


@each_finding
def test_options_are_those_of_the_method(found: Finding) -> None:
    registry.get(found.method).options(**found.options)
    assert found.words or not found.options


@each_finding
def test_counts_intervals_and_correlations_are_possible(found: Finding) -> None:
    for kept in found.kept:
        assert 0 <= kept.kept <= kept.rows
        assert kept.share == kept.kept / kept.rows
    for change in found.changes:
        assert change.low <= change.difference <= change.high
        shown = {"better": change.high < 0, "worse": change.low > 0}.get(change.verdict, True)
        assert shown, change.text
    if found.length is not None:
        assert -1 <= found.length.correlation <= 1


def test_of_a_method_are_its_own_with_the_defaults_first() -> None:
    found = measured().of("ppl")
    assert [each.label for each in found][:1] == ["ppl"]
    assert {each.method for each in found} == {"ppl"}
    assert measured().of("a method of another package") == ()


def test_every_kind_that_is_shown_was_counted() -> None:
    for corpus in measured().corpora:
        for kind in corpus.shown:
            rows = [
                k.rows
                for each in measured().methods
                for k in each.kept
                if (k.corpus, k.kind) == (corpus.name, kind)
            ]
            assert rows, (corpus.name, kind)
            assert max(rows) <= corpus.rows
