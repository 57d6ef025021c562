"""How fast a teacher is asked, and how much of it is used.

Notable choices:
- a request reserves what it may use before it is sent, and the difference is given back afterwards; one that
  does not fit waits for those in flight, then the job stops. A limit is thus kept to within the error of the
  estimate, however many requests are in flight;
- a request whose answer was lost counts with all it reserved, for it is likely to be billed;
- requests start at even distances, never in bursts, so no minute has more than the rate;
- when the teacher says "not now", all wait, not only the one that was told.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from datapruner.teacher.errors import LimitReachedError
from datapruner.teacher.questions import Question
from datapruner.teacher.settings import TeacherSettings, variable

# SmolLM2's tokenizer makes a token of 2.3 bytes (worked arithmetic) to 4.7 (English prose).
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8  # its role and the template's marks


@dataclass(frozen=True, slots=True)
class Tokens:
    """Prompt and answer tokens of one request."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far. `requests` counts repeated ones, `stored` the answers that cost nothing."""

    requests: int = 0
    answers: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def text_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode(errors="surrogatepass")) // _BYTES_PER_TOKEN)


def estimated(question: Question) -> Tokens:
    """What a question may use. Without `max_tokens` the answer counts as long as the prompt, for what is
    asked for is to be shorter than what is in there.
    """
    prompt = sum(text_tokens(message["content"]) + _TOKENS_PER_MESSAGE for message in question.messages)
    return Tokens(prompt, prompt if question.max_tokens is None else question.max_tokens)


class Budget:
    """The limits of one job. `usage` is what it used."""

    def __init__(self, settings: TeacherSettings) -> None:
        self.usage = Usage()
        self._settings = settings
        self._reserved: list[Tokens] = []
        self._next_start = 0.0
        self._held_until = 0.0
        self.begin()

    def begin(self) -> None:
        """Let requests wait in the event loop that comes next."""
        self._settled = asyncio.Event()
        self._gate = asyncio.Lock()

    @property
    def cost(self) -> float:
        """Money used so far."""
        return self._settings.cost(self.usage.prompt_tokens, self.usage.completion_tokens)

    async def reserve(self, tokens: Tokens) -> None:
        """Wait until a request of so many tokens may start. Raises LimitReachedError."""
        while (limit := self._exceeded_by(tokens)) is not None:
            if not self._reserved:
                raise self._reached(limit)
            self._settled.clear()
            await self._settled.wait()
        self._reserved.append(tokens)
        self._count_request(1)
        try:
            await self._turn(tokens)
        except BaseException:  # it is not sent
            self._count_request(-1)
            self._give_back(tokens)
            raise

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """The request is over and used so much."""
        self._give_back(reserved)
        self._next_start += self._seconds(used) - self._seconds(reserved)
        self.usage = replace(
            self.usage,
            prompt_tokens=self.usage.prompt_tokens + used.prompt,
            completion_tokens=self.usage.completion_tokens + used.completion,
        )

    def count(self, *, stored: bool) -> None:
        """One more answer."""
        if stored:
            self.usage = replace(self.usage, stored=self.usage.stored + 1)
        else:
            self.usage = replace(self.usage, answers=self.usage.answers + 1)

    def hold(self, seconds: float) -> None:
        """No request starts within the next `seconds`."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def _give_back(self, tokens: Tokens) -> None:
        self._reserved.remove(tokens)
        self._settled.set()

    def _count_request(self, change: int) -> None:
        self.usage = replace(self.usage, requests=self.usage.requests + change)

    async def _turn(self, tokens: Tokens) -> None:
        async with self._gate:
            while (pause := max(self._next_start, self._held_until) - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            self._next_start = time.monotonic() + self._seconds(tokens)

    def _seconds(self, tokens: Tokens) -> float:
        """How long the rates take for a request of so many tokens."""
        requests, by_tokens = self._settings.requests_per_minute, self._settings.tokens_per_minute
        return max(60 / requests if requests else 0.0, 60 * tokens.total / by_tokens if by_tokens else 0.0)

    def _exceeded_by(self, tokens: Tokens) -> str | None:
        """Name of the limit that has no room for `tokens` beside what is used and reserved."""
        settings, usage = self._settings, self.usage
        if settings.max_requests is not None and usage.requests >= settings.max_requests:
            return "max_requests"
        prompt = usage.prompt_tokens + tokens.prompt + sum(each.prompt for each in self._reserved)
        completion = usage.completion_tokens + tokens.completion
        completion += sum(each.completion for each in self._reserved)
        if settings.max_total_tokens is not None and prompt + completion > settings.max_total_tokens:
            return "max_total_tokens"
        if settings.max_cost is not None and settings.cost(prompt, completion) > settings.max_cost:
            return "max_cost"
        return None

    def _reached(self, limit: str) -> LimitReachedError:
        usage = self.usage
        return LimitReachedError(
            f"{variable(limit)} = {getattr(self._settings, limit):,} leaves nothing for the next question: "
            f"so far {usage.requests:,} requests, {usage.prompt_tokens:,} prompt tokens, "
            f"{usage.completion_tokens:,} answer tokens, cost {self.cost:.4g}",
            remedy="raise it and start again; what was answered is not asked again",
        )
