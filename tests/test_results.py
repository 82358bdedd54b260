"""A job seen from outside."""

import datetime
import sys
import threading
from concurrent.futures import Future
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, connections, transaction
from django.test import override_settings

import dbqueue
from dbqueue.exceptions import JobCancelled, JobDoesNotExist, JobFailed, ResultNotReady, WouldNeverFinish
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.store import store_for
from dbqueue.testing import run_jobs
from dbqueue.waiting import Patience

from .shop.tasks import add, fail
from .workers import burst, eventually, worker

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_job_that_has_not_finished() -> None:
    result = add.enqueue(1, 2)
    assert not result.is_finished
    with pytest.raises(ResultNotReady, match="has not finished yet: it is READY"):
        _ = result.return_value
    with pytest.raises(ValueError, match="has not finished yet"):
        _ = result.return_value
    with pytest.raises(TimeoutError, match=r"is still READY after 0\.05 s"):
        result.get(timeout=0.05)


def test_a_wait_in_vain_says_that_no_worker_is_there(monkeypatch: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = add.using(queue_name="mail").enqueue(1, 2)
    with pytest.raises(TimeoutError, match=r"after 0 s\. No worker is alive: start one .*manage.py dbqueue_worker\.$"):
        result.get(timeout=0)
    assert not caplog.messages

    monkeypatch.setattr("dbqueue.results.WARN_AFTER", 0.02)
    with worker("--queues", "letters"):
        eventually(Worker.objects.alive().exists)
        with pytest.raises(TimeoutError, match=r"0\.2 s\. No living worker serves the queue 'mail'\.$"):
            result.get(timeout=0.2)
    assert [message.partition("0.02 s. ")[2] for message in caplog.messages if "still READY" in message] == [
        "No living worker serves the queue 'mail'."
    ]

    with worker("--queues", "mail"):
        eventually(Worker.objects.alive().exists)
        waits = add.using(queue_name="mail", run_after=datetime.timedelta(hours=1)).enqueue(1, 2)
        assert result.get(timeout=15) == 3
        with pytest.raises(TimeoutError, match=r"is still SCHEDULED after 0\.05 s\.$"):
            waits.get(timeout=0.05)


def test_a_success() -> None:
    result = add.enqueue(1, 2)
    burst()
    assert result.status == JobStatus.READY  # as of the last look
    assert result.get(timeout=1) == result.return_value == 3
    assert (result.attempts, len(result.worker_ids), result.errors) == (1, 1, [])
    assert result.started_at and result.finished_at
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.task is add


def test_a_failure() -> None:
    result = fail.enqueue("bang")
    burst()
    with pytest.raises(JobFailed, match="ValueError: bang"):
        result.get(timeout=1)
    with pytest.raises(ResultNotReady, match="ended FAILED"):
        _ = result.return_value
    assert (result.attempts, len(result.worker_ids), len(result.errors)) == (1, 1, 1)


def test_a_cancelled_job() -> None:
    result = add.enqueue(1, 2)
    store_for("default").cancel([int(result.id)])
    burst()
    with pytest.raises(JobCancelled):
        result.get(timeout=1)


def test_a_job_that_did_not_succeed_is_retried() -> None:
    failed = fail.using(max_attempts=2, backoff=0).enqueue("once")
    cancelled = add.using(run_after=datetime.timedelta(days=1)).enqueue(1, 2)
    cancelled.cancel()
    run_jobs(scheduled=True)
    failed.refresh()
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 2)

    assert failed.retry() and cancelled.retry()
    assert (failed.status, cancelled.status) == (JobStatus.READY, JobStatus.SCHEDULED)
    run_jobs()
    failed.refresh()
    assert (failed.status, failed.attempts, len(failed.errors)) == (JobStatus.FAILED, 4, 4)


