"""Methods by name, and methods from outside through real entry points on the path."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scorers.method import Method, Option
from scorers.methods.registry import OWN, check_columns, get, methods
from scorers.signals.columns import (
    DERIVED_SIGNALS,
    SAMPLE_SIGNALS,
    TOKEN_SIGNALS,
    VECTOR_SIGNALS,
    Signals,
    corpus_settings,
    needs_by_view,
)
from tests.signal_factory import make_signals

by_method = pytest.mark.parametrize("method", OWN, ids=lambda method: method.name)


def test_the_methods_are_known_by_name() -> None:
    names = list(methods())
    assert names[:2] == ["qtuning", "donod"]
    assert len(names) == len(set(names)) == 25
    for name, method in methods().items():
        assert get(name).name == name == method.name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown method 'qtunning'; known are qtuning, donod, dealrec, "):
        get("qtunning")


def only(signals: Signals, names: frozenset[str]) -> Signals:
    """The signals with these columns, and no views."""
    return Signals(
        signals.ids,
        {name: column for name, column in signals.samples.items() if name in names},
        {name: column for name, column in signals.tokens.items() if f"token:{name}" in names},
        signals.offsets,
        {name: vectors for name, vectors in signals.vectors.items() if name in names},
    )


@by_method
def test_a_method_reads_no_signal_but_those_it_says_it_needs(method: Method[Any]) -> None:
    full, options = make_signals(40, seed=2), method.options()
    wanted = needs_by_view(method.needs(options))
    for names in wanted.values():
        plain = {name for name in names if corpus_settings(name) is None}
        tokens = {f"token:{name}" for name in TOKEN_SIGNALS}
        assert plain <= {*SAMPLE_SIGNALS, *DERIVED_SIGNALS, *VECTOR_SIGNALS, *tokens}
    views = {name: only(view, wanted[name]) for name, view in full.others.items() if name in wanted}
    slim = replace(only(full, wanted[""]), others=views)
    for signals in (full, slim):
        scores = method.scores(signals, options, 1)
        assert all(column.shape == (40,) for column in scores.values())
        assert all(
            column.shape == (full.offsets[-1],) for column in method.token_scores(signals, options).values()
        )
        selection = method.select(signals, scores, 0.3, options, 1)
        assert selection.keep.sum() >= 12
        assert selection.token_keep.shape == (full.offsets[-1],)
        assert all(column.shape == (40,) for column in selection.columns.values())
        assert len({selection.reasons[i] for i in selection.reason}) > 1


@by_method
def test_the_same_inputs_and_seed_give_the_same_bytes(method: Method[Any]) -> None:
    signals, options = make_signals(60, seed=3), method.options()
    runs = []
    for _ in range(2):
        scores = method.scores(signals, options, 4)
        selection = method.select(signals, scores, 0.4, options, 4)
        arrays = [
            *scores.values(),
            *method.token_scores(signals, options).values(),
            *selection.columns.values(),
        ]
        arrays += [selection.keep, selection.reason, selection.token_keep]
        runs.append([np.ascontiguousarray(array).tobytes() for array in arrays])
    assert runs[0] == runs[1]


@by_method
def test_a_missing_signal_is_named(method: Method[Any]) -> None:
    options, full = method.options(), make_signals(10)

    def lacking(signals: Signals, need: str) -> Signals:
        names = {*signals.samples, *signals.vectors, *(f"token:{name}" for name in signals.tokens)}
        return replace(only(signals, frozenset(names - {need})), others=signals.others)

    def refusal(signals: Signals) -> str:
        with pytest.raises(ValueError, match="was not measured") as refused:
            method.select(signals, method.scores(signals, options, 0), 1.0, options, 0)
        return str(refused.value)

    for view, needs in needs_by_view(method.needs(options)).items():
        for need in needs:
            if not view:
                assert f"{need.removeprefix('token:')} was not measured" in refusal(lacking(full, need))
                continue
            others = {**full.others, view: lacking(full.others[view], need)}
            message = refusal(replace(full, others=others))
            assert f"{need.removeprefix('token:')} was not measured" in message
        if view:
            others = {name: other for name, other in full.others.items() if name != view}
            assert f"the view '{view}'" in refusal(replace(full, others=others))


@by_method
def test_presets_and_options_explain_themselves(method: Method[Any]) -> None:
    for preset in method.presets.values():
        values = dict(preset)
        assert 0 < values.pop("keep") <= 1
        method.options(**values)
    for field in fields(method.options):
        about = field.metadata["option"]
        assert isinstance(about, Option)
        assert about.help
        assert field.default is not MISSING
    assert method.title
    assert method.paper


def test_the_published_settings_of_both_papers_are_presets() -> None:
    trainer = {"scope": "batch", "batch_size": 8, "shuffle": True, "budget": "plane", "protect_end": False}
    assert dict(get("qtuning").presets) == {
        "paper-12.5x50": {"keep": 0.125, "token_keep": 0.5, **trainer},
        "paper-12.5x70": {"keep": 0.125, "token_keep": 0.7, **trainer},
        "paper-25x50": {"keep": 0.25, "token_keep": 0.5, **trainer},
        "paper-25x70": {"keep": 0.25, "token_keep": 0.7, **trainer},
        "paper-50x50": {"keep": 0.5, "token_keep": 0.5, **trainer},
        "paper-50x70": {"keep": 0.5, "token_keep": 0.7, **trainer},
    }
    assert dict(get("donod").presets) == {"share-30": {"keep": 0.3}}


# Options with which a method writes what it does not write by default.
OTHERWISE: dict[str, list[dict[str, Any]]] = {
    "donod": [{"tied_exact": True}],
    "el2n": [{"cut_hardest": 0.2}],
    "judge": [{"rubric": "deita"}],
    "ppl": [{"prefer": "middle"}],
    "qtuning": [
        {"scope": "batch", "batch_size": 10, "exact": True},
        {"scope": "batch", "batch_size": 10, "fill": "boundary"},
    ],
    "rds": [{"pick": "max"}],
    "target-cosine": [{"pick": "round-robin"}],
}


@by_method
def test_a_method_describes_all_that_it_writes_and_nothing_else(method: Method[Any]) -> None:
    signals, written = make_signals(40, seed=2), set()
    in_vain = replace(signals, others=signals.others | {"free": replace(signals, others={})})
    beside = {"ppl", "entropy"} if method.name == "topsis" else set()  # criteria, which others describe
    for given in ({}, *OTHERWISE.get(method.name, [])):
        options = method.options(**given)
        for each in (signals, in_vain) if method.name == "ifd" else (signals,):
            scores = method.scores(each, options, 1)
            selection = method.select(each, scores, 0.3, options, 1)
            written |= {("sample", name) for name in scores.keys() - beside}
            written |= {("token", name) for name in method.token_scores(each, options)}
            written |= {("selection", name) for name in selection.columns}
            written |= {("threshold", name) for name in selection.thresholds}
    described = [(column.of, column.name) for column in method.columns]
    assert sorted(described) == sorted(written)
    check_columns(method, OWN)
    for column in method.columns:
        assert column.meaning
        assert column.values or column.kind != "text" or column.name == "nearest_task", "of so many kinds"


OUTSIDE = """
from scorers.column import Column
from scorers.methods.random_control import Random

