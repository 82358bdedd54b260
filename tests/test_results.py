"""A job seen from outside."""

import sys

import pytest
from django.db import transaction

import dbqueue
from dbqueue.exceptions import JobCancelled, JobDoesNotExist, JobFailed, ResultNotReady, WouldNeverFinish
from dbqueue.models import Attempt, Job, JobStatus
from dbqueue.store import store_for

from .shop.tasks import add, fail
from .workers import burst, worker

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


def test_waiting_in_the_transaction_that_enqueued_the_job_is_refused_at_once() -> None:
    with transaction.atomic():
        [many] = dbqueue.enqueue_many([add.s(1, 2)])
        one = add.enqueue(1, 2)
        for result in (one, many):
            with pytest.raises(WouldNeverFinish, match="Call get\\(\\) after the commit"):
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
