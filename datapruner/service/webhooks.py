"""Webhooks: telling a schedule's owner that a job of it has ended.

The queue makes a delivery a job of its own, when the other ends (`service.queue`), and its backoff does the
retries. It is signed as Standard Webhooks (standardwebhooks.com) says, so that receivers verify it with a
library of their language. The header `webhook-id` is the same for every attempt to tell of one end, so that a
receiver can drop what it has already seen.

Notable choices:
- an address is judged before each connection and then connected to as it is: a name that points elsewhere
  the next moment (DNS rebinding) gains nothing. Redirects are not followed, proxies of the environment not
  used;
- of the answer only the status counts; its body is never read, and ten seconds end the slowest of them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from standardwebhooks import Webhook

from datapruner.catalog.models import Dataset, Delivery, Job, Schedule, new_id
from datapruner.errors import DataprunerError, UsageError, WorkerError
from datapruner.http.addresses import is_public
from datapruner.service import queue
from datapruner.service.context import Context
from datapruner.settings import Settings

_SECONDS = 10.0
_LAST_PORT = 65535


def new_secret() -> str:
    """A key to sign with, `whsec_` and 32 bytes in base64; shown to the schedule's owner once."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def deliver(context: Context, lease: queue.Lease) -> None:
    """One attempt, logged in `deliveries` however it ends.

    Does nothing when the schedule has been deleted. Raises WorkerError when the receiver could not be reached
    or did not answer 2xx (to be tried again), UsageError when its address is refused.
    """
    about = lease.job.payload["webhook"]
    with context.db.read() as session:
        schedule = session.get(Schedule, about["schedule_id"])
        job = session.get(Job, about["job_id"])
        dataset = None if schedule is None else session.get(Dataset, schedule.dataset_id)
    if schedule is None or job is None or dataset is None or schedule.webhook_url is None:
        return
    assert schedule.webhook_secret is not None, schedule.id
    body = json.dumps(_message(schedule, dataset, job))
    headers = {"Content-Type": "application/json", "User-Agent": "datapruner"}
    headers |= _signed(schedule.webhook_secret, lease.job_id, body)
    started = time.monotonic()
    status: int | None = None
    failure: DataprunerError | None = None
    try:
        receiver = check_url(schedule.webhook_url, context.settings)
        status = asyncio.run(_post(receiver, body.encode(), headers))
        if not 200 <= status < 300:
            failure = WorkerError(f"the webhook's receiver answered {status}", remedy="it must answer 2xx")
    except TimeoutError:
        failure = WorkerError(f"the webhook's receiver gave no answer within {_SECONDS:g} s")
    except httpx.HTTPError as error:
        failure = WorkerError(f"the webhook's receiver cannot be reached: {error or type(error).__name__}")
    except (UsageError, WorkerError) as error:
        failure = error
    with context.db.write() as session:
        session.add(
            Delivery(
                id=new_id("del"),
                schedule_id=schedule.id,
                job_id=job.id,
                attempt=lease.attempt,
                status=status,
                error=None if failure is None else failure.message,
                seconds=time.monotonic() - started,
            )
        )
    if failure is not None:
        raise failure


def _signed(secret: str, delivery_id: str, body: str) -> dict[str, str]:
    """The headers that say which delivery this is, when it was sent, and that it was us."""
    now = datetime.now(UTC)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery_id, now, body),
    }


@dataclass(frozen=True, slots=True)
class Receiver:
    """A URL that may be posted to, and the addresses of its host that this was decided by."""

    url: httpx.URL
    addresses: tuple[str, ...]


def check_url(url: str, settings: Settings) -> Receiver:
    """Raise UsageError unless webhooks may go to `url`; WorkerError when its host's name cannot be resolved.

    http and https only, no credentials; every address of the host is public, unless the host is among
    `settings.webhook_hosts`.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _refused(f"no URL: {error}", "give http://… or https://…") from error
    host, port = _host(parsed), parsed.port or (443 if parsed.scheme == "https" else 80)
    if parsed.scheme not in ("http", "https") or not host or port > _LAST_PORT:
        raise _refused("not an http or https URL", "give http://… or https://…")
    if parsed.userinfo:
        raise _refused("a URL with credentials", "leave them out; verify the signature instead")
    addresses = _resolve(host, port)
    if host not in settings.webhook_hosts and not all(is_public(address) for address in addresses):
        raise _refused(
            f"{host}: not a public address",
            "give a public one, or have the host added to DATAPRUNER_WEBHOOK_HOSTS",
        )
    return Receiver(parsed, addresses)


def _resolve(host: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WorkerError(
            f"{host}: the host's name cannot be resolved", remedy="check the spelling", field="webhook"
        ) from error
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


async def _post(receiver: Receiver, body: bytes, headers: dict[str, str]) -> int:
    """Status of the answer of the first address that takes the connection."""
    headers = {**headers, "Host": receiver.url.netloc.decode()}
    failure: Exception = AssertionError("a host without addresses")
    async with (
        asyncio.timeout(_SECONDS),
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_SECONDS) as client,
    ):
        for address in receiver.addresses:
            request = client.build_request(
                "POST",
                receiver.url.copy_with(host=address),
                content=body,
                headers=headers,
                extensions={"sni_hostname": _host(receiver.url)},
            )
            try:
                response = await client.send(request, stream=True)
            except httpx.ConnectError as error:
                failure = error
                continue
            await response.aclose()
            return response.status_code
    raise failure


def _host(url: httpx.URL) -> str:
    """As it is sent, which `url.host` is not: names in other scripts are decoded there, or fail to be."""
    return url.raw_host.decode("ascii").strip("[]")


def _message(schedule: Schedule, dataset: Dataset, job: Job) -> dict[str, Any]:
    return {
        "event": f"job.{job.state}",
        "schedule": {
            "id": schedule.id,
            "name": schedule.name,
            "dataset_id": dataset.id,
            "dataset": dataset.name,
        },
        "job": {
            "id": job.id,
            "kind": job.kind,
            "state": job.state,
            "attempt": job.attempt,
            "created_at": _in_utc(job.created_at),
            "started_at": _in_utc(job.started_at),
            "finished_at": _in_utc(job.finished_at),
        },
        "result": job.result,
        "error": job.error,
    }


def _in_utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=UTC).isoformat()


def _refused(what: str, remedy: str) -> UsageError:
    return UsageError(f"webhook: {what}", remedy=remedy, field="webhook")
