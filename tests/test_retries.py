"""How an attempt that failed goes on: retries, backoff, and what a task may raise to decide it."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbqueue import Exponential
from dbqueue.exceptions import InvalidTask, seconds
from dbqueue.models import Attempt, Job, JobStatus
from dbqueue.retry import delay_after
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop import retry_tasks as tasks
from .workers import worker

pytestmark = pytest.mark.django_db


def run_again() -> None:
    """Run what is due, and what would be in a year."""
    run_jobs()
    Job.objects.filter(status=JobStatus.SCHEDULED).update(run_after="2020-01-01T00:00:00Z")


def wait_of(job_id: str) -> float:
    job = Job.objects.get(pk=job_id)
    assert job.run_after is not None
    assert job.last_attempted_at is not None
    return (job.run_after - job.last_attempted_at).total_seconds()


def test_a_job_is_tried_so_often_and_keeps_every_attempt() -> None:
    result = tasks.fails.using(max_attempts=3).enqueue()

    for attempts in (1, 2):
        run_again()
        result.refresh()
        assert (result.status, result.attempts, result.max_attempts) == (JobStatus.SCHEDULED, attempts, 3)
    run_again()
    result.refresh()

    assert result.status is JobStatus.FAILED
    assert [error.exception_class for error in result.errors] == [ValueError] * 3
    history = list(Attempt.objects.values_list("number", "worker_id", "started_at", "ended_at"))
    assert [row[0] for row in history] == [1, 2, 3]
    assert all(row[1] and row[2] <= row[3] for row in history)


def test_without_max_attempts_an_error_is_final() -> None:
    result = tasks.fails.enqueue()
    run_jobs()
    result.refresh()
    assert result.status is JobStatus.FAILED


def test_an_operators_retry_counts_anew_and_keeps_the_history(caplog: pytest.LogCaptureFixture) -> None:
    result = tasks.fails.using(max_attempts=2).enqueue()
    run_again()
    run_again()
    assert "attempt=1 failed, 1 of 2 attempts, tried again" in caplog.text
    store_for("default").retry([int(result.id)])

    run_again()
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.SCHEDULED, 3)
    assert "attempt=3 failed, 1 of 2 attempts since an operator's retry, tried again" in caplog.text
    run_again()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (JobStatus.FAILED, 4, 4)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"retry_on": LookupError}, JobStatus.SCHEDULED),  # KeyError is one
        ({"retry_on": (TypeError, KeyError)}, JobStatus.SCHEDULED),
        ({"retry_on": ValueError}, JobStatus.FAILED),
        ({"give_up_on": KeyError}, JobStatus.FAILED),
        ({"retry_on": LookupError, "give_up_on": KeyError}, JobStatus.FAILED),
        ({"give_up_on": ValueError}, JobStatus.SCHEDULED),
    ],
)
def test_which_errors_are_tried_again(options: dict[str, Any], status: JobStatus) -> None:
    result = tasks.raises_key_error.using(max_attempts=2, **options).enqueue()
    run_jobs()
    result.refresh()
    assert result.status is status


def test_what_is_no_exception_is_not_tried_again_unless_asked() -> None:
    final, again = (tasks.exits.using(max_attempts=2, retry_on=on).enqueue() for on in ((), SystemExit))
    run_jobs()
    final.refresh()
    again.refresh()
    assert (final.status, again.status) == (JobStatus.FAILED, JobStatus.SCHEDULED)


def test_a_fixed_backoff_and_one_from_a_function() -> None:
    fixed = tasks.fails.using(max_attempts=2, backoff=datetime.timedelta(minutes=2)).enqueue()
    computed = tasks.fails_with_backoff.enqueue()
    run_jobs()
    assert 120 <= wait_of(fixed.id) < 130
    assert 77 <= wait_of(computed.id) < 87


def test_a_backoff_that_fails_makes_the_error_final() -> None:
    result = tasks.fails_with_broken_backoff.enqueue()
    run_jobs()
    result.refresh()
    assert result.status is JobStatus.FAILED
    assert result.errors[0].exception_class is ValueError


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1), factor=st.floats(1, 100))
def test_the_delays_of_an_exponential_backoff(failures: int, jitter: float, factor: float) -> None:
    backoff = Exponential(first=2, factor=factor, max=500, jitter=jitter)
    whole = min(500, 2 * factor ** min(failures - 1, 100))
    assert (1 - jitter) * whole * 0.999 <= delay_after(backoff, failures, ValueError()) <= whole * 1.001


def test_the_default_backoff_grows_from_ten_seconds_to_an_hour() -> None:
    steady = Exponential(jitter=0)
    assert [steady(failures) for failures in (1, 2, 3, 10)] == [10, 20, 40, 3600]


def test_retry_says_when_and_uses_an_attempt() -> None:
    result = tasks.asks_for_retry.using(max_attempts=2).enqueue(33)
    run_again()
    result.refresh()
    assert result.status is JobStatus.SCHEDULED
    run_again()
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.FAILED, 2)
    assert "not ready yet" in result.errors[0].traceback


def test_retry_without_a_delay_takes_the_backoff() -> None:
    result = tasks.asks_for_retry.using(max_attempts=2, backoff=44, give_up_on=Exception).enqueue(None)
    run_jobs()
    assert 44 <= wait_of(result.id) < 54


def test_snooze_uses_no_attempt() -> None:
    result = tasks.snoozes.enqueue(5)
    for _ in range(3):
        run_again()
    result.refresh()
    assert (result.status, result.attempts, result.errors) == (JobStatus.SCHEDULED, 0, [])


def test_discard_ends_it_with_a_reason() -> None:
    result = tasks.discards.using(max_attempts=5).enqueue("the order is gone")
    run_jobs()
    result.refresh()
    assert (result.status, result.reason, result.attempts) == (JobStatus.CANCELLED, "the order is gone", 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; it must be a whole number from 1 to 1000"),
        ({"max_attempts": True}, "max_attempts is True"),
        ({"backoff": -1}, "backoff is -1; it must be seconds or a timedelta"),
        ({"backoff": float("nan")}, "backoff is nan"),
        ({"backoff": lambda n, error: 1}, "a row can't hold a function"),
        ({"retry_on": ["ValueError"]}, "retry_on holds 'ValueError'; it must hold classes"),
        ({"give_up_on": 5}, "give_up_on|not iterable"),
        ({"expires": "tomorrow"}, "expires is 'tomorrow'"),
        ({"timeout": 0}, "timeout is 0; it must be seconds or a timedelta, longer than 0 and at most a hundred years."),
        (
            {"timeout": -1},
            "timeout is -1; it must be seconds or a timedelta, longer than 0 and at most a hundred years",
        ),
        ({"hard_timeout": 0}, "hard_timeout is 0; it must be seconds or a timedelta, longer than 0"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"timeout": 10, "hard_timeout": 5}, "hard_timeout is 5 s; it must not be shorter"),
        ({"colour": "red"}, "There is no option 'colour'"),
    ],
)
def test_options_that_are_not_allowed_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTask, match=said):
        tasks.fails.using(**options)
    assert not Job.objects.exists()


@pytest.mark.parametrize("value", [-1, float("inf"), "5", None, True, datetime.timedelta(days=-1)])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="delay is"):
        seconds(value, "delay")


@pytest.mark.django_db(transaction=True)
def test_a_worker_tries_again_until_it_succeeds() -> None:
    with worker("--threads", "2"):
        result = tasks.succeeds_at.using(max_attempts=5, backoff=0.05).enqueue(3)
        assert result.get(timeout=30) == 3
    assert [row.number for row in Attempt.objects.all()] == [1, 2]
