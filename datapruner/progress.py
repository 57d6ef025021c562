"""How long work reports what it has done, to whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. Stages follow one another; amounts are in the stage's unit."""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        """A stage begins; `total` is None when nobody knows how much there is."""
        ...

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """`done` of the stage so far; `total` if it has become known; `note`: a few words, such as a rate."""
        ...

    def measured(self, rows: int, tokens: int) -> None:
        """So many samples and tokens in all have gone through the proxy model in this stage."""
        ...

    def note(self, text: str) -> None:
        """Something worth knowing now, such as how the input was understood."""
        ...


class Silent:
    """Listens and says nothing."""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        pass

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        pass

    def measured(self, rows: int, tokens: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Count:
    """Adds up what the workers of a stage report, and passes it on."""

    def __init__(self, progress: Progress, note: str = "") -> None:
        self.progress, self.note = progress, note
        self.done = 0

    def __call__(self, rows: int, tokens: int = 0) -> None:
        self.done += rows
        self.tell()

    def tell(self) -> None:
        """Report again how far it is: listeners that want to stop the work can do so only when asked."""
        self.progress.at(self.done, note=self.note)
