"""What was measured of all methods, joined into the document that `scorers/methods/findings.json` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.table.asked import Asked
from benchmarks.table.corpora import PLANTED, Labelled


@dataclass
class Line:
    """A method's part of the table while it is made. kept: by corpus, as `keeping.kept` has it. changes: by
    setting, as `training` has it."""

    asked: Asked
    kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    changes: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def _length(self, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """With the end that is kept as the upper one; a variant's is that of its method."""
        score = self.asked.score
        if found is None or score is None or self.asked.words:
            return None
        sign = -1 if score.direction == "low" else 1
        return {**found, "correlation": sign * found["correlation"]}

    def document(self) -> dict[str, Any]:
        known = {name: found for name, found in self.kept.items() if "left_out" not in found}
        planted = known.get(PLANTED, {})
        why: dict[str, list[str]] = {}
        for name, found in {**self.kept, **self.changes}.items():
            if "left_out" in found:
                why.setdefault(found["left_out"], []).append(name)
        return {
            "method": self.asked.method,
            "words": self.asked.words,
            "options": dict(self.asked.options),
            "kept": [
                {"corpus": name, "kind": kind, "kept": kept, "rows": rows}
                for name, found in known.items()
                for kind, (kept, rows) in found["kept"].items()
            ],
            "tokens": planted.get("tokens"),
            "length": self._length(planted.get("length")),
            "changes": [
                {"setting": name, **found} for name, found in self.changes.items() if "left_out" not in found
            ],
            "left_out": [f"{', '.join(names)}: {reason}" for reason, names in why.items()],
        }


def document(
    model: str,
    device: str,
    corpora: Mapping[str, Labelled],
    settings: Sequence[Mapping[str, Any]],
    lines: Sequence[Line],
) -> dict[str, Any]:
    """The document of all lines that have something to say."""
    counted: dict[str, int] = {}
    for line in lines:
        for name, found in line.kept.items():
            counted[name] = max(counted.get(name, 0), found.get("of_tokens", 0))
    return {
        "model": model,
        "device": device,
        "corpora": [
            {
                "name": name,
                "title": corpus.title,
                "rows": len(corpus.rows),
                "tokens": counted[name],
                "shown": list(corpus.seen),
            }
            for name, corpus in corpora.items()
            if counted.get(name)
        ],
        "settings": list(settings),
        "methods": [line.document() for line in lines if line.kept or line.changes],
    }
