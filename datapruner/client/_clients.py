"""`Client` and `AsyncClient`. Their methods are written once; `_binding` makes both kinds of them."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from datapruner.client import _flows as flows
from datapruner.client import _operations as operations
from datapruner.client import _streams as streams
from datapruner.client._address import find_token, find_url
from datapruner.client._binding import Async, Blocking, Call, Iteration, Kind, Resource, ask, walk
from datapruner.client._session import Session
from datapruner.client._wire import AsyncWire, BlockingWire, run
from datapruner.http.addresses import is_loopback
from datapruner.http.retries import Retries

_CONNECT_SECONDS = 10.0


class Datasets(Resource[Kind]):
    """`create` and `append` wait for their job; `start_…` return it at once."""

    create = Call(flows.create_dataset)
    start_create = ask(operations.create_dataset)
    append = Call(flows.append)
    start_append = ask(operations.add_version)
    list = walk(operations.list_datasets)
    get = ask(operations.get_dataset)
    change = ask(operations.change_dataset)
    delete = ask(operations.delete_dataset)
    versions = walk(operations.list_versions)
    version = ask(operations.get_version)
    rejects = walk(operations.list_rejects)
    samples = walk(operations.preview_samples)


class Runs(Resource[Kind]):
    """`create` waits for its job; `start_create` returns it at once."""

    create = Call(flows.create_run)
    start_create = ask(operations.create_run)
    list = walk(operations.list_runs)
    get = ask(operations.get_run)
    delete = ask(operations.delete_run)
    cancel = ask(operations.cancel_run)
    report = ask(operations.get_report)
    full_report = ask(operations.get_full_report)
    report_page = ask(operations.get_report_page)
    masks = walk(operations.list_masks)
    explain = ask(operations.explain_sample)
    compare = ask(operations.compare_runs)


class Evaluations(Resource[Kind]):
    """Of a run. `create` waits for its job; `start_create` returns it at once."""

    create = Call(flows.create_evaluation)
    start_create = ask(operations.create_evaluation)
    list = walk(operations.list_evaluations)
    get = ask(operations.get_evaluation)


class Exports(Resource[Kind]):
    """`create` waits for its job; `start_create` returns it at once."""

    create = Call(flows.create_export)
    start_create = ask(operations.create_export)
    list = walk(operations.list_exports)
    get = ask(operations.get_export)
    card = ask(operations.get_card)
    delete = ask(operations.delete_export)
    download = Call(streams.download)
    read = Call(streams.read)


class Jobs(Resource[Kind]):
    """What the service does, and how far it is."""

    list = walk(operations.list_jobs)
    get = ask(operations.get_job)
    cancel = ask(operations.cancel_job)
    watch = Iteration(streams.watch)
    wait = Call(streams.wait)


class Schedules(Resource[Kind]):
    """Jobs that come back."""

    create = ask(operations.create_schedule)
    list = walk(operations.list_schedules)
    get = ask(operations.get_schedule)
    change = ask(operations.change_schedule)
    delete = ask(operations.delete_schedule)
    fire = ask(operations.fire_schedule)
    fires = walk(operations.list_fires)
    deliveries = walk(operations.list_deliveries)


class SavedQueries(Resource[Kind]):
    """SQL statements kept by name, for tokens with the scope sql."""

    list = walk(operations.list_saved_queries)
    save = ask(operations.save_query)
    delete = ask(operations.delete_saved_query)


class Tokens(Resource[Kind]):
    """For tokens with the scope admin."""

    create = ask(operations.create_token)
    list = walk(operations.list_tokens)
    revoke = ask(operations.revoke_token)


class Projects(Resource[Kind]):
    """For tokens with the scope admin."""

    create = ask(operations.create_project)
    list = walk(operations.list_projects)
    get = ask(operations.get_project)
    change = ask(operations.change_project)


class Methods(Resource[Kind]):
    """The pruning methods of the service."""

    list = walk(operations.list_methods)
    get = ask(operations.get_method)


class _Service(Resource[Kind]):
    """What both clients have."""

    prune = Call(flows.prune)
    start_prune = ask(operations.prune)
    sql = Call(flows.sql)
    sql_schema = ask(operations.describe_sql)
    health = ask(operations.get_health)
    ready = ask(operations.get_readiness)
    metrics = ask(operations.get_metrics)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.datasets: Datasets[Kind] = Datasets(session)
        self.runs: Runs[Kind] = Runs(session)
        self.evaluations: Evaluations[Kind] = Evaluations(session)
        self.exports: Exports[Kind] = Exports(session)
        self.jobs: Jobs[Kind] = Jobs(session)
        self.schedules: Schedules[Kind] = Schedules(session)
        self.saved_queries: SavedQueries[Kind] = SavedQueries(session)
        self.tokens: Tokens[Kind] = Tokens(session)
        self.projects: Projects[Kind] = Projects(session)
        self.methods: Methods[Kind] = Methods(session)

    @property
    def url(self) -> str:
        """The address of the service."""
        return str(self._session.wire.http.base_url).rstrip("/")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class Client(_Service[Blocking]):
    """A service, from Python.

    with Client("http://localhost:8000") as client:
        client.prune("alpaca.json", method="qtuning", keep=0.25, out="subset.parquet")

    `url` is by default DATAPRUNER_URL, then this machine's; `token` DATAPRUNER_TOKEN, then, of a service on
    this machine, the one in the home folder. `timeout`: seconds of silence after which a connection counts
    as broken. Requests that fail for a passing reason are repeated `retries` times. Methods raise the errors
    of `datapruner.errors`; those that the service sent have its document as `problem`. May be shared by
    threads.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout: float = 60.0, retries: int = 5
    ) -> None:
        wire = BlockingWire(**_settings(url, token, timeout))
        super().__init__(Session(wire, Retries(retries)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        run(self._session.wire.close())


class AsyncClient(_Service[Async]):
    """`Client` for asynchronous code: methods are awaited, listings are for `async for`."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout: float = 60.0, retries: int = 5
    ) -> None:
        wire = AsyncWire(**_settings(url, token, timeout))
        super().__init__(Session(wire, Retries(retries)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._session.wire.close()


class _Bearer(httpx.Auth):
    def __init__(self, token: str) -> None:
        self._token = SecretStr(token)

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


def _settings(url: str | None, token: str | None, timeout: float) -> dict[str, Any]:
    """Of the HTTP client. Raises UsageError."""
    base = find_url(url)
    found = find_token(token, base)
    return {
        "base_url": base,
        "auth": None if found is None else _Bearer(found),
        "headers": {"User-Agent": "datapruner"},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        # Reading the certificates of all authorities takes a tenth of a second, for nothing without TLS.
        "verify": True if base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        # A proxy has no business between a machine and itself.
        "trust_env": not is_loopback(base),
    }
