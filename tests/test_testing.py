"""Jobs run inside a test: on its connection, in its transaction, and neither is harmed."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from dbqueue.models import Attempt, JobStatus, Worker
from dbqueue.testing import run_jobs

from .shop.django_tasks import break_a_constraint, write_and_leak
from .shop.models import Mark
from .shop.tasks import add, add_later, enqueue_another, fail, hostile, leak, mark, tell_context


def labels() -> set[str]:
    return set(Mark.objects.values_list("label", flat=True))


@pytest.mark.django_db
def test_jobs_run_in_the_order_of_a_worker_and_see_the_callers_rows() -> None:
    low, high = add.enqueue(1, 2), add.using(priority=5).enqueue(3, 4)

    ran = run_jobs()

    assert [result.id for result in ran] == [high.id, low.id]
    assert [result.return_value for result in ran] == [7, 3]
    assert [(result.status, result.attempts) for result in ran] == [(JobStatus.SUCCESSFUL, 1)] * 2
    assert run_jobs() == []
    assert not Worker.objects.alive().exists()


@pytest.mark.django_db
def test_what_jobs_enqueue_runs_too_and_a_limit_ends_it() -> None:
    enqueue_another.enqueue("child")
    assert len(run_jobs(limit=1)) == 1
    assert labels() == set()
    assert len(run_jobs()) == 1
    assert labels() == {"child"}


@pytest.mark.django_db
def test_what_is_due_is_promoted_and_the_future_is_left_alone() -> None:
    due = add.using(run_after=timedelta(seconds=-1)).enqueue(1, 2)
    future = add.using(run_after=timedelta(hours=1)).enqueue(1, 2)
    assert [result.id for result in run_jobs()] == [due.id]
    future.refresh()
    assert future.status == JobStatus.SCHEDULED


@pytest.mark.django_db
def test_a_job_that_raises_has_failed_and_the_caller_goes_on() -> None:
    fail.enqueue("bang")
    (result,) = run_jobs()
    assert result.status == JobStatus.FAILED
    assert result.errors[0].traceback.endswith("ValueError: bang\n")
    assert Attempt.objects.count() == 1


@pytest.mark.django_db
def test_async_tasks_and_contexts() -> None:
    add_later.enqueue(1, 2)
    tell_context.enqueue()
    total, context = run_jobs()
    assert total.return_value == 3
    assert context.return_value == [1, context.id, "RUNNING"]


@pytest.mark.django_db
def test_a_keyboard_interrupt_is_written_and_then_reaches_the_caller() -> None:
    result = hostile.enqueue("KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        run_jobs()
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert not Worker.objects.alive().exists()


LEAKS = ["open", "nested", "broken", "closed inside", "autocommit", "closed", "aborted"]


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.django_db
def test_a_leaking_job_leaves_the_callers_transaction_as_it_was(kind: str) -> None:
    connection.ensure_connection()
    session = connection.connection
    with transaction.atomic():
        Mark.objects.create(label="the caller's")
        leaking, after = leak.enqueue(kind), mark.enqueue("after")

        run_jobs()

        Mark.objects.create(label="the caller goes on")
    assert connection.connection is session
    assert connection.savepoint_ids == [] and len(connection.atomic_blocks) == 1
    leaking.refresh()
    after.refresh()
    # Inside a transaction Django refuses to switch autocommit.
    assert leaking.status == (JobStatus.FAILED if kind in ("aborted", "autocommit") else JobStatus.SUCCESSFUL)
    assert after.status == JobStatus.SUCCESSFUL
    assert labels() == {"the caller's", "after", "the caller goes on"}


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.django_db(transaction=True)
def test_a_leaking_job_leaves_a_connection_without_a_transaction(kind: str) -> None:
    leaking, after = leak.enqueue(kind), mark.enqueue("after")

    run_jobs()

    assert not connection.in_atomic_block and connection.get_autocommit()
    leaking.refresh()
    after.refresh()
    assert leaking.status == (JobStatus.FAILED if kind == "aborted" else JobStatus.SUCCESSFUL)
    assert after.status == JobStatus.SUCCESSFUL
    assert labels() == {"after"}


@pytest.mark.django_db
def test_what_a_job_wrote_before_it_left_a_transaction_open_stays() -> None:
    write_and_leak.enqueue()
    run_jobs()
    assert labels() == {"before"}


@pytest.mark.django_db
def test_a_job_that_breaks_the_transaction_outside_an_atomic_loses_only_its_own_writes() -> None:
    Mark.objects.create(label="the caller's")
    break_a_constraint.enqueue()
    (result,) = run_jobs()
    assert result.errors[0].exception_class is IntegrityError
    assert labels() == {"the caller's"}
