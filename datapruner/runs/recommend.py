"""A recipe for a corpus, with a comment that says why beside each choice.

    target rows                 the method that selects towards them; the gate with all its rules
    none                        random rows, unless a method was measured to beat them wherever it was tried
    few samples, no target      all of them: what pruning saves there is less than what it risks
    near duplicates, defects    dropped, and how many there are is said

Notable choices:
- evidence is what `scorers.methods.findings` has: measured against random rows at equal trained tokens. A
  method that was not, or that random rows match, is not recommended without a target set; with one, what
  others published of targeted selection is the reason, and said to be that;
- where the method reads no model, the gate does not either: to read all rows for its two last rules would
  cost most of the run;
- the same rows give the same text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from datapruner.request.parts import Gate
from datapruner.runs.corpus_facts import CorpusFacts
from datapruner.system.files import publishing
from scorers.methods import registry
from scorers.methods.findings import Finding, measured
from scorers.signals.columns import RATING, REWARD, corpus_settings, needs_by_view

_FEW = 2_000
_SHARE, _TARGETED = "25%", "10%"
_FOREIGN = 0.2
_WIDTH = 100
_TARGETED_METHOD, _RANDOM = "rds", "random"
_RULES = {"refusals": "refusals", "loops": "loops", "cut off": "cut ends", "languages": "wrong languages"}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A recipe that `datapruner run` reads, and the facts that it was chosen by."""

    recipe: str
    facts: CorpusFacts

    def __str__(self) -> str:
        return self.recipe

    def write(self, path: str | Path) -> None:
        """Write the recipe. Raises OSError."""
        with publishing(Path(path)) as file:
            file.write(self.recipe.encode())


def recommendation(
    facts: CorpusFacts,
    *,
    data: str | None,
    target: str | None = None,
    target_samples: int = 0,
    mapping: Mapping[str, str] | None = None,
    keep_tokens: int | None = None,
) -> Recommendation:
    """The recipe for a corpus with these facts. `data` and `target` name its rows and those to select
    towards; without a name for its rows, they are given to the run."""
    few = facts.samples < _FEW and keep_tokens is None and target is None
    method = _method(targeted=target is not None, few=few)
    settings: list[tuple[str, dict[str, Any]]] = [(_about(facts), {} if data is None else {"data": data})]
    if mapping:
        settings.append(("", {"mapping": dict(mapping)}))
    if target is not None:
        settings.append(
            (f"What the model is to become good at: {target_samples:,} samples.", {"target": target})
        )
    settings += [_gate(facts, reads_model=method != _RANDOM), _dedup(facts)]
    settings.append((_why(method, targeted=target is not None, few=few), {"methods": [method]}))
    settings.append(_keep(facts, targeted=target is not None, few=few, tokens=keep_tokens))
    text = "\n".join(_section(comment, setting) for comment, setting in settings)
    return Recommendation(f"{text}\n{_commented(_after(facts))}\n", facts)


def _section(comment: str, setting: Mapping[str, Any]) -> str:
    dumped: str = yaml.safe_dump(dict(setting), sort_keys=False, width=10_000) if setting else ""
    return f"{_commented(comment)}\n{dumped}" if comment else dumped


def _commented(text: str) -> str:
    lines = [line for each in text.split("\n") for line in textwrap.wrap(each, _WIDTH - 2) or [""]]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _counted(count: int, of: int) -> str:
    return f"{count:,} ({count / max(of, 1):.1%})"


def _about(facts: CorpusFacts) -> str:
    said = [
        f"{facts.rows:,} rows: {facts.samples:,} different samples, {facts.copies:,} exact copies, "
        f"{facts.rejected:,} that cannot be read.",
        f"Their responses have {facts.words[0]:,} words in the median, {facts.words[1]:,} at the 95th "
        f"percentile, and about {facts.tokens:,} tokens in all.",
    ]
    for count, what in (
        (facts.several_turns, "have several turns"),
        (facts.reasoning, "reason before they answer"),
        (facts.tools, "bring tools"),
        (facts.foreign, "answer in other letters than Latin ones"),
    ):
        if count:
            said.append(f"{_counted(count, facts.samples)} {what}.")
    return "Run it with `datapruner run`; each choice has its reason above it.\n" + " ".join(said)


def _gate(facts: CorpusFacts, *, reads_model: bool) -> tuple[str, dict[str, Any]]:
    found = ", ".join(f"{_RULES[rule]} {count:,}" for rule, count in facts.defects.items())
    said = f"Obvious defects go first, each for a reason in words. The rules of text find {found or 'none'}. "
    foreign = facts.foreign > _FOREIGN * facts.samples
    if reads_model and not foreign:
        said += "Gibberish, and ends that the proxy model does not expect, go when it has read the rows."
        return said, {"gate": {}}
    off = {"gibberish": False, "endings": False}
    assert Gate(**off).reads_model is False
    said += (
        "Gibberish and unexpected ends are not looked for: the proxy model knows too little of the languages "
        "that many rows are in."
        if foreign
        else "Gibberish and unexpected ends are not looked for: the proxy model would have to read all rows, "
        "which nothing else here asks of it. Leave the two lines out for that."
    )
    return said, {"gate": off}


