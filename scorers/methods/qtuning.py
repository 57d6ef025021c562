"""Q-Tuning: samples by their place on the error-uncertainty plane, then tokens (arXiv 2509.23873).

Error is response perplexity, uncertainty is mean predictive entropy. Kept are Q2 (high perplexity, low
entropy: misconceptions, their tokens pruned) and Q4 (low perplexity, high entropy: calibration data, whole);
dropped are Q1 (both high: noise), Q3 (both low: redundant) and the band between the thresholds.

Notable choices:
- the paper divides each mini-batch with the weights of the moment, inside training. Pruning ahead of training
  sees the whole corpus, so one plane over it is the default; `scope="batch"` offers the paper's way, with one
  model for all batches;
- tokens with the HIGHEST neighbour score are removed. One sentence of the paper says the reverse; its code,
  its figure 2c and its ablation say this;
- each token-pruned sample has a budget of its own, as the paper says; its code has one for all such samples
  of a batch;
- end-of-turn tokens are protected unless asked otherwise: a model that never sees one does not learn to stop;
- the fill's ties, which the paper leaves open, go to the smaller sample id;
- token scores are computed and compared in float64; the column of them is rounded to float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column, token_column
from scorers.methods.ppl import PPL, perplexity
from scorers.selection.ranking import all_tokens, draws, keep_highest
from scorers.shares import check_share, tolerant_floor
from scorers.signals.columns import SAMPLE_SIGNALS, Bools, Floats, Ints, Signals

QUADRANTS = np.array(["Q1", "Q2", "Q3", "Q4", "band"])
ENTROPY = SAMPLE_SIGNALS["entropy"]
# What became of a sample: its place, numbered as in QUADRANTS, or a later correction to meet the target.
_Q1, _Q2, _Q3, _Q4, _BAND, _FILL_Q2, _FILL_Q4, _TRIMMED = range(8)
_KEPT = np.isin(np.arange(8), (_Q2, _Q4, _FILL_Q2, _FILL_Q4))
_TOKENS_PRUNED = np.isin(np.arange(8), (_Q2, _FILL_Q2))
_ADDED = np.isin(np.arange(8), (_FILL_Q2, _FILL_Q4))
# Share of the kept samples. To keep 10 % of Alpaca, Dolly or GSM8K none to 7 % are added, 25 %: 23 to 41 %.
_MANY_ADDED = 0.1

_WIDEST, _STEPS, _CLOSE_ENOUGH = 0.49, 10, 0.01  # the paper's bisection
_FLAT = 1e-12  # a min-max range below this is no range
_BLOCK_TOKENS = 1 << 18  # tokens scored at once: small enough for the cache, large enough for numpy


@dataclass(frozen=True, slots=True)
class QTuningOptions(Options):
    """`batch_size` is left to the trainer by the paper; 128 samples are a common fine-tuning batch, and few
    enough to show what batch scope costs while the bisection's tolerance of 0.01 still means something."""

    token_keep: float = option(0.5, "share of the response tokens kept in a Q2 sample", above=0, at_most=1)
    neighbour_weight: float = option(
        0.5, "lambda: weight of the two neighbours' perplexity in a token's score", at_least=0, at_most=1
    )
    scope: Literal["corpus", "batch"] = option(
        "corpus", "what shares one plane: the whole corpus, or each batch as in the paper"
    )
    batch_size: int = option(128, "samples in a batch (scope batch only)", at_least=1)
    shuffle: bool = option(False, "form batches in an order drawn from the seed, not in dataset order")
    exact: bool = option(False, "never keep more than the target: remove the least decided samples over it")
    protect_end: bool = option(True, "never prune end-of-turn tokens; off is the paper's behaviour")