def test_nothing_else_is_retried() -> None:
    limited = add.using(concurrency=1)
    ran = add.enqueue(1, 2)
    run_jobs()
    running, blocked = limited.enqueue(1, 2), limited.enqueue(1, 2)
    store = store_for("default")
    store.claim(store.register(name="worker", hostname="h", pid=1, queues="", threads=1), 2)
    ready, scheduled = add.enqueue(1, 2), add.using(run_after=datetime.timedelta(days=1)).enqueue(1, 2)
    for result, status in (
        (ran, JobStatus.SUCCESSFUL),
        (running, JobStatus.RUNNING),
        (blocked, JobStatus.BLOCKED),
        (ready, JobStatus.READY),
        (scheduled, JobStatus.SCHEDULED),
    ):
        assert not result.retry()
        assert result.status is status
    Job.objects.all().delete()
    with pytest.raises(JobDoesNotExist):
        ran.retry()


def test_a_retry_is_part_of_the_transaction() -> None:
    result = add.enqueue(1, 2)
    result.cancel()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert result.retry()
        raise ZeroDivisionError
    result.refresh()
    assert result.status is JobStatus.CANCELLED
    assert async_to_sync(result.aretry)()
    assert (result.status, result.attempts) == (JobStatus.READY, 0)


def test_waiting_in_the_transaction_that_enqueued_the_job_is_refused_at_once() -> None:
    with transaction.atomic():
        [many] = dbqueue.enqueue_many([add.s(1, 2)])
        one = add.enqueue(1, 2)
        for result in (one, many):
            with pytest.raises(
                WouldNeverFinish, match=r"Call get\(\) after the commit; in a test, after dbqueue\.testing\.run"
            ):
                result.get(timeout=60)
    with worker():
        assert one.get(timeout=15) == many.get(timeout=15) == 3


def test_waiting_in_another_transaction_is_allowed() -> None:
    [many] = dbqueue.enqueue_many([add.s(1, 2)])
    with transaction.atomic():
        one = add.enqueue(1, 2)
    with transaction.atomic():
        for result in (one, many):
            with pytest.raises(TimeoutError):
                result.get(timeout=0.01)


def test_the_class_of_an_error_is_looked_up_and_never_imported() -> None:
    result = fail.enqueue("bang")
    burst()
    assert "antigravity" not in sys.modules
    Attempt.objects.update(exception_class_path="antigravity.fly")
    result.refresh()
    with pytest.raises(ImportError, match=r"antigravity\.fly"):
        _ = result.errors[0].exception_class
    assert "antigravity" not in sys.modules
    Attempt.objects.update(exception_class_path="sys.exit")
    result.refresh()
    with pytest.raises(ValueError, match="does not reference a valid exception"):
        _ = result.errors[0].exception_class


@pytest.mark.parametrize("result_id", ["", "x", "-1", "1.5", "123456789", str(2**63), "١", "1 ", None, "0x10"])
def test_ids_that_are_no_ids(result_id: str) -> None:
    with pytest.raises(JobDoesNotExist):
        dbqueue.get_result(result_id)


def test_a_row_that_has_gone() -> None:
    result = add.enqueue(1, 2)
    Job.objects.all().delete()
    with pytest.raises(JobDoesNotExist):
        result.refresh()


# Waiting by notification


def is_awaited(result: "dbqueue.JobResult[Any]") -> bool:
    return Job.objects.filter(pk=result.id, awaited=True).exists()


def waiting(result: "dbqueue.JobResult[Any]") -> "Future[Any]":
    """Its get(), on a thread that has tried to listen when this returns."""
    future: Future[Any] = Future()
    listen, listens = Patience._listen, threading.Event()

    def get() -> None:
        try:
            future.set_result(result.get(60))
        except BaseException as exc:
            future.set_exception(exc)
        finally:
            connections.close_all()

    def tell(self: Patience) -> bool:
        try:
            return listen(self)
        finally:
            listens.set()

    with mock.patch.object(Patience, "_listen", tell):
        threading.Thread(target=get, daemon=True).start()
        assert listens.wait(15)
    return future