def _dedup(facts: CorpusFacts) -> tuple[str, dict[str, Any]]:
    near = _counted(facts.near, facts.samples)
    return (
        f"Near duplicates of earlier rows: {near}, at a Jaccard similarity of 0.7. Copies teach little that "
        "their first does not; defective rows are not compared with.",
        {"dedup": {"threshold": 0.7}},
    )


def _method(*, targeted: bool, few: bool) -> str:
    """What selects: of the methods that take what is given, the one that was measured to beat random rows by
    most where it does so by least."""
    if few:
        return _RANDOM
    proven = sorted(
        (max(change.difference for change in finding.changes), finding.method)
        for finding in measured().methods
        if not finding.words and _is_better(finding) and _takes(finding.method, targeted=targeted)
    )
    if proven:
        return proven[0][1]
    return _TARGETED_METHOD if targeted else _RANDOM


def _is_better(finding: Finding) -> bool:
    """Whether it beat random rows wherever it was tried."""
    return bool(finding.changes) and all(change.verdict == "better" for change in finding.changes)


def _takes(name: str, *, targeted: bool) -> bool:
    """Whether a method reads a target set, or no other rows; without a further model or a teacher."""
    method = registry.get(name)
    wanted = method.needs(method.options())
    others = {about[0] for about in map(corpus_settings, wanted) if about is not None} & {RATING, REWARD}
    given = needs_by_view(wanted).keys() & {"reference", "target"}
    return not others and given == ({"target"} if targeted else set())


def _evidence(method: str) -> Iterator[str]:
    for finding in measured().of(method)[:1]:
        for change in finding.changes:
            yield f"{change.setting}: {change.text} nats a token, {change.verdict}"


def _why(method: str, *, targeted: bool, few: bool) -> str:
    shown = "; ".join(_evidence(method))
    against = f" Against random rows at equal trained tokens: {shown}." if shown else ""
    if few:
        return (
            f"Under {_FEW:,} samples all stay: what training on fewer would save is small, and `random` with "
            "all of them is a run without a selection."
        )
    if method == _RANDOM:
        return (
            "Random rows. Without rows to select towards, no method here was measured to beat them wherever "
            "it was tried (`datapruner methods NAME` shows what was), and they cost no pass of a model. With "
            "a few dozen rows of what the model is to become good at, `datapruner recommend --target FILE` "
            "selects towards them."
        )
    if targeted:
        published = (
            "Published comparisons find selection towards a target set better than random rows "
            "(arXiv 2503.01807, 2602.14696); whether it is for yours, an evaluation tells."
        )
        return f"Rows like those of the target, by {method}. {published}{against}"
    return f"Of the methods that read no other rows, {method} was measured to beat random rows.{against}"


def _keep(facts: CorpusFacts, *, targeted: bool, few: bool, tokens: int | None) -> tuple[str, dict[str, Any]]:
    if tokens is not None:
        return "The budget of trained tokens that was asked for.", {"keep": {"tokens": tokens}}
    if few:
        return "", {"keep": "100%"}
    share = _TARGETED if targeted else _SHARE
    return (
        f"No share is right for all corpora. {share} of {facts.samples:,} is a start from which to evaluate; "
        "another one takes seconds, as nothing is measured anew.",
        {"keep": share},
    )


def _after(facts: CorpusFacts) -> str:
    said = [
        "Whether it was worth it: trains a model on what is kept and on random rows, and compares.",
        "evaluate: {held_out: {questions: held_out.jsonl}, seconds: 600}",
        "Rows that hold text of a benchmark that you will report:",
        "contamination: {against: {benchmark: benchmark.jsonl}}",
    ]
    if facts.samples and facts.prompts * 5 <= facts.samples * 4:
        said.append(
            f"There are {facts.prompts:,} different prompts to {facts.samples:,} samples. `grape` keeps the "
            "most probable response to each; whether that beats random ones is for you to evaluate."
        )
    if facts.reasoning:
        said.append(
            "Reasoning can be shortened (`rewrite`, see docs/rewriting.md). It is not recommended unseen: "
            "which steps a small proxy model leaves out has to be read first."
        )
    return "\n".join(said)


def named_beside(rows: str | None, recipe: Path | None) -> str | None:
    """What a recipe in the file `recipe` calls these rows: a file as seen from its folder, a name as it is,
    None where they have none."""
    if rows is None or recipe is None:
        return rows
    path = Path(rows).expanduser()
    try:
        is_file = path.exists()
    except OSError:  # a name too long for a file
        is_file = False
    if not is_file:
        return rows
    whole, folder = path.resolve(), recipe.parent.resolve()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)