class QTuning:
    """About `share` of the samples, from quadrants 2 and 4; of Q2 samples, `token_keep` of the tokens.

    Without `exact` a little more than round(share * N) may be kept, never less; in batch scope this holds
    for each batch, so that at least one sample of each is kept.
    """

    name = "qtuning"
    title = "Q-Tuning: samples and tokens by the error-uncertainty plane"
    paper = "arXiv 2509.23873"
    options = QTuningOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        f"paper-{samples:g}x{tokens}": {"keep": samples / 100, "token_keep": tokens / 100}
        for samples in (12.5, 25, 50)
        for tokens in (50, 70)
    }
    columns: tuple[Column, ...] = (
        PPL,
        ENTROPY,
        Column(
            "nominal_quadrant",
            "quadrant that the medians of ppl and entropy alone would give",
            kind="text",
            values=("Q1", "Q2", "Q3", "Q4"),
        ),
        Column(
            "quadrant",
            "Q1 noise, Q2 misconception, Q3 redundant, Q4 calibration, or the band between the thresholds",
            "selection",
            "text",
            values=tuple(QUADRANTS.tolist()),
            always=True,
        ),
        Column("batch", "batch that shares a plane (scope=batch)", "selection", "whole", at_least=0),
        Column(
            "qtuning",
            "s_t: perplexity smoothed over its neighbours",
            "token",
            direction="low",
            at_least=0,
            always=True,
        ),
        Column("alpha", "tail share that bisection settled on", "threshold", at_least=0, at_most=_WIDEST),
        PPL.cut("ppl_low", "quantile alpha"),
        PPL.cut("ppl_high", "quantile 1 - alpha"),
        ENTROPY.cut("entropy_low", "quantile alpha"),
        ENTROPY.cut("entropy_high", "quantile 1 - alpha"),
        Column(
            "fill_gap", "least |minmax(PPL) - minmax(Ent)| that was added", "threshold", at_least=0, at_most=1
        ),
        Column(
            "trim_gap",
            "greatest |minmax(PPL) - minmax(Ent)| that was removed (exact)",
            "threshold",
            at_least=0,
            at_most=1,
        ),
    )

    def needs(self, options: QTuningOptions) -> frozenset[str]:
        always = {"nll", "entropy", "n_tokens", "token:nll", "token:position"}
        return frozenset(always | {"token:is_end"} if options.protect_end else always)

    def scores(self, signals: Signals, options: QTuningOptions, seed: int) -> Columns:
        """ppl, entropy, and `nominal_quadrant`, which the corpus medians alone would give, for plots."""
        ppl = perplexity(sample_column(signals, "nll", infinite=True))
        entropy = sample_column(signals, "entropy")
        if len(signals) == 0:
            return {"ppl": ppl, "entropy": entropy, "nominal_quadrant": QUADRANTS[:0]}
        high_ppl, high_entropy = ppl > np.median(ppl), entropy > np.median(entropy)
        nominal = _place(high_ppl, ~high_ppl, high_entropy, ~high_entropy)
        return {"ppl": ppl, "entropy": entropy, "nominal_quadrant": QUADRANTS[nominal]}

    def token_scores(self, signals: Signals, options: QTuningOptions) -> Columns:
        """s_t of every response token, float32, those of samples without token pruning included."""
        column = np.zeros(int(signals.offsets[-1]), dtype=np.float32)
        largest = np.finfo(np.float32).max
        for _, tokens, scores in _scored_blocks(signals, np.arange(len(signals)), options):
            column[tokens] = np.minimum(scores, largest)
        return {"qtuning": column}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: QTuningOptions, seed: int
    ) -> Selection:
        """Besides the masks: each sample's `quadrant`, and its `batch` in batch scope.

        `quadrant` is where the thresholds put a sample ("band" between them), whether or not it was then
        added or removed to meet the target: that is in its reason.

        thresholds: `alpha`, the tail share that bisection settled on, and the four quantiles it means;
        `fill_gap` and `trim_gap`, the least |minmax(PPL) - minmax(Ent)| that was added and the largest that
        was removed. In batch scope the first five are medians over the batches, and the gaps the extremes.
        """
        check_share(share)
        n = len(signals)
        ppl = np.asarray(scores["ppl"], dtype=np.float64)
        entropy = np.asarray(scores["entropy"], dtype=np.float64)
        place, reason, batch = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        cuts: list[dict[str, Floats]] = []
        first = 0
        for rows in _batches(signals, options, seed):
            plane = _divide(ppl[rows], entropy[rows], share)
            place[rows] = plane.place
            reason[rows], gaps = _meet_target(plane, signals.ids[rows], share, exact=options.exact)
            batch[rows] = first + np.arange(len(rows))[:, None]
            first += len(rows)
            cuts.append(plane.cuts | gaps)
        columns: Columns = {"quadrant": QUADRANTS[place]}
        if options.scope == "batch":
            columns["batch"] = batch
        return Selection(
            keep=_KEPT[reason],
            reason=reason,
            reasons=_reasons(options),
            token_keep=_keep_tokens(signals, np.flatnonzero(_TOKENS_PRUNED[reason]), options),
            thresholds=_summary(cuts),
            columns=columns,
            warnings=tuple(_shortage(reason)),
        )


def _reasons(options: QTuningOptions) -> tuple[str, ...]:
    pruned = f"kept with {100 * options.token_keep:.6g} % of its tokens"
    return (
        "Q1 harmful noise: high perplexity, high entropy",
        f"Q2 valuable misconception: high perplexity, low entropy; {pruned}",
        "Q3 redundant knowledge: low perplexity, low entropy",
        "Q4 calibration data: low perplexity, high entropy; kept whole",
        "band: between the thresholds, in no quadrant",
        f"added to reach the target, perplexity outweighing entropy as in Q2; {pruned}",
        "added to reach the target, entropy outweighing perplexity as in Q4; kept whole",
        "removed to meet the target exactly: in Q2 or Q4, but least decidedly",
    )


