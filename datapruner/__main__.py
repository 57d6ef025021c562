"""`python -m datapruner` is the command line: so a process of ours starts another of its installation."""

from __future__ import annotations

import sys
from pathlib import Path

# `-m` puts the working directory first: unless we are there ourselves, its `api` and `scorers` are not ours.
if not sys.flags.safe_path and sys.path[0] != str(Path(__file__).parents[1]):
    del sys.path[0]

from datapruner.cli import main

sys.exit(main())
