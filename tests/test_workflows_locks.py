"""Whoever ends a step locks its workflow first: who waits for that lock, for how long, and what he sees then."""

import signal
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection, transaction

from dbqueue import chain, enqueue_many, group
from dbqueue.conf import Settings
from dbqueue.dispatcher import Dispatcher, Mode
from dbqueue.models import OPEN, BulkAction, Job, JobStatus, Worker, Workflow
from dbqueue.outcome import Outcome
from dbqueue.search import Search
from dbqueue.services.completer import Completer
from dbqueue.store import Store, store_for

from .beside import locked, meanwhile
from .shop.tasks import nap
from .shop.workflow_tasks import give, inc, note
from .workers import eventually, spawn

pytestmark = pytest.mark.django_db(transaction=True)

only_with_row_locks = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one lock for all")


@pytest.fixture
def store() -> Store:
    return store_for("default")


def a_worker(store: Store) -> int:
    return store.register(name="w", hostname="h", pid=1, queues="", threads=9)


@pytest.mark.parametrize("ask", ["request_cancel", "cancel"])
def test_a_job_that_is_just_being_replaced_is_cancelled_with_what_replaces_it(store: Store, ask: str) -> None:
    job = give.enqueue(1)
    [claim] = store.claim(a_worker(store), 1)
    replaced = Outcome.replaced(claim, chain(inc.s(1), inc.s()).plan())
    with (
        locked(lambda: store.finish([replaced])) as may_commit,
        meanwhile(lambda: getattr(store, ask)([int(job.id)])),
    ):
        time.sleep(0.3)  # it waits for the row, and had not seen any workflow
        may_commit.set()
    if ask == "request_cancel":  # the other leaves alone what has been claimed when it looks
        assert not Job.objects.filter(status__in=OPEN).exists()
        assert Workflow.objects.get().finished_at is not None
    else:
        assert Job.objects.filter(status__in=OPEN).count() in (0, 3)


@only_with_row_locks
def test_a_locked_workflow_holds_up_no_other_outcome(store: Store) -> None:
    results = [group(give.si(1), give.si(2)).enqueue() for _ in range(2)]
    plain = [give.enqueue(number) for number in range(2)]
    claims = store.claim(a_worker(store), 9)
    other = int(results[0].children[1].id)
    assert len(claims) == 6
    last = max(claim.job_id for claim in claims)  # plain
    mine = sorted((claim for claim in claims if claim.job_id != other), key=lambda claim: claim.job_id == last)
    completer = Completer(store, lambda: None)
    with locked(lambda: store.request_cancel([other])) as may_commit:
        for claim in mine[:-1]:
            completer.put(Outcome.succeeded(claim, "1"))
        assert completer.run_once() < 1
        assert completer.pending == 1  # of the workflow that is locked
        assert results[1].status == JobStatus.SUCCESSFUL
        for _ in range(3):
            time.sleep(completer.run_once())
        completer.put(Outcome.succeeded(mine[-1], "1"))
        completer.run_once()
        assert completer.pending == 1
        assert [job.status for job in map(_fresh, plain)] == [JobStatus.SUCCESSFUL] * 2
        may_commit.set()
    time.sleep(completer.run_once())
    completer.run_once()
    assert not completer.pending
    assert _fresh(results[0].children[0]).status == JobStatus.SUCCESSFUL


