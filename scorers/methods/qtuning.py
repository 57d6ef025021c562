"""Q-Tuning: samples by their place on the error-uncertainty plane, then tokens (arXiv 2509.23873).

Error is response perplexity, uncertainty is mean predictive entropy. Kept are Q2 (high perplexity, low
entropy: misconceptions, their tokens pruned) and Q4 (low perplexity, high entropy: calibration data, whole);
dropped are Q1 (both high: noise), Q3 (both low: redundant) and the band between the thresholds.

Perplexity and entropy go together (rank correlation 0.79 over all of Alpaca), so Q2 and Q4 hold a fifth of a
corpus at most, wherever the thresholds are. What is kept beyond that is fill, and says so in its reason.

Notable choices:
- the paper divides each mini-batch of 8 with the weights of the moment, inside training
  (`datapruner.training`). Pruning ahead of training sees the whole corpus, so one plane over it is the
  default; the `paper-` presets are the authors' trainer but for the weights, which are one model's: batches
  of 8 in random order, one token budget for each, end tokens unprotected;
- tokens with the HIGHEST neighbour score are removed. One sentence of the paper says the reverse; its code,
  its figure 2c and its ablation say this;
- each token-pruned sample has a budget of its own, as the paper's pseudo-code says; `budget="plane"` is the
  authors' trainer: a batch keeps round(share * token_keep * its positions, prompts included), and what the
  dropped samples leave to prune falls on the highest scores of all its Q2 samples together. A token at least
  of each stays;
- the paper's fill takes the samples of largest |minmax(PPL) - minmax(Ent)|. Over a whole corpus a few
  perplexities without bound press all others together, so that the rest is by entropy, and mostly Q1, noise.
  `fill="boundary"` takes those that Q2 and Q4 would take in first if the four thresholds moved on together,
  past the medians, until both hold the target: the far corners of Q1 and Q3 come last. It keeps far fewer
  defects (`benchmarks/README.md`), but what models learnt from either was not told apart, so the paper's is
  the default;
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
from scorers.selection.cut import first_in_turn, nth_highest
from scorers.selection.plane import (
    ADDED,
    FILL_Q2,
    KEPT,
    LIKE_Q2,
    Q2,
    Q4,
    QUADRANTS,
    WIDEST,
    divide,
    meet_target,
    place_of,
)
from scorers.selection.ranking import all_tokens, draws
from scorers.shares import check_share, tolerant_floor
from scorers.signals.columns import SAMPLE_SIGNALS, Bools, Floats, Ints, Signals

ENTROPY = SAMPLE_SIGNALS["entropy"]
# Share of the kept samples. To keep 10 % of Alpaca, Dolly or GSM8K none to 7 % are added, 25 %: 23 to 41 %.
_MANY_ADDED = 0.2

_PLANE_TOKENS = 1 << 22  # of planes that are settled together, about, and most of one settled in memory
_BLOCK_TOKENS = 1 << 18  # tokens scored at once: small enough for the cache, large enough for numpy


@dataclass(frozen=True, slots=True)
class QTuningOptions(Options):
    """The paper's batch has 8 samples, as in its presets; 128 are a common one in fine-tuning, and enough for
    the bisection's tolerance of 0.01 to mean something."""

    token_keep: float = option(0.5, "share of the response tokens kept in a Q2 sample", above=0, at_most=1)
    neighbour_weight: float = option(
        0.5, "lambda: weight of the two neighbours' perplexity in a token's score", at_least=0, at_most=1
    )
    scope: Literal["corpus", "batch"] = option(
        "corpus", "what shares one plane: the whole corpus, or each batch as in the paper"
    )
    batch_size: int = option(128, "samples in a batch (scope batch only)", at_least=1)
    shuffle: bool = option(False, "form batches in an order drawn from the seed, not in dataset order")
    fill: Literal["paper", "boundary", "none"] = option(
        "paper",
        "what is added where Q2 and Q4 hold too few: the largest |minmax(PPL) - minmax(Ent)|, the paper's "
        "fill; the closest to the thresholds, in ranks; or nothing, so that fewer are kept (one at least)",
    )
    exact: bool = option(False, "never keep more than the target: remove the least decided samples over it")
    budget: Literal["sample", "plane"] = option(
        "sample",
        "what shares one budget of tokens: each Q2 sample, as the paper says, or all samples of a plane, "
        "prompts included, as in the authors' trainer",
    )
    protect_end: bool = option(True, "never prune end-of-turn tokens; off is the paper's behaviour")


