"""What influence is worth: against exact gradients, against retraining, and LiSSA against a dense inverse.

    python -m benchmarks.influence [exact] [retraining] [lissa] [--model smollm2-135m] [--data rows.parquet]

exact       projected influence against that of the exact per-sample head gradients, by rank correlation, for
            several projections, at the damping that the default projection means; of a model by name, and of
            a tiny model trained on the spot, whose samples outnumber the dimensions
retraining  influence against what leaving a sample out does to the loss on held-out rows and on the training
            rows: the tiny model's head trained to convergence without it, and the whole model fine-tuned
            without it for some steps
lissa       LiSSA at its published settings against the dense damped inverse of one layer's Hessian

Exact gradients are never stored: with `K_ij = <G_i, G_j>` summed over blocks of the vocabulary, influence is
`(K/n + d 1)^-1 K_v`, the same number by the push-through identity.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy.stats import spearmanr

from benchmarks.figures import figure
from benchmarks.forward import encode
from benchmarks.rows import EXAMPLES, read_frame
from datapruner.home import home_folder
from scorers.conversations.chat import Encoded
from scorers.methods.towards import cosines
from scorers.models.proxy import Proxy, load
from scorers.models.sources import resolve
from scorers.selection.influence import PROJECTION, influence, mean_gradient
from scorers.signals.columns import Signals
from scorers.signals.forward import backbone
from scorers.signals.head import PROJECTION_SHAPE, Head, Projection, residuals
from scorers.signals.lissa import Surrogate
from tests import whole_lissa
from tests.tiny_model import save_tiny_model

DEFAULT = PROJECTION_SHAPE
SHAPES = ((8, 8), (16, 16), DEFAULT, (128, 4), (32, 32))
DAMPINGS = (0.1, 1.0, 10.0)
VOCABULARY_BLOCK = 256
LONGEST = 150  # characters of a row for the tiny model


def read(path: Path, count: int, seed: int, longest: int = 100_000) -> list[dict[str, object]]:
    """`count` random rows of at most `longest` characters."""
    frame = read_frame(path)
    text = pl.concat_str([c for c in ("instruction", "input", "output") if c in frame.columns])
    answered = pl.col("output").str.strip_chars().str.len_chars() > 0
    frame = frame.filter(answered & (text.str.len_chars() <= longest))
    return frame.sample(min(count, len(frame)), seed=seed, shuffle=True).to_dicts()


@dataclass
class States:
    """What the head sees of all samples: hidden (R, D), targets (R), and each sample's rows."""

    hidden: torch.Tensor
    targets: torch.Tensor
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1


@torch.no_grad()
def states(proxy: Proxy, samples: Sequence[Encoded]) -> States:
    hidden, targets = [], []
    for sample in samples:
        ids = torch.from_numpy(sample.input_ids.astype(np.int64))
        where = torch.from_numpy(sample.position.astype(np.int64))
        hidden.append(backbone(proxy.model, ids[None])[0, where - 1].float())
        targets.append(ids[where])
    bounds = np.concatenate([[0], np.cumsum([len(t) for t in targets])])
    return States(torch.cat(hidden), torch.cat(targets), bounds)


@torch.no_grad()
def gradients(head: Head, seen: States) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """Inner products of all exact head gradients (N, N), and their projections by their shape.

    For plain heads only: no bias, scale or soft cap.
    """
    assert head.plain
    h, y, n = seen.hidden, seen.targets, len(seen)
    tokens = np.diff(seen.bounds)
    read_rows = [residuals(head, h[a : a + 256], y[a : a + 256]) for a in range(0, len(h), 256)]
    log_total = torch.cat([r.shift + r.total.log() for r in read_rows])
    gram = np.zeros((n, n))
    projections = {shape: Projection.build(head, shape) for shape in SHAPES}
    sides = {k: torch.zeros(len(h), p.vocabulary.shape[0]) for k, p in projections.items()}
    for low in range(0, head.weight.shape[0], VOCABULARY_BLOCK):
        columns = slice(low, low + VOCABULARY_BLOCK)
        g = (head.raw(h, columns) - log_total[:, None]).exp_()
        inside = ((y >= low) & (y < low + g.shape[1])).nonzero()[:, 0]
        g[inside, y[inside] - low] -= 1
        for k, p in projections.items():
            sides[k] += g @ p.vocabulary[:, columns].T
        blocks = [
            (g[a:b].T @ h[a:b]).flatten() / t
            for a, b, t in zip(seen.bounds, seen.bounds[1:], tokens, strict=False)
        ]
        stacked = torch.stack(blocks)
        gram += (stacked @ stacked.T).double().numpy()
    phi = {}
    for k, p in projections.items():
        hidden_side = h @ p.hidden.T
        rows = [
            (sides[k][a:b].T @ hidden_side[a:b]).flatten() / t
            for a, b, t in zip(seen.bounds, seen.bounds[1:], tokens, strict=False)
        ]
        phi[k] = torch.stack(rows).numpy()
    return gram, phi


