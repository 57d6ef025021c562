"""How a service ends: it says that it leaves and serves on for a while, and then what waits in it ends."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stopping:
    """The two steps of an end; both are set when a service ends without taking leave."""

    leaving: threading.Event = field(default_factory=threading.Event)
    """Balancers are told to send requests elsewhere; those that come all the same are answered."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Whatever waits for something else gives up."""

    def end(self) -> None:
        """Take both steps, or the one that is left."""
        self.leaving.set()
        self.ended.set()
