"""The shapes that instruction data comes in, and how one raw row becomes a conversation.

    shape              columns it is known by                 optional columns
    messages           messages | conversations, role/content system, tools
    sharegpt           conversations | messages, from/value   system, tools
    alpaca             instruction, output                    input, system, history, reasoning, tools
    prompt-completion  prompt, completion | response          system, reasoning, tools
    question-answer    question | problem | query,            system, reasoning, tools
                       response | solution | answer
    mapped             whatever the caller's column mapping names

Notable choices:
* Detection is per row and looks at non-null columns first, so a Parquet file that pads the columns of
  other shapes with nulls still reads row by row.
* Where several answer-like columns exist the longest-form one wins: `response`, then `solution`, then
  `answer`, because corpora with a worked solution keep the bare final result in `answer`.
* Reasoning is folded into the response as `<think>\\n…\\n</think>\\n`, the form that reasoning models
  are trained on (a template that has a form of its own for it gets it apart); a response that begins with the
  same reasoning is left as it is, and other reasoning beside it is an error of the row.
* Tools and calls are kept as written: nulls, key order, numbers of any size, arguments as an object or its
  text. Only of typed sources are null keys dropped: Arrow pads objects with them, and cannot tell.
* A list that is stored as JSON text (a common way to put chats in a flat table) is read as that list, in
  `prompt` and `completion` too when all of it is messages; what Python printed instead is an error.
* What a row says of its own training (`weight` of a message, `label`, ...) is followed, or the row rejected:
  `datapruner.input.shapes.flags`, and the turn's `untrained`.
* The sample id depends on the turns (with calls, ids and what is not trained on) and the tools alone.
"""

from datapruner.input.shapes.columns import KNOWN_COLUMNS, MAPPING_TARGETS, SHAPES, Columns, Shape
from datapruner.input.shapes.messages import ROLE_NAMES
from datapruner.input.shapes.parser import RowParser, Sample
from datapruner.input.shapes.rejections import DEFAULT_LIMITS, Limits, Rejection, too_large

__all__ = [
    "DEFAULT_LIMITS",
    "KNOWN_COLUMNS",
    "MAPPING_TARGETS",
    "ROLE_NAMES",
    "SHAPES",
    "Columns",
    "Limits",
    "Rejection",
    "RowParser",
    "Sample",
    "Shape",
    "too_large",
]
