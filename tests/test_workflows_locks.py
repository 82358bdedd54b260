"""Whoever ends a step locks its workflow first: who waits for that lock, for how long, and what he sees then."""

import threading
import time
from typing import Any

import pytest
from django.db import connection, transaction

from dbqueue import chain, group
from dbqueue.models import OPEN, BulkAction, Job, JobStatus, Workflow
from dbqueue.outcome import Outcome
from dbqueue.search import Search
from dbqueue.services.completer import Completer
from dbqueue.store import Store, store_for

from .beside import locked, meanwhile
from .shop.workflow_tasks import give, inc, note

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


def _fresh(job: Any) -> Any:
    job.refresh()
    return job


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
