"""A teacher that answers as a test tells it to, on a real socket."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.datapruner.client.unruly import Behaviour, Handler, Seen, answers


def completion(text: str | None, finish: str | None = "stop", used: tuple[int, int] | None = (11, 7)) -> Any:
    """The document of a chat completion, with what services add to it."""
    document: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
    }
    if used is not None:
        document["usage"] = {
            "prompt_tokens": used[0],
            "completion_tokens": used[1],
            "total_tokens": sum(used),
        }
    return document


def says(text: str | None, finish: str | None = "stop", used: tuple[int, int] | None = (11, 7)) -> Behaviour:
    return answers(completion(text, finish, used))


def fails(status: int, message: str = "it went wrong", code: str | None = None, **headers: Any) -> Behaviour:
    return answers({"error": {"message": message, "type": "error", "code": code}}, status, **headers)


def echoes(handler: Handler) -> None:
    """The last message, back."""
    body = asked(handler.seen)
    says("re: " + body["messages"][-1]["content"])(handler)


def when(event: threading.Event, behaviour: Behaviour) -> Behaviour:
    """What waits for the event, or for the end of the test."""

    def behave(handler: Handler) -> None:
        while not (event.wait(0.01) or handler.unruly.over.is_set()):
            pass
        behaviour(handler)

    return behave


def asked(seen: Seen) -> Any:
    """What a request asked."""
    return json.loads(seen.body)