@only_with_row_locks
def test_a_workflow_that_is_free_again_does_not_wait_for_those_that_are_not(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    results = [group(give.si(1), give.si(2)).enqueue() for _ in range(9)]
    claims = {claim.job_id: claim for claim in store.claim(a_worker(store), 18)}
    first, second = ([int(result.children[place].id) for result in results] for place in (0, 1))
    told: list[Outcome] = []
    completer = Completer(store, lambda: None, told.extend)
    with locked(lambda: store.request_cancel(second[:8])):
        with locked(lambda: store.request_cancel(second[8:])):
            for pk in first:
                completer.put(Outcome.succeeded(claims[pk], "1"))
            completer.run_once()
            assert completer.pending == 9
        time.sleep(completer.run_once())
        completer.run_once()
        assert completer.pending == 8
        assert Job.objects.get(pk=first[8]).status == JobStatus.SUCCESSFUL
        assert [outcome.claim.job_id for outcome in told] == [first[8]]
    for _ in range(2):
        time.sleep(completer.run_once())
    assert not completer.pending
    assert sorted(outcome.claim.job_id for outcome in told) == first
    assert "Lease lost" not in caplog.text


@only_with_row_locks
def test_what_is_set_aside_after_a_lost_reply_is_told_as_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = group(give.si(1), give.si(2)).enqueue()
    claims = store.claim(a_worker(store), 2)
    other = int(result.children[1].id)
    [mine] = [claim for claim in claims if claim.job_id != other]
    told: list[Outcome] = []
    completer = Completer(store, lambda: None, told.extend)
    finish = store.finish_free

    def without_an_answer(outcomes: Sequence[Outcome]) -> Any:
        finish(outcomes)
        monkeypatch.setattr(store, "finish_free", finish)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(store, "finish_free", without_an_answer)
    completer.put(Outcome.succeeded(mine, "1"))
    with pytest.raises(OperationalError):
        completer.run_once()
    with locked(lambda: store.request_cancel([other])):
        completer.run_once()
        assert (completer.pending, told) == (1, [])
    time.sleep(completer.run_once())
    completer.run_once()
    assert [outcome.claim for outcome in told] == [mine]
    assert "Lease lost" not in caplog.text


@only_with_row_locks
@pytest.mark.parametrize("is_the_databases", [True, False])
def test_what_can_not_be_written_of_a_locked_workflow_fails_when_it_is_free(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_the_databases: bool
) -> None:
    result = group(give.si(1), give.si(2)).enqueue()
    claims = store.claim(a_worker(store), 2)
    other = int(result.children[1].id)
    [mine] = [claim for claim in claims if claim.job_id != other]
    completer = Completer(store, lambda: None)
    finish, freed = store.finish_free, threading.Event()

    def refusing(outcomes: Sequence[Outcome]) -> Any:
        if any(outcome.status is JobStatus.SUCCESSFUL for outcome in outcomes):
            raise DataError("no such value") if is_the_databases else ValueError("a mistake of dbqueue's own")
        assert freed.is_set() or finish(outcomes).left == list(outcomes)
        return finish(outcomes)

    monkeypatch.setattr(store, "finish_free", refusing)
    completer.put(Outcome.succeeded(mine, "1"))
    with locked(lambda: store.request_cancel([other])):
        completer.run_once()
        assert completer.pending == 1
    freed.set()
    time.sleep(completer.run_once())
    completer.run_once()
    assert completer.pending == 0
    assert Job.objects.get(pk=mine.job_id).status == JobStatus.FAILED


@only_with_row_locks
def test_a_long_wait_for_a_lock_is_said_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dbqueue.services.completer.LONG", 0.2)
    result = group(give.si(1), give.si(2)).enqueue()
    claims = store.claim(a_worker(store), 2)
    other = int(result.children[1].id)
    completer = Completer(store, lambda: None)
    with locked(lambda: store.request_cancel([other])):
        for claim in claims:
            if claim.job_id != other:
                completer.put(Outcome.succeeded(claim, "1"))
        for _ in range(6):
            time.sleep(completer.run_once())
    [said] = [message for message in caplog.messages if "wait for a transaction of somebody else" in message]
    assert said.endswith(f"1, of job {int(result.children[0].id)}")


def a_step_behind_a_long_job(seconds: float) -> tuple[Any, int, int]:
    """The job, a step that a worker takes ahead meanwhile as jobs were short, and a step beside it that nobody runs."""
    enqueue_many(give.s(number) for number in range(300))
    long = nap.enqueue(seconds)
    result = group(give.si(1), give.si(2).set(queue_name="nobody's")).enqueue()
    step, other = (int(one.id) for one in result.children)
    return long, step, other


def lock_rows(ids: Sequence[int], how: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id FROM dbqueue_job WHERE id IN ({', '.join(map(str, ids))}) {how}")


def _fresh(job: Any) -> Any:
    job.refresh()
    return job


@only_with_row_locks
@pytest.mark.parametrize("operation", ["rescue", "expire"])
def test_steps_of_a_locked_workflow_keep_nobody_from_being_looked_after(store: Store, operation: str) -> None:
    hour = timedelta(hours=1)
    result = group(give.si(number).set(expires=hour) for number in range(6)).enqueue()
    plain = give.using(expires=2 * hour).enqueue(9)
    if operation == "rescue":
        worker = a_worker(store)
        assert len(store.claim(worker, 9)) == 7
        Worker.objects.filter(pk=worker).update(stopped_at=store.clock())
    with locked(lambda: store._lock_workflows([result.workflow_id])):
        if operation == "rescue":
            assert list(store.rescue(3, limit=5).again) == [int(plain.id)]
        else:
            assert store.expire(limit=5, now=store.clock() + 3 * hour) == [int(plain.id)]


@only_with_row_locks
@pytest.mark.parametrize("operation", ["rescue", "expire"])
@pytest.mark.parametrize("how", ["FOR UPDATE", "FOR KEY SHARE"])
def test_locked_jobs_keep_nobody_from_being_looked_after(store: Store, operation: str, how: str) -> None:
    if how == "FOR KEY SHARE" and connection.vendor != "postgresql":
        pytest.skip("what an INSERT of a row that refers to a job has locked is PostgreSQL's")
    hour = timedelta(hours=1)
    jobs = [int(give.using(expires=hour * number).enqueue(number).id) for number in (1, 2, 3)]
    if operation == "rescue":
        worker = a_worker(store)
        assert len(store.claim(worker, 9)) == 3
        Worker.objects.filter(pk=worker).update(stopped_at=store.clock())
    with locked(lambda: lock_rows(jobs[:2], how)):
        if operation == "rescue":
            assert list(store.rescue(3, limit=2).again) == jobs[2:]
        else:
            assert store.expire(limit=2, now=store.clock() + 9 * hour) == jobs[2:]


@only_with_row_locks
def test_what_can_not_be_given_back_just_now_is_told(store: Store) -> None:
    result = group(give.si(1), give.si(2)).enqueue()
    jobs = [give.enqueue(number) for number in range(2)]
    claims = store.claim(a_worker(store), 9)
    busy = [int(result.children[1].id), int(jobs[0].id)]
    with locked(lambda: store.request_cancel(busy)):
        left = store.release_free(claims)
        assert {claim.job_id for claim in left} == {*(int(step.id) for step in result.children), busy[1]}
        assert _fresh(jobs[1]).status == JobStatus.READY
    assert store.release_free(left) == []
    assert [_fresh(step).status for step in (*result.children, jobs[0])] == [
        JobStatus.READY,
        JobStatus.CANCELLED,
        JobStatus.CANCELLED,
    ]


@only_with_row_locks
def test_a_worker_ends_although_somebody_has_a_workflow_locked(store: Store) -> None:
    result = group(nap.si(60), give.si(2).set(queue_name="nobody's")).enqueue()
    worker = spawn("--grace", "0", "--queues", "default")
    running = result.children[0]
    eventually(lambda: _fresh(running).status == JobStatus.RUNNING)
    with locked(lambda: store.request_cancel([int(result.children[1].id)])) as may_commit:
        worker.send_signal(signal.SIGTERM)
        said = worker.finish(15)
        assert not may_commit.is_set()
    assert "could not give back 1 jobs" in said
    store.rescue(3)
    assert _fresh(running).status == JobStatus.READY


@only_with_row_locks
def test_a_worker_that_stops_gives_back_each_job_once_it_can_and_no_more(store: Store) -> None:
    long, step, other = a_step_behind_a_long_job(6)
    begun = Job.objects.filter(pk=int(long.id), status=JobStatus.RUNNING, ahead=False)
    with locked(lambda: store.request_cancel([other])):
        worker = spawn("--threads", "1", "--queues", "default", "--grace", "60")
        eventually(lambda: begun.exists() and Job.objects.filter(pk=step, status=JobStatus.RUNNING).exists())
        worker.send_signal(signal.SIGTERM)
    eventually(lambda: Job.objects.get(pk=step).status == JobStatus.READY)
    assert _fresh(long).status == JobStatus.RUNNING
    with locked(lambda: lock_rows([step], "FOR UPDATE")):
        said = worker.finish()
    assert "could not give back" not in said
    assert (worker.returncode, _fresh(long).status) == (0, JobStatus.SUCCESSFUL)


@only_with_row_locks
def test_a_worker_goes_on_while_it_can_not_give_back_what_it_has_taken(store: Store) -> None:
    """It has taken steps ahead because jobs were short, and then they are long."""
    worker = spawn("--threads", "2", "--queues", "default")
    for _ in range(2):
        enqueue_many(give.s(number) for number in range(300))
        eventually(lambda: not Job.objects.filter(status__in=OPEN).exists())
    result = group(*(nap.si(1) for _ in range(12)), give.si(2).set(queue_name="nobody's")).enqueue()
    other = int(result.children[-1].id)
    with locked(lambda: store.request_cancel([other])) as may_commit:
        eventually(lambda: Job.objects.filter(task=nap.name, status=JobStatus.RUNNING).count() > 2)
        job = give.using(priority=-9).enqueue(3)
        eventually(lambda: _fresh(job).status == JobStatus.SUCCESSFUL)
        assert not may_commit.is_set()
    eventually(lambda: Job.objects.filter(task=nap.name, status=JobStatus.SUCCESSFUL).count() == 12)
    worker.send_signal(signal.SIGTERM)
    assert "Lease lost" not in worker.finish()


@only_with_row_locks
def test_a_burst_waits_for_what_it_can_not_give_back_yet(store: Store) -> None:
    long, step, other = a_step_behind_a_long_job(1)
    with locked(lambda: store.request_cancel([other])):
        worker = spawn("--threads", "1", "--queues", "default", "--burst")
        eventually(lambda: _fresh(long).status == JobStatus.SUCCESSFUL)
        assert worker.poll() is None
    assert "could not give back" not in worker.finish()
    assert (worker.returncode, Job.objects.get(pk=step).status) == (0, JobStatus.SUCCESSFUL)


@only_with_row_locks
def test_a_claim_that_is_drawn_again_is_not_given_back(store: Store) -> None:
    """A crash of the server takes back a claim that is to be given back, and this worker claims it anew."""
    dispatcher = Dispatcher(Settings.load(), Mode())
    dispatcher._register()
    job = give.enqueue(1)
    [claim] = store.claim(dispatcher.worker_id, 1)
    with locked(lambda: list(Job.objects.filter(pk=claim.job_id).select_for_update())):
        dispatcher._return([claim])
    Job.objects.filter(pk=claim.job_id).update(status=JobStatus.READY, lease=claim.lease - 1, worker=None, attempt=0)
    dispatcher._return_at = time.monotonic() + 60
    [again] = dispatcher._claim() or []
    assert (again.job_id, again.lease) == (claim.job_id, claim.lease)
    dispatcher._return([])
    assert _fresh(job).status == JobStatus.RUNNING


@only_with_row_locks
def test_an_outcome_whose_claim_was_taken_back_waits_for_its_row_alone(store: Store) -> None:
    jobs = [give.enqueue(number) for number in range(2)]
    claims = {claim.job_id: claim for claim in store.claim(a_worker(store), 9)}
    taken, other = (claims[int(job.id)] for job in jobs)
    Job.objects.filter(pk=taken.job_id).update(status=JobStatus.READY, lease=taken.lease - 1, worker=None, attempt=0)
    told: list[Outcome] = []
    completer = Completer(store, lambda: None, told.extend)
    with locked(lambda: list(Job.objects.filter(pk=taken.job_id).select_for_update())) as may_commit:
        completer.put(Outcome.succeeded(taken, "1"))
        completer.put(Outcome.succeeded(other, "1"))
        completer.run_once()
        assert not may_commit.is_set()
        assert [outcome.claim for outcome in told] == [other]
    time.sleep(completer.run_once())
    completer.run_once()
    assert [outcome.claim for outcome in told] == [other, taken]


@only_with_row_locks
@pytest.mark.parametrize("with_failure", [False, True])
def test_a_locked_job_holds_up_no_other_outcome(store: Store, with_failure: bool) -> None:
    jobs = [give.enqueue(number) for number in range(3)]
    claims = {claim.job_id: claim for claim in store.claim(a_worker(store), 9)}
    mine = [claims[int(job.id)] for job in jobs]
    told: list[Outcome] = []
    completer = Completer(store, lambda: None, told.extend)
    with locked(lambda: store.request_cancel([mine[0].job_id])):
        completer.put(Outcome.succeeded(mine[0], "1"))
        completer.put(Outcome.failed(mine[1], ValueError()) if with_failure else Outcome.succeeded(mine[1], "1"))
        assert completer.run_once() < 1
        assert [outcome.claim for outcome in told] == [mine[1]]
        time.sleep(completer.run_once())
        completer.put(Outcome.succeeded(mine[2], "1"))
        completer.run_once()
        assert [outcome.claim for outcome in told] == mine[1:]
    time.sleep(completer.run_once())
    completer.run_once()
    assert not completer.pending
    assert _fresh(jobs[0]).status == JobStatus.SUCCESSFUL


@only_with_row_locks
def test_a_bulk_operation_gets_its_turn_beside_a_busy_workflow(store: Store) -> None:
    """One that is locked nearly all the time, but by nobody for long."""
    result = (group(give.si(1) for _ in range(3)) | note.s()).enqueue()
    is_over = threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            with transaction.atomic():
                store._lock_workflows([result.workflow_id])
                time.sleep(0.05)

    store.start_bulk(BulkAction.CANCEL, Search(), user_id=1, user_name="u")
    with meanwhile(keep_busy), meanwhile(keep_busy):
        time.sleep(0.1)
        try:
            chunk = store.step_bulk()
        finally:
            is_over.set()
    assert chunk is not None and chunk.is_last
    assert not Job.objects.filter(status__in=OPEN).exists()


@only_with_row_locks
def test_a_bulk_operation_does_not_wait_for_a_caller_who_has_a_workflow_locked_for_long(store: Store) -> None:
    result = group(give.si(1), give.si(2)).enqueue()
    store.start_bulk(BulkAction.CANCEL, Search(), user_id=1, user_name="u")
    with locked(lambda: store._lock_workflows([result.workflow_id])):
        chunk = store.step_bulk()
        assert chunk is not None and chunk.rests and not chunk.is_last
    chunk = store.step_bulk()
    assert chunk is not None and chunk.is_last
    assert not Job.objects.filter(status__in=OPEN).exists()
