"""What is wrong with reasoning that was rewritten: what hangs where something was taken away, and what broke.

Notable choices:
- where steps were cut out, `scorers.reasoning.coherence` says which of those left hang, and each step says
  so too;
- of a text in new words, numbers that it speaks of hang if the reasoning had them and it has not, and a
  colon hangs where nothing follows it;
- what was broken before is not counted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datapruner.rewriting.outcomes import Flaws, Rewritten
from datapruner.rewriting.reasoning import ReasoningRow
from scorers.reasoning.blocks import announces, broken_blocks
from scorers.reasoning.coherence import hanging, labels, mentioned


def checked(row: ReasoningRow, outcome: Rewritten) -> Rewritten:
    """The outcome with what is wrong with its text, if it is rewritten."""
    if outcome.status != "rewritten" or outcome.text is None:
        return outcome
    left = row.left(outcome.text)
    broken = max(0, broken_blocks(left) - broken_blocks(row.reasoning))
    if not outcome.removed:
        lost = (mentioned(left) & labels(row.reasoning)) - labels(left)
        return replace(outcome, flaws=Flaws(len(lost), int(announces(left)), broken))
    texts = [row.reasoning[step.start : step.end] for step in outcome.steps]
    found = hanging(texts, np.array([step.kept for step in outcome.steps]))
    steps = list(outcome.steps)
    for number, (announced, others) in found.items():
        said = [f"step {number + 2}, which it announces,"] if announced else []
        said += [f"step {other + 1}, to which it refers," for other in sorted(others)]
        steps[number] = replace(steps[number], why=f"{steps[number].why}; {' and '.join(said)} is gone")
    references = sum(len(others) for _, others in found.values())
    colons = sum(announced for announced, _ in found.values())
    return replace(outcome, steps=tuple(steps), flaws=Flaws(references, colons, broken))
