"""Q-Tuning against the paper's pseudo-code in plain Python loops, and the rules that its masks keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.method import Selection
from scorers.methods import qtuning
from scorers.methods.qtuning import QTuning, QTuningOptions
from scorers.selection import cut
from scorers.selection.ranking import draws
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder, sample_ids, sample_signals


def run(signals: Signals, share: float, options: QTuningOptions | None = None, seed: int = 0) -> Selection:
    options = options or QTuningOptions()
    return QTuning().select(signals, QTuning().scores(signals, options, seed), share, options, seed)


# --- the plane, slowly


def slow_minmax(values: list[float]) -> list[float]:
    lowest, highest = min(values), max(values)
    return [0.0 if highest - lowest < 1e-12 else (x - lowest) / (highest - lowest) for x in values]


def half_ranks(values: list[float]) -> list[int]:
    return [2 * sum(y < x for y in values) + sum(y == x for y in values) - 1 for x in values]


def slow_alphas(ppl: list[float], ent: list[float]) -> tuple[list[int], list[int]]:
    """The tail, in half ranks, at which each sample comes into Q2 or Q4 as all four thresholds move on
    together, and by how many half ranks its perplexity is over its entropy."""
    last, error, doubt = 2 * (len(ppl) - 1), half_ranks(ppl), half_ranks(ent)
    found = []
    for e, d in zip(error, doubt, strict=True):
        tail = 0
        while not ((e >= last - tail and d <= tail) or (e <= tail and d >= last - tail)):
            tail += 1
        found.append(tail)
    return found, [e - d for e, d in zip(error, doubt, strict=True)]


def slow_plane(
    ppl: list[float],
    ent: list[float],
    ids: list[str],
    r_sample: float,
    exact: bool = False,
    fill: str = "paper",
) -> tuple[list[str], list[str], dict[str, float]]:
    """What happens to each sample of one batch ("Q2", "fill Q4 from Q1", ...), its quadrant, and the
    thresholds."""
    n = len(ppl)
    lo, hi = 0.0, 0.49
    for _ in range(10):
        a = (lo + hi) / 2
        ppl_low, ppl_high = float(np.quantile(ppl, a)), float(np.quantile(ppl, 1 - a))
        ent_low, ent_high = float(np.quantile(ent, a)), float(np.quantile(ent, 1 - a))
        q2 = [p > ppl_high and e <= ent_low for p, e in zip(ppl, ent, strict=True)]
        q4 = [p <= ppl_low and e > ent_high for p, e in zip(ppl, ent, strict=True)]
        r = sum(x or y for x, y in zip(q2, q4, strict=True)) / n
        if abs(r - r_sample) < 0.01:
            break
        if r < r_sample:
            lo = a
        else:
            hi = a
    quadrant = []
    for p, e in zip(ppl, ent, strict=True):
        row = "high" if p > ppl_high else "low" if p <= ppl_low else "band"
        column = "high" if e > ent_high else "low" if e <= ent_low else "band"
        names = {("high", "high"): "Q1", ("high", "low"): "Q2", ("low", "low"): "Q3", ("low", "high"): "Q4"}
        quadrant.append(names.get((row, column), "band"))
    fate = list(quadrant)
    lean = [p - e for p, e in zip(slow_minmax(ppl), slow_minmax(ent), strict=True)]
    target = min(max(round(r_sample * n), 1), n)
    kept = [i for i in range(n) if q2[i] or q4[i]]
    if len(kept) < (1 if fill == "none" else target):
        order, leaning = [-abs(x) for x in lean], [*lean]
        if fill == "boundary":
            order, leaning = map(list, slow_alphas(ppl, ent))  # type: ignore[assignment]
        others = sorted((i for i in range(n) if i not in kept), key=lambda i: (order[i], ids[i]))
        for i in others[: (1 if fill == "none" else target) - len(kept)]:
            fate[i] = f"fill {'Q2' if leaning[i] >= 0 else 'Q4'} from {quadrant[i]}"
    elif len(kept) > target and exact:
        ranked = sorted(kept, key=lambda i: (-abs(lean[i]), ids[i]))
        for i in ranked[target:]:
            fate[i] = "trimmed"
    cuts = {
        "alpha": a,
        "ppl_low": ppl_low,
        "ppl_high": ppl_high,
        "entropy_low": ent_low,
        "entropy_high": ent_high,
    }
    return fate, quadrant, cuts


PLACES = ["Q1", "Q2", "Q3", "Q4", "band"]
FATES = [*PLACES, *(f"fill {like} from {place}" for like in ("Q2", "Q4") for place in PLACES), "trimmed"]


def is_kept(fate: str) -> bool:
    return fate in ("Q2", "Q4") or fate.startswith("fill")


def loses_tokens(fate: str) -> bool:
    return fate == "Q2" or fate.startswith("fill Q2")


smooth = st.floats(0, 12)
tied = st.sampled_from([0.0, 0.1, 1.0, 1.0 + 1e-15, 2.5])
heavy = st.sampled_from([0.0, 1.0, 30.0, 699.0, 701.0, 5000.0, math.inf])
planes = st.sampled_from([smooth, tied, heavy, st.just(1.0), smooth | tied | heavy]).flatmap(
    lambda nll: st.lists(
        st.tuples(nll, st.sampled_from([0.0, 1.0, 1.5]) | st.floats(0, 11)), min_size=1, max_size=60
    )
)
shares = st.sampled_from([0.001, 0.125, 0.25, 0.3, 0.5, 0.75, 1.0]) | st.floats(0.001, 1)


@settings(max_examples=250)
@given(planes, shares, st.booleans(), st.sampled_from(["paper", "paper", "boundary", "none"]))
def test_samples_are_divided_filled_and_trimmed_as_in_the_pseudo_code(
    plane: list[tuple[float, float]], share: float, exact: bool, fill: Any
) -> None:
    signals = sample_signals(nll=[p for p, _ in plane], entropy=[e for _, e in plane])
    options = QTuningOptions(exact=exact, fill=fill)
    scores = QTuning().scores(signals, options, 0)
    selection = QTuning().select(signals, scores, share, options, 0)
    fate, quadrant, cuts = slow_plane(
        scores["ppl"].tolist(), scores["entropy"].tolist(), signals.ids.tolist(), share, exact, fill
    )
    assert [FATES[i] for i in selection.reason] == fate
    assert selection.columns["quadrant"].tolist() == quadrant
    assert {name: selection.thresholds[name] for name in cuts} == cuts
    assert selection.keep.tolist() == [is_kept(f) for f in fate]
    target = min(max(round(share * len(plane)), 1), len(plane))
    kept = int(selection.keep.sum())
    assert kept >= (1 if fill == "none" else target)
    assert kept <= target or not exact
    filled = sum(f.startswith("fill") for f in fate)
    assert selection.thresholds["fill_share"] == filled / kept
    assert bool(selection.warnings) == (filled > 0.2 * kept)


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5])
def test_a_thousand_samples_are_divided_as_in_the_pseudo_code(share: float) -> None:
    signals = make_signals(1000, seed=5)
    selection, scores = run(signals, share), QTuning().scores(signals, QTuningOptions(), 0)
    ppl, entropy = scores["ppl"].tolist(), scores["entropy"].tolist()
    fate, quadrant, cuts = slow_plane(ppl, entropy, signals.ids.tolist(), share)
    assert [FATES[i] for i in selection.reason] == fate
    assert selection.columns["quadrant"].tolist() == quadrant
    assert {name: selection.thresholds[name] for name in cuts} == cuts
    assert {"Q1", "Q2", "Q3", "Q4"} <= set(fate)


def correlated(n: int = 400) -> Signals:
    """Samples whose perplexity follows their entropy, with a few perplexities far beyond all others."""
    rng = np.random.default_rng(3)
    entropy = rng.uniform(1, 4, n)
    nll = entropy + rng.normal(0, 0.4, n)
    nll[:5] += 4
    return sample_signals(nll=nll, entropy=entropy)


def test_fill_is_named_with_the_place_it_is_from_and_warned_of() -> None:
    selection = run(correlated(), 0.5)
    said = [selection.reasons[i] for i in selection.reason[selection.keep]]
    filled = [reason for reason in said if reason.startswith("fill from ")]
    assert len(said) == 200
    assert selection.thresholds["fill_share"] == len(filled) / 200 > 0.5
    noise = sum(reason.startswith("fill from Q1 harmful noise: ") for reason in filled)
    assert noise > 0.9 * len(filled)
    [warning] = selection.warnings
    assert f"{len(filled) / 2:.0f} % of the 200 kept samples are fill ({noise} from Q1" in warning
    assert f"quadrants 2 and 4 hold only {200 - len(filled)}; fill=boundary or fill=none decides" in warning


def test_filling_from_the_boundary_leaves_the_far_corners_and_no_fill_keeps_fewer() -> None:
    signals = correlated()
    rank = {name: np.argsort(np.argsort(signals.samples[name])) for name in ("nll", "entropy")}
    noise = (rank["nll"] > 340) & (rank["entropy"] > 340)
    kept = {fill: run(signals, 0.5, QTuningOptions(fill=fill)).keep for fill in ("paper", "boundary", "none")}
    assert noise.sum() > 30
    assert (kept["paper"] & noise).sum() > 0.9 * noise.sum()
    assert not (kept["boundary"] & noise).any()
    assert kept["paper"].sum() == kept["boundary"].sum() == 200
    assert kept["none"].sum() < 100
    assert not (kept["none"] & ~(kept["paper"] & kept["boundary"])).any()


def test_the_reasons_say_what_each_quadrant_means_and_how_many_tokens_stay() -> None:
    # four corners, each ten deep, and a middle
    nll = [5.0] * 20 + [0.1] * 20 + [1.0] * 20
    entropy = ([3.0] * 10 + [0.2] * 10) * 2 + [1.0] * 20
    jitter = np.linspace(0, 1e-3, 60)
    selection = run(
        sample_signals(nll=nll + jitter, entropy=entropy + jitter), 20 / 60, QTuningOptions(token_keep=0.7)
    )
    said = [selection.reasons[i] for i in selection.reason]
    assert said[5] == "Q1 harmful noise: high perplexity, high entropy"
    assert said[15] == "Q2 valuable misconception: high perplexity, low entropy; kept with 70 % of its tokens"
    assert said[25] == "Q4 calibration data: low perplexity, high entropy; kept whole"
    assert said[30] == "Q3 redundant knowledge: low perplexity, low entropy"
    assert said[50] == "band: between the thresholds, in no quadrant"
    assert selection.keep.nonzero()[0].tolist() == [*range(10, 30)]


def test_constant_signals_are_filled_by_id_and_count_as_q2() -> None:
    ids = sample_ids(8)
    options = QTuningOptions(token_keep=0.3)
    selection = run(sample_signals(ids, nll=[1.0] * 8, entropy=[2.0] * 8), 0.5, options)
    assert set(ids[selection.keep]) == set(sorted(ids.tolist())[:4])
    assert {selection.reasons[i] for i in selection.reason[selection.keep]} == {
        "fill from Q3 redundant knowledge: perplexity outweighs entropy as in Q2; "
        "kept with 30 % of its tokens"
    }
    assert selection.thresholds["fill_gap"] == 0


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("scope", ["corpus", "batch"])
def test_tiny_corpora_keep_at_least_one_sample(n: int, scope: Any) -> None:
    for seed in range(20):
        for share in (0.01, 0.5, 1.0):
            keep = run(make_signals(n, seed), share, QTuningOptions(scope=scope, batch_size=2)).keep
            assert keep.sum() >= max(1, round(share * n))


def test_an_empty_corpus_gives_empty_masks() -> None:
    signals = sample_signals(nll=np.empty(0), entropy=np.empty(0))
    selection = run(signals, 0.5)
    assert selection.keep.shape == selection.token_keep.shape == selection.columns["quadrant"].shape == (0,)
    assert QTuning().token_scores(signals, QTuningOptions())["qtuning"].shape == (0,)


def test_the_nominal_quadrant_comes_from_the_medians_and_ignores_the_share() -> None:
    signals = sample_signals(nll=[3.0, 3.0, 1.0, 1.0, 2.0], entropy=[3.0, 1.0, 1.0, 3.0, 2.0])
    scores = QTuning().scores(signals, QTuningOptions(), 0)
    assert scores["nominal_quadrant"].tolist() == ["Q1", "Q2", "Q3", "Q4", "Q3"]
    np.testing.assert_allclose(scores["ppl"].astype(float), np.exp([3.0, 3.0, 1.0, 1.0, 2.0]))


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 500), shares, st.booleans(), st.randoms(use_true_random=False))
def test_in_corpus_scope_the_order_of_the_samples_changes_nothing(
    n: int, seed: int, share: float, exact: bool, random: Any
) -> None:
    signals, options = make_signals(n, seed, max_turns=2, max_response=4), QTuningOptions(exact=exact)
    order = np.array(random.sample(range(n), n))
    before, after = run(signals, share, options), run(reorder(signals, order), share, options)
    assert np.array_equal(after.keep, before.keep[order])
    assert np.array_equal(after.reason, before.reason[order])
    assert after.thresholds == before.thresholds
    moved = reorder(Signals(signals.ids, {}, {"keep": before.token_keep}, signals.offsets), order)
    assert np.array_equal(after.token_keep, moved.tokens["keep"])


# --- batches


@pytest.mark.parametrize(("n", "size"), [(50, 16), (48, 16), (10, 16), (17, 16), (30, 1)])
@pytest.mark.parametrize("exact", [False, True])
def test_each_batch_is_a_plane_of_its_own(n: int, size: int, exact: bool) -> None:
    signals = make_signals(n, seed=n)
    options = QTuningOptions(scope="batch", batch_size=size, exact=exact)
    selection = run(signals, 0.3, options)
    scores = QTuning().scores(signals, options, 0)
    ppl, entropy = scores["ppl"], scores["entropy"]
    expected: list[str] = []
    alphas: list[float] = []
    for start in range(0, n, size):
        rows = slice(start, start + size)
        fate, _, cuts = slow_plane(
            ppl[rows].tolist(), entropy[rows].tolist(), signals.ids[rows].tolist(), 0.3, exact
        )
        expected += fate
        alphas.append(cuts["alpha"])
    assert [FATES[i] for i in selection.reason] == expected
    assert selection.columns["batch"].tolist() == [i // size for i in range(n)]
    assert selection.thresholds["alpha"] == np.median(alphas)


def test_shuffled_batches_follow_the_seed_and_not_the_order_of_the_rows() -> None:
    signals = make_signals(64, seed=9)
    options = QTuningOptions(scope="batch", batch_size=16, shuffle=True)
    one, again, other = (run(signals, 0.3, options, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.columns["batch"], again.columns["batch"])
    assert not np.array_equal(one.columns["batch"], other.columns["batch"])
    assert np.bincount(one.columns["batch"]).tolist() == [16] * 4
    order = np.argsort(draws(signals.ids, 1))
    assert one.columns["batch"][order].tolist() == [i // 16 for i in range(64)]
    turned = np.arange(64)[::-1]
    assert np.array_equal(run(reorder(signals, turned), 0.3, options, 1).keep, one.keep[turned])


# --- tokens, slowly


def slow_token_scores(signals: Signals, sample: int, weight: float) -> list[float]:
    span = range(int(signals.offsets[sample]), int(signals.offsets[sample + 1]))
    ppl = {int(signals.tokens["position"][i]): math.exp(float(signals.tokens["nll"][i])) for i in span}
    length = int(signals.samples["n_tokens"][sample])

    def neighbour(q: int) -> float:
        if q in ppl:
            return ppl[q]
        return 1.0 if 1 <= q <= length - 1 else 0.0

    return [(1 - weight) * ppl[q] + weight * (neighbour(q - 1) + neighbour(q + 1)) for q in sorted(ppl)]


def slow_token_mask(scores: list[float], is_end: list[bool], keep: float, protect: bool) -> list[bool]:
    budget = max(1, math.floor(keep * len(scores) + 1e-9))
    protected = [i for i, end in enumerate(is_end) if end and protect]
    rest = sorted((score, i) for i, score in enumerate(scores) if i not in protected)
    kept = set(protected) | {i for _, i in rest[: max(0, budget - len(protected))]}
    return [i in kept for i in range(len(scores))]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_token_scores_read_the_sequence_gaps_between_turns_included(
    weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 70)
    signals = make_signals(300, seed=11)
    column = QTuning().token_scores(signals, QTuningOptions(neighbour_weight=weight))["qtuning"]
    assert column.dtype == np.float32
    expected = [s for sample in range(300) for s in slow_token_scores(signals, sample, weight)]
    np.testing.assert_allclose(column.astype(float), expected, rtol=2e-7)


def test_more_tokens_than_fit_one_block_score_as_few_do() -> None:
    few, copies = make_signals(10, seed=4, max_turns=1, max_response=1), 30_000
    many = Signals(
        sample_ids(10 * copies),
        {"n_tokens": np.tile(few.samples["n_tokens"], copies)},
        {name: np.tile(column, copies) for name, column in few.tokens.items()},
        np.arange(10 * copies + 1),
    )
    once, often = (QTuning().token_scores(signals, QTuningOptions())["qtuning"] for signals in (few, many))
    assert np.array_equal(often, np.tile(once, copies))


def test_neighbours_count_their_perplexity_one_or_nothing() -> None:
    # sequence of 8 tokens, responses at 1, 2, 4 and 7; perplexities 2, 3, 5, 7
    signals = Signals(
        sample_ids(1),
        {"n_tokens": np.array([8])},
        {"position": np.array([1, 2, 4, 7]), "nll": np.log([2.0, 3.0, 5.0, 7.0]).astype(np.float32)},
        np.array([0, 4]),
    )
    scores = QTuning().token_scores(signals, QTuningOptions(neighbour_weight=1.0))["qtuning"]
    # 1: position 0 is predicted by nothing; 2: a prompt token follows; 4: prompt on both sides; 7: the end
    assert scores.tolist() == pytest.approx([0 + 3, 2 + 1, 1 + 1, 1 + 0])
    longer = Signals(signals.ids, {"n_tokens": np.array([9])}, signals.tokens, signals.offsets)
    scores = QTuning().token_scores(longer, QTuningOptions(neighbour_weight=1.0))["qtuning"]
    assert scores[-1] == pytest.approx(1 + 1)


@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("token_keep", [0.01, 0.5, 0.7, 1.0])
def test_the_highest_scored_tokens_of_q2_samples_are_pruned_and_no_others(
    protect: bool, token_keep: float
) -> None:
    signals = make_signals(200, seed=13, max_response=20)
    # losses from a coarse grid, so that many token scores tie
    coarse = np.round(signals.tokens["nll"].astype(np.float64)).astype(np.float32)
    signals = Signals(signals.ids, signals.samples, {**signals.tokens, "nll": coarse}, signals.offsets)
    options = QTuningOptions(token_keep=token_keep, protect_end=protect)
    selection = run(signals, 0.5, options)
    pruned = 0
    for sample, fate in enumerate(FATES[i] for i in selection.reason):
        span = slice(int(signals.offsets[sample]), int(signals.offsets[sample + 1]))
        mask = selection.token_keep[span].tolist()
        if loses_tokens(fate):
            pruned += 1
            scores = slow_token_scores(signals, sample, 0.5)
            assert mask == slow_token_mask(
                scores, signals.tokens["is_end"][span].tolist(), token_keep, protect
            )
        else:
            assert all(mask)
    assert pruned > 20


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 100), st.booleans())
def test_a_pruned_sample_keeps_its_budget_at_least_one_token_and_its_protected_ends(
    seed: int, hundredths: int, protect: bool
) -> None:
    signals = make_signals(12, seed)
    selection = run(signals, 1.0, QTuningOptions(token_keep=hundredths / 100, protect_end=protect))
    for sample, fate in enumerate(FATES[i] for i in selection.reason):
        span = slice(int(signals.offsets[sample]), int(signals.offsets[sample + 1]))
        mask, ends = selection.token_keep[span], signals.tokens["is_end"][span]
        length, protected = len(mask), int(ends.sum()) if protect else 0
        whole = not loses_tokens(fate)
        # whole numbers: hundredths * length // 100 is the exact floor
        assert mask.sum() == (length if whole else max(1, hundredths * length // 100, protected))
        assert mask[ends].all() or not protect


@pytest.mark.parametrize("scope", ["corpus", "batch"])
@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize(("share", "token_keep"), [(0.25, 0.5), (0.5, 0.7), (0.5, 0.05), (0.25, 1.0)])
def test_the_samples_of_a_plane_share_a_budget_as_in_the_authors_trainer(
    scope: Any, protect: bool, share: float, token_keep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "_FEW", 3)
    monkeypatch.setattr(columns, "_BLOCK", 20)
    signals = make_signals(90, seed=17, max_response=20)
    coarse = np.round(signals.tokens["nll"].astype(np.float64)).astype(np.float32)
    signals = Signals(signals.ids, signals.samples, {**signals.tokens, "nll": coarse}, signals.offsets)
    options = QTuningOptions(
        token_keep=token_keep, protect_end=protect, scope=scope, batch_size=8, shuffle=True, budget="plane"
    )
    selection = run(signals, share, options, seed=5)
    fates = [FATES[i] for i in selection.reason]
    plane = selection.columns["batch"].tolist() if scope == "batch" else [0] * 90
    is_end = signals.tokens["is_end"]
    expected, over = np.ones(len(is_end), np.bool_), 0
    for number in sorted(set(plane)):
        rows = [i for i in range(90) if plane[i] == number]
        attended = {i: int(signals.samples["n_tokens"][i]) - 1 for i in rows}
        total = sum(attended.values())
        drop = total - round(total * share * token_keep)
        drop -= sum(attended[i] for i in rows if not is_kept(fates[i]))
        free = []
        for i in rows:
            first, end = int(signals.offsets[i]), int(signals.offsets[i + 1])
            scores = slow_token_scores(signals, i, 0.5)
            guarded = [protect and bool(is_end[t]) for t in range(first, end)]
            lowest = min(range(end - first), key=lambda t: (not guarded[t], scores[t], t))
            if loses_tokens(fates[i]):
                free += [
                    (scores[t], signals.ids[i], t, first + t)
                    for t in range(end - first)
                    if t != lowest and not guarded[t]
                ]
        drop = max(0, drop) if token_keep < 1 else 0
        for *_, token in sorted(free)[max(0, len(free) - drop) :]:
            expected[token] = False
        over += max(0, drop - len(free))
    for at_once in (1, 60, 10_000):  # planes in parts, some, and all in memory
        monkeypatch.setattr(qtuning, "_PLANE_TOKENS", at_once)
        selection = run(signals, share, options, seed=5)
        assert np.array_equal(selection.token_keep, expected)
        said = [w for w in selection.warnings if f"{over:,} tokens over the budgets" in w]
        assert len(said) == (1 if over else 0)
    assert expected.all() == (token_keep == 1)


def test_the_budget_is_the_exact_floor_where_floating_point_is_a_hair_below() -> None:
    assert math.floor(0.29 * 100) == 28
    tokens: Any = {
        "position": np.arange(1, 101),
        "nll": np.linspace(0, 1, 100, dtype=np.float32),
        "is_end": np.arange(100) == 99,
    }
    samples = {"nll": np.array([0.5]), "entropy": np.array([1.0]), "n_tokens": np.array([102])}
    signals = Signals(sample_ids(1), samples, tokens, np.array([0, 100]))
    mask = run(signals, 1.0, QTuningOptions(token_keep=0.29)).token_keep
    assert mask.nonzero()[0].tolist() == [*range(28), 99]
    faithful = run(signals, 1.0, QTuningOptions(token_keep=0.29, protect_end=False)).token_keep
    assert faithful.nonzero()[0].tolist() == [*range(29)]


def test_token_losses_beyond_any_float_stay_in_order_and_finite() -> None:
    nll = np.array([1.0, 95.0, 800.0, 3000.0, np.inf, 2.0], dtype=np.float32)
    tokens: Any = {"position": np.arange(2, 14, 2), "nll": nll, "is_end": np.zeros(6, np.bool_)}
    samples = {"nll": np.array([700.0]), "entropy": np.array([1.0]), "n_tokens": np.array([20])}
    signals = Signals(sample_ids(1), samples, tokens, np.array([0, 6]))
    assert np.isfinite(QTuning().token_scores(signals, QTuningOptions())["qtuning"]).all()
    for keep, expected in ((0.5, [0, 1, 5]), (0.7, [0, 1, 2, 5]), (0.84, [0, 1, 2, 3, 5])):
        mask = run(signals, 1.0, QTuningOptions(token_keep=keep)).token_keep
        assert mask.nonzero()[0].tolist() == expected


def test_a_sample_without_response_tokens_takes_no_tokens_from_its_neighbours() -> None:
    full = make_signals(6, seed=2)
    offsets = np.array([0, 0, *full.offsets[1:-1], full.offsets[-1], full.offsets[-1]])
    n_tokens = np.concatenate([[4], full.samples["n_tokens"], [4]])
    signals = Signals(sample_ids(8), {"n_tokens": n_tokens}, full.tokens, offsets)
    options = QTuningOptions()
    assert np.array_equal(
        QTuning().token_scores(signals, options)["qtuning"], QTuning().token_scores(full, options)["qtuning"]
    )


# --- options


def test_end_tokens_are_only_read_to_be_protected() -> None:
    always = {"nll", "entropy", "n_tokens", "token:nll", "token:position"}
    assert QTuning().needs(QTuningOptions()) == always | {"token:is_end"}
    assert QTuning().needs(QTuningOptions(protect_end=False)) == always


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("token_keep", 0, "a number over 0 and at most 1"),
        ("token_keep", 1.5, "a number over 0 and at most 1"),
        ("token_keep", math.nan, "a number over 0 and at most 1"),
        ("token_keep", True, "a number over 0 and at most 1"),
        ("neighbour_weight", -0.1, "a number at least 0 and at most 1"),
        ("scope", "sample", "one of 'corpus', 'batch'"),
        ("batch_size", 0, "a whole number at least 1"),
        ("batch_size", 12.0, "a whole number at least 1"),
        ("shuffle", "yes", "true or false"),
        ("exact", None, "true or false"),
        ("fill", "all", "one of 'paper', 'boundary', 'none'"),
        ("budget", "batch", "one of 'sample', 'plane'"),
        ("protect_end", 0, "true or false"),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_allowed(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"option {option} is {value!r}: allowed is {allowed}"):
        QTuningOptions(**{option: value})


@pytest.mark.parametrize("share", [0.0, 1.01, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="keep share is"):
        run(make_signals(5), share)


def test_an_entropy_that_is_not_a_number_names_the_sample() -> None:
    signals = sample_signals(nll=[1.0, 2.0], entropy=[1.0, math.nan])
    with pytest.raises(ValueError, match=f"signal entropy of sample {signals.ids[1]} is nan"):
        run(signals, 0.5)