def signals_of(phi: np.ndarray) -> Signals:
    ids = np.array([f"{i:06}" for i in range(len(phi))])
    return Signals(ids, {}, {}, np.zeros(len(phi) + 1, np.int64), {PROJECTION: phi.astype(np.float32)})


def correlation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(spearmanr(found, expected).statistic)


def agreement(found: np.ndarray, expected: np.ndarray) -> str:
    """Rank correlation, and the share of equal signs about zero and about the medians, in words."""
    signs = np.mean(np.sign(found) == np.sign(expected))
    halves = np.mean((found > np.median(found)) == (expected > np.median(expected)))
    rho = correlation(found, expected)
    return f"rank correlation {rho:6.3f}   same sign {signs:5.1%}   same half {halves:5.1%}"


def exact(name: str, proxy: Proxy, rows: list[dict[str, object]], targets: int) -> None:
    started = time.perf_counter()
    seen = states(proxy, encode(proxy, rows))
    head = Head.of(proxy.model)
    gram, phi = gradients(head, seen)
    n = len(seen) - targets
    inner, norms = gram[:n, :n], np.sqrt(np.diag(gram)[:n])
    to_target, to_training = gram[:n, n:].mean(axis=1), inner.mean(axis=1)
    print(
        f"\n{name}: {n} samples, {targets} target samples, exact gradients of "
        f"{head.weight.numel():,} dimensions, {time.perf_counter() - started:.0f} s"
    )
    for shape, projected in phi.items():
        ours, aims = signals_of(projected[:n]), signals_of(projected[n:])
        v_target, v_training = mean_gradient(aims), mean_gradient(ours)
        label = f"{shape[0]:3} x {shape[1]:2}"
        for damping in DAMPINGS:
            absolute = damping * np.trace(inner) / n / np.prod(DEFAULT)
            relative = absolute / (np.square(projected[:n].astype(float)).sum() / n / np.prod(shape))
            damped = inner / n + absolute * np.eye(n)
            for risk, v, product in (("target", v_target, to_target), ("training", v_training, to_training)):
                found, expected = influence(ours, v, relative), np.linalg.solve(damped, product)
                print(f"{label}  {risk:8} risk, damping {damping:4g}  {agreement(found, expected)}")
                if (shape, risk, damping) == (DEFAULT, "target", 1.0):
                    same = correlation(found, expected)
                    what = f"{name}: rank correlation of projected influence"
                    figure(what, same, against="that of exact gradients with itself", baseline=1, unit="")
        print(
            f"{label}  target cosine                {agreement(cosines(ours, v_target), to_target / norms)}"
        )


def tiny(data: Path, folder: Path, seed: int, steps: int) -> Proxy:
    """The tests' tiny model, with large steps trained a little on 600 short rows of the data."""
    proxy = load(save_tiny_model(folder), device="cpu", dtype="float32")
    rows = encode(proxy, read(data, 600, seed + 100, longest=LONGEST))
    fit(proxy, rows, steps=steps, rate=3e-3, batch=16)
    return proxy


def fit(
    proxy: Proxy, samples: Sequence[Encoded], *, steps: int, rate: float, batch: int | None = None
) -> None:
    """Adam on the mean over samples of the mean response nll; the whole set a step without `batch`."""
    parameters = list(proxy.model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, rate)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = samples if batch is None else [samples[i] for i in rng.integers(len(samples), size=batch)]
        optimizer.zero_grad()
        losses(proxy, chosen).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    proxy.model.requires_grad_(False)


