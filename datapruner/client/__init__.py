"""A datapruner service from Python: `Client`, and `AsyncClient` for asynchronous code.

    DataprunerError is the root of what is raised; see `datapruner.errors` for the tree.

Notable choices:
- each operation is described once, as a value that says what to send and how to read the answer
  (`_operations`), and what takes several is a coroutine written once (`_flows`, `_streams`); the two clients
  differ in their wire only (`_wire`), and in whether their methods are awaited (`_binding`);
- one retry layer (`_session`): every POST carries an Idempotency-Key, so that repeating it is safe;
- listings ask for pages as they are iterated over; files are streamed both ways.
"""

from datapruner.client._clients import AsyncClient, Client
from datapruner.client._flows import SqlResult, Subset
from datapruner.client._options import EvaluationOptions, Quotas, RunOptions, ScheduleOptions
from datapruner.schemas.exports import SubsetFormat

__all__ = [
    "AsyncClient",
    "Client",
    "EvaluationOptions",
    "Quotas",
    "RunOptions",
    "ScheduleOptions",
    "SqlResult",
    "Subset",
    "SubsetFormat",
]
