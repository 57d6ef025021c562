"""What options and views say of themselves, and refuse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from scorers.method import Option, Options, option, view
from scorers.signals import columns
from scorers.signals.columns import Signals, needs_by_view
from tests.signal_factory import make_signals, reorder


@dataclass(frozen=True, slots=True)
class Columns(Options):
    columns: str = option("ppl:high", "what to merge", longest=12)


def test_a_text_option_is_bounded_and_printable() -> None:
    assert Columns("el2n:low:0.5").columns == "el2n:low:0.5"
    for wrong in ("x" * 13, "a\nb", "\x1b[1m", 3, None, True):
        with pytest.raises(ValueError, match=r"option columns is .*: allowed is a text of at most 12 print"):
            Columns(wrong)  # type: ignore[arg-type]


def test_a_text_has_a_bound_without_being_told() -> None:
    assert Option("").admits("x" * 200, str)
    assert not Option("").admits("x" * 201, str)


def test_needs_are_told_apart_by_view() -> None:
    needs = {"nll", "token:nll", "free:nll", "reference:token:nll", "target:mean_hidden"}
    assert needs_by_view(needs) == {
        "": {"nll", "token:nll"},
        "free": {"nll"},
        "reference": {"token:nll"},
        "target": {"mean_hidden"},
    }
    assert needs_by_view([]) == {"": frozenset()}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("free", "ask for it"), ("reference", "name a reference"), ("target", "name a target")],
)
def test_a_view_that_was_not_measured_is_named_with_a_remedy(name: str, remedy: str) -> None:
    signals = make_signals(3)
    assert view(signals, name) is signals.others[name]
    with pytest.raises(ValueError, match=f"the view '{name}' .* was not measured; {remedy}"):
        view(replace(signals, others={}), name)


def test_a_view_of_the_same_samples_is_in_the_same_order() -> None:
    signals = make_signals(3)
    other = reorder(signals.others["free"], [2, 0, 1])  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="view free is of other samples"):
        replace(signals, others={"free": other})


def test_tokens_are_counted_by_sample_however_many_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = Signals(np.array(list("abcde")), {}, {}, np.array([0, 2, 2, 5, 6, 6]))
    marked = np.array([True, False, True, True, False, True])
    for block in (1, 2, 100):
        monkeypatch.setattr(columns, "_BLOCK", block)
        assert signals.counted(marked).tolist() == [1, 0, 2, 1, 0]
