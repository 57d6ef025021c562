"""Q-Tuning inside the training loop, as its paper does it: every optimizer step divides its own rows by the
weights of the moment, and trains on what is left (arXiv 2509.23873).

    class PruningTrainer(QTuningMixin, SFTTrainer): ...
    trainer = PruningTrainer(model, args, train_dataset=rows, pruning=StepPruning(keep=0.25, token_keep=0.5))

The rows are whole ones (no token masks of an earlier run), tokenised, with `labels`.

Notable choices:
- pruning happens where the trainer pulls the micro-batches of a step, before it counts what is trained: its
  loss is a sum over that count, so pruning in `compute_loss` would shrink the gradient by what was pruned;
- one plane for all rows of a step on this process, its micro-batches together, unless asked otherwise.
  Several processes divide their rows each for itself;
- `StepPruning.published` prunes all that the authors' trainer prunes: it divides each micro-batch of 8 for
  itself, with one token budget for it, and takes end tokens too. The loss stays the mean over the tokens left
  in a step; theirs is over each micro-batch, with its prompts counted;
- pruned rows leave the batch, those that stay move up; pruned tokens stay in the input and lose their label;
- a micro-batch that nothing is left of becomes two tokens without a label: every process must pass the
  model as often as the others do;
- the rows are read in evaluation mode, so no random number is drawn and a resumed training prunes alike;
- rows may be padded, or several to a line (`position_ids` starts anew with each), flattened or packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorers.method import Selection
from scorers.methods.qtuning import QTuning, QTuningOptions
from scorers.shares import check_share
from scorers.signals.columns import Signals

UNTRAINED = -100
_LOGITS_AT_ONCE = 1 << 25
# One pass forward costs a third of a step with its way back.
_PASS, _STEP = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class StepPruning:
    """What of each step is trained on.

    keep: share of its rows. token_keep: share of the trained tokens that a Q2 row keeps. neighbour_weight,
    exact, fill, budget: as of the method `qtuning`. end_tokens: ids that are never pruned; None are those at
    which the model or its tokenizer ends a text, () is the paper's behaviour. plane: the rows that are
    divided among themselves.

    Raises ValueError, naming the value and what is allowed.
    """

    keep: float
    token_keep: float = 0.5
    neighbour_weight: float = 0.5
    exact: bool = False
    end_tokens: tuple[int, ...] | None = None
    fill: Literal["paper", "boundary", "none"] = "paper"
    budget: Literal["sample", "plane"] = "sample"
    plane: Literal["step", "micro-batch"] = "step"

    def __post_init__(self) -> None:
        check_share(self.keep)
        if self.plane not in ("step", "micro-batch"):
            raise ValueError(f"plane is {self.plane!r}: allowed is one of 'step', 'micro-batch'")
        self.options()

    @classmethod
    def published(cls, keep: float, token_keep: float) -> Self:
        """As in the authors' trainer, given `per_device_train_batch_size=8`. The paper's settings are 0.125,
        0.25 and 0.5 of the rows with 0.5 and 0.7 of the tokens."""
        return cls(keep, token_keep, end_tokens=(), budget="plane", plane="micro-batch")

    def options(self) -> QTuningOptions:
        """The method's options for one step."""
        return QTuningOptions(
            token_keep=self.token_keep,
            neighbour_weight=self.neighbour_weight,
            exact=self.exact,
            fill=self.fill,
            budget=self.budget,
        )


