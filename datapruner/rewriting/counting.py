"""How many tokens of a rewritten conversation are trained on: those of what is exported.

Notable choices:
- the text is rendered as a row that is measured is, by the proxy model's own template, but whole: what is
  exported is not cut to the longest sample;
- a text that the template has no place for is an error of its row, as it would be of any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from datapruner.corpora.corpus import Corpus
from datapruner.errors import ModelError
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import with_response
from datapruner.rewriting.tables import line
from scorers.conversations.chat import ChatRenderer, RenderError
from scorers.models.sources import ModelSourceError, ProxyFolder


def renderer(proxy: ProxyFolder, train_on: Literal["all", "last"]) -> ChatRenderer:
    """Renders conversations whole, as the proxy model is shown them. Raises ModelError."""
    from transformers import AutoTokenizer  # which takes a second

    try:
        tokenizer = AutoTokenizer.from_pretrained(proxy.path, trust_remote_code=False)
        return ChatRenderer(tokenizer, train_on=train_on)
    except (OSError, ValueError, ModelSourceError) as error:
        raise ModelError(f"{proxy.path}: the tokenizer cannot be used: {error}") from error


def counted(
    batches: Iterator[list[dict[str, Any]]], corpus: Corpus, shown: ChatRenderer, tokens: dict[str, int]
) -> Iterator[list[dict[str, Any]]]:
    """The lines of a table `rewrites`; `tokens` gets, by sample id, the trained tokens of each new text."""
    for batch in batches:
        texts = {each["row"]: each["text"] for each in batch if each["status"] == "rewritten"}
        found = {
            row: with_response(conversation, texts[row])
            for some in (corpus.conversations(list(texts)) if texts else ())
            for row, _, conversation in some
        }
        rendered = dict(zip(found, shown.render(list(found.values())), strict=True))
        made = []
        for each in batch:
            encoded = rendered.get(each["row"])
            if isinstance(encoded, RenderError):
                failed = Rewritten("error", None, f"its new text cannot be rendered: {encoded.reason}")
                made.append(line(each["row"], each["sample_id"], failed))
                continue
            if encoded is not None:
                tokens[each["sample_id"]] = len(encoded.position)
            made.append(each)
        yield made
