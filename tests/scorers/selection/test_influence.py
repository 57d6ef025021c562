"""The damped solve against a dense inverse, and influence against what removal does to a quadratic risk."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from scorers.selection import influence as module
from scorers.selection.influence import influence, mean_gradient, target_gradient
from scorers.signals.forward import ForwardPass
from scorers.signals.head import Projection
from tests import proxies
from tests.gradient_signals import gradient_signals, moved
from tests.signal_factory import sample_ids, sample_signals


def dense(phi: np.ndarray, v: np.ndarray, damping: float) -> np.ndarray:
    """Influence with loops over samples and an explicit inverse."""
    phi = phi.astype(np.float32).astype(np.float64)
    moment = sum((np.outer(row, row) for row in phi), np.zeros((phi.shape[1],) * 2)) / len(phi)
    inverse = np.linalg.inv(moment + damping * np.mean(np.diag(moment)) * np.eye(phi.shape[1]))
    return np.array([row @ inverse @ v for row in phi])


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (7, 12), (200, 16), (2000, 5)])
def test_the_solve_is_the_dense_damped_inverse(
    n: int, k: int, damping: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 64)
    rng = np.random.default_rng(n)
    phi = rng.normal(size=(n, k)) * rng.lognormal(0, 1, (n, 1)) + 0.3
    signals = gradient_signals(phi, target=rng.normal(size=(5, k)))
    for v in (mean_gradient(signals), target_gradient(signals)):
        assert influence(signals, v, damping) == pytest.approx(dense(phi, v, damping), rel=1e-9, abs=1e-12)


def test_the_mean_gradients_are_those_of_exact_sums() -> None:
    rng = np.random.default_rng(0)
    phi, target = rng.normal(size=(300, 4)), rng.normal(size=(11, 4))
    signals = gradient_signals(phi, target=target)
    for found, rows in ((mean_gradient(signals), phi), (target_gradient(signals), target)):
        columns = rows.astype(np.float32).T.tolist()
        exact = [float(sum(map(Fraction, column)) / len(column)) for column in columns]
        assert found == pytest.approx(exact, rel=1e-13, abs=1e-15)


def test_it_predicts_what_removal_does_to_a_linear_regression() -> None:
    """Squared error of a well-specified linear model, where the mean outer product is the Hessian up to the
    noise variance: leave each sample out, solve again, and look at the risk on fresh data."""
    rng = np.random.default_rng(3)
    n, k, noise = 400, 6, 0.5
    x, truth = rng.normal(size=(n, k)), rng.normal(size=k)
    y = x @ truth + noise * rng.normal(size=n)
    fresh = rng.normal(size=(50, k))
    fresh_y = fresh @ truth + noise * rng.normal(size=50)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = x @ weights - y
    v = (fresh * (fresh @ weights - fresh_y)[:, None]).mean(axis=0)
    found = influence(gradient_signals(x * residual[:, None]), v, 1e-6)

    def risk(w: np.ndarray) -> float:
        return float(0.5 * np.mean((fresh @ w - fresh_y) ** 2))

    without = [np.linalg.lstsq(np.delete(x, i, 0), np.delete(y, i), rcond=None)[0] for i in range(n)]
    change = np.array([risk(w) for w in without]) - risk(weights)
    assert np.corrcoef(found, change)[0, 1] > 0.98
    assert np.mean(np.sign(found) == np.sign(change)) > 0.9


def test_the_order_of_the_samples_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 16)
    rng = np.random.default_rng(1)
    signals = gradient_signals(rng.normal(size=(101, 9)), target=rng.normal(size=(3, 9)))
    order = rng.permutation(101)
    shuffled = moved(signals, order)
    assert np.array_equal(mean_gradient(shuffled), mean_gradient(signals))
    v = target_gradient(signals)
    assert np.array_equal(influence(shuffled, v, 0.1), influence(signals, v, 0.1)[order])


def test_damping_is_relative_so_that_the_scale_of_gradients_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    phi, v = rng.normal(size=(50, 8)), rng.normal(size=8)
    small, large = (influence(gradient_signals(phi * s), v * s, 0.1) for s in (2.0**-20, 2.0**20))
    assert small == pytest.approx(large, rel=1e-12)


def test_samples_without_gradient_have_no_influence() -> None:
    assert influence(gradient_signals(np.zeros((4, 3))), np.ones(3), 0.1).tolist() == [0.0] * 4
    phi = np.zeros((3, 2))
    phi[1] = 1
    assert influence(gradient_signals(phi), np.ones(2), 0.1)[[0, 2]].tolist() == [0.0, 0.0]
    nobody = gradient_signals(np.zeros((0, 3)))
    assert len(influence(nobody, np.ones(3), 0.1)) == 0
    assert mean_gradient(nobody).tolist() == [0.0] * 3


def test_a_gradient_that_is_missing_or_not_finite_names_the_sample() -> None:
    with pytest.raises(ValueError, match=r"vector signal head_grad_projection was not measured; .* none"):
        mean_gradient(sample_signals(sample_ids(2), nll=[1, 2]))
    phi = np.ones((5, 2))
    phi[3, 1] = np.nan
    signals = gradient_signals(phi)
    with pytest.raises(ValueError, match=f"of sample {signals.ids[3]} is not finite"):
        mean_gradient(signals)
    with pytest.raises(ValueError, match=f"of sample {signals.ids[3]} is not finite"):
        influence(signals, np.ones(2), 0.1)


def test_a_target_set_that_is_missing_or_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="name a target set"):
        target_gradient(gradient_signals(np.ones((2, 3))))
    with pytest.raises(ValueError, match="no sample of the target set"):
        target_gradient(gradient_signals(np.ones((2, 3)), target=np.ones((0, 3))))


def test_memory_beside_the_signals_does_not_grow_with_the_square_of_the_rows() -> None:
    signals = gradient_signals(np.random.default_rng(0).normal(size=(20_000, 32)))
    v = mean_gradient(signals)
    tracemalloc.start()
    influence(signals, v, 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_influence_on_projected_gradients_ranks_samples_as_on_exact_ones() -> None:
    """The more dimensions, the better; at the same damping as the exact solve, for samples of four kinds that
    answer with words of their own, and a target set of two of the kinds."""
    run = ForwardPass(proxies.Proxy(proxies.build("llama-tied"), torch.device("cpu")))
    rng = np.random.default_rng(4)
    kinds = np.concatenate([rng.integers(0, 4, 40), rng.integers(0, 2, 16)])
    n, samples = 40, proxies.samples([(3, 12)] * len(kinds))
    for kind, sample in zip(kinds, samples, strict=True):
        sample.input_ids[3:] = rng.integers(10 + 20 * kind, 15 + 20 * kind, 12)

    run.projection = Projection(torch.eye(proxies.VOCABULARY), torch.eye(proxies.WIDTH))  # none
    measured = dict(run.measure(samples))
    exact = np.stack([measured[i].head_grad_projection for i in range(len(samples))]).astype(float)  # type: ignore[union-attr]
    inner = exact[:n] @ exact.T
    damping = 10 * np.trace(inner[:, :n]) / n / 512
    expected = np.linalg.solve(inner[:, :n] / n + damping * np.eye(n), inner[:, n:].mean(axis=1))
    agreement = []
    for shape in ((2, 2), (32, 16), (64, 32)):
        sides = Projection.build(run.head, shape)
        g = exact.reshape(len(samples), proxies.VOCABULARY, proxies.WIDTH)
        phi = (sides.vocabulary.numpy() @ g @ sides.hidden.numpy().T).reshape(len(samples), -1)
        diagonal = np.square(phi[:n]).sum() / n / phi.shape[1]
        signals = gradient_signals(phi[:n], target=phi[n:])
        found = influence(signals, target_gradient(signals), damping / diagonal)
        agreement.append(spearmanr(found, expected).statistic)
    assert agreement == sorted(agreement)
    assert agreement[1] > 0.5
