"""What a column of numbers is, written where the numbers are made: name, unit, direction, range, meaning.

A signal, a score, a token's score and a threshold are all described so, once. The tables of a run, the
documentation of SQL, the check of a filter and the lists of methods read it from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

Direction = Literal["high", "low"]
Of = Literal["sample", "selection", "token", "threshold"]
Kind = Literal["real", "whole", "text", "truth", "vector"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one threshold.

    of: what it has one value for. A sample, whatever is kept; a sample of a selection, known once a share is
    kept; a response token; or the selection as a whole, for its report.
    unit: "" for a number without one. direction: the end of it that is kept, with a method's default options;
    None where neither end is. at_least, at_most: what no value is beyond, up to rounding; in a selection,
    NaN where there is no value. values: those of a text, where they are few.
    always: whether every run has the column, all null where the method was not asked.
    """

    name: str
    meaning: str
    of: Of = "sample"
    kind: Kind = "real"
    unit: str = ""
    direction: Direction | None = None
    at_least: float | None = None
    at_most: float | None = None
    values: tuple[str, ...] = ()
    always: bool = False

    def kept(self, direction: Direction) -> Self:
        """The column of a method that keeps this end of it."""
        return replace(self, direction=direction)

    def cut(self, name: str | None = None, meaning: str = "of the last sample kept") -> Self:
        """The threshold that is a value of this column, by default of the column's name."""
        return replace(
            self, name=name or self.name, meaning=meaning, of="threshold", direction=None, always=False
        )

    @property
    def place(self) -> tuple[str, str]:
        """Table and name: one column only can be there."""
        return ("sample" if self.of == "selection" else self.of), self.name

    def agrees(self, other: Column) -> bool:
        """Whether the two are one column; which end of it a method keeps is its own affair."""
        return replace(self, direction=other.direction) == other

    @property
    def range(self) -> str:
        """The values that there are, in words; "" where any may be."""
        if self.values:
            return ", ".join(self.values)
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:.4g} to {self.at_most:.4g}"
        if self.at_least is not None:
            return f"at least {self.at_least:.4g}"
        return "" if self.at_most is None else f"at most {self.at_most:.4g}"

    @property
    def text(self) -> str:
        """All of it but the name, in a line."""
        first = "" if self.direction is None else f"{self.direction} is kept"
        about = "; ".join(part for part in (self.unit, self.range, first) if part)
        return f"{self.meaning} ({about})" if about else self.meaning


def by_name(*columns: Column) -> dict[str, Column]:
    """The columns, each by its name."""
    return {column.name: column for column in columns}