def losses(proxy: Proxy, samples: Sequence[Encoded]) -> torch.Tensor:
    """Mean response nll of each sample (n), in one padded batch."""
    width = max(len(s.input_ids) for s in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    wanted = torch.zeros(len(samples), width)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.input_ids)] = torch.from_numpy(sample.input_ids.astype(np.int64))
        wanted[row, sample.position] = 1 / len(sample.position)
    logits = proxy.model(input_ids=ids).logits[:, :-1].transpose(1, 2)
    nll = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")
    return (nll * wanted[:, 1:]).sum(1)


Risk = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def head_loss(seen: States) -> Risk:
    """Loss of a head on fixed states, as a function of (weight, weight of each sample), in fp64."""
    h = seen.hidden.double()
    tokens = np.diff(seen.bounds)
    share = torch.from_numpy(np.repeat(1 / tokens, tokens))
    owner = torch.from_numpy(np.repeat(np.arange(len(seen)), tokens))

    def loss(weight: torch.Tensor, of_sample: torch.Tensor) -> torch.Tensor:
        nll = torch.nn.functional.cross_entropy(h @ weight.T, seen.targets, reduction="none")
        return (nll * share * of_sample[owner]).sum()

    return loss


def minimise(
    objective: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, steps: int
) -> torch.Tensor:
    weight = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=steps, tolerance_grad=1e-7, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = objective(weight)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()


def retrain_head(
    proxy: Proxy,
    training: Sequence[Encoded],
    held_out: Sequence[Encoded],
    left_out: int,
    decay: float,
    steps: tuple[int, int],
) -> None:
    """The head alone, to convergence, without each sample in turn; `steps` at most with all, and for each."""
    seen, unseen = states(proxy, training), states(proxy, held_out)
    n = len(seen)
    loss, target = head_loss(seen), head_loss(unseen)
    mean, mean_held_out = (
        torch.full((n,), 1 / n).double(),
        torch.full((len(unseen),), 1 / len(unseen)).double(),
    )

    def trained(of_sample: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
        return minimise(lambda w: loss(w, of_sample) + decay / 2 * w.square().sum(), start, steps)

    started = time.perf_counter()
    best = trained(mean, proxy.model.get_output_embeddings().weight.detach().double(), steps[0])
    risks = {"held-out risk": (target, mean_held_out), "training risk": (loss, mean)}
    before = {name: risk(best, weights).item() for name, (risk, weights) in risks.items()}
    change: dict[str, list[float]] = {name: [] for name in risks}
    chosen = np.sort(np.random.default_rng(0).choice(n, left_out, replace=False))
    for i in chosen:
        without = torch.full((n,), 1 / (n - 1)).double()
        without[i] = 0
        weight = trained(without, best, steps[1])
        for name, (risk, weights) in risks.items():
            change[name].append(risk(weight, weights).item() - before[name])
    print(
        f"\nhead alone: {left_out} of {n} samples left out, {len(unseen)} held out, "
        f"{time.perf_counter() - started:.0f} s",
        flush=True,
    )
    retrained = replace(Head.of(proxy.model), weight=best.float())
    gram, phi = gradients(retrained, joined(seen, unseen))
    inner = gram[:n, :n]
    for name, product, of_risk in (
        ("held-out risk", gram[:n, n:].mean(axis=1), phi[DEFAULT][n:]),
        ("training risk", inner.mean(axis=1), phi[DEFAULT][:n]),
    ):
        truth = np.array(change[name])
        v = mean_gradient(signals_of(of_risk))
        for damping in DAMPINGS:
            found = influence(signals_of(phi[DEFAULT][:n]), v, damping)
            print(f"{name}: projected, damping {damping:4g}  {agreement(found[chosen], truth)}")
            absolute = damping * np.trace(inner) / n / np.prod(DEFAULT)
            exactly = np.linalg.solve(inner / n + absolute * np.eye(n), product)
            print(f"{name}: exact,     damping {damping:4g}  {agreement(exactly[chosen], truth)}")
        print(f"{name}: exact gradient product   {agreement(product[chosen], truth)}")
        newton = by_hessian(loss, mean, decay, best, risks[name])
        print(f"{name}: Hessian of the head      {agreement(newton[chosen], truth)}")


def joined(a: States, b: States) -> States:
    bounds = np.concatenate([a.bounds, b.bounds[1:] + a.bounds[-1]])
    return States(torch.cat([a.hidden, b.hidden]), torch.cat([a.targets, b.targets]), bounds)


def by_hessian(
    loss: Risk, mean: torch.Tensor, decay: float, best: torch.Tensor, aim: tuple[Risk, torch.Tensor]
) -> np.ndarray:
    """Influence by the true Hessian of the regularised objective, solved by conjugate gradients."""
    weight = best.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(weight, mean), weight, create_graph=True)
    (v,) = torch.autograd.grad(aim[0](weight, aim[1]), weight)

    def product(x: torch.Tensor) -> torch.Tensor:
        (hx,) = torch.autograd.grad((gradient * x).sum(), weight, retain_graph=True)
        return hx + decay * x

    u, residual = torch.zeros_like(v), v.clone()
    direction, size = residual.clone(), residual.square().sum()
    for _ in range(500):
        along = product(direction)
        step = size / (direction * along).sum()
        u, residual = u + step * direction, residual - step * along
        size, old = residual.square().sum(), size
        if size < 1e-20 * v.square().sum():
            break
        direction = residual + size / old * direction
    of_sample = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)
    (along_u,) = torch.autograd.grad(loss(weight, of_sample), weight, create_graph=True)
    (values,) = torch.autograd.grad((along_u * u).sum(), of_sample)
    return values.numpy()


