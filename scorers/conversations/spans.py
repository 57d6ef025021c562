"""Conversation -> the text a chat template makes of it, and where in it each trained answer stands.

Notable choices:
- spans are found in text, not in tokens, and never by looking for a turn's content in the whole text: a
  user who types `<|im_start|>assistant` moves nothing;
- a template with `{% generation %}` markers says itself what the model writes. Without them (or where a
  marked span does not hold the turn), the conversation is rendered up to each answer, once with the
  prompt for it and once with the answer: what the second adds to the first is the answer;
- either way a span counts only when the turn's content is in it verbatim, or trimmed of outer whitespace,
  and an answer in mid-conversation only when the full text has the same words there;
- reasoning and what follows it may stand apart: templates re-space them, or write each its own way;
- an answer ends with the first special token after its content, so the line break that many templates put
  there is not trained on;
- what a template is given is the first of several forms in which it writes every piece (`proof`);
- templates come with models and are not trusted: they run in transformers' sandbox, see only plain data,
  and today's date is a fixed one, so that the same rows give the same text tomorrow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from scorers.conversations.conversation import Conversation, reasoning_of, think_block
from scorers.conversations.forms import REASONING_KEYS, Given, Message, RefusedError, give
from scorers.conversations.proof import Prover, require
from scorers.models import template
from scorers.models.sources import ModelSourceError

_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Overrides the clock that transformers gives to templates.
_FIXED_DATE = '{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ "" }}'
# Stand in an answer for its parts; an answer without reasoning is the second.
_THOUGHT, _ANSWER = "\ue000thought\ue000", "\ue000answer\ue000"
_TAGS = ("<think>", "</think>")
_WITH_MARKERS = "save a template with {% generation %} markers as chat_template.jinja in the model folder"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters lead:lead + length of a turn's content, which stand at `at` of the rendered text."""

    at: int
    lead: int
    length: int

    @property
    def stop(self) -> int:
        """Where it ends in the rendered text."""
        return self.at + self.length

    def moved(self, by: int) -> Stretch:
        return Stretch(self.at + by, self.lead, self.length)


@dataclass(frozen=True, slots=True)
class Response:
    """One trained answer in a rendered text, all in characters.

    start:stop is what the model writes, end-of-turn included. `stretches` are the parts of the turn's own
    text in it, ascending: one, or several where the template re-spaces reasoning; one of no length for an
    empty turn. The first may start before the answer, where the prompt already opens it.
    """

    turn: int
    start: int
    stop: int
    stretches: tuple[Stretch, ...]

    @property
    def content_stop(self) -> int:
        """Where the turn's own text ends in the rendered text."""
        return self.stretches[-1].stop

    def moved(self, by: int) -> Response:
        """The same answer where the text before it is longer by so many characters."""
        return Response(
            self.turn, self.start + by, self.stop + by, tuple(each.moved(by) for each in self.stretches)
        )