class QTuningMixin:
    """Beside `transformers.Trainer` or a class made of it, as TRL's `SFTTrainer`: put it first.

    pruning: what is trained on. The logs gain `pruning/rows` and `pruning/tokens` (shares of the rows and of
    the trained tokens that were kept since the last log), `pruning/fill` (of the kept rows those in neither
    of the quadrants that are kept) and `pruning/compute`: the cost of reading all rows
    and training on what is left, as a share of the cost of training on all, padding included and one pass
    forward taken for a third of a step. Above 1 pruning costs more than it saves.

    Raises ValueError where the trainer could not count what is left: a model whose loss takes no
    `num_items_in_batch` and no `compute_loss_func` either, and several GPUs in one process.
    """

    def __init__(self, *args: Any, pruning: StepPruning, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pruning = pruning
        self._pruned = _Tally()
        trainer: Any = self
        if not (trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None):
            raise ValueError(
                f"{type(trainer.model).__name__} takes no num_items_in_batch, so its loss would be a mean "
                "over each micro-batch, and those differ once pruned; give a compute_loss_func that divides "
                "by it"
            )
        if trainer.args.n_gpu > 1:
            raise ValueError("several GPUs in one process; start one process for each (torchrun)")

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of a step, pruned, and how many tokens are trained in all of them.

        Raises ValueError for batches that cannot be pruned row by row, naming what is in them.
        """
        trainer: Any = super()
        batches, count = trainer.get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, count
        whole: Any = self
        ends = self.pruning.end_tokens
        if ends is None:
            ends = _ends_of(whole)
        micro = [MicroBatch.of(batch) for batch in batches]
        read = [_read(whole, each) for each in micro]
        pruned, filled = prune_step(micro, read, self.pruning, ends)
        self._pruned.add(micro, pruned, filled)
        handed_on = [each.fields for each in pruned]
        return handed_on, whole._get_num_items_in_batch(handed_on, device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Those of the trainer, with what was pruned since the last ones of training."""
        if "loss" in logs:
            logs |= self._pruned.shares()
            self._pruned = _Tally()
        trainer: Any = super()
        trainer.log(logs, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Row:
    """Where a row stands in a micro-batch: the line, and the columns from `start` up to `stop`. trained: the
    columns, ascending, whose labels count, (T,)."""

    line: int
    start: int
    stop: int
    trained: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A micro-batch of B lines and L columns, and the rows in it that have a label.

    fields: what goes to the model; `input_ids` and `labels` are (B, L).
    """

    fields: dict[str, Any]
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> MicroBatch:
        """Find the rows of a batch. Raises ValueError when it has none that could be pruned."""
        fields = dict(batch)
        if not {"input_ids", "labels"} <= fields.keys() or "shift_labels" in fields:
            raise ValueError(
                f"a batch of {', '.join(sorted(fields))}: pruning needs input_ids and labels of equal shape, "
                "and labels that are not shifted"
            )
        labels = fields["labels"].cpu().numpy()
        lines, columns = labels.shape
        for name, value in fields.items():
            if not _is_known(name, value, lines, columns):
                raise ValueError(f"{name} in a batch: nothing is known of how it belongs to its rows")
        inside = np.ones((lines, columns), dtype=np.bool_)
        if fields.get("attention_mask") is not None:
            inside = fields["attention_mask"].cpu().numpy().astype(np.bool_)
        begins = np.zeros_like(inside)
        if fields.get("position_ids") is not None:
            begins = fields["position_ids"].cpu().numpy() == 0
        rows = []
        for line in range(lines):
            taken = np.flatnonzero(inside[line])
            if not len(taken):
                continue
            first, end = int(taken[0]), int(taken[-1]) + 1
            starts = sorted({first, *(np.flatnonzero(begins[line, first:end]) + first).tolist()})
            for start, stop in zip(starts, [*starts[1:], end], strict=True):
                # No label of a row's first token counts: nothing before it predicts it.
                trained = np.flatnonzero(labels[line, start + 1 : stop] != UNTRAINED) + start + 1
                if len(trained):
                    rows.append(Row(line, start, stop, trained))
        return cls(fields, tuple(rows))

    @property
    def size(self) -> int:
        """Tokens that the model is given, padding included."""
        return int(self.fields["input_ids"].numel())

    @property
    def trained(self) -> int:
        """Tokens with a label that counts."""
        return sum(len(row.trained) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says of a micro-batch: of each row its trained tokens' nll and entropy, (T,) float32."""

    nll: list[NDArray[np.float32]]
    entropy: list[NDArray[np.float32]]


def prune_step(
    batches: Sequence[MicroBatch], read: Sequence[Reading], pruning: StepPruning, ends: Sequence[int]
) -> tuple[list[MicroBatch], int]:
    """The micro-batches of one step without the rows and labels that Q-Tuning prunes, as many as came; and
    how many of the rows that are left were only added to reach the target.

    read: of each batch. ends: ids of tokens that are never pruned.
    """
    if pruning.plane == "step":
        return _prune_plane(batches, read, pruning, ends)
    parts = [_prune_plane([b], [r], pruning, ends) for b, r in zip(batches, read, strict=True)]
    return [each for pruned, _ in parts for each in pruned], sum(filled for _, filled in parts)


def _prune_plane(
    batches: Sequence[MicroBatch], read: Sequence[Reading], pruning: StepPruning, ends: Sequence[int]
) -> tuple[list[MicroBatch], int]:
    selection = _select(batches, read, pruning, ends)
    pruned, row, token = [], 0, 0
    for batch in batches:
        kept: list[tuple[Row, NDArray[np.int64]]] = []
        for each in batch.rows:
            mask = selection.token_keep[token : token + len(each.trained)]
            if selection.keep[row]:
                kept.append((each, each.trained[~mask]))
            row, token = row + 1, token + len(each.trained)
        pruned.append(_without(batch, kept))
    return pruned, round(selection.thresholds.get("fill_share", 0) * int(selection.keep.sum()))


def _select(
    batches: Sequence[MicroBatch], read: Sequence[Reading], pruning: StepPruning, ends: Sequence[int]
) -> Selection:
    rows = [(batch, row) for batch in batches for row in batch.rows]
    nll = [values for each in read for values in each.nll]
    entropy = [values for each in read for values in each.entropy]
    position = [row.trained - row.start for _, row in rows]
    tokens = [batch.fields["input_ids"][row.line].cpu().numpy()[row.trained] for batch, row in rows]
    signals = Signals(
        ids=np.array([f"{i:08d}" for i in range(len(rows))], dtype=np.str_),
        samples={
            "nll": np.array([values.mean(dtype=np.float64) for values in nll], dtype=np.float64),
            "entropy": np.array([values.mean(dtype=np.float64) for values in entropy], dtype=np.float64),
            "n_tokens": np.array([row.stop - row.start for _, row in rows], dtype=np.int64),
        },
        tokens={
            "nll": _joined(nll, np.float32),
            "position": _joined(position, np.int64),
            "is_end": np.isin(_joined(tokens, np.int64), list(ends)),
        },
        offsets=np.concatenate([[0], np.cumsum([len(values) for values in nll], dtype=np.int64)]),
    )
    method, options = QTuning(), pruning.options()
    scores = method.scores(signals, options, 0)
    if not rows:
        nothing = np.empty(0, dtype=np.bool_)
        return Selection(keep=nothing, reason=np.empty(0, np.int64), reasons=(), token_keep=nothing)
    return method.select(signals, scores, pruning.keep, options, 0)


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts).astype(kind) if parts else np.empty(0, kind)


def _without(batch: MicroBatch, kept: Sequence[tuple[Row, NDArray[np.int64]]]) -> MicroBatch:
    """The batch with these rows alone, moved together, and no label at the columns named beside each."""
    fields = batch.fields
    labels = fields["labels"].clone()
    for row, columns in kept:
        labels[row.line, torch.from_numpy(columns).to(labels.device)] = UNTRAINED
    by_line: dict[int, list[tuple[int, int]]] = {}
    for row, _ in kept:
        by_line.setdefault(row.line, []).append((row.start, row.stop))
    if not by_line:  # two tokens without a label
        labels = torch.full_like(labels, UNTRAINED)
        by_line = {0: [(0, min(2, labels.shape[1]))]}
    pieces = [[slice(*each) for each in spans] for spans in by_line.values()]
    width = max(sum(piece.stop - piece.start for piece in line) for line in pieces)
    lines, columns = fields["input_ids"].shape
    out: dict[str, Any] = {}
    for name, value in (fields | {"labels": labels}).items():
        if not isinstance(value, Tensor) or name in _OF_FLAT:
            continue
        if value.shape[:2] != (lines, columns):
            out[name] = value[torch.tensor(list(by_line), device=value.device)]
            continue
        filled = value.new_full((len(by_line), width), UNTRAINED if name == "labels" else 0)
        for at, (line, spans) in enumerate(zip(by_line, pieces, strict=True)):
            joined = torch.cat([value[line, span] for span in spans])
            filled[at, : len(joined)] = joined
        out[name] = filled
    if not kept and "attention_mask" in out:
        out["attention_mask"].fill_(1)
    if not kept and "position_ids" in out:
        out["position_ids"] = torch.arange(width, device=labels.device)[None].to(out["position_ids"].dtype)
    for name, value in fields.items():
        if name in _OF_FLAT:
            out[name] = _of_flat(name, value, out["position_ids"])
        elif name not in out:
            out[name] = value
    return MicroBatch.of(out)


# What collators that flatten a batch to one line say besides: where its rows begin, for kernels.
_STARTS, _LONGEST, _NUMBERED = ("cu_seq_lens_q", "cu_seq_lens_k"), ("max_length_q", "max_length_k"), "seq_idx"
_OF_FLAT = frozenset((*_STARTS, *_LONGEST, _NUMBERED))


def _of_flat(name: str, value: Any, position_ids: Tensor) -> Any:
    """The field `name`, which was `value`, of one line with these positions, (1, L)."""
    begins = (position_ids[0] == 0).nonzero()[:, 0]
    starts = torch.cat([begins, begins.new_tensor([position_ids.shape[1]])])
    if name in _STARTS:
        return starts.to(value)
    if name in _LONGEST:
        longest = int(starts.diff().max())
        return value.new_tensor(longest) if isinstance(value, Tensor) else longest
    number = torch.arange(len(begins), device=starts.device)
    return torch.repeat_interleave(number, starts.diff())[None].to(value)


def _is_known(name: str, value: Any, lines: int, columns: int) -> bool:
    """Whether a field of a batch is understood: one number a token, one entry a line, or no tensor at all."""
    if not isinstance(value, Tensor):
        return value is None or isinstance(value, bool | int | float | str) or name in _OF_FLAT
    if name in _OF_FLAT:
        return lines == 1
    if value.ndim == 2 and value.shape == (lines, columns):
        return True
    return name not in ("input_ids", "labels") and value.ndim == 1 and len(value) == lines


def _ends_of(trainer: Any) -> tuple[int, ...]:
    """Ids at which the model or its tokenizer ends a text."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    found: set[int] = set()
    for owner in (getattr(model, "generation_config", None), model.config, trainer.processing_class):
        end = getattr(owner, "eos_token_id", None)
        found |= {end} if isinstance(end, int) else set(end or ())
    return tuple(sorted(found))


@torch.no_grad()
def _read(trainer: Any, batch: MicroBatch) -> Reading:
    """The model's readings of a micro-batch, by its weights of this moment.

    Raises ValueError when its logits are not one line of the vocabulary for each token.
    """
    reading = Reading([], [])
    model = trainer.model_wrapped
    was_training = model.training
    model.eval()
    try:
        inputs = trainer._prepare_inputs({name: v for name, v in batch.fields.items() if name != "labels"})
        with trainer.compute_loss_context_manager():
            logits: Tensor = model(**inputs, use_cache=False).logits  # (B, L, V)
    finally:
        model.train(was_training)
    if logits.shape[:2] != batch.fields["input_ids"].shape:
        raise ValueError(
            f"the model answers {tuple(batch.fields['input_ids'].shape)} tokens with logits of "
            f"{tuple(logits.shape)}; tokens that it adds itself are not provided for"
        )
    ids = batch.fields["input_ids"].to(logits.device)
    at_once = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    for row in batch.rows:
        nll, entropy = [], []
        for columns in torch.split(torch.from_numpy(row.trained).to(logits.device), at_once):
            log_p = logits[row.line, columns - 1].float().log_softmax(-1)
            nll.append(-log_p.gather(-1, ids[row.line, columns][:, None])[:, 0])
            entropy.append(torch.special.entr(log_p.exp()).sum(-1))
        reading.nll.append(torch.cat(nll).cpu().numpy())
        reading.entropy.append(torch.cat(entropy).cpu().numpy())
    return reading


class _Tally:
    """What was kept of a few steps."""

    def __init__(self) -> None:
        self.rows, self.tokens, self.size = np.zeros(2), np.zeros(2), np.zeros(2)
        self.filled = 0

    def add(self, before: Sequence[MicroBatch], after: Sequence[MicroBatch], filled: int) -> None:
        """Count a step, and of its rows those that are fill."""
        self.filled += filled
        for at, batches in enumerate((before, after)):
            self.rows[at] += sum(len(batch.rows) for batch in batches)
            self.tokens[at] += sum(batch.trained for batch in batches)
            self.size[at] += sum(batch.size for batch in batches)

    def shares(self) -> dict[str, float]:
        """As in the logs; {} before the first step."""
        if not self.size[0]:
            return {}
        return {
            "pruning/rows": float(self.rows[1] / max(self.rows[0], 1)),
            "pruning/tokens": float(self.tokens[1] / max(self.tokens[0], 1)),
            "pruning/fill": float(self.filled / max(self.rows[1], 1)),
            "pruning/compute": float((_PASS * self.size[0] + _STEP * self.size[1]) / (_STEP * self.size[0])),
        }
