"""Jobs that do what no job should, in a worker with one thread: it goes on, and the other jobs feel nothing."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection

from dbqueue import JobResult
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.outcome import TRACEBACK_LENGTH

from .shop.hostile_tasks import (
    end_the_process,
    fork,
    give_megabytes,
    raise_it,
    raise_later,
    speak,
    spoil,
)
from .shop.tasks import add, give_back
from .workers import burst, eventually, spawn, worker

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = {"DBQUEUE_TASK_MODULES": "tasks,hostile_tasks"}


def bystanders() -> list[JobResult[str]]:
    return [speak.enqueue(f"bystander {number}") for number in range(10)]


def assert_unharmed(results: Sequence[JobResult[Any]]) -> None:
    for result in results:
        result.refresh()
        assert (result.status, result.attempts, result.errors) == (JobStatus.SUCCESSFUL, 1, [])


@pytest.mark.parametrize(
    ("kind", "path", "reason"),
    [
        ("class without a name", "an exception whose class has no name", "its traceback could not be printed"),
        ("module that is no text", "5.Odd", "Odd: odd"),
        ("name that no column holds", "tests.shop.hostile_tasks.Odd\\x00\\ud800Odd", "odd"),
        ("group", "builtins.BaseExceptionGroup", "| ValueError: one of them"),
        ("chain", "builtins.ValueError", "ValueError: another\n"),
        ("no words", "tests.shop.hostile_tasks.Interrupting", "Interrupting"),
        ("memory", "builtins.MemoryError", "MemoryError"),
        ("signal handler", "builtins.ValueError", "signal only works in main thread"),
    ],
)
def test_whatever_a_job_raises_fails_it_alone(kind: str, path: str, reason: str) -> None:
    result = raise_it.enqueue(kind)
    others = bystanders()

    output = burst("--threads", "1", **TASKS)

    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.FAILED, 1)
    assert result.errors[0].exception_class_path.startswith(path)
    assert reason in result.errors[0].traceback
    assert "A thread of the pool died" not in output
    assert_unharmed(others)


@pytest.mark.parametrize(("kind", "end"), [("huge message", "x and ends here\n"), ("many lines", "line 99999\n")])
def test_of_a_huge_message_the_place_and_both_ends_are_kept(kind: str, end: str) -> None:
    result = raise_it.enqueue(kind)
    others = bystanders()

    output = burst("--threads", "1", **TASKS)

    result.refresh()
    traceback = result.errors[0].traceback
    assert len(traceback) <= TRACEBACK_LENGTH
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert "hostile_tasks.py" in traceback
    assert "ValueError: it begins here xxx" in traceback or "ValueError: line 0\nline 1\n" in traceback
    assert "characters left out" in traceback
    assert traceback.endswith(end)
    [line] = [line for line in output.splitlines() if f"Job id={result.id} " in line]
    assert "failed: ValueError: " in line
    assert len(line) < 1000
    assert_unharmed(others)


@pytest.mark.parametrize(
    ("kind", "name"), [("interrupt", "KeyboardInterrupt"), ("exit", "SystemExit"), ("cancelled", "CancelledError")]
)
def test_what_ends_an_event_loop_ends_the_job_only(kind: str, name: str) -> None:
    result = raise_later.enqueue(kind)
    others = bystanders()
    burst("--threads", "1", **TASKS)
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert result.errors[0].exception_class_path.endswith(name)
    assert_unharmed(others)


@pytest.mark.parametrize("kind", ["closes stdout", "closes stderr", "loses both", "folder", "thread"])
def test_what_a_job_does_to_the_process_neither_fails_others_nor_keeps_it_from_ending(kind: str) -> None:
    result = spoil.enqueue(kind)
    others = bystanders()

    with worker("--threads", "1", **TASKS) as process:
        eventually(lambda: not Job.objects.filter(status__in=[JobStatus.READY, JobStatus.RUNNING]).exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, process.output

    assert_unharmed([result, *others])
    assert not Worker.objects.alive().exists()
    assert "Logging error" not in process.output
    if kind != "loses both":
        assert "\nbystander 9\n" in process.output
    assert process.output.rstrip().endswith("stopped")


@pytest.mark.parametrize(("end", "code"), [("returns", 0), ("raises", 1), ("exits", 5)])
def test_a_child_that_a_job_forked_does_not_become_a_second_worker(end: str, code: int, tmp_path: Path) -> None:
    result = fork.enqueue(end, str(tmp_path))
    others = bystanders()

    output = burst("--threads", "1", **TASKS)

    result.refresh()
    assert result.errors == []
    assert result.return_value == [code]
    assert (tmp_path / "child").exists()
    assert output.count(f"Job id={result.id} ") == 1
    assert_unharmed(others)


# What it returns, and what stands in its row


def test_a_result_of_fifty_megabytes_is_refused_with_what_is_allowed() -> None:
    result = give_megabytes.enqueue(50)
    others = bystanders()
    burst("--threads", "1", **TASKS)
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert result.errors[0].traceback.endswith(
        "NotStorable: The return value has 50000002 bytes as JSON; DBQUEUE['MAX_RESULT_BYTES'] allows 1048576. "
        "Store it elsewhere and return where it is.\n"
    )
    assert_unharmed(others)


def test_a_result_of_fifty_megabytes_is_stored_where_it_is_allowed() -> None:
    result = give_megabytes.enqueue(50)
    others = bystanders()
    burst("--threads", "1", DBQUEUE_MAX_RESULT_BYTES=str(64 * 2**20), **TASKS)
    result.refresh()
    assert result.status == JobStatus.SUCCESSFUL
    assert result.return_value == "x" * 50_000_000
    assert_unharmed(others)


def test_a_number_in_a_row_that_json_does_not_know_fails_its_job_alone() -> None:
    result = give_back.enqueue(0)
    others = bystanders()
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA ignore_check_constraints = ON")
            cursor.execute("UPDATE dbqueue_job SET args = '[NaN]' WHERE id = %s", [result.id])
            cursor.execute("PRAGMA ignore_check_constraints = OFF")
        else:
            with pytest.raises(DatabaseError):
                cursor.execute("UPDATE dbqueue_job SET args = '[NaN]' WHERE id = %s", [result.id])
            # jsonb holds numbers that Python does not read.
            cursor.execute("UPDATE dbqueue_job SET args = '[1e5000]' WHERE id = %s", [result.id])
    burst("--threads", "1", **TASKS)
    assert Job.objects.values_list("status", flat=True).get(pk=result.id) == JobStatus.FAILED
    reason = "The return value is nan" if connection.vendor == "sqlite" else "Exceeds the limit (4300 digits)"
    assert reason in Attempt.objects.get().traceback
    assert_unharmed(others)


# What ends the process


def test_a_job_that_ends_its_process_again_and_again_is_put_aside() -> None:
    before, poison, after = bystanders(), end_the_process.enqueue(), bystanders()
    with worker("--processes", "2", "--threads", "2", DBQUEUE_HEARTBEAT_TIMEOUT="2", **TASKS) as supervisor:
        poison.wait(timeout=90)
        eventually(lambda: not Job.objects.filter(status__in=[JobStatus.READY, JobStatus.RUNNING]).exists(), 60)
        assert supervisor.poll() is None
        assert add.enqueue(1, 2).get(timeout=30) == 3
    assert poison.status == JobStatus.FAILED
    # A crash that struck while the job was only taken ahead, and had not been told to have begun, is no attempt.
    assert poison.attempts in (2, 3)
    assert "worker lost" in poison.errors[-1].traceback
    for result in (*before, *after):
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL


def test_a_worker_without_a_supervisor_that_a_job_ended_says_so_by_its_exit_code() -> None:
    end_the_process.enqueue()
    process = spawn("--threads", "1", **TASKS)
    assert process.wait(30) == 7
