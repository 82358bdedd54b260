"""Jobs run inside a test: on its connection, in its transaction, and neither is harmed."""

import os
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.db import IntegrityError, connection, transaction

from dbqueue import get_result, pause
from dbqueue.exceptions import InvalidArguments, InvalidTask, UnknownTask
from dbqueue.executor import Executor
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.testing import assert_enqueued, assert_not_enqueued, enqueued, run_jobs

from .shop.django_tasks import break_a_constraint, write_and_leak
from .shop.django_tasks import tell_context as tell_context_of_django
from .shop.models import Mark
from .shop.retry_tasks import snoozes
from .shop.tasks import (
    add,
    add_later,
    enqueue_another,
    fail,
    give_back,
    hostile,
    leak,
    mark,
    tell_context,
    tell_rest,
)
from .workers import ROOT


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


@pytest.mark.django_db
def test_what_waits_for_a_later_time_runs_on_demand_the_earliest_first() -> None:
    later, sooner = (add.using(run_after=timedelta(hours=hours)).enqueue(hours, 0) for hours in (2, 1))
    failing = fail.using(max_attempts=3, backoff=86_400).enqueue("bang")
    now = mark.enqueue("now")
    ran = run_jobs(scheduled=True)
    # What is due runs in its order; then what the first failure left for tomorrow is the last of all.
    ids = [failing.id, now.id, sooner.id, later.id, failing.id, failing.id]
    assert [result.id for result in ran] == ids
    assert (ran[-1].status, ran[-1].attempts) == (JobStatus.FAILED, 3)


@pytest.mark.django_db
def test_a_job_that_never_ends_runs_up_to_the_limit() -> None:
    snoozes.enqueue(60)
    assert len(run_jobs(scheduled=True, limit=3)) == 3


@pytest.mark.django_db
def test_a_value_that_the_database_refuses_fails_its_job_alone() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite takes what JSON can say")
    Mark.objects.create(label="the caller's")
    huge, after = give_back.enqueue("number"), add.enqueue(1, 2)
    with mock.patch.object(Executor, "_encoded", lambda self, value: "1e999999" if value == "number" else "3"):
        run_jobs()
    huge.refresh()
    after.refresh()
    assert (huge.status, after.status) == (JobStatus.FAILED, JobStatus.SUCCESSFUL)
    assert labels() == {"the caller's"}


# Asserting


@pytest.mark.django_db
def test_what_was_enqueued() -> None:
    first, other = add.enqueue(1, 2), fail.enqueue("bang")
    second = add.enqueue(x=3, y=4)
    run_jobs()
    assert enqueued() == [get_result(result.id) for result in (first, other, second)]
    assert [result.id for result in enqueued(add)] == [result.id for result in enqueued(add.name)]
    assert assert_enqueued(add, 1, 2).id == assert_enqueued(add, y=2, x=1, _count=1).id == first.id
    assert assert_enqueued(add, 3, y=4).return_value == 7
    assert assert_enqueued(add).id == second.id
    assert_not_enqueued(add, 1, 3)
    assert_not_enqueued(mark)
    add.enqueue(1, 2)
    assert_enqueued(add, 1, 2, _count=2)


@pytest.mark.django_db
def test_arguments_are_compared_as_the_function_gets_them_and_as_json_keeps_them() -> None:
    tell_rest.enqueue(task=(1, 2), count=1)
    assert_enqueued(tell_rest, task=[1, 2], count=1)
    assert_enqueued(tell_rest, task=(1, 2), count=1)
    assert_not_enqueued(tell_rest, task=[1, 2])
    tell_context_of_django.enqueue()
    assert_enqueued(tell_context_of_django, fail_first=False)
    assert_not_enqueued(tell_context_of_django, fail_first=True)


@pytest.mark.django_db
def test_failures_tell_what_was_enqueued_of_that_task() -> None:
    with pytest.raises(AssertionError, match=r"^tests\.shop\.tasks\.add\(1, y=2\) was to be enqueued\. .*\n  nothing$"):
        assert_enqueued(add, 1, y=2)
    add.enqueue(3, 4)
    with pytest.raises(AssertionError, match=r"\n  tests\.shop\.tasks\.add\(3, 4\) is READY$"):
        assert_enqueued(add, 1, y=2)
    with pytest.raises(AssertionError, match=r"add\(3, 4\) was to be enqueued, 2 times\."):
        assert_enqueued(add, 3, 4, _count=2)
    with pytest.raises(AssertionError, match=r"add was to not be enqueued\. .*\n  tests\.shop\.tasks\.add\(3, 4\) is"):
        assert_not_enqueued(add)


@pytest.mark.django_db
def test_a_question_that_makes_no_sense_is_refused() -> None:
    wrong: Any = assert_enqueued
    with pytest.raises(InvalidArguments, match="can't be called with"):
        wrong(add, 1, 2, 3)
    with pytest.raises(InvalidArguments, match="can't be called with"):
        wrong(add, 1, 2, count=1)
    with pytest.raises(ValueError, match="_count is 0; it must be a whole number from 1 on"):
        wrong(add, 1, 2, _count=0)
    with pytest.raises(UnknownTask):
        wrong("no.such.task")
    with pytest.raises(InvalidTask, match="is not a task"):
        wrong(len)
    add.enqueue(1, 2)
    Job.objects.update(args=[1])  # as of another version of the function
    assert_not_enqueued(add, 1, 2)


FIXTURE_TEST = """
import pytest

from tests.shop.tasks import add


def test_it(dbqueue_jobs):
    result = add.enqueue(1, 2)
    dbqueue_jobs.assert_enqueued(add, 1, 2)
    dbqueue_jobs.assert_not_enqueued(add, 3, 4)
    assert [ran.return_value for ran in dbqueue_jobs.run()] == [3]
    assert len(dbqueue_jobs.enqueued()) == 1


@pytest.mark.django_db(transaction=True)
def test_in_no_transaction(dbqueue_jobs):
    from django.db import connection

    assert dbqueue_jobs.enqueued() == []  # the other test left nothing
    assert not connection.in_atomic_block
"""


def test_the_fixture_for_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FIXTURE_TEST)
    found = [point.value for point in entry_points(group="pytest11", name="dbqueue")]
    assert found in ([], ["dbqueue.pytest_plugin"])
    plugin = [] if found else ["-p", "dbqueue.pytest_plugin"]  # the package may be run without being installed
    # On SQLite: on this server its database would have this test's name.
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    command = [sys.executable, "-m", "pytest", *plugin, "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={
            **environment,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout


def test_the_plugin_needs_no_django() -> None:
    code = "import sys, dbqueue.pytest_plugin; assert 'django' not in sys.modules and 'environ' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.django_db
def test_scheduled_jobs_run_past_what_is_closed_or_limited() -> None:
    pause("closed")
    hour = timedelta(hours=1)
    waits = add.using(queue_name="closed", run_after=hour).enqueue(1, 2)
    for _ in range(3):
        add.using(rate="1/h", run_after=2 * hour).enqueue(3, 4)
    add.using(run_after=3 * hour).enqueue(5, 6)

    assert len(run_jobs(scheduled=True)) == 4
    waits.refresh()
    assert waits.status == "SCHEDULED"
