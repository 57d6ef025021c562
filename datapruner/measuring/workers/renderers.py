"""Processes that render a measuring process's samples ahead of their turn, so that its device never waits.

`main` is such a process: lines come in, a specification (`spec.spec_line`) and then samples, a
list of them a line; for each of these, the number of bytes that follow goes out (eight bytes), and `packed`
samples.

Notable choices:
- a process and not a thread, as templates run in Python; it has no torch, which takes longest to import;
- a renderer that dies takes the measuring process with it, whose tasks are then tried again one by one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from datapruner.measuring.workers.protocol import Part, plainly
from datapruner.measuring.workers.spec import WorkerSpec, spec_line, unwire
from datapruner.measuring.workers.start import START, settled
from scorers.interpreter import PYTHON

if TYPE_CHECKING:
    from scorers.conversations.chat import Encoded, RenderError

Rendered = tuple[str, "Encoded | RenderError"]
"""A sample's id and what became of it."""

_LISTS = ("position", "turn", "char_start", "char_end", "is_end")
_COUNTS = ("n_truncated", "n_tokens_full")


class Renderers:
    """The renderers of a measuring process, started with the first specification that asks for some.

    They end with the block.
    """

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[_Renderer] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        while not self._free.empty():
            self._free.get().close()

    def ahead(self, spec: WorkerSpec) -> Callable[[str], Part]:
        """As `protocol.Ahead`: samples come as `Rendered` where there are to be renderers, else plainly."""
        if not spec.renderers:
            return plainly(spec)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(spec.renderers)
            for _ in range(spec.renderers):
                self._free.put(_Renderer())
        threads = self._threads
        return lambda line: threads.submit(self._render, spec, line).result

    def _render(self, spec: WorkerSpec, line: str) -> list[Rendered]:
        renderer = self._free.get()
        try:
            return renderer.render(spec, line)
        finally:
            self._free.put(renderer)


class _Renderer:
    """One such process."""

    def __init__(self) -> None:
        command = [*PYTHON, *START, "renderers"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._spec: WorkerSpec | None = None

    def render(self, spec: WorkerSpec, line: str) -> list[Rendered]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if spec != self._spec:
                self._process.stdin.write(spec_line(spec).encode())
                self._spec = spec
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            size = int.from_bytes(self._process.stdout.read(8), "little")
            data = self._process.stdout.read(size)
        except OSError:
            size, data = 0, b""
        if not size or len(data) < size:
            raise RuntimeError(f"a rendering process ended with exit code {self._process.wait()}")
        return unpacked(data)

    def close(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.communicate()
        self._process.stdout.close()


def packed(samples: Sequence[Rendered]) -> bytes:
    """Rendered samples as numpy's own arrays, one for each field of all samples together."""
    from scorers.conversations.chat import Encoded

    good = [each for _, each in samples if isinstance(each, Encoded)]
    said = [[sample_id, None if isinstance(each, Encoded) else each.reason] for sample_id, each in samples]
    fields = {name: [getattr(each, name) for each in good] for name in ("input_ids", *_LISTS)}
    arrays = {name: np.concatenate(each) for name, each in fields.items() if each}
    arrays |= {name: np.array([getattr(each, name) for each in good], np.int64) for name in _COUNTS}
    arrays["tokens"] = np.array([len(each.input_ids) for each in good], np.int64)
    arrays["responses"] = np.array([len(each.position) for each in good], np.int64)
    arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(data: bytes) -> list[Rendered]:
    """What `packed` was given."""
    from scorers.conversations.chat import Encoded, RenderError

    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays: Mapping[str, Any] = {name: file[name] for name in file.files}
    tokens, responses = (np.cumsum([0, *arrays[name]]) for name in ("tokens", "responses"))
    samples: list[Rendered] = []
    at = 0
    for sample_id, reason in json.loads(arrays["said"].tobytes()):
        if reason is not None:
            samples.append((sample_id, RenderError(reason)))
            continue
        some = slice(responses[at], responses[at + 1])
        encoded = Encoded(
            input_ids=arrays["input_ids"][tokens[at] : tokens[at + 1]],
            position=arrays["position"][some],
            turn=arrays["turn"][some],
            char_start=arrays["char_start"][some],
            char_end=arrays["char_end"][some],
            is_end=arrays["is_end"][some],
            n_truncated=int(arrays["n_truncated"][at]),
            n_tokens_full=int(arrays["n_tokens_full"][at]),
        )
        samples.append((sample_id, encoded))
        at += 1
    return samples


def serve(lines: BinaryIO, out: BinaryIO) -> None:
    """Render what comes, until nothing does."""
    from datapruner.measuring.workers.rendering import renderer_of
    from scorers.models import tokenizer

    for line in lines:
        message = json.loads(line)
        if isinstance(message, dict):
            spec = WorkerSpec(**message)
            config, loaded = tokenizer.load(Path(spec.folder))
            renderer = renderer_of(spec, loaded, tokenizer.max_positions(config))
            settled()
            continue
        found = renderer.render([unwire(sample) for sample in message])
        data = packed([(sample["id"], each) for sample, each in zip(message, found, strict=True)])
        out.write(len(data).to_bytes(8, "little"))
        out.write(data)
        out.flush()


def main() -> None:
    """Render over the standard streams of this process; what libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with out:
        serve(sys.stdin.buffer, out)
