"""Defects that are planted in answers, by a rule each: what a method keeps of them is counted exactly.

Rows and answers are real ones, so that everything but the defect is as it is in a corpus.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """What a rule makes a defect of: the row's answer, that of another row, and a source of chance."""

    answer: str
    other: str
    chance: random.Random


Rule = Callable[[Case], str]

SOUND = "sound"
"""The label of rows that nothing was planted in."""

_ENDS = string.punctuation + "。！？ \n"

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I am not able to provide an answer to this question.",
    "I apologize, but I cannot assist with that. Is there anything else you would like to know?",
    "Unfortunately, as an AI assistant I don't have access to this kind of information, so I cannot answer.",
    "I'm sorry, but as a language model I don't have personal opinions and cannot complete this task.",
    "I cannot fulfil this request. It is important to consult a qualified professional instead.",
)

LANGUAGES: Mapping[str, Sequence[str]] = {
    "German": (
        "Der Zug nach Hamburg fährt heute von einem anderen Gleis ab.",
        "Im Garten hinter dem Haus stehen drei alte Apfelbäume.",
        "Wer früh genug kommt, findet auf dem Markt noch frisches Gemüse.",
        "Nach dem Regen roch die Straße nach nassem Staub und Lindenblüten.",
        "Meine Schwester lernt seit einem Jahr Geige und übt jeden Abend.",
    ),
    "French": (
        "Le boulanger du quartier ouvre sa boutique avant le lever du soleil.",
        "Nous avons traversé la rivière à pied parce que le pont était fermé.",
        "Les enfants ont ramassé des coquillages pendant toute la matinée.",
        "Ma voisine prépare une soupe aux poireaux qui parfume tout l'immeuble.",
        "Il faudra repeindre les volets avant l'arrivée de l'hiver.",
    ),
    "Spanish": (
        "La biblioteca del pueblo cierra los lunes por la tarde.",
        "Mi abuelo guardaba sus herramientas en una caja de madera.",
        "Después de la cena salimos a caminar por la orilla del lago.",
        "El tren llegó con retraso porque había nieve en las vías.",
        "En verano los vecinos sacan sus sillas a la calle y conversan.",
    ),
    "Italian": (
        "La finestra della cucina guarda su un cortile pieno di gatti.",
        "Domani andremo in montagna se il tempo rimane sereno.",
        "Il falegname ha riparato la sedia in meno di un'ora.",
        "Da bambino passavo le estati nella casa dei miei nonni.",
        "Il mercato del pesce comincia prima dell'alba e finisce presto.",
    ),
    "Russian": (
        "Старый мост через реку закрыли на ремонт до осени.",
        "По вечерам мы пили чай на веранде и слушали дождь.",
        "Мой брат собирает марки и хранит их в толстом альбоме.",
        "В лесу за деревней этим летом было много грибов.",
        "Учительница попросила нас прочитать рассказ к понедельнику.",
    ),
    "Chinese": (
        "昨天下午我们坐船去了对面的小岛。",
        "奶奶在院子里种了很多蔬菜和花。",
        "火车站旁边新开了一家面馆，味道很好。",
        "今年冬天比往年冷，湖面都结冰了。",
        "他每天早上六点起床，先跑步再吃早饭。",
    ),
}


def swapped(case: Case) -> str:
    """The answer to another question."""
    return case.other


def truncated(case: Case) -> str:
    """The first three to seven tenths, cut between two words and never where a sentence ends."""
    words, share = case.answer.split(" "), case.chance.uniform(0.3, 0.7)
    if len(words) > 1:
        text = " ".join(words[: max(1, round(share * len(words)))])
    else:  # a script without spaces
        text = case.answer[: max(1, round(share * len(case.answer)))]
    return text.rstrip(_ENDS) or text


def looped(case: Case) -> str:
    """The first half, then its last few words over and over, to one and a half times to twice the length."""
    words = case.answer.split()
    half = words[: max(1, len(words) // 2)]
    again = half[-case.chance.randint(2, 6) :]
    wanted = case.chance.uniform(1.5, 2.0) * len(case.answer)
    text = " ".join(half)
    while len(text) < wanted:
        text += " " + " ".join(again)
    return text


def in_another_language(case: Case) -> str:
    """Sentences in a language that is not the question's, about as long as the answer."""
    sentences = list(LANGUAGES[case.chance.choice(list(LANGUAGES))])
    text = ""
    while len(text) < len(case.answer):
        case.chance.shuffle(sentences)
        for sentence in sentences:
            if len(text) < len(case.answer):
                text += (" " if text else "") + sentence
    return text


def gibberish(case: Case) -> str:
    """Every letter another one by chance: words keep their lengths, and the text its punctuation."""
    return "".join(
        case.chance.choice(string.ascii_lowercase) if each.isalpha() else each for each in case.answer
    )


def refused(case: Case) -> str:
    """A refusal from a template, whatever was asked."""
    return case.chance.choice(REFUSALS)


RULES: Mapping[str, Rule] = {
    "swapped": swapped,
    "truncated": truncated,
    "loops": looped,
    "wrong language": in_another_language,
    "gibberish": gibberish,
    "refusals": refused,
}


def planted(rows: Sequence[Row], each: int, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows with every defect planted in the `output` of `each` of them, at places by chance, and the
    label of every row. A row has one defect or none. Raises ValueError where rows are too few."""
    if len(rows) < each * len(RULES):
        raise ValueError(f"{len(rows)} rows are too few for {len(RULES)} defects in {each} rows each")
    chance = random.Random(seed)
    made, labels = [dict(row) for row in rows], [SOUND] * len(rows)
    chosen = chance.sample(range(len(rows)), each * len(RULES))
    for at, (label, rule) in enumerate(RULES.items()):
        mine = chosen[at * each : (at + 1) * each]
        for row, other in zip(mine, mine[1:] + mine[:1], strict=True):
            made[row]["output"] = rule(Case(rows[row]["output"], rows[other]["output"], chance))
            labels[row] = label
    return made, labels
