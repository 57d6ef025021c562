"""Boilerplate refusals: a response that says that an assistant cannot or will not, and nothing else.

Notable choices:
- the phrase has to stand where the response begins, and the response has to be short: an answer that goes on
  after "As an AI language model, I have no opinions, but ..." and rows about refusals stay;
- of a conversation every trained response has to be one: a refusal among answers is part of it;
- where a row brings tools, to say what there is none for is an answer;
- English phrases only, as the corpora have them; letter case and typographic apostrophes do not matter.
"""

from __future__ import annotations

import polars as pl

_WORDS = 60
"""A longer response says more than that."""

_AM = r"i(?: am|'m) "
_NOT = r"(?:cannot|can't|can not|could not|couldn't|will not|won't)"
_AI = r"(?:an? )?(?:ai|artificial intelligence|(?:large )?language model|(?:chat|virtual )\w+)\b[^.,;:]{0,60}"
_CANNOT = (
    rf"(?:{_AM}(?:not (?:able|capable|programmed|equipped|allowed)|unable)|i {_NOT}|i must decline|"
    r"i (?:do not|don't) (?:have|possess|hold|feel|experience)|"
    r"it(?: is|'s) (?:not|against|beyond|outside)|my (?:programming|purpose|guidelines))"
)
_SORRY = (
    rf"(?:(?:{_AM})?(?:very |really |truly |so )?sorry|(?:my )?apologies|unfortunately|"
    r"i apologi[sz]e(?: for[^.,;:]{0,60})?)"
)
_HELP = (
    rf"(?:i {_NOT}|{_AM}(?:unable|not able) to)\s+(?:\w+ly )?(?:assist|help|fulfil|comply|engage|support|"
    r"participate|generate|create|write|produce|continue with|promote|condone|discuss|respond to|"
    r"answer (?:this|that|your)|complete (?:this|that|your|the) (?:request|task)|provide (?:you with )?"
    r"(?:any )?(?:information|assistance|instructions|guidance|help|advice))"
)
_REFUSAL = (
    rf"^(?:{_SORRY}[,.!:;]?\s*(?:but|however|that)?,?\s*)?"
    rf"(?:as {_AI},?\s*(?:and )?(?:therefore,? )?{_CANNOT}|{_HELP}|"
    rf"{_AM}(?:just |only |merely )?{_AI}[,;.]?\s*(?:and |so |but )?(?:therefore,? )?{_CANNOT})"
)


def refusals(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows whose responses are refusals and nothing else: row, reason.

    turns: a line per trained response: row, the `answer` without reasoning, and whether there are `tools`.
    """
    text = pl.col("answer").str.replace_all("[’‘`´]", "'").str.strip_chars(" \t\r\n\"'*_").str.to_lowercase()
    begins = text.str.contains(_REFUSAL) & ~text.str.contains(r"\b(?:however|that said|nevertheless)\b")
    short = pl.col("answer").str.count_matches(r"\S+") <= _WORDS
    said = pl.col("answer").str.strip_chars().str.replace(r"(?s)^([^\n]{60}).+$", "${1}…")
    return (
        turns.group_by("row", maintain_order=True)
        .agg(refused=(begins & short & ~pl.col("tools")).all(), said=said.first())
        .filter("refused")
        .select("row", reason=pl.format('a refusal and nothing else: "{}"', "said"))
    )
