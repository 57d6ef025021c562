"""Whether selecting pays: the FLOPs of measuring against those of training that a smaller subset saves.

A model of P parameters takes about 2 P FLOPs to read a token and 6 P to train on it (Kaplan et al. 2020,
arXiv:2001.08361, section 2.1). What a token costs does not depend on whether it is labelled, so that tokens
count here which are read, labelled or not. For a proxy of P parameters that measured T of its tokens, and a
model of M parameters that is trained for E epochs on S instead of A of its own,

    measuring = 2 P T        saved = 6 M E (A - S)        break-even M = P T / (3 E (A - S)),

and above that size selecting pays. With the backward pass too, as methods by gradients measure, it is 6 P T.
Training by LoRA saves a third less, as the frozen weights take no gradient: the break-even is 1.5 times this.
"""

from __future__ import annotations

from dataclasses import dataclass

from datapruner.schemas.evaluations import Cost, Verdict

FORWARD = 2
FORWARD_AND_BACKWARD = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """What a proxy of so many parameters read: tokens forward alone, and tokens forward and backward.

    `seconds`: what that took; None where all of it had been measured before.
    """

    parameters: int
    forward: int
    backward: int = 0
    seconds: float | None = None

    @property
    def flops(self) -> float:
        return float(self.parameters) * (FORWARD * self.forward + FORWARD_AND_BACKWARD * self.backward)


@dataclass(frozen=True, slots=True)
class Epoch:
    """Tokens of one pass over rows: all that are read, and those of them that are labelled."""

    tokens: int
    trained: int


def cost(
    measured: Measured,
    everything: Epoch,
    subset: Epoch,
    *,
    trained_parameters: int,
    epochs: float = 1.0,
    verdict: Verdict | None = None,
) -> Cost:
    """What selecting costs and saves, for a model of `trained_parameters` and in general.

    verdict: of the subset against random rows. They save as much without measuring, so that selecting
    pays for no model unless the subset is better, where that is known.
    """
    saved = everything.tokens - subset.tokens
    break_even = None if saved <= 0 else measured.flops / (FORWARD_AND_BACKWARD * epochs * saved)
    large_enough = break_even is not None and trained_parameters > break_even
    return Cost(
        proxy_parameters=measured.parameters,
        measured_tokens=measured.forward + measured.backward,
        measuring_flops=measured.flops,
        measuring_seconds=measured.seconds,
        all_tokens=everything.tokens,
        subset_tokens=subset.tokens,
        saved_trained_tokens=everything.trained - subset.trained,
        epochs=epochs,
        break_even_parameters=break_even,
        trained_parameters=trained_parameters,
        pays=large_enough and verdict in (None, "better"),
        said=_sentence(saved, break_even, trained_parameters, epochs, verdict),
    )


def _sentence(
    saved: int, break_even: float | None, trained: int, epochs: float, verdict: Verdict | None
) -> str:
    if break_even is None:
        return (
            "Selecting does not pay: the subset has as many tokens as all rows, so that training saves none."
        )
    times = "one epoch" if epochs == 1 else f"{epochs:g} epochs"
    said = (
        f"Training on the subset reads {saved:,} tokens fewer an epoch. Over {times} that is more work than "
        f"measuring for models of more than {size(break_even)} parameters; the one trained here has "
        f"{size(trained)}"
    )
    said += "." if trained > break_even else ", for which selecting does not pay."
    if verdict not in (None, "better"):
        shown = "worse than" if verdict == "worse" else "not shown to be better than"
        said += f" Random rows save as much and need no measuring, and the subset is {shown} those."
    return said


def size(parameters: float) -> str:
    """A number of parameters, as in 135 million, to three digits."""
    for unit, name in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return f"{parameters:.3g}"
