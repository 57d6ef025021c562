"""Which signals a request reads, and whether it has all that its methods compare with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from datapruner.errors import UsageError
from datapruner.request.config import TUNED, MethodChoice, RunConfig, find
from datapruner.request.parts import Criterion
from scorers.signals.columns import REWARD, SAMPLE_SIGNALS, SENTENCE_EMBEDDING, corpus_settings, needs_by_view

Combine = Mapping[str, Criterion]
"""Criteria of a combined score, by name: METHOD, METHOD.COLUMN, or a signal."""


def needs(methods: list[MethodChoice], combine: Combine | None = None) -> frozenset[str]:
    """Signals that these methods read, and those among the criteria of a combined score."""
    read = frozenset().union(*(find(choice.name).needs(choice.parsed()) for choice in methods))
    names = {choice.name for choice in methods}
    return read | {name for name in combine or {} if method_of(name, names) is None}


def check(config: RunConfig, *, has_target: bool) -> None:
    """Raise UsageError, naming the setting, when the methods lack something that they read, or something is
    given that nothing reads, or combined that is no score."""
    check_views(config, has_target=has_target)
    if config.combine is not None:
        check_combine(config.methods, config.combine)


def check_combine(methods: list[MethodChoice], combine: Combine) -> None:
    """Raise UsageError for a criterion that is no score of these methods and no signal."""
    names = {choice.name for choice in methods}
    for name in combine:
        if method_of(name, names) is None and name not in SAMPLE_SIGNALS:
            raise UsageError(
                f"{name} is no score",
                remedy=f"a method of this run ({', '.join(sorted(names))}), one of its columns as "
                f"METHOD.COLUMN, or a signal ({', '.join(SAMPLE_SIGNALS)})",
                field=f"combine.{name}",
            )


def method_of(criterion: str, methods: Collection[str]) -> str | None:
    """The method, of these, whose score a criterion is; None when it is a signal, or nothing."""
    name = criterion.partition(".")[0]
    return name if name in methods else None


def reads_reward(names: Collection[str]) -> list[str]:
    """The labels of the rewards among these signals, as methods ask for them."""
    named = map(corpus_settings, names)
    return sorted(about[1].get("label", "") for about in named if about is not None and about[0] == REWARD)


def check_views(config: RunConfig, *, has_target: bool) -> None:
    """Raise UsageError when the methods lack something to compare with, or have something for nothing."""
    measuring = config.measuring
    tunes = measuring.reference == TUNED
    given = {"reference": measuring.reference is not None, "target": has_target}
    remedies = {
        "reference": "name a reference model with the proxy model's tokenizer, or "
        f"{TUNED} and the rows to tune the proxy model on as target",
        "target": "name the rows to select towards",
    }
    fields = {"reference": "measuring.reference", "target": "target"}
    if config.task_column is not None and not has_target:
        raise UsageError(
            "no target is given whose rows have tasks", remedy="leave it out", field="task_column"
        )
    methods = " and ".join(choice.name for choice in config.methods) or "a run without methods"
    if config.measuring.embedder is not None and SENTENCE_EMBEDDING not in needs(config.methods):
        raise UsageError(
            f"no sentence embedding is read by {methods}",
            remedy="set the method's option embedding to sentence_embedding, or name no embedder",
            field="measuring.embedder",
        )
    rewarded = [choice.name for choice in config.methods if reads_reward(needs([choice]))]
    if rewarded and config.measuring.reward_model is None:
        raise UsageError(
            f"method {rewarded[0]} needs a reward model",
            remedy="name one with a head for sequence classification: a folder or Hub name",
            field="measuring.reward_model",
        )
    if config.measuring.reward_model is not None and not rewarded:
        raise UsageError(
            f"no reward is read by {methods}", remedy="leave it out", field="measuring.reward_model"
        )
    if tunes and not has_target:
        raise UsageError(
            f"the reference {TUNED} needs a target set", remedy="name the rows to tune on", field="target"
        )
    if not tunes and (measuring.tune_steps is not None or measuring.tune_seconds is not None):
        name = "tune_steps" if measuring.tune_steps is not None else "tune_seconds"
        raise UsageError(
            "no model is tuned",
            remedy=f"name the reference {TUNED}, or leave it out",
            field=f"measuring.{name}",
        )
    for view, is_given in given.items():
        takers = [choice.name for choice in config.methods if view in needs_by_view(needs([choice]))]
        if takers and not is_given:
            raise UsageError(f"method {takers[0]} needs a {view}", remedy=remedies[view], field=fields[view])
        if is_given and not takers and not (view == "target" and tunes):
            raise UsageError(f"no {view} is read by {methods}", remedy="leave it out", field=fields[view])
