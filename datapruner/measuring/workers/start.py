"""Starts a process that measures, tokenises or embeds: `python -m datapruner.measuring.workers.start NAME`.

NAME is the module of this folder with its `main`.

Most of a start is imports. Notable choices:
- what such a process can do without is not there, as if it were not installed: torch itself where there is no
  model, as transformers' tokenizers need none; else the packages that transformers imports only to have them;
- it ends with the process that started it, in the middle of whatever it does: nobody waits for that any
  more, and whoever comes next may need its device;
- it ends without taking itself apart, which is a tenth of a start: all that it made is written by then;
- garbage is not collected before the model is loaded (`protocol.serve`): nearly everything that is made until
  then stays, and to look through all of it again and again was a quarter of the start.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from importlib import import_module

START = ("-m", "datapruner.measuring.workers.start")
"""Arguments of the Python interpreter, before the name."""

_WITHOUT_TORCH = ("tokeniser", "renderers")
_UNUSED = ("accelerate", "scipy")
_WITH_THEM = ("tuner",)  # peft imports accelerate in earnest
_PARENT_SECONDS = 0.5


def main(name: str) -> None:
    """Run the process that is called so over the standard streams."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    gc.disable()
    if name in _WITHOUT_TORCH:
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # which say that it is not installed
    without = ("torch",) if name in _WITHOUT_TORCH else () if name in _WITH_THEM else _UNUSED
    for each in without:
        sys.modules[each] = None  # type: ignore[assignment]
    import_module(f"datapruner.measuring.workers.{name}").main()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def settled() -> None:
    """Begin to collect garbage, if that was put off, but not among what is there now (`gc.freeze`)."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    main(sys.argv[1])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
