"""The queue: order, leases, fencing, retries, cancellation, quotas. On both kinds of databases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Job, Schedule, Token, utcnow
from datapruner.service import queue
from datapruner.service.queue import Lease, LeaseLostError
from tests.datapruner.service.queues import LEASE, claim, job, pass_time, project, submit

ERROR = {"type": "/problems/internal", "title": "It broke", "status": 500, "detail": "it did"}


def _due(db: Database, job_id: str) -> None:
    """As if the time to wait after a failure had passed."""
    with db.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(run_after=utcnow()))


def _cancel(db: Database, job_id: str) -> Job:
    with db.write() as session:
        return queue.request_cancel(session, session.get_one(Job, job_id))


def _together(count: int, act: Callable[[], Any]) -> list[Any]:
    """What `count` threads get that act at the same time."""
    start, got = threading.Barrier(count), []

    def run() -> None:
        start.wait()
        got.append(act())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == count, "a thread failed"
    return got


def test_a_job_is_claimed_once_and_finished(database: Database) -> None:
    submitted = submit(database, project(database), request_id="req")
    assert submitted.state == "queued"
    lease = claim(database)
    assert (lease.job_id, lease.attempt, lease.job.worker) == (submitted.id, 1, "worker")
    assert lease.job.payload == {"work": "none"}
    assert lease.job.request_id == "req"
    assert queue.claim(database, "other", LEASE) is None
    queue.finish(database, lease, {"run_id": "run_1"}, {"stage": "measuring", "done": 3})
    done = job(database, lease.job_id)
    assert (done.state, done.result, done.error) == ("succeeded", {"run_id": "run_1"}, None)
    assert done.progress == {"stage": "measuring", "done": 3}
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.lease_until is None
    assert queue.claim(database, "other", LEASE) is None


def test_urgent_jobs_go_first_then_old_ones_and_none_before_its_time(database: Database) -> None:
    owner = project(database)
    later = submit(database, owner, priority=9)
    with database.write() as session:  # ids decide within a priority
        session.get_one(Job, later.id).run_after = utcnow() + timedelta(hours=1)
        for name, priority in (("job_2", 0), ("job_1", 0), ("job_4", 5), ("job_3", 5)):
            session.add(Job(id=name, project_id=owner, kind="run", payload={}, priority=priority))
    assert [claim(database).job_id for _ in range(4)] == ["job_3", "job_4", "job_1", "job_2"]
    assert queue.claim(database, "worker", LEASE) is None
    assert job(database, later.id).state == "queued"


def test_every_change_that_shows_raises_the_sequence(database: Database) -> None:
    made = submit(database, project(database))
    seen = [made.sequence]

    def look() -> None:
        seen.append(job(database, made.id).sequence)

    lease = claim(database)
    look()
    queue.heartbeat(database, lease, {"stage": "measuring"}, LEASE)
    look()
    queue.release(database, lease)
    look()
    lease = claim(database)
    look()
    queue.fail(database, lease, ERROR, retry=True)
    look()
    _due(database, made.id)
    lease = claim(database)
    look()
    _cancel(database, made.id)
    look()
    queue.cancelled(database, lease)
    look()
    assert seen == sorted(set(seen))


def test_a_heartbeat_extends_the_lease_and_keeps_progress(database: Database) -> None:
    submit(database, project(database))
    lease = claim(database, seconds=1.0)
    assert queue.heartbeat(database, lease, {"stage": "measuring", "done": 1}, 60.0) is False
    beaten = job(database, lease.job_id)
    assert beaten.lease_until is not None
    assert beaten.lease_until > utcnow() + timedelta(seconds=50)
    assert beaten.progress == {"stage": "measuring", "done": 1}
    queue.heartbeat(database, lease, None, 60.0)
    again = job(database, lease.job_id)
    assert (again.progress, again.sequence) == (beaten.progress, beaten.sequence)


def test_a_lease_is_whole_however_long_its_worker_waited_for_its_turn(database: Database) -> None:
    submit(database, project(database))
    taken: list[Lease] = []
    waits = threading.Thread(target=lambda: taken.append(claim(database, seconds=1.0)))
    with database.write() as session:  # which keeps others from claiming
        if database.is_sqlite:
            session.connection()
        else:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": queue._CLAIM_LOCK})
        waits.start()
        waits.join(1.1)
        now = utcnow()
    waits.join()
    lasts = job(database, taken[0].job_id).lease_until
    assert lasts is not None
    assert lasts >= now + timedelta(seconds=1)


def test_a_lease_that_nobody_took_can_still_be_kept(database: Database) -> None:
    submit(database, project(database))
    lease = claim(database)
    pass_time(database, lease.job_id)
    queue.heartbeat(database, lease, None, LEASE)
    assert queue.claim(database, "other", LEASE) is None
    queue.finish(database, lease, {})


def test_the_job_of_a_silent_worker_is_retaken_and_that_worker_can_do_nothing(database: Database) -> None:
    submit(database, project(database))
    zombie = claim(database, "zombie")
    pass_time(database, zombie.job_id)
    lease = claim(database, "other")
    assert (lease.job_id, lease.attempt, lease.job.failures) == (zombie.job_id, 2, 1)
    before = job(database, lease.job_id)
    for act in _everything(database):
        with pytest.raises(LeaseLostError, match="attempt 1 no longer holds"):
            act(zombie)
    after = job(database, lease.job_id)
    assert (after.state, after.worker, after.sequence) == ("running", "other", before.sequence)
    queue.finish(database, lease, {})


def test_a_worker_can_do_nothing_to_a_job_that_ended_or_went_back(database: Database) -> None:
    owner = project(database)
    for end in (_everything(database)[1], _everything(database)[4]):
        submit(database, owner)
        lease = claim(database)
        end(lease)
        for act in _everything(database):
            with pytest.raises(LeaseLostError):
                act(lease)
        with database.write() as session:
            session.execute(update(Job).values(state="succeeded"))


def _everything(database: Database) -> tuple[Callable[[Lease], Any], ...]:
    """All that the holder of a lease can do."""

    def publish(lease: Lease) -> None:
        with database.write() as session:
            queue.guard(session, lease).result = {"run_id": "published"}

    return (
        lambda lease: queue.heartbeat(database, lease, {"stage": "late"}, LEASE),
        lambda lease: queue.finish(database, lease, {}),
        lambda lease: queue.fail(database, lease, ERROR, retry=True),
        lambda lease: queue.cancelled(database, lease),
        lambda lease: queue.release(database, lease),
        publish,
    )


def test_a_published_row_waits_for_the_guard_and_the_retaking_for_it(database: Database) -> None:
    submit(database, project(database))
    lease = claim(database)
    pass_time(database, lease.job_id)
    taken: list[Lease | None] = []
    other = threading.Thread(target=lambda: taken.append(queue.claim(database, "other", LEASE)))
    with database.write() as session:
        guarded = queue.guard(session, lease)
        other.start()
        other.join(0.3)
        guarded.result = {"run_id": "published"}
    other.join()
    assert job(database, lease.job_id).result == {"run_id": "published"}
    # PostgreSQL passes over the locked row, SQLite waits for it; either way the publishing came first.
    assert taken == [None] or (taken[0] is not None and taken[0].attempt == 2)


def test_a_failure_is_tried_again_later_and_not_for_ever(database: Database) -> None:
    made = submit(database, project(database), max_attempts=3)
    for failures in (1, 2):
        queue.fail(database, claim(database), ERROR, retry=True)
        waiting = job(database, made.id)
        assert (waiting.state, waiting.failures, waiting.error) == ("queued", failures, ERROR)
        assert waiting.run_after > utcnow()
        assert queue.claim(database, "worker", LEASE) is None
        _due(database, made.id)
    queue.fail(database, claim(database), ERROR, retry=True)
    failed = job(database, made.id)
    assert (failed.state, failed.failures, failed.attempt, failed.error) == ("failed", 3, 3, ERROR)
    assert failed.finished_at is not None


def test_a_failure_for_good_is_not_tried_again(database: Database) -> None:
    made = submit(database, project(database))
    queue.fail(database, claim(database), ERROR, retry=False)
    assert job(database, made.id).state == "failed"


def test_success_after_a_failure_clears_the_error(database: Database) -> None:
    made = submit(database, project(database))
    queue.fail(database, claim(database), ERROR, retry=True)
    _due(database, made.id)
    queue.finish(database, claim(database), {})
    assert job(database, made.id).error is None


def test_waits_grow_and_differ() -> None:
    for failures, longest in ((1, 2.0), (2, 4.0), (5, 32.0), (30, 300.0)):
        waits = [queue.backoff(failures) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
    for failures, longest in ((1, 120.0), (2, 240.0), (3, 300.0)):
        waits = [queue.backoff(failures, queue.SPACE_SECONDS) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


def test_a_job_that_kills_its_workers_fails_and_says_so(database: Database) -> None:
    made = submit(database, project(database), max_attempts=2)
    for attempt in (1, 2):
        lease = claim(database, f"victim-{attempt}")
        assert lease.attempt == attempt
        pass_time(database, lease.job_id)
    assert queue.claim(database, "worker", LEASE) is None
    failed = job(database, made.id)
    assert (failed.state, failed.failures) == ("failed", 2)
    assert failed.error is not None
    assert failed.error["type"] == "/problems/worker-failed"
    assert "victim-2 vanished" in failed.error["detail"]


def test_giving_a_job_back_is_no_failure(database: Database) -> None:
    made = submit(database, project(database), max_attempts=1)
    for attempt in range(1, 5):
        lease = claim(database)
        assert lease.attempt == attempt
        queue.release(database, lease)
        assert job(database, made.id).failures == 0
    queue.finish(database, claim(database), {})


def test_a_waiting_job_is_cancelled_at_once_and_an_ended_one_stays(database: Database) -> None:
    made = submit(database, project(database))
    assert _cancel(database, made.id).state == "cancelled"
    assert queue.claim(database, "worker", LEASE) is None
    ended = _cancel(database, made.id)
    assert (ended.state, ended.cancel_requested) == ("cancelled", False)


def test_a_running_job_is_told_to_stop(database: Database) -> None:
    made = submit(database, project(database))
    lease = claim(database)
    told = _cancel(database, made.id)
    assert (told.state, told.cancel_requested) == ("running", True)
    assert queue.heartbeat(database, lease, None, LEASE) is True
    queue.cancelled(database, lease)
    assert job(database, made.id).state == "cancelled"


@pytest.mark.parametrize("end", ["fail", "release", "vanish"])
def test_a_job_to_be_cancelled_is_not_taken_up_again(database: Database, end: str) -> None:
    made = submit(database, project(database))
    lease = claim(database)
    _cancel(database, made.id)
    if end == "fail":
        queue.fail(database, lease, ERROR, retry=True)
    elif end == "release":
        queue.release(database, lease)
    else:
        pass_time(database, lease.job_id)
        assert queue.claim(database, "other", LEASE) is None
    assert job(database, made.id).state == "cancelled"


def test_the_job_of_a_vanished_worker_is_cancelled_at_once(database: Database) -> None:
    made = submit(database, project(database))
    pass_time(database, claim(database).job_id)
    assert _cancel(database, made.id).state == "cancelled"


def test_a_project_runs_no_more_jobs_than_its_quota(database: Database) -> None:
    small, large = project(database, quota_jobs=1), project(database)
    first, second = submit(database, small), submit(database, small)
    other = submit(database, large)
    lease = claim(database)
    assert lease.job_id == first.id
    assert claim(database).job_id == other.id
    assert queue.claim(database, "worker", LEASE) is None
    pass_time(database, lease.job_id)  # a lease that has run out takes no place
    assert claim(database).attempt == 2
    assert queue.claim(database, "worker", LEASE) is None
    with database.write() as session:
        session.execute(update(Job).where(Job.id == first.id).values(state="succeeded"))
    assert claim(database).job_id == second.id


def test_a_token_runs_no_more_jobs_than_it_may(database: Database) -> None:
    owner = project(database)
    with database.write() as session:
        session.add(Token(id="tok", project_id=owner, name="t", digest="d", scopes=["write"], max_jobs=2))
    for _ in range(3):
        submit(database, owner, token_id="tok")
    others = submit(database, owner)
    claimed = [claim(database).job for _ in range(3)]
    assert Counter(each.token_id for each in claimed) == {"tok": 2, None: 1}
    assert claimed[-1].id == others.id
    assert queue.claim(database, "worker", LEASE) is None


def test_jobs_of_one_schedule_take_turns_and_others_pass_by(database: Database) -> None:
    owner = project(database)
    with database.write() as session:
        session.add(Dataset(id="ds_1", project_id=owner, name="d"))
        session.flush()
        session.add(
            Schedule(
                id="sch_1",
                project_id=owner,
                dataset_id="ds_1",
                name="s",
                cron="* * * * *",
                timezone="UTC",
                run={},
            )
        )
    first = submit(database, owner, kind="schedule", schedule_id="sch_1")
    second = submit(database, owner, kind="schedule", schedule_id="sch_1")
    webhook = submit(database, owner, kind="webhook", schedule_id="sch_1")
    held = claim(database)
    assert held.job_id == first.id
    assert claim(database).job_id == webhook.id
    assert queue.claim(database, "worker", LEASE) is None
    queue.finish(database, held, {})
    assert claim(database).job_id == second.id


def test_claims_at_the_same_time_never_exceed_a_quota(database: Database) -> None:
    owner = project(database, quota_jobs=2)
    for _ in range(8):
        submit(database, owner)
    for _ in range(3):
        leases = [lease for lease in _together(6, lambda: queue.claim(database, "w", LEASE)) if lease]
        assert len(leases) == 2
        for lease in leases:
            queue.finish(database, lease, {})


def test_a_job_of_no_project_is_refused(database: Database) -> None:
    with pytest.raises(IntegrityError):
        submit(database, "prj_none")
