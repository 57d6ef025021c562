"""The methods that a form offers, and what each takes besides the rows."""

from __future__ import annotations

from datapruner.service import guided
from scorers.methods import registry


def test_every_method_is_offered_and_says_what_it_takes() -> None:
    found = {choice.about.name: choice for choice in guided.choices()}
    assert found.keys() == registry.methods().keys()
    assert {name: set(choice.takes) for name, choice in found.items() if choice.takes} == {
        "judge": {"teacher"},
        "loss-drop": {"reference"},
        "rds": {"target"},
        "reward": {"reward_model"},
        "rho": {"reference"},
        "target-cosine": {"target"},
    }
    besides = {name: choice.besides for name, choice in found.items() if choice.besides}
    assert besides == {"dealrec": {"risk": {"target": frozenset({"target"})}}}
