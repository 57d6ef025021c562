"""Truncated ends: responses that stop in the middle, as a length limit cuts them.

    reasoning     a <think> block that is never closed, or nothing after it
    code          a code fence that is opened and never closed
    hanging word  after whole sentences, the last ends in a word that none ends in ("of the"), a comma or an
                  open bracket
    sentence      of a long response, every other paragraph, or three sentences before, are ended by a
                  punctuation mark, and the last is not

Notable choices:
- only what follows the habits of the text itself is judged: lists without full stops, titles, answers of a
  few words, verses, code, addresses and formulas end as they like;
- scripts that end sentences without marks, and those that have marks of their own, are never found by a
  missing one: only Latin, Greek and Cyrillic letters count as an end in mid-sentence;
- only the last turn is looked at, and only where it is a trained response without tool calls: a user who
  answers "continue" has seen the cut.
"""

from __future__ import annotations

import polars as pl

_FENCE = r"(?m)^[ \t]*(?:```|~~~)"
_LETTER = r"[\p{Latin}\p{Greek}\p{Cyrillic}]"
_ENDED = r"""[.!?:;…。！？؟।॥።։"'”’»*_`)\]}>]\s*$"""
"""A line that ends as whole ones do."""
_CODE = r"[{}=<>\\|$#@~^]|\(\)|::|//|\]\(|^\s*(?:[-*+•>]|\d+[.)]|[a-zA-Z][.)])\s|^\s{4,}|^\t"
"""A line that is code, a formula, an address, a table or an item of a list."""
_HANGING = (
    r"\b(?:an|the|of|and|or|nor|every|into|onto|than|because|although|whereas|whose|their|its|your|our|my|"
    r"(?:as|with|for|in|to|of|on|by|such|like) a|such as|as well as|(?:due|order|likely|according) to)$"
)
_OPEN = r"[,(\[{]$"
_CLOSING = r"(?i)\b(?:regards|sincerely|faithfully|wishes|yours|thanks|you|cheers|love|respectfully)\s*,$"
"""What a letter ends in before a name that is left out."""
_OPERATOR = r"(?:[,(\[{=+*/<&|-]|\b(?:and|or|not|in|return|def|if|else|import))$"
_PROSE, _HANGS, _LONG = 6, 20, 150
"""Fewest words of a line that is prose; of a response that is judged by its last word; of one that a length
limit may have cut where its last word does not show it."""


_VERSES = 3
"""Fewest lines of a text that show that its lines end without a mark."""
_SHOWN = 40
"""Characters of an end that a reason shows."""


def truncated(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows whose last response stops in the middle: row, reason.

    turns: a line per row with its last trained response: row, content, and the `answer` without reasoning.
    """
    content, answer = pl.col("content"), pl.col("answer").str.strip_chars_end()
    opened = content.str.starts_with("<think>") & ~content.str.contains("</think>", literal=True)
    unanswered = content.str.starts_with("<think>") & (answer == "")
    last = answer.str.extract(r"([^\n]*)$")
    fences = answer.str.count_matches(_FENCE)
    code = answer.str.extract(r"(?s).*(?:```|~~~)(.*)$")
    unbalanced = code.str.count_matches(r"[(\[{]") > code.str.count_matches(r"[)\]}]")
    fenced = (fences % 2 == 1) & ~last.str.contains(r"[.!?]$") & (unbalanced | code.str.contains(_OPERATOR))
    lines = (
        turns.select("row", lines=answer.str.split("\n"))
        .explode("lines", empty_as_null=True)
        .filter(pl.col("lines").str.count_matches(r"\S+") >= _PROSE)
        .group_by("row", maintain_order=True)
        .agg(prose=pl.len(), ended=pl.col("lines").str.contains(_ENDED).sum())
    )
    judged = turns.join(lines, on="row", how="left", maintain_order="left").with_columns(
        pl.col("prose", "ended").fill_null(0)
    )
    prose = (
        (fences % 2 == 0)
        & (last.str.count_matches(r"\S+") >= _PROSE)
        & ~last.str.contains(_CODE)
        & ~last.str.contains(r"\S[./]\S*$")
    )
    words = answer.str.count_matches(r"\S+")
    sentences = last.str.count_matches(r"[.!?][\"'”’)]? +[\p{Lu}\d\"'“‘]")
    before = (sentences >= 1) | (pl.col("ended") >= 1)
    hanging = last.str.contains(_HANGING) | (last.str.contains(_OPEN) & ~last.str.contains(_CLOSING))
    hangs = (words >= _HANGS) & before & hanging
    fragment = last.str.extract(r"(?:.*[.!?][\"'”’)]?\s+)?(.*)$").str.count_matches(r"\S+")
    habit = (pl.col("prose") >= 4) & (pl.col("ended") == pl.col("prose") - 1)
    lower = last.str.contains(rf"(?:^|\s)[\p{{Ll}}'’-]*{_LETTER}$") & last.str.contains(r"\p{Ll}$")
    breaks = (words >= _LONG) & lower & (habit | ((sentences >= 3) & (fragment >= 3)))
    tail = last.str.tail(_SHOWN)
    reason = (
        pl.when(opened)
        .then(pl.lit("cut off, its reasoning is never closed"))
        .when(unanswered)
        .then(pl.lit("cut off, no answer follows its reasoning"))
        .when(fenced)
        .then(pl.format('cut off, a code fence is never closed: "…{}"', tail))
        .when(prose & (hangs | breaks))
        .then(pl.format('cut off in the middle of a sentence: "…{}"', tail))
    )
    return judged.select("row", reason=reason).filter(pl.col("reason").is_not_null())


def unfinished(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows whose last response ends in a letter, a comma or an open bracket, as a cut one does and many a
    whole one: row, end. Verses and lists, most lines of which end like that, are none.

    turns: as in `truncated`.
    """
    answer = pl.col("answer").str.strip_chars_end()
    open_ended = answer.str.contains(r"[\p{L}\p{M},(\[{-]$")
    alike = answer.str.count_matches(r"(?m)[\p{L}\p{M}\p{N},][ \t]*$") - 1
    verses = (alike >= _VERSES) & (alike * 2 >= answer.str.count_matches(r"(?m)\S[ \t]*$") - 1)
    return turns.filter(open_ended & ~verses).select("row", end=answer.str.tail(_SHOWN))
