"""The shapes that instruction data comes in, and how one raw row becomes a conversation.

    shape              columns it is known by                 optional columns
    messages           messages | conversations, role/content system, tools
    sharegpt           conversations | messages, from/value   system, tools
    alpaca             instruction, output                    input, system, history, tools
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
  are trained on; a response that already has such a block is left as it is.
* Keys whose value is null are dropped from tool schemas and calls: Arrow pads structs with nulls, and the
  same data must have the same `sample_id` as JSON and as Parquet.
* A list that is stored as JSON text (a common way to put chats in a flat table) is read as that list.
* The sample id depends on roles, contents, calls and tools alone, not on the other columns.
"""

from datapruner.formats.columns import KNOWN_COLUMNS, MAPPING_TARGETS, SHAPES, Columns, Shape
from datapruner.formats.messages import ROLE_NAMES
from datapruner.formats.parser import RowParser, Sample
from datapruner.formats.rejections import DEFAULT_LIMITS, Limits, Rejection, too_large

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