def _shortage(reason: Ints) -> Iterator[str]:
    """Whether the quadrants alone hold too few samples, given the reason of each, (N,)."""
    added, kept = int(_ADDED[reason].sum()), int(_KEPT[reason].sum())
    if added > _MANY_ADDED * kept:
        yield (
            f"qtuning: quadrants 2 and 4 hold only {kept - added:,} of the {kept:,} samples to keep; the "
            f"other {added:,} were added as the next like them"
        )


# Samples


def _batches(signals: Signals, options: QTuningOptions, seed: int) -> list[Ints]:
    """Indices of the samples that share a plane, as (B, n) arrays: full batches, then a shorter one."""
    n = len(signals)
    if n == 0:
        return []
    if options.scope == "corpus":
        return [np.arange(n)[None, :]]
    order = np.argsort(draws(signals.ids, seed), kind="stable") if options.shuffle else np.arange(n)
    full = n - n % options.batch_size
    arrays = [order[:full].reshape(-1, options.batch_size), order[full:][None, :]]
    return [array for array in arrays if array.size]


@dataclass(frozen=True, slots=True)
class _Plane:
    """B batches of n samples, divided."""

    place: Ints  # (B, n), _Q1 to _BAND
    lean: Floats  # (B, n), minmax(PPL) - minmax(Ent)
    cuts: dict[str, Floats]  # each (B,)


def _divide(ppl: Floats, entropy: Floats, share: float) -> _Plane:
    """Bisect for the tail share at which Q2 and Q4 hold about `share`, in each batch. Inputs: (B, n)."""
    ppl_ordered, entropy_ordered = np.sort(ppl, axis=1), np.sort(entropy, axis=1)
    count = len(ppl)
    low, high, alpha = np.zeros(count), np.full(count, _WIDEST), np.zeros(count)
    searching = np.ones(count, dtype=np.bool_)
    for _ in range(_STEPS):
        alpha = np.where(searching, (low + high) / 2, alpha)
        ppl_low, ppl_high = linear_quantile(ppl_ordered, alpha), linear_quantile(ppl_ordered, 1 - alpha)
        entropy_low = linear_quantile(entropy_ordered, alpha)
        entropy_high = linear_quantile(entropy_ordered, 1 - alpha)
        is_low_ppl, is_high_ppl = ppl <= ppl_low[:, None], ppl > ppl_high[:, None]
        is_low_entropy, is_high_entropy = entropy <= entropy_low[:, None], entropy > entropy_high[:, None]
        kept = np.mean((is_high_ppl & is_low_entropy) | (is_low_ppl & is_high_entropy), axis=1)
        searching &= np.abs(kept - share) >= _CLOSE_ENOUGH
        if not searching.any():
            break
        low, high = np.where(kept < share, alpha, low), np.where(kept < share, high, alpha)
    return _Plane(
        place=_place(is_high_ppl, is_low_ppl, is_high_entropy, is_low_entropy),
        lean=_minmax(ppl) - _minmax(entropy),
        cuts={
            "alpha": alpha,
            "ppl_low": ppl_low,
            "ppl_high": ppl_high,
            "entropy_low": entropy_low,
            "entropy_high": entropy_high,
        },
    )


def _place(high_ppl: Bools, low_ppl: Bools, high_entropy: Bools, low_entropy: Bools) -> Ints:
    return np.select(
        [high_ppl & high_entropy, high_ppl & low_entropy, low_ppl & low_entropy, low_ppl & high_entropy],
        [_Q1, _Q2, _Q3, _Q4],
        default=_BAND,
    )


def linear_quantile(ordered: Floats, share: Floats) -> Floats:
    """Linearly interpolated quantile of each row, (B,), equal to `np.quantile` to the last bit.

    ordered: (B, n), sorted along axis 1. share: (B,) in [0, 1]. The bisection asks for forty quantiles of the
    same values, so they are sorted once.
    """
    last = ordered.shape[1] - 1
    at = last * share
    left = np.floor(at).astype(np.int64)
    step = at - left
    rows = np.arange(len(ordered))
    a, b = ordered[rows, left], ordered[rows, np.minimum(left + 1, last)]
    quantile: Floats = np.where(step < 0.5, a + (b - a) * step, b - (b - a) * (1 - step))
    return quantile


def _minmax(values: Floats) -> Floats:
    """Each row (axis 1) stretched to [0, 1]; a row without range becomes zeros."""
    lowest = values.min(axis=1, keepdims=True)
    width = values.max(axis=1, keepdims=True) - lowest
    stretched = np.zeros_like(values)
    np.divide(values - lowest, width, out=stretched, where=width >= _FLAT)
    return stretched


