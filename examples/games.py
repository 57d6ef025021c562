"""DEALRec's Games sequences as instructions: the titles that a user bought before -> the next title.

    python examples/games.py train.parquet titles.parquet games.jsonl [--rows 1024] [--history 20]

Reads sequences (columns user, items) and titles (item, title) and writes one JSON line a user with
`instruction`, `input`, `output` and `user`, in the wording of DEALRec's prompt for Games, so that
`datapruner prune games.jsonl --method dealrec --preset paper-games` can be run on it. The last item of a
sequence is the response; a user with fewer than two items has none and is counted, not written.

Notable choice: the authors drop the oldest titles until the prompt has 512 LLaMA tokens. A number of titles
does not depend on a tokenizer; 20 of them are about 250 tokens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

INSTRUCTION = (
    "Given the game products that the user purchased before, please recommend a new game product that the "
    "user likes to the user."
)
HISTORY = "The user has purchased the following game products before, with titles as: "


def rendered(items: list[int], titles: dict[int, str], history: int) -> dict[str, str]:
    """The row of one user: the last `history` titles before the last item, and that item's title."""
    *before, last = items
    bought = "; ".join(titles[item] for item in before[-history:])
    return {"instruction": INSTRUCTION, "input": f"{HISTORY}{bought};", "output": titles[last]}


def read_titles(path: Path) -> dict[int, str]:
    """Item -> title, on one line each."""
    frame = pl.read_parquet(path)
    lines = (" ".join(title.split()) for title in frame["title"])
    return dict(zip(frame["item"].cast(pl.Int64), lines, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sequences", type=Path)
    parser.add_argument("titles", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=None, help="users drawn at random (default: all)")
    parser.add_argument("--history", type=int, default=20, help="most titles shown")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    titles = read_titles(arguments.titles)
    sequences = pl.read_parquet(arguments.sequences)
    usable = sequences.filter(pl.col("items").list.len() >= 2)
    if arguments.rows is not None:
        rng = np.random.default_rng(arguments.seed)
        usable = usable[np.sort(rng.choice(len(usable), min(arguments.rows, len(usable)), replace=False))]
    with arguments.out.open("w", encoding="utf-8") as file:
        for user, items in usable.select("user", "items").iter_rows():
            row = rendered(items, titles, arguments.history) | {"user": user}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    short = len(sequences) - int((sequences["items"].list.len() >= 2).sum())
    print(f"{len(usable)} of {len(sequences)} users written; {short} have fewer than two items")


if __name__ == "__main__":
    main()