class ChatTemplate:
    """The template in force for a tokenizer.

    Raises ModelSourceError when there is no usable one.
    """

    def __init__(self, tokenizer: Any) -> None:
        try:
            text, source = template.choose(tokenizer.chat_template)
        except ValueError as error:
            raise ModelSourceError(str(error), remedy="save the one to use as chat_template.jinja") from error
        self._marked = bool(_MARKERS.search(text))
        self._program = _FIXED_DATE + text if "strftime_now" in text else text
        self._prover = Prover(lambda given: self._render(given.messages, given.tools), text)
        self._variables = {"bos_token": "", "eos_token": "", **tokenizer.special_tokens_map}
        if source == "fallback" and tokenizer.bos_token_id not in tokenizer("").input_ids[:1]:
            self._variables["bos_token"] = ""  # ours writes it only for models that are trained with it
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        special += [tokenizer.eos_token] if tokenizer.eos_token else []
        longest_first = sorted(set(special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        try:
            render_jinja_template([], chat_template=self._program)  # compiles it, and keeps it compiled
        except TemplateSyntaxError as error:
            raise ModelSourceError(f"the model's chat template is not valid Jinja: {error}") from error

    def responses(self, conversation: Conversation, *, last_only: bool) -> tuple[str, list[Response]]:
        """The rendered text and its answers in order; with `last_only` just the last one.

        Raises RefusedError, with the reason and a remedy.
        """
        trained = _trained(conversation, last_only=last_only)
        refusal: RefusedError | None = None
        for form in self._prover.forms(conversation, trained):
            try:
                given = give(conversation, form)
                text, found = self._render_spans(conversation, given, trained)
                require(conversation, trained, text)
            except RefusedError as error:
                refusal = error
            else:
                return text, found
        assert refusal is not None, "a prover that finds no form refuses"
        raise refusal

    def alone(self, text: str, responses: Sequence[Response], *, bare: bool) -> tuple[str, list[Response]]:
        """The answers of a rendered text without what they answer, one after another.

        Each is opened by what the template prompts for an answer with; or, when `bare`, by nothing, and
        goes without its end-of-turn token. Raises RefusedError, with the reason and a remedy.
        """
        header = "" if bare else self._plain_header
        bos = self._variables["bos_token"]
        opens = not bare and bool(bos) and text.startswith(bos) and not header.startswith(bos)
        made: str = bos if opens else ""
        found: list[Response] = []
        for response in responses:
            if not text.endswith(header, 0, response.start):
                raise RefusedError(
                    f"chat template does not open turn {response.turn} as it prompts for an answer, so the "
                    "answer has no form without its prompt; compare with the bare text"
                )
            stop = response.stop
            ends = [match.start() for match in self._special.finditer(text, response.content_stop, stop)]
            if bare and ends:
                stop = ends[-1]
            made += ("\n\n" if found else "") if bare else header
            found.append(replace(response, stop=stop).moved(len(made) - response.start))
            rest = text[response.stop :]
            made += text[response.start : stop] + ("" if bare else rest[: len(rest) - len(rest.lstrip())])
        return made, found

    def _render_spans(
        self, conversation: Conversation, given: Given, trained: Sequence[int]
    ) -> tuple[str, list[Response]]:
        if not self._marked:
            full = self._render(given.messages, given.tools)
            return full, [self._incremental(full, conversation, given, turn) for turn in trained]
        full, spans = self._render_marked(given.messages, given.tools)
        assistants = [at for at, message in enumerate(given.messages) if message["role"] == "assistant"]
        found = []
        for turn in trained:
            span = spans[assistants.index(given.at[turn])] if len(spans) == len(assistants) else None
            response = self._in_markers(full, span, conversation, given, turn) if span else None
            found.append(response or self._incremental(full, conversation, given, turn))
        return full, found

    def _in_markers(
        self, full: str, span: tuple[int, int], conversation: Conversation, given: Given, turn: int
    ) -> Response | None:
        answer = _Answer(conversation.turns[turn].content, given.messages[given.at[turn]])

        def frame() -> str:
            return self._render_marked(_with_marks(given.messages, given.at[turn], answer), given.tools)[0]

        stretches = answer.place(full[slice(*span)], lambda: frame()[span[0] :])
        if stretches is None:
            return None
        return Response(turn, *span, tuple(each.moved(span[0]) for each in stretches))

    def _incremental(self, full: str, conversation: Conversation, given: Given, turn: int) -> Response:
        messages, tools, at = given.messages, given.tools, given.at[turn]
        upto = full if at + 1 == len(messages) else self._render(messages[: at + 1], tools)
        answer = _Answer(conversation.turns[turn].content, messages[at])

        def frame(until: int, begin: int) -> str:
            return self._render(_with_marks(messages[:until], at, answer), tools)[begin:]

        prompt = self._prompt(messages, tools, at)
        if not upto.startswith(prompt):
            prompt = self._written(prompt, frame(at + 1, 0), messages[:at], tools)
        if not prompt or not upto.startswith(prompt):
            raise RefusedError(
                f"chat template does not write turn {turn} where it prompts for an answer; {_WITH_MARKERS}"
            )
        tail = upto[len(prompt) :]
        stretches = answer.place(tail, lambda: frame(at + 1, len(prompt)))
        if stretches is None and at > 0:
            # The prompt of a reasoning model may open the answer (`<think>`), so that content starts in it.
            before = len(self._render(messages[:at], tools))
            opened = answer.place(upto[before:], lambda: frame(at + 1, before))
            shifted = [each.moved(before - len(prompt)) for each in opened or ()]
            stretches = tuple([each for each in shifted if each.stop > 0]) or None
        if stretches is None:
            raise RefusedError(
                f"chat template rewrites turn {turn}, so its tokens cannot be placed in the row; bring the "
                f"content to the form that the template writes, or {_WITH_MARKERS}"
            )
        calls, content_stop = "tool_calls" in messages[at], stretches[-1].stop
        stop = content_stop + self._closing(tail[content_stop:], calls or not stretches[-1].length)
        start, after_prompt = len(prompt), full.startswith(prompt)
        if not after_prompt:
            # What stands before it depends on what follows (tools before the last question, say).
            start = frame(len(messages), 0).find(answer.first_mark) - answer.first_place(stretches)
        # The full text should go on as `upto` does; yet some templates put an empty reasoning block only
        # before the last answer, or the end-of-text token only after it.
        for until in (stop,) if calls else (stop, content_stop):
            for skipped in (0, max(stretches[0].at, 0)):
                begin = start if after_prompt else start + skipped
                if begin >= 0 and full.startswith(tail[skipped:until], begin):
                    moved = tuple(each.moved(begin - skipped) for each in stretches)
                    return Response(turn, begin, begin + until - skipped, moved)
        raise RefusedError(
            f"chat template rewrites turn {turn} when later turns follow (it may strip reasoning); "
            f"train on the last turn only, or {_WITH_MARKERS}"
        )

    def _written(self, prompt: str, marked: str, before: list[Message], tools: Any) -> str:
        """As much of a prompt as the template writes before an answer; "" when none of the prompt's own.

        Reasoning models' templates prompt with a `<think>` that they do not write before plain answers. The
        answer is a mark in `marked`, so that none of its own characters can be taken for the prompt's.
        """
        same = (index for index, (a, b) in enumerate(zip(prompt, marked, strict=False)) if a != b)
        end = next(same, min(len(prompt), len(marked)))
        return prompt[:end] if before and end > len(self._render(before, tools)) else ""

    def _prompt(self, messages: list[Message], tools: Any, at: int) -> str:
        """Everything up to where the model starts to write message `at`."""
        if at > 0:
            return self._render(messages[:at], tools, generation_prompt=True)
        # Few templates can render nothing at all: take the prompt from another conversation.
        header = self._header(tools)
        answer = [{**messages[0], "content": _ANSWER}]
        before = self._render(answer, tools).partition(_ANSWER)[0]
        if not before.endswith(header):
            raise RefusedError(
                "conversation starts with an assistant turn, for which the chat template has no prompt; "
                "start it with a user turn"
            )
        return before

    def _header(self, tools: Any) -> str:
        """What the template opens an answer with."""
        other = [{"role": "user", "content": _ANSWER}]
        return self._render(other, tools, generation_prompt=True)[len(self._render(other, tools)) :]

    @cached_property
    def _plain_header(self) -> str:
        return self._header(None)

    def _closing(self, after: str, beyond_content: bool) -> int:
        """How much of what follows the content the model writes: up to the end-of-turn token.

        Tool calls stand between content and end and may hold special tokens: then the last one counts.
        """
        ends = [match.end() for match in self._special.finditer(after)]
        if ends:
            return ends[-1] if beyond_content else ends[0]
        return len(after.rstrip()) if beyond_content else 0

    def _render(self, messages: list[Message], tools: Any, *, generation_prompt: bool = False) -> str:
        return self._run(messages, tools, add_generation_prompt=generation_prompt)[0]

    def _render_marked(self, messages: list[Message], tools: Any) -> tuple[str, list[tuple[int, int]]]:
        return self._run(messages, tools, return_assistant_tokens_mask=True)

    def _run(self, messages: list[Message], tools: Any, **how: bool) -> tuple[str, Any]:
        try:
            texts, spans = render_jinja_template(
                [messages], tools=tools, chat_template=self._program, **how, **self._variables
            )
        except Exception as error:  # whatever a template does wrong is the template's refusal
            raise RefusedError(f"chat template refused the conversation: {error}") from error
        return texts[0], spans[0] if spans else []


class _Answer:
    """One assistant turn and the message that it became: which texts to look for, and their places."""

    def __init__(self, content: str, message: Message) -> None:
        self._content = content
        self._given = message["content"] or ""  # with calls as lines behind it, where the form writes them so
        self._block = think_block(content) if reasoning_of(content) is not None else None
        self._inside = self._block is None or self._given.startswith(content)

    @property
    def first_mark(self) -> str:
        return _ANSWER if self._block is None else _THOUGHT

    def first_place(self, stretches: Sequence[Stretch]) -> int:
        """Where the first mark would stand among the stretches."""
        if self._block is None:
            return stretches[0].at
        thought = (
            self._block.start
            + len(self._content[self._block.start :])
            - len(self._content[self._block.start :].lstrip())
        )
        return next(each.at + thought - each.lead for each in stretches if thought < each.lead + each.length)

    def marks(self, message: Message) -> Message:
        """The message with a mark in the place of each part."""
        if self._block is None:
            return {**message, "content": _ANSWER}
        if self._inside:
            start, stop, answer = self._block
            thought = self._content[start:stop]
            begin, end = start + len(thought) - len(thought.lstrip()), start + len(thought.rstrip())
            opening, closing = self._content[:begin], self._content[end:answer]
            return {**message, "content": f"{opening}{_THOUGHT}{closing}{_ANSWER}"}
        thoughts = {key: _THOUGHT for key in REASONING_KEYS if key in message}
        return {**message, **thoughts, "content": _ANSWER if self._given else message["content"]}

    def place(self, region: str, frame: Callable[[], str]) -> tuple[Stretch, ...] | None:
        """Where the turn's text stands in `region`; None when it does not.

        `frame` renders the region with marks in the place of the texts, from its first character on.
        """
        if self._inside and (found := self._search(region, [(0, self._given)], [self.first_mark], frame)):
            return found
        if self._block is None:
            return None
        start, stop, answer = self._block
        thought = self._content[start:stop].strip()
        lead = start + self._content[start:stop].find(thought)
        rest = self._given[answer:] if self._inside else self._given
        found = self._search(region, [(lead, thought), (answer, rest)], [_THOUGHT, _ANSWER], frame)
        return None if found is None else self._with_tags(region, found)

    def _with_tags(self, region: str, found: tuple[Stretch, ...]) -> tuple[Stretch, ...]:
        """The tags too, where the template writes them around the reasoning as the row does."""
        assert self._block is not None, "tags stand around reasoning"
        thought, answer = found
        tags = []
        opened = self._content.find(_TAGS[0], 0, self._block.start)
        at = region.rfind(_TAGS[0], 0, thought.at)
        if opened >= 0 and at >= 0 and not region[at + len(_TAGS[0]) : thought.at].strip():
            tags.append(Stretch(at, opened, len(_TAGS[0])))
        at = region.find(_TAGS[1], thought.stop, answer.at)
        if at >= 0 and not region[thought.stop : at].strip():
            tags.append(Stretch(at, self._block.stop, len(_TAGS[1])))
        return self._joined(region, sorted((*found, *tags), key=lambda each: each.at))

    def _joined(self, region: str, stretches: Sequence[Stretch]) -> tuple[Stretch, ...]:
        """Neighbours as one where the same characters stand between them in both texts."""
        joined = [stretches[0]]
        for each in stretches[1:]:
            last = joined[-1]
            if region[last.stop : each.at] == self._content[last.lead + last.length : each.lead]:
                joined[-1] = Stretch(last.at, last.lead, each.stop - last.at)
            else:
                joined.append(each)
        return tuple(joined)

    def _search(
        self,
        region: str,
        parts: Sequence[tuple[int, str]],
        marks: Sequence[str],
        frame: Callable[[], str],
    ) -> tuple[Stretch, ...] | None:
        """One stretch for each part (lead and text), in order: verbatim, or trimmed of outer whitespace."""
        found: list[Stretch] = []
        end = 0
        for index, (lead, text) in enumerate(parts):

            def by_mark(end: int = end, index: int = index) -> int:
                return end + _gap(frame(), marks[: index + 1])

            place = _locate(region, end, text, by_mark)
            if place is None:
                return None
            at, cut, length = place
            found.append(Stretch(at, lead + cut, length))
            end = at + length
        return tuple(found)


def _gap(frame: str, marks: Sequence[str]) -> int:
    """How many characters the template writes before the last of the marks, after the one before it.

    Where a mark is missing, what is negative enough to be no place.
    """
    end = 0
    at = -1
    for mark in marks:
        at = frame.find(mark, end)
        if at < 0:
            return -len(frame) - 1
        begin, end = end, at + len(mark)
    return at - begin


def _locate(region: str, begin: int, content: str, by_mark: Callable[[], int]) -> tuple[int, int, int] | None:
    """(place in region, characters of content cut at its front, length) of the content, trimmed or not.

    Where the same characters stand in the region twice, or there are none, the place is that of a mark.
    """
    for kept in dict.fromkeys((content, content.rstrip(), content.lstrip(), content.strip())):
        if not kept:
            at = by_mark()
            return (at if begin <= at <= len(region) else begin), 0, 0
        at = region.find(kept, begin)
        if at >= 0 and region.rfind(kept) != at:
            at = by_mark()
        if at >= 0 and region.startswith(kept, at):
            return at, content.find(kept), len(kept)
    return None


def _trained(conversation: Conversation, *, last_only: bool) -> list[int]:
    """The turns to train on. Raises RefusedError when there is none."""
    answers = [at for at, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    if not answers:
        raise RefusedError("no assistant turn to train on")
    wanted = answers[-1:] if last_only else answers
    trained = [at for at in wanted if conversation.turns[at].untrained is None]
    if not trained:
        why = conversation.turns[wanted[-1]].untrained
        raise RefusedError(
            f"the row says not to train on turn {wanted[-1]} ({why}), and no other is to be trained on; drop "
            "the row, or train on all turns"
        )
    return trained


def _with_marks(messages: Sequence[Message], at: int, answer: _Answer) -> list[Message]:
    return [answer.marks(message) if index == at else message for index, message in enumerate(messages)]