def _meet_target(
    plane: _Plane, ids: NDArray[np.str_], share: float, *, exact: bool
) -> tuple[Ints, dict[str, Floats]]:
    """The reason of each sample, (B, n), and the gaps at which batches were filled or trimmed."""
    reason = plane.place.copy()
    n = reason.shape[1]
    target = min(max(round(share * n), 1), n)
    gap = np.abs(plane.lean)
    fill_gaps, trim_gaps = [], []
    for row, kept in enumerate(_KEPT[reason]):
        over = int(kept.sum()) - target
        if over < 0:
            others = np.flatnonzero(~kept)
            added = others[keep_highest(gap[row, others], ids[row, others], -over)]
            reason[row, added] = np.where(plane.lean[row, added] >= 0, _FILL_Q2, _FILL_Q4)
            fill_gaps.append(gap[row, added].min())
        elif over > 0 and exact:
            inside = np.flatnonzero(kept)
            removed = inside[~keep_highest(gap[row, inside], ids[row, inside], target)]
            reason[row, removed] = _TRIMMED
            trim_gaps.append(gap[row, removed].max())
    return reason, {"fill_gap": np.array(fill_gaps), "trim_gap": np.array(trim_gaps)}


def _summary(cuts: list[dict[str, Floats]]) -> dict[str, float]:
    merged = {name: np.concatenate([each[name] for each in cuts]) for name in (cuts[0] if cuts else ())}
    merge = {"fill_gap": np.min, "trim_gap": np.max}
    return {name: float(merge.get(name, np.median)(values)) for name, values in merged.items() if len(values)}


# Tokens


def _keep_tokens(signals: Signals, pruned: Ints, options: QTuningOptions) -> Bools:
    """Token mask (M,): of each sample in `pruned` the lowest-scored floor(token_keep * |T|), at least one.

    Ties go to the earlier position. Protected end tokens are kept first and use up budget, but all of them
    stay even when they exceed it.
    """
    mask = all_tokens(signals)
    for _, tokens, scores in _scored_blocks(signals, pruned, options):
        rows, length = scores.shape
        budget = np.full((rows, 1), max(1, tolerant_floor(options.token_keep * length)))
        if options.protect_end:
            protected = token_column(signals, "is_end")[tokens].astype(np.bool_)
            scores[protected] = -np.inf
            budget = np.maximum(budget, protected.sum(axis=1, keepdims=True))
        order = np.argsort(scores, axis=1, kind="stable")
        keep = np.empty((rows, length), dtype=np.bool_)
        np.put_along_axis(keep, order, np.arange(length) < budget, axis=1)
        mask[tokens] = keep
    return mask


def _scored_blocks(
    signals: Signals, samples: Ints, options: QTuningOptions
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Samples of equal |T| together: (R,) samples, (R, L) indices of their tokens, (R, L) scores."""
    nll, position = token_column(signals, "nll"), token_column(signals, "position")
    n_tokens = sample_column(signals, "n_tokens").astype(np.int64)
    lengths = signals.lengths[samples]
    order = np.argsort(lengths, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        length = int(lengths[group[0]]) if len(group) else 0
        if length == 0:
            continue
        rows_at_once = max(1, _BLOCK_TOKENS // length)
        for start in range(0, len(group), rows_at_once):
            rows = samples[group[start : start + rows_at_once]]
            tokens = signals.offsets[rows][:, None] + np.arange(length)
            ppl = perplexity(nll[tokens])
            scores = neighbour_scores(ppl, position[tokens], n_tokens[rows], options.neighbour_weight)
            yield rows, tokens, scores


def neighbour_scores(ppl: Floats, position: NDArray[np.generic], n_tokens: Ints, weight: float) -> Floats:
    """s_t = (1 - weight) ppl_t + weight (ppl_{t-1} + ppl_{t+1}), the neighbours in the sequence, (R, L).

    ppl, position: (R, L), response tokens in order and their 0-based places. n_tokens: (R,) sequence lengths.
    A neighbour that is not a response token counts 1, for its loss is 0 there. One that does not exist counts
    0: beyond the end, and position 0, which nothing predicts.
    """
    place = position.astype(np.int64)
    left = (place > 1).astype(np.float64)
    right = (place < n_tokens[:, None] - 1).astype(np.float64)
    adjacent = place[:, 1:] == place[:, :-1] + 1
    np.copyto(left[:, 1:], ppl[:, :-1], where=adjacent)
    np.copyto(right[:, :-1], ppl[:, 1:], where=adjacent)
    return (1 - weight) * ppl + weight * (left + right)
