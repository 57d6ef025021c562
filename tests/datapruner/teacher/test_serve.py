"""A real service on the wire: `transformers serve` with the small proxy model as teacher."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from datapruner.teacher import Answer, Question, Teacher, load
from tests.waiting import PATIENCE, until

pytest.importorskip("openai", reason="`transformers serve` needs it: pip install openai")
_COMMAND = Path(sys.executable).with_name("transformers")


@pytest.fixture(scope="module")
def service(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running service."""
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(_COMMAND), "serve", str(smollm2)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", "--device", "cpu", "--default-seed", "1"],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = until(lambda: process.poll() is not None or _url(process.pid), log.read_text)
            assert isinstance(url, str), log.read_text()
            yield f"{url}/v1"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _url(pid: int) -> str | None:
    """Where the process answers, once it does."""
    for connection in psutil.Process(pid).net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            url = f"http://127.0.0.1:{connection.laddr.port}"
            with contextlib.suppress(httpx.RequestError):
                if httpx.get(f"{url}/health", timeout=PATIENCE, trust_env=False).is_success:
                    return url
    return None


def _question(row: str, text: str, max_tokens: int) -> Question:
    return Question("greet@1", row, [{"role": "user", "content": text}], 0.0, max_tokens)


@pytest.mark.slow
def test_a_served_model_answers(service: str, smollm2: Path, tmp_path: Path) -> None:
    settings = load(base_url=service, model=str(smollm2), concurrency=2)
    rows = [
        _question("long", "Tell me a long story about a river.", 8),
        _question("short", "Answer with one word: what is the capital of France?", 40),
    ]

    async def main() -> tuple[list[Answer], int]:
        async with Teacher(settings, store=tmp_path / "answers.sqlite") as teacher:
            return await asyncio.gather(*map(teacher.ask, rows)), teacher.usage.requests

    (long, short), requests = asyncio.run(main())
    assert (long.finish, long.completion_tokens) == ("length", 8)
    assert short.finish == "stop"
    assert "Paris" in short.text
    assert short.prompt_tokens > 10
    assert requests == 2

    again, requests = asyncio.run(main())
    assert requests == 0
    assert [answer.text for answer in again] == [long.text, short.text]
