"""How a process of ours is started: with this Python, and without the working directory on its path."""

from __future__ import annotations

import sys

PYTHON = (sys.executable, "-P")
"""What its command begins with. Without `-P`, modules are looked for in the working directory first, and what
is called `api`, `scorers` or `pip` there, anybody's, would be taken for ours."""