def retrain_whole(
    proxy: Proxy, training: Sequence[Encoded], held_out: Sequence[Encoded], left_out: int, steps: int
) -> None:
    """The whole model, fine-tuned for some steps without each sample in turn; influence from before it."""
    seen, unseen = states(proxy, training), states(proxy, held_out)
    n = len(seen)
    gram, phi = gradients(Head.of(proxy.model), joined(seen, unseen))
    ours, v = signals_of(phi[DEFAULT][:n]), mean_gradient(signals_of(phi[DEFAULT][n:]))
    origin = {name: value.clone() for name, value in proxy.model.state_dict().items()}

    def risk(samples: Sequence[Encoded]) -> float:
        proxy.model.load_state_dict(origin)
        fit(proxy, samples, steps=steps, rate=1e-3)
        with torch.no_grad():
            return losses(proxy, held_out).double().mean().item()

    started = time.perf_counter()
    before = losses(proxy, held_out).mean().item()
    full = risk(training)
    chosen = np.sort(np.random.default_rng(0).choice(n, left_out, replace=False))
    change = np.array([risk([s for j, s in enumerate(training) if j != i]) - full for i in chosen])
    proxy.model.load_state_dict(origin)
    print(
        f"\nwhole model, {steps} full-batch Adam steps: {left_out} of {n} samples left out, "
        f"{time.perf_counter() - started:.0f} s; held-out nll {before:.3f} -> {full:.3f}"
    )
    for damping in DAMPINGS:
        found = influence(ours, v, damping)
        print(f"held-out risk: projected, damping {damping:4g}  {agreement(found[chosen], change)}")
    print(f"held-out risk: exact gradient product   {agreement(gram[chosen][:, n:].mean(axis=1), change)}")
    print(f"held-out risk: target cosine, projected {agreement(cosines(ours, v)[chosen], change)}")


