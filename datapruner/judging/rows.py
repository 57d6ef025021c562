"""The rows of a corpus rated by a teacher: each score that methods ask for, row by row.

Notable choices:
- a row that a teacher does not rate, or rates in words that hold no score, has no rating and the reason for
  it; the others go on;
- rows go in batches, so that memory is bounded: of each stay its scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from datapruner.corpora.corpus import Corpus
from datapruner.judging.questions import Asked, questions
from datapruner.judging.ratings import Ratings
from datapruner.judging.rubrics import RUBRICS
from datapruner.progress import Progress
from datapruner.teacher import TeacherError, UnreadableAnswerError
from datapruner.teacher.asking import in_batches
from datapruner.teacher.questions import Question
from scorers.conversations.conversation import Conversation
from scorers.signals.columns import corpus_settings

NO_RATING = "the teacher gave no rating: "
_NOTHING = "there is no instruction with a response to rate"


def rubrics(needs: Collection[str]) -> list[str]:
    """The rubrics of these needs."""
    return sorted({_settings(need)["rubric"] for need in needs})


def rate(
    corpus: Corpus, rows: Sequence[int], needs: Collection[str], teacher: Any, progress: Progress
) -> Ratings:
    """Have these rows, none a copy, rated as `needs` ask, all of them ratings. Raises what stops a
    teacher."""
    wanted = sorted(needs)
    progress.stage("judging", len(rows), "samples")
    scores: dict[str, dict[str, float]] = {need: {} for need in wanted}
    errors: dict[str, str] = {}

    async def rated(row: tuple[int, str, Conversation]) -> tuple[str, list[float] | str]:
        _, sample_id, conversation = row
        try:
            return sample_id, [
                await _score(asked_for(need, sample_id, conversation), teacher) for need in wanted
            ]
        except UnreadableAnswerError as error:
            return sample_id, NO_RATING + error.message
        except TeacherError as error:
            return sample_id, NO_RATING + error.reason

    done = 0
    for batch in in_batches(corpus.conversations(rows), rated, teacher):
        for sample_id, found in batch:
            if isinstance(found, str):
                errors[sample_id] = found
                continue
            for need, score in zip(wanted, found, strict=True):
                scores[need][sample_id] = score
        done += len(batch)
        progress.at(done)
    return Ratings(scores, errors)


async def _score(asked: Sequence[Asked], teacher: Any) -> float:
    if not asked:
        raise UnreadableAnswerError(_NOTHING)
    return sum([each.score(await teacher.ask(each.question)) for each in asked], 0.0)


def asked_for(need: str, sample_id: str, conversation: Conversation) -> list[Asked]:
    """What a teacher is asked for this signal of a row."""
    settings = _settings(need)
    scale = RUBRICS[settings["rubric"]][settings["score"]]
    return questions(sample_id, conversation, scale, int(settings["max_tokens"]))


def all_questions(corpus: Corpus, needs: Collection[str], progress: Progress) -> Iterator[Question]:
    """Everything that a teacher would be asked of the samples of a corpus that are no copies."""
    done = 0
    for batch in corpus.conversations():
        for _, sample_id, conversation in batch:
            for need in sorted(needs):
                yield from (each.question for each in asked_for(need, sample_id, conversation))
        done += len(batch)
        progress.at(done)


def _settings(need: str) -> dict[str, str]:
    named = corpus_settings(need)
    assert named is not None, need
    return named[1]
