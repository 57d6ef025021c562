"""The methods as a service shows them: what each writes is what it describes."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from datapruner.errors import NotFoundError
from datapruner.service import methods
from scorers.methods import registry
from scorers.methods.findings import measured


def test_every_method_is_shown_with_all_of_its_columns() -> None:
    shown = {answer.name: answer for answer in methods.listing(limit=100)}
    assert shown.keys() == registry.methods().keys()
    for name, answer in shown.items():
        described = [(each.of, each.name) for each in registry.get(name).columns]
        assert [(each.of, each.name) for each in answer.columns] == described
        assert methods.show(name) == answer


def test_a_column_has_its_meaning_unit_direction_and_range() -> None:
    columns = {(each.of, each.name): each for each in methods.show("qtuning").columns}
    entropy, quadrant = columns["sample", "entropy"], columns["selection", "quadrant"]
    assert (entropy.kind, entropy.unit, entropy.at_least, entropy.at_most) == ("real", "nats", 0, None)
    assert (quadrant.kind, quadrant.always) == ("text", True)
    assert quadrant.values == ["Q1", "Q2", "Q3", "Q4", "band"]
    [don] = [each for each in methods.show("donod").columns if each.name == "don"]
    assert (don.direction, don.meaning) == ("low", "||W|| - ||W'||, of the head before and after the step")


def test_what_was_measured_of_a_method_is_shown_with_what_it_was_measured_with() -> None:
    shown = methods.show("ppl")
    first, *_ = measured().of("ppl")
    assert [each.words for each in shown.findings] == [each.words for each in measured().of("ppl")]
    assert shown.findings[0].kept[0].model_dump() == asdict(first.kept[0])
    assert [change.model_dump() for change in shown.findings[0].changes] == list(map(asdict, first.changes))
    assert shown.measured_with == list(measured().sizes)


def test_a_method_that_there_is_not_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no method 'none'"):
        methods.show("none")