class Outside(Random):
    name = "outside"
    columns = (Column("outside", "how far out", at_least=0, at_most=1),)

    def scores(self, signals, options, seed):
        return {"outside": super().scores(signals, options, seed)["random"]}

class Wordless(Random):
    name = "wordless"
    columns = ("wordless",)

class Contrary(Random):
    name = "contrary"
    columns = (Column("quadrant", "a quarter of a town"),)

class Deaf(Random):
    name = "deaf"
    columns = (Column("entropy", "disorder of the desk"),)

class Silent(Random):
    name = "silent"

    @property
    def columns(self):
        raise AttributeError("columns")

class Impostor(Random):
    name = "qtuning"

class NotOne:
    name = "half"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a package with the given entry points on the path, as an installer would."""

    def _install(package: str, **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(OUTSIDE)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {package}:{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("[datapruner.scorers]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return _install


def test_a_method_of_another_package_is_found_and_runs(install: Any) -> None:
    install("outside_ok", outside="Outside")
    assert list(methods())[-1] == "outside"
    method, signals = get("outside"), make_signals(10)
    options = method.options()
    scores = method.scores(signals, options, 0)
    assert scores.keys() == {column.name for column in method.columns}
    assert method.select(signals, scores | {"random": scores["outside"]}, 0.5, options, 0).keep.sum() == 5


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("Missing", "has no attribute 'Missing'"),
        ("NotOne", "NotOne lacks members of scorers.method.Method"),
        ("Silent", "Silent lacks members of scorers.method.Method"),
        ("Wordless", "its columns are not all described by scorers.column.Column"),
        ("Contrary", "its column 'quadrant' is another than that of qtuning"),
        ("Deaf", "its column 'entropy' is another than the signal"),
        ("Impostor", "the name 'qtuning' is taken by QTuning"),
    ],
)
def test_a_broken_method_is_left_out_with_a_warning_and_the_others_work(
    install: Any, value: str, why: str
) -> None:
    install(f"outside_{value.lower()}", broken=value)
    with pytest.warns(RuntimeWarning, match=f"'broken' .* is left out: .*{why}"):
        found = methods()
    assert list(found) == [method.name for method in OWN]
    assert found["qtuning"] is OWN[0]
