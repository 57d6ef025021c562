"""What a trained model answers itself to held-out rows.

Answers are written greedily and compared as mathematics (`datapruner.rewriting.answers`): the one that the
model states against the one that the row states.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig

from datapruner.rewriting.answers import AnswerCheck, final_answer
from datapruner.tuning.examples import Examples, Ints
from datapruner.tuning.training import Trainee

LONGEST_ANSWER = 256  # tokens that a model may write
_ANSWERS_AT_ONCE = {"cpu": 16, "cuda": 256}


def answered(
    trainee: Trainee, examples: Examples, answers: Sequence[str], check: AnswerCheck
) -> NDArray[np.bool_]:
    """Of each row, whether the model's answer to its last question is the right one of `answers`, (N,)."""
    prompts = [_prompt(*examples.row(row)) for row in range(len(examples))]
    order = np.argsort([-len(each) for each in prompts], kind="stable")
    at_once = _ANSWERS_AT_ONCE.get(trainee.device.type, 16)
    found = np.zeros(len(examples), dtype=np.bool_)
    for start in range(0, len(order), at_once):
        rows = order[start : start + at_once].tolist()
        for row, text in zip(rows, _written(trainee, [prompts[row] for row in rows]), strict=True):
            said = final_answer(text)
            found[row] = said is not None and check.same(answers[row], said)
    return found


def _prompt(tokens: NDArray[np.int32], counted: Ints) -> NDArray[np.int32]:
    """What stands before the last stretch of tokens that count."""
    breaks = np.flatnonzero(np.diff(counted) > 1)
    first = counted[breaks[-1] + 1] if len(breaks) else counted[0]
    return tokens[: int(first)]


def _written(trainee: Trainee, prompts: Sequence[NDArray[np.int32]]) -> list[str]:
    """What the model writes after each of the prompts."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, tokens in enumerate(prompts):
        ids[line, width - len(tokens) :] = torch.from_numpy(tokens.astype(np.int64))
        mask[line, width - len(tokens) :] = 1
    end = trainee.model.generation_config.eos_token_id
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=LONGEST_ANSWER,
        eos_token_id=trainee.tokenizer.eos_token_id if end is None else end,
        pad_token_id=0,
    )
    ids, mask = ids.to(trainee.device), mask.to(trainee.device)
    with torch.inference_mode():
        made = trainee.model.generate(ids, attention_mask=mask, generation_config=config)
    texts: list[str] = trainee.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
    return texts