def compare_lissa(proxy: Proxy, samples: Sequence[Encoded], steps: int, seeds: int) -> None:
    with Surrogate(proxy, samples) as surrogate:
        started = time.perf_counter()
        v = whole_lissa.mean_gradient(surrogate)
        size = v.numel()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            (g,) = torch.autograd.grad(losses(proxy, samples).mean(), surrogate.weight, create_graph=True)
        rows = torch.eye(size).reshape(size, *v.shape).split(64)  # type: ignore[no-untyped-call]
        hessian = np.concatenate(
            [
                torch.autograd.grad(g, surrogate.weight, some, retain_graph=True, is_grads_batched=True)[0]
                .reshape(len(some), size)
                .numpy()
                for some in rows
            ]
        ).astype(np.float64)
        hessian = (hessian + hessian.T) / 2
        eigenvalues = np.linalg.eigvalsh(hessian)
        dense = np.linalg.solve(hessian + 0.25 * np.eye(size), v.flatten().double().numpy())
        each = np.stack([surrogate.gradient(i).flatten().double().numpy() for i in range(len(surrogate))])
        middle = time.perf_counter()
        print(
            f"\nLiSSA on {surrogate.name} ({size} weights), {len(samples)} samples; eigenvalues of the mean "
            f"Hessian {eigenvalues[0]:.3g} to {eigenvalues[-1]:.3g}; dense inverse {middle - started:.0f} s"
        )
        for seed in range(seeds):
            started = time.perf_counter()
            u = whole_lissa.lissa(surrogate, v, steps=steps, seed=seed)
            flat = u.flatten().double().numpy()
            cosine = flat @ dense / np.linalg.norm(flat) / np.linalg.norm(dense)
            length = np.linalg.norm(flat) / np.linalg.norm(dense)
            seconds = time.perf_counter() - started
            print(
                f"seed {seed}, {steps} steps, {seconds:.0f} s: u has cosine {cosine:.4f} "
                f"and length ratio {length:.3f} to the dense one; influence: "
                f"{agreement(whole_lissa.influences(surrogate, u), each @ dense)}"
            )
        plain = each @ v.flatten().double().numpy()
        print(f"gradient product, no solve: {agreement(plain, each @ dense)}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["exact", "retraining", "lissa"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=EXAMPLES)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--longest", type=int, default=800, help="characters of a row for --model")
    parser.add_argument("--tiny-rows", type=int, default=1200)
    parser.add_argument("--targets", type=int, default=32)
    parser.add_argument("--samples", type=int, default=200, help="training samples of the retraining")
    parser.add_argument(
        "--fine-tuned", type=int, default=100, help="of them that the whole model is tuned on"
    )
    parser.add_argument("--left-out", type=int, default=100, help="of each of them left out in turn")
    parser.add_argument("--steps", type=int, default=20, help="fine-tuning steps of the whole model")
    parser.add_argument("--decay", type=float, default=1e-2, help="L2 penalty of the head alone")
    parser.add_argument("--training-steps", type=int, default=200, help="of the tiny model")
    parser.add_argument(
        "--head-steps", type=int, nargs=2, default=(2000, 150), help="most of the head, with all and for each"
    )
    parser.add_argument("--lissa-samples", type=int, default=24)
    parser.add_argument("--lissa-steps", type=int, default=5000)
    parser.add_argument("--lissa-seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp())
    if "exact" in arguments.parts:
        proxy = load(resolve(arguments.model, home_folder()).path, device="cpu", dtype="float32")
        rows = read(arguments.data, arguments.rows, arguments.seed, longest=arguments.longest)
        exact(arguments.model, proxy, rows, arguments.targets)
    started = time.perf_counter()
    small = tiny(arguments.data, folder, arguments.seed, arguments.training_steps)
    print(f"tiny model trained, {time.perf_counter() - started:.0f} s", flush=True)
    short = read(arguments.data, arguments.tiny_rows, arguments.seed, longest=LONGEST)
    if "exact" in arguments.parts:
        exact("tiny model", small, short, arguments.targets)
    encoded = encode(small, short)
    n = arguments.samples
    training, held_out = encoded[:n], encoded[n : n + 100]
    if "lissa" in arguments.parts:
        compare_lissa(
            small, training[: arguments.lissa_samples], arguments.lissa_steps, arguments.lissa_seeds
        )
    if "retraining" in arguments.parts:
        few = training[: arguments.fine_tuned]
        retrain_whole(small, few, held_out, min(arguments.left_out, len(few)), arguments.steps)
        retrain_head(
            small, training, held_out, arguments.left_out, arguments.decay, tuple(arguments.head_steps)
        )


if __name__ == "__main__":
    main()
