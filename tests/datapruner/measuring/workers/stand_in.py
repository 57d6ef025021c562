"""A worker that speaks the protocol without a model, and does what the text of a sample tells it to.

Its shards have the columns sample_id, error and `n_truncated`, the length of the text. Run as a script.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def obey(text: str) -> None:
    """DIE; DIE-ONCE file; EXIT; HANG file; HANG-ONCE file."""
    command, _, path = text.partition(" ")
    if command == "DIE" or (command == "DIE-ONCE" and not Path(path).exists()):
        if path:
            Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if command == "EXIT":
        print("first line\nMemoryError: the last word", file=sys.stderr)
        sys.exit(3)
    if command == "HANG" or (command == "HANG-ONCE" and not Path(path).exists()):
        Path(path).write_text(str(os.getpid()))
        time.sleep(3600)


def fails(text: str) -> bool:
    """FAIL; FAIL-IF file; FAIL-UNLESS file."""
    command, _, path = text.partition(" ")
    wanted = {"FAIL-IF": True, "FAIL-UNLESS": False}
    return text == "FAIL" or (command in wanted and Path(path).exists() == wanted[command])


def publish(rows: list[dict[str, Any]], path: str) -> None:
    import pyarrow as pa  # most stand-ins die before they need it
    import pyarrow.parquet as pq

    schema = pa.schema([("sample_id", pa.string()), ("error", pa.string()), ("n_truncated", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def main(mode: str = "") -> None:
    sys.stdin.readline()  # the specification
    if mode == "refuse":
        say(event="refused", message="this model cannot be used")
        return
    if mode == "die":
        print("no room for the model", file=sys.stderr)
        sys.exit(9)
    if mode.startswith("hang"):
        obey(mode.replace("hang", "HANG"))
    say(event="ready")
    for line in iter(sys.stdin.readline, ""):
        task = json.loads(line)
        if "task" not in task:  # another specification
            if mode == "one model":
                sys.exit(9)
            say(event="ready")
            continue
        samples = [sample for _ in range(task["parts"]) for sample in json.loads(sys.stdin.readline())]
        rows, failed = [], []
        for sample in samples:
            text = sample["turns"][-1][1]
            obey(text)
            if fails(text):
                failed.append((sample["id"], "out of memory"))
            else:
                reason = "cannot be rendered" if text == "REFUSE" else None
                rows.append({"sample_id": sample["id"], "error": reason, "n_truncated": len(text)})
            say(event="progress", task=task["task"], rows=1, tokens=len(text))
        if mode == "broken":
            say(event="broken", message="cannot write: No space left on device", errno=28)
            return
        if rows:
            publish(rows, task["out"])
        say(event="done", task=task["task"], failed=failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
