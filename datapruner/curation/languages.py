"""The wrong language: first responses in another script or language than their prompts, which ask for none.

    script     most letters of the response are of a script of which the prompt has not one letter
    language   of Latin letters: the function words of the response are of one language, the prompt's not

Notable choices:
- a prompt that names any language, or says translate in one of many, is taken to ask for it;
- a prompt with a single letter of the response's script is taken to be about it;
- both sides have to be plain: a few words, code, formulas, names and numbers are of no language. An answer in
  Latin letters to another script has to be prose of a language known here, as code is written in them;
- of related languages, which have words in common, none is taken for another: a response needs several times
  as many words of its language as it has of the prompt's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.texts import Ints

Bools = NDArray[np.bool_]

_SCRIPTS: Mapping[str, str] = {
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Chinese or Japanese": r"[\p{Han}\p{Hiragana}\p{Katakana}]",
    "Korean": r"\p{Hangul}",
    "Devanagari": r"\p{Devanagari}",
    "Bengali": r"\p{Bengali}",
    "Tamil": r"\p{Tamil}",
    "Telugu": r"\p{Telugu}",
    "Thai": r"\p{Thai}",
    "Armenian": r"\p{Armenian}",
    "Georgian": r"\p{Georgian}",
}
_WORDS: Mapping[str, str] = {
    "English": "the and of to is that it for with are this be you not have from they which was can will "
    "what how your following would write create give some name these their list describe explain make",
    "Spanish": "el los las del por para una con que es como más pero su sus son este esta entre también muy",
    "French": "le les des une est dans pour que qui sur avec pas par au aux ce cette vous nous sont ou être",
    "German": "der die das und ist nicht ein eine zu den mit von sich auf für dem des auch sie wir ich wird",
    "Italian": "il di che è per una con non sono della gli nel alla anche più come questo questa delle dei",
    "Portuguese": "os uma não com para que do da em por mais são você ao pelo pela também como seu sua isso",
    "Dutch": "het een van en dat niet zijn op met voor te aan ook naar bij maar wordt deze worden je kan",
    "Swedish": "och att det som är på för inte av till med har om ett den kan jag vi från eller ska",
    "Polish": "się nie jest na że do to jak oraz przez dla są może który które być od ale tym także",
    "Turkish": "ve bir bu için ile da de olarak çok daha olan ne var gibi kadar değil veya sonra ise",
    "Indonesian": "yang dan di untuk dengan ini itu dari adalah pada tidak dalam akan juga dapat atau oleh",
    "Vietnamese": "là của và các có được cho trong một không những với người này khi để từ đã như thể",
}
_ASKED = (
    r"(?i)translat|language|english|spanish|french|german|italian|portugu|dutch|swedish|polish|turkish|"
    r"indonesian|vietnamese|russian|ukrainian|greek|arabic|persian|farsi|hebrew|yiddish|chinese|mandarin|"
    r"cantonese|japanese|kanji|korean|hangul|hindi|urdu|bengali|tamil|telugu|thai|armenian|georgian|latin|"
    r"norwegian|danish|finnish|czech|romanian|hungarian|catalan|swahili|tagalog|malay|"
    r"traduc|traduz|traduire|traduis|tradui|übersetz|vertaal|översätt|tłumacz|çevir|terjemah|bahasa|dịch|"
    r"español|inglés|français|anglais|deutsch|englisch|italiano|inglese|inglês|português|engels|nederlands|"
    r"svenska|engelska|polsk|angielsk|türkçe|ingilizce|inggris|tiếng|"
    r"перев|язык|английск|русск|украин|мовою|翻译|翻譯|译|訳|英文|英语|英語|中文|汉语|漢語|日语|日文|日本語|韩|韓|"
    r"영어|한국어|번역|일본어|중국어|ترجم|إنجليزي|انجليزي|عربي|فارسی|انگلیسی|אנגלית|עברית|תרגמ|अनुवाद|अंग्रेज|हिंदी|हिन्दी"
)
_PROSE, _PROMPT = 20, 8
"""Fewest letters of a response, and of a prompt, that are of a script."""
_MOST = 0.7
"""The least share of all letters that a text in one script has of it."""
_SAID, _ASKED_IN, _ASKED_IN_ENGLISH = 5, 4, 2
"""Fewest function words of a response, and of a prompt, that are of a language."""
_DIFFERENT = 3
"""Fewest different ones: "com" is a word of Portuguese, and the end of most addresses."""
_RIVAL = 4
"""How many times as many words a prompt needs of its language as it has of the other's; of a response twice
that, as it may quote its prompt."""


def wrong_languages(samples: pl.DataFrame) -> pl.DataFrame:
    """Rows whose responses are in another script or language than the prompts: row, reason.

    samples: a line per sample: row, its prompts as `asked`, its first trained response as `said`.
    """
    plain = samples.filter(~pl.col("asked").str.contains(_ASKED))
    foreign = plain.filter(pl.any_horizontal(pl.col("asked", "said").str.contains(r"[^\p{Latin}\P{L}]")))
    scripts = _of_scripts(foreign)
    others = plain.filter(~pl.col("row").is_in(scripts["row"].implode()))
    return pl.concat([scripts, _of_languages(others)]).sort("row")


def _of_scripts(samples: pl.DataFrame) -> pl.DataFrame:
    asked, said = (
        _counts(samples, [pl.col(part).str.count_matches(letters) for letters in _SCRIPTS.values()])
        for part in ("asked", "said")
    )
    of_prompt, of_response = asked.argmax(axis=1), said.argmax(axis=1)
    at = np.arange(len(samples))
    plain = np.ones(len(samples), dtype=np.bool_)
    for counts, most, fewest in ((asked, of_prompt, _PROMPT), (said, of_response, _PROSE)):
        plain &= (counts[at, most] >= fewest) & (counts[at, most] >= _MOST * counts.sum(axis=1))
    found = np.flatnonzero(plain & (of_prompt != of_response) & (asked[at, of_response] == 0))
    names = list(_SCRIPTS)
    lines = samples[found].with_columns(
        ours=pl.Series([names[each] for each in of_response[found]], dtype=pl.String),
        theirs=pl.Series([names[each] for each in of_prompt[found]], dtype=pl.String),
    )
    prose = pl.Series(_plain(lines, "said", _function_words(lines, "said"), _SAID), dtype=pl.Boolean)
    return lines.filter((pl.col("ours") != "Latin") | prose).select(
        "row",
        reason=pl.format(
            "the wrong language: the response is in {} letters, the prompt in {} ones and asks for no other",
            "ours",
            "theirs",
        ),
    )


def _of_languages(samples: pl.DataFrame) -> pl.DataFrame:
    # Most are English on both sides: those need no other language counted.
    few = samples.filter(_is_rare("said") | _is_rare("asked"))
    asked, said = _function_words(few, "asked"), _function_words(few, "said")
    at, theirs, ours = np.arange(len(few)), asked.argmax(axis=1), said.argmax(axis=1)
    english = list(_WORDS).index("English")
    found = (
        _plain(few, "said", said, _SAID)
        & ((theirs == english) | _plain(few, "asked", asked, _ASKED_IN))
        & (asked[at, theirs] >= np.maximum(_ASKED_IN_ENGLISH, _RIVAL * asked[at, ours]))
        & (said[at, ours] >= 2 * _RIVAL * said[at, theirs])
    )
    names = list(_WORDS)
    return few.select(
        "row",
        reason=pl.format(
            "the wrong language: the response is {}, the prompt {} and asks for no other",
            pl.Series([names[each] for each in ours], dtype=pl.String),
            pl.Series([names[each] for each in theirs], dtype=pl.String),
        ),
    ).filter(pl.Series(found, dtype=pl.Boolean))


def _is_rare(part: str) -> pl.Expr:
    """Whether a text has fewer English function words than English has."""
    return pl.col(part).str.count_matches(_counter("English")) * 12 < pl.col(part).str.count_matches(r"\S+")


def _function_words(samples: pl.DataFrame, part: str) -> Ints:
    """How many words of each language N texts have, (N, languages)."""
    return _counts(samples, [pl.col(part).str.count_matches(_counter(name)) for name in _WORDS])


def _plain(samples: pl.DataFrame, part: str, counts: Ints, fewest: int) -> Bools:
    """Which of N texts are prose of a language, given their function words, (N,)."""
    lowered = pl.col(part).str.to_lowercase()
    different = _counts(samples, [lowered.str.extract_all(_counter(name)).list.n_unique() for name in _WORDS])
    at, most = np.arange(len(counts)), counts.argmax(axis=1)
    plain: Bools = (counts[at, most] >= fewest) & (different[at, most] >= _DIFFERENT)
    return plain


def _counts(samples: pl.DataFrame, columns: Sequence[pl.Expr]) -> Ints:
    """These columns of N samples as numbers, (N, columns)."""
    frame = samples.select(column.cast(pl.Int64).alias(str(at)) for at, column in enumerate(columns))
    counts: Ints = frame.to_numpy().reshape(len(samples), len(columns))
    return counts


def _counter(language: str) -> str:
    return rf"(?i)\b(?:{_WORDS[language].replace(' ', '|')})\b"