@pytest.fixture
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look behind the calls comes so late that only a call can end the wait in time."""
    monkeypatch.setattr("dbqueue.waiting.LISTEN_FROM", 0.005)
    monkeypatch.setattr("dbqueue.waiting.FIRST_PAUSE", 0.005)
    monkeypatch.setattr(Patience, "_rest", lambda self, seconds: self._listener.wait(60) if self._listener else None)


@pytest.mark.usefixtures("_no_looks")
def test_the_end_of_an_awaited_job_is_told() -> None:
    good, bad = add.enqueue(1, 2), fail.enqueue("bang")
    futures = [waiting(good), waiting(bad)]
    if connection.vendor == "postgresql":
        assert is_awaited(good) and is_awaited(bad)
    with worker():
        assert futures[0].result(30) == 3
        with pytest.raises(JobFailed, match="bang"):
            futures[1].result(30)


@pytest.mark.usefixtures("_no_looks")
def test_a_cancel_is_told_too() -> None:
    result = add.enqueue(1, 2)
    future = waiting(result)
    store_for("default").cancel([int(result.id)])
    with pytest.raises(JobCancelled):
        future.result(30)


@pytest.mark.usefixtures("_no_looks")
def test_a_retry_is_not_taken_for_the_end() -> None:
    result = fail.using(max_attempts=2, backoff=0.5).enqueue("bang")
    future = waiting(result)
    with worker(), pytest.raises(JobFailed):
        future.result(30)
    assert result.attempts == 2


def test_whoever_waits_locks_nothing_and_waits_for_no_lock() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no row locks, and no column is written there")
    result = add.enqueue(1, 2)
    with transaction.atomic():
        Job.objects.select_for_update().get(pk=result.id)
        future = waiting(result)  # it listens, although it could not ask to be called
        assert not is_awaited(result)
    eventually(lambda: is_awaited(result))
    with worker():
        assert future.result(30) == 3


def test_where_no_connection_is_left_the_wait_goes_on_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = mock.Mock(side_effect=OperationalError("too many connections"))
    monkeypatch.setattr("dbqueue.waiting.second_connection", refuse)
    result = add.enqueue(1, 2)
    with worker():
        assert result.get(timeout=15) == 3
    refuse.assert_called_once()


def test_a_connection_that_is_lost_while_waiting_is_done_without() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("a file's connection is not lost")
    result = add.enqueue(1, 2)
    future = waiting(result)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE '%%UPDATE%%awaited%%' AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 1  # that of the wait before may still be leaving
    with worker():
        assert future.result(30) == 3


def test_a_wait_leaves_no_session_behind() -> None:
    if connection.vendor != "postgresql" or connection.settings_dict["OPTIONS"].get("pool"):
        pytest.skip("SQLite has no sessions, and a pool keeps some of its own")
    result = add.enqueue(1, 2)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.3)

    def others() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            return int(cursor.fetchone()[0])

    eventually(lambda: others() == 0)


def test_without_listen_nothing_is_asked_for() -> None:
    with override_settings(DBQUEUE={"LISTEN": False}):
        result = add.enqueue(1, 2)
        with pytest.raises(TimeoutError):
            result.get(timeout=0.3)
    assert not is_awaited(result)


@pytest.mark.parametrize("replace", [False, True])
def test_a_duplicate_is_waited_for_as_any_job_is(replace: bool) -> None:
    unique = add.using(unique=dbqueue.Unique(replace=replace))
    first, second = unique.enqueue(1, 2), unique.enqueue(1, 2)
    assert second.duplicate
    with transaction.atomic():
        third = unique.enqueue(1, 2)
        assert third.duplicate
        with pytest.raises(WouldNeverFinish, match="locked it until the end of this transaction"):
            third.get(timeout=60)
    with worker():
        assert [result.get(timeout=15) for result in (first, second, third)] == [3, 3, 3]


def test_what_has_ended_is_told_inside_the_transaction_that_enqueued_it() -> None:
    with transaction.atomic():
        result = add.enqueue(1, 2)
        run_jobs()
        assert result.get(timeout=60) == 3
        with pytest.raises(WouldNeverFinish):
            add.enqueue(1, 2).wait(timeout=60)


def test_aget() -> None:
    result = add.enqueue(1, 2)
    with worker():
        assert async_to_sync(result.aget)(timeout=15) == 3


@pytest.mark.parametrize("timeout", [float("nan"), -1, "5"])
def test_a_wait_that_has_no_end_or_no_sense_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match=r"timeout is .*; it must be seconds, from 0, or None"):
        add.enqueue(1, 2).get(timeout=timeout)