class QTuning:
    """About `share` of the samples, from quadrants 2 and 4 and what fills them up; of Q2 samples,
    `token_keep` of the tokens.

    Without `exact` a little more than round(share * N) may be kept, never less unless `fill` is "none"; in
    batch scope this holds for each batch, so that at least one sample of each is kept.
    """

    name = "qtuning"
    title = "Q-Tuning: samples and tokens by the error-uncertainty plane"
    paper = "arXiv 2509.23873"
    options = QTuningOptions
    presets: Mapping[str, Mapping[str, Any]] = {
        f"paper-{samples:g}x{tokens}": {
            "keep": samples / 100,
            "token_keep": tokens / 100,
            "scope": "batch",
            "batch_size": 8,
            "shuffle": True,
            "budget": "plane",
            "protect_end": False,
        }
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
        Column("alpha", "tail share that bisection settled on", "threshold", at_least=0, at_most=WIDEST),
        PPL.cut("ppl_low", "quantile alpha"),
        PPL.cut("ppl_high", "quantile 1 - alpha"),
        ENTROPY.cut("entropy_low", "quantile alpha"),
        ENTROPY.cut("entropy_high", "quantile 1 - alpha"),
        Column(
            "fill_share",
            "share of the kept samples that are fill, in neither quadrant",
            "threshold",
            at_least=0,
            at_most=1,
        ),
        Column(
            "fill_gap",
            "least |minmax(PPL) - minmax(Ent)| that was added (fill=paper)",
            "threshold",
            at_least=0,
            at_most=1,
        ),
        Column(
            "fill_alpha",
            "tail share at which Q2 or Q4 would have taken the last that was added (fill=boundary)",
            "threshold",
            at_least=0,
            at_most=1,
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
        nominal = place_of(high_ppl, ~high_ppl, high_entropy, ~high_entropy)
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
        `fill_share`, how much of what is kept was added; `fill_gap` and `trim_gap`, the least
        |minmax(PPL) - minmax(Ent)| that was added and the largest that was removed, or `fill_alpha`, the
        greatest tail share at which a sample was added. In batch scope the first five are medians over the
        batches, and the gaps and `fill_alpha` the extremes.
        """
        check_share(share)
        n = len(signals)
        ppl = np.asarray(scores["ppl"], dtype=np.float64)
        entropy = np.asarray(scores["entropy"], dtype=np.float64)
        place, reason, batch = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        cuts: list[dict[str, Floats]] = []
        first = 0
        for rows in _batches(signals, options, seed):
            plane = divide(ppl[rows], entropy[rows], share)
            place[rows] = plane.place
            reason[rows], gaps = meet_target(
                plane, signals.ids, rows, share, options.fill, exact=options.exact
            )
            batch[rows] = first + np.arange(len(rows))[:, None]
            first += len(rows)
            cuts.append(plane.cuts | gaps)
        columns: Columns = {"quadrant": QUADRANTS[place]}
        if options.scope == "batch":
            columns["batch"] = batch
        if options.budget == "plane":
            tokens, over = _keep_of_planes(signals, reason, batch, share, options)
        else:
            tokens, over = _keep_of_each(signals, np.flatnonzero(LIKE_Q2[reason]), options), 0
        kept = int(KEPT[reason].sum())
        added = {"fill_share": float(ADDED[reason].sum()) / kept} if kept else {}
        return Selection(
            keep=KEPT[reason],
            reason=reason,
            reasons=_reasons(options),
            token_keep=tokens,
            thresholds=_summary(cuts) | added,
            columns=columns,
            warnings=(*_shortage(reason, options), *_overrun(over)),
        )


_MEANINGS = (
    "Q1 harmful noise: high perplexity, high entropy",
    "Q2 valuable misconception: high perplexity, low entropy",
    "Q3 redundant knowledge: low perplexity, low entropy",
    "Q4 calibration data: low perplexity, high entropy",
    "band: between the thresholds, in no quadrant",
)


def _reasons(options: QTuningOptions) -> tuple[str, ...]:
    pruned = f"kept with {100 * options.token_keep:.6g} % of its tokens"
    if options.budget == "plane":
        pruned = "its tokens pruned to the budget of its plane"
    tail = {Q2: f"; {pruned}", Q4: "; kept whole"}
    places = [name.split(":")[0] for name in _MEANINGS]
    return (
        *(meaning + tail.get(at, "") for at, meaning in enumerate(_MEANINGS)),
        *(f"fill from {place}: perplexity outweighs entropy as in Q2; {pruned}" for place in places),
        *(f"fill from {place}: entropy outweighs perplexity as in Q4; kept whole" for place in places),
        "removed to meet the target exactly: in Q2 or Q4, but least decidedly",
    )


def _shortage(reason: Ints, options: QTuningOptions) -> Iterator[str]:
    """Whether much of what is kept is in neither quadrant, given the reason of each sample, (N,)."""
    added, kept = int(ADDED[reason].sum()), int(KEPT[reason].sum())
    if added > _MANY_ADDED * kept:
        places = (reason[ADDED[reason]] - FILL_Q2) % len(_MEANINGS)
        counts = np.bincount(places, minlength=len(_MEANINGS))
        parts = ", ".join(f"{n:,} from {name}" for name, n in zip(QUADRANTS, counts, strict=True) if n)
        others = " or ".join(f"fill={each}" for each in ("boundary", "none") if each != options.fill)
        yield (
            f"qtuning: {100 * added / kept:.0f} % of the {kept:,} kept samples are fill ({parts}), as "
            f"quadrants 2 and 4 hold only {kept - added:,}; {others} decides otherwise"
        )


def _overrun(tokens: int) -> Iterator[str]:
    """Whether samples of Q2 had too few tokens to prune for the budgets of their planes."""
    if tokens:
        yield (
            f"qtuning: {tokens:,} tokens over the budgets of their planes are kept, for Q2 samples have no "
            "more to prune"
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


def _summary(cuts: list[dict[str, Floats]]) -> dict[str, float]:
    merged = {name: np.concatenate([each[name] for each in cuts]) for name in (cuts[0] if cuts else ())}
    merge = {"fill_gap": np.min, "fill_alpha": np.max, "trim_gap": np.max}
    return {name: float(merge.get(name, np.median)(values)) for name, values in merged.items() if len(values)}


# Tokens


def _keep_of_each(signals: Signals, samples: Ints, options: QTuningOptions) -> Bools:
    """Token mask (M,): of each of these the lowest-scored floor(token_keep * |T|), at least one.

    Ties go to the earlier position. Protected end tokens are kept first and use up budget, but all of them
    stay even when they exceed it.
    """
    mask = all_tokens(signals)
    for _, tokens, scores in _scored_blocks(signals, samples, options):
        rows, length = scores.shape
        budget = np.full((rows, 1), max(1, tolerant_floor(options.token_keep * length)))
        protected = _protect(signals, tokens, scores, options)
        budget = np.maximum(budget, protected.sum(axis=1, keepdims=True))
        order = np.argsort(scores, axis=1, kind="stable")
        keep = np.empty((rows, length), dtype=np.bool_)
        np.put_along_axis(keep, order, np.arange(length) < budget, axis=1)
        mask[tokens] = keep
    return mask


def _keep_of_planes(
    signals: Signals, reason: Ints, plane: Ints, share: float, options: QTuningOptions
) -> tuple[Bools, int]:
    """Token mask (M,), and by how many tokens all planes together are over their budgets.

    plane: (N,), numbered from 0. Of equal scores the greater sample id goes first, then the later position.
    """
    mask = all_tokens(signals)
    if options.token_keep == 1:
        return mask, 0
    positions = np.maximum(sample_column(signals, "n_tokens") - 1, 0)  # those that something predicts
    whole = np.bincount(plane, weights=positions)
    dropped = np.bincount(plane, weights=positions * ~KEPT[reason], minlength=len(whole))
    excess = np.maximum(whole - np.rint(whole * share * options.token_keep) - dropped, 0).astype(np.int64)
    samples = np.flatnonzero(LIKE_Q2[reason] & (excess[plane] > 0))
    plane = plane[samples]
    lengths = signals.offsets[samples + 1] - signals.offsets[samples]
    sizes = np.bincount(plane, weights=lengths, minlength=len(excess))
    large = sizes > _PLANE_TOKENS
    for number in np.flatnonzero(large).tolist():
        some = samples[plane == number]
        excess[number] -= _settle_in_parts(signals, some, int(excess[number]), mask, options)
    turn = (np.cumsum(sizes * ~large) // _PLANE_TOKENS).astype(np.int64)  # planes that are settled together
    turn = np.where(large, -1, turn)[plane]
    for number in np.unique(turn[turn >= 0]).tolist():
        here = turn == number
        _settle(signals, samples[here], plane[here], excess, mask, options)
    return mask, int(excess.sum())


def _settle(
    signals: Signals, samples: Ints, plane: Ints, excess: Ints, mask: Bools, options: QTuningOptions
) -> None:
    """Take from these samples, all of their planes, the tokens of highest score, in `mask` (M,), and what
    that makes of the planes' `excess`. plane: of each of the samples."""
    found: list[tuple[Ints, Floats, Ints]] = []
    for rows, tokens, scores, free in _candidates(signals, samples, options):
        found.append((tokens[free], scores[free], np.repeat(rows, free.sum(axis=1))))
    if found:
        tokens, scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        at = np.searchsorted(samples, rows)
        rank = np.empty(len(samples), dtype=np.int64)
        rank[np.argsort(signals.ids[samples], kind="stable")] = np.arange(len(samples))
        order = np.lexsort((-tokens, -rank[at], -scores, plane[at]))
        numbers, count = np.unique(plane[at], return_counts=True)
        place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        mask[tokens[order[place < np.repeat(excess[numbers], count)]]] = False
        excess[numbers] = np.maximum(excess[numbers] - count, 0)


def _settle_in_parts(
    signals: Signals, samples: Ints, excess: int, mask: Bools, options: QTuningOptions
) -> int:
    """Take from these samples, all of one plane, the `excess` tokens of highest score, in `mask` (M,): how
    many there were to take. Their scores are read several times, for they may be too many to hold."""
    count = sum(int(free.sum()) for *_, free in _candidates(signals, samples, options))
    wanted = min(excess, count)
    if not wanted:
        return 0
    cut = nth_highest(
        lambda: (scores[free] for _, _, scores, free in _candidates(signals, samples, options)), count, wanted
    )
    above, ties = 0, np.zeros(len(samples), dtype=np.int64)
    for rows, _, scores, free in _candidates(signals, samples, options):
        above += int((free & (scores > cut)).sum())
        ties[np.searchsorted(samples, rows)] = (free & (scores == cut)).sum(axis=1)
    tied = np.flatnonzero(ties)
    order = np.argsort(signals.ids[samples[tied]], kind="stable")[::-1]
    whole, last, left = first_in_turn(ties[tied], order, wanted - above)
    ties[tied[~whole]] = 0
    if left:
        ties[tied[last]] = left
    for rows, tokens, scores, free in _candidates(signals, samples, options):
        equal = free & (scores == cut)
        from_the_end = np.cumsum(equal[:, ::-1], axis=1)[:, ::-1]
        equal &= from_the_end <= ties[np.searchsorted(samples, rows)][:, None]
        mask[tokens[equal | (free & (scores > cut))]] = False
    return wanted


def _candidates(
    signals: Signals, samples: Ints, options: QTuningOptions
) -> Iterator[tuple[Ints, Ints, Floats, Bools]]:
    """As `_scored_blocks`, and which tokens (R, L) may be pruned: not those that are protected, nor the
    lowest of a sample without any."""
    for rows, tokens, scores in _scored_blocks(signals, samples, options):
        free = ~_protect(signals, tokens, scores, options)
        free[np.arange(len(rows)), np.argmin(scores, axis=1)] = False
        yield rows, tokens, scores, free


def _protect(signals: Signals, tokens: Ints, scores: Floats, options: QTuningOptions) -> Bools:
    """Which tokens (R, L) may not be pruned; their scores become the lowest."""
    if not options.protect_end:
        return np.zeros(tokens.shape, dtype=np.bool_)
    protected = token_column(signals, "is_end")[tokens].astype(np.bool_)
    scores[protected] = -np.inf
    return protected


def _scored_blocks(
    signals: Signals, samples: Ints, options: QTuningOptions
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Samples of equal |T| together, of some thousand at a time: (R,) samples, (R, L) indices of their
    tokens, (R, L) scores. samples: ascending."""
    nll, position = token_column(signals, "nll"), token_column(signals, "position")
    n_tokens = sample_column(signals, "n_tokens").astype(np.int64)
    for block, _ in signals.blocks():
        some = samples[slice(*np.searchsorted(samples, (block.start, block.stop)))]
        lengths = signals.offsets[some + 1] - signals.offsets[some]
        order = np.argsort(lengths, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            length = int(lengths[group[0]]) if len(group) else 0
            if length == 0:
                continue
            rows_at_once = max(1, _BLOCK_TOKENS // length)
            for start in range(0, len(group), rows_at_once):
                rows = some[group[start : start + rows_at_once]]
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
