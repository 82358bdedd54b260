"""``DBQUEUE["IMMEDIATE"]``: an enqueue runs its job, through the same states as a worker."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.db import connection, transaction
from django.test import TestCase, override_settings

import dbqueue
from dbqueue.exceptions import InvalidArguments, JobFailed
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.tasks_api import task_enqueued, task_finished, task_started
from dbqueue.testing import assert_enqueued, run_jobs

from .shop import django_tasks
from .shop.models import Mark
from .shop.tasks import add, add_later, enqueue_another, fail, hostile, leak, mark, tell_context
from .test_testing import LEAKS
from .workers import worker

IMMEDIATE = {"IMMEDIATE": True}


@pytest.fixture(autouse=True)
def _immediate() -> Iterator[None]:
    with override_settings(DBQUEUE=IMMEDIATE):
        yield


def labels() -> set[str]:
    return set(Mark.objects.values_list("label", flat=True))


@pytest.mark.django_db
def test_a_job_has_run_when_enqueue_returns() -> None:
    result = add.enqueue(1, 2)
    assert (result.status, result.return_value, result.attempts) == (JobStatus.SUCCESSFUL, 3, 1)
    assert result.get(timeout=0) == 3  # also in the transaction that enqueued it
    assert result.started_at and result.finished_at and len(result.worker_ids) == 1
    assert result == dbqueue.get_result(result.id)
    assert not Worker.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_of_the_caller() -> None:
    result = mark.enqueue("the job's")
    assert result.status == JobStatus.SUCCESSFUL
    assert labels() == {"the job's"}
    assert not connection.in_atomic_block and not Worker.objects.exists()


@pytest.mark.django_db
def test_a_failure_does_not_raise_and_the_result_tells() -> None:
    result = fail.enqueue("bang")
    assert result.status == JobStatus.FAILED
    assert Attempt.objects.count() == 1
    with pytest.raises(JobFailed, match="ValueError: bang"):
        result.get()
    with pytest.raises(InvalidArguments):
        add.enqueue(1)  # type: ignore[call-arg]


@pytest.mark.django_db
def test_a_retry_waits_for_run_jobs() -> None:
    result = fail.using(max_attempts=2, backoff=60).enqueue("bang")
    assert (result.status, result.attempts) == (JobStatus.SCHEDULED, 1)
    assert run_jobs() == []
    [again] = run_jobs(scheduled=True)
    assert (again.id, again.status, again.attempts) == (result.id, JobStatus.FAILED, 2)


@pytest.mark.django_db
def test_what_is_not_due_waits_and_what_is_runs() -> None:
    later = add.using(run_after=timedelta(hours=1)).enqueue(1, 2)
    due = add.using(run_after=timedelta(seconds=-1)).enqueue(1, 2)
    assert (later.status, due.status) == (JobStatus.SCHEDULED, JobStatus.SUCCESSFUL)
    later.refresh()
    assert later.status == JobStatus.SCHEDULED


@pytest.mark.django_db
def test_jobs_that_jobs_enqueue_run_inside_them() -> None:
    result = enqueue_another.enqueue("child")
    child = assert_enqueued(mark, "child")
    assert labels() == {"child"}
    assert child.finished_at and result.finished_at and child.finished_at <= result.finished_at
    assert child.worker_ids != result.worker_ids and not Worker.objects.exists()


@pytest.mark.django_db
def test_only_its_own_job_is_run() -> None:
    with override_settings(DBQUEUE={}):
        waiting = add.using(priority=100).enqueue(1, 2)
    assert add.enqueue(3, 4).return_value == 7
    waiting.refresh()
    assert waiting.status == JobStatus.READY


@pytest.mark.django_db
def test_enqueue_many() -> None:
    signatures: list[Any] = [add.s(1, 2), fail.s("bang"), enqueue_another.s("child")]
    results = dbqueue.enqueue_many(signatures)
    assert [result.status for result in results] == ["SUCCESSFUL", "FAILED", "SUCCESSFUL"]
    assert labels() == {"child"}


@pytest.mark.django_db
def test_a_duplicate_is_not_run_again() -> None:
    period = add.using(unique=dbqueue.Unique(until=timedelta(hours=1)))
    first, second = period.enqueue(1, 2), period.enqueue(1, 2)
    assert (second.id, second.duplicate, second.status) == (first.id, True, JobStatus.SUCCESSFUL)
    assert (first.attempts, second.attempts) == (1, 1)


@pytest.mark.django_db
def test_limits_are_between_workers_and_stop_nothing_here() -> None:
    limited = add.using(concurrency=1, rate="1/d")
    assert [limited.enqueue(number, 0).status for number in range(3)] == [JobStatus.SUCCESSFUL] * 3
    dbqueue.pause("default", "not now")
    assert add.enqueue(1, 2).status == JobStatus.SUCCESSFUL


@pytest.mark.django_db
def test_async_tasks_contexts_and_async_callers() -> None:
    assert add_later.enqueue(1, 2).return_value == 3
    told = tell_context.enqueue()
    assert told.return_value == [1, told.id, "RUNNING"]
    assert async_to_sync(add.aenqueue)(1, 2).return_value == 3


@pytest.mark.django_db
def test_a_keyboard_interrupt_is_written_and_then_reaches_the_caller() -> None:
    with pytest.raises(KeyboardInterrupt):
        hostile.enqueue("KeyboardInterrupt")
    assert Job.objects.get().status == JobStatus.FAILED
    assert not Worker.objects.exists()


@pytest.mark.django_db
def test_what_a_keyboard_interrupt_keeps_from_running_waits() -> None:
    signatures: list[Any] = [add.s(1, 2), hostile.s("KeyboardInterrupt"), add.s(3, 4)]
    with pytest.raises(KeyboardInterrupt):
        dbqueue.enqueue_many(signatures)
    statuses = Job.objects.order_by("id").values_list("status", "attempt")
    assert list(statuses) == [("SUCCESSFUL", 1), ("FAILED", 1), ("READY", 0)]


@pytest.mark.django_db
def test_a_job_that_deletes_itself() -> None:
    hostile.enqueue("delete itself")
    assert not Job.objects.exists()


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.django_db
def test_a_leaking_job_leaves_the_callers_transaction_as_it_was(kind: str) -> None:
    connection.ensure_connection()
    session = connection.connection
    with transaction.atomic():
        Mark.objects.create(label="the caller's")
        leak.enqueue(kind)
        mark.enqueue("after")
        Mark.objects.create(label="the caller goes on")
    assert connection.connection is session
    assert connection.savepoint_ids == [] and len(connection.atomic_blocks) == 1
    assert labels() == {"the caller's", "after", "the caller goes on"}


@pytest.mark.django_db(transaction=True)
def test_a_rollback_of_the_caller_takes_the_job_and_its_work_along() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert mark.enqueue("gone").status == JobStatus.SUCCESSFUL
        raise ZeroDivisionError
    assert not Job.objects.exists() and labels() == set()


@pytest.mark.django_db(transaction=True)
def test_a_worker_beside_it_has_nothing_left_to_do() -> None:
    with worker():
        results = [mark.enqueue(str(number)) for number in range(20)]
    assert {(result.status, result.attempts) for result in results} == {(JobStatus.SUCCESSFUL, 1)}
    assert Mark.objects.count() == 20


@pytest.mark.django_db
def test_a_task_of_django_tasks_and_the_order_of_its_signals() -> None:
    told: list[Any] = []

    def receive(signal: Any, task_result: Any, **kwargs: Any) -> None:
        told.append((signal, task_result.status))

    signals = (task_enqueued, task_started, task_finished)
    for signal in signals:
        signal.connect(receive)
    try:
        result = django_tasks.multiply.enqueue(6, 7)
    finally:
        for signal in signals:
            signal.disconnect(receive)
    assert (result.status, result.return_value) == ("SUCCESSFUL", 42)
    assert told == list(zip(signals, ("READY", "RUNNING", "SUCCESSFUL"), strict=True))


@override_settings(DBQUEUE=IMMEDIATE)
class InATestCase(TestCase):
    """As projects write them."""

    result: "dbqueue.JobResult[int]"

    @classmethod
    def setUpTestData(cls) -> None:
        cls.result = add.enqueue(1, 2)

    def test_one(self) -> None:
        assert self.result.return_value == 3
        mark.enqueue("one")
        assert labels() == {"one"}

    def test_two(self) -> None:
        assert labels() == set()
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: mark.enqueue("after the commit"))
        assert labels() == {"after the commit"}


def test_the_check_warns_where_debug_is_off() -> None:
    def warned() -> bool:
        return "dbqueue.W007" in {message.id for message in run_checks()}

    with override_settings(DEBUG=False):
        assert warned()
        with override_settings(DBQUEUE={}):
            assert not warned()
    with override_settings(DEBUG=True):
        assert not warned()
