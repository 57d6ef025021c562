"""Starts a tokeniser in a process of its own, which has no torch: transformers' tokenizers do without, and to
import it takes longer and more memory than all the rest."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # which say that it is not
    from datapruner.measuring.workers import protocol
    from datapruner.measuring.workers.tokeniser import Tokeniser

    protocol.main(Tokeniser)


if __name__ == "__main__":
    main()
