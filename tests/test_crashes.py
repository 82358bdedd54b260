"""What a dead process, or a dead wire, leaves behind."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from dbqueue import JobResult
from dbqueue.models import Attempt, Job, JobStatus, Worker

from .proxy import proxy
from .servers import PostgresServer
from .shop.models import Mark
from .shop.tasks import add, die, fail, mark, mark_slowly
from .workers import eventually, spawn, worker

pytestmark = pytest.mark.django_db(transaction=True)

postgresql_only = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="what is made here exists on PostgreSQL only"
)


def ended() -> int:
    return Job.objects.filter(status__in=[status for status in JobStatus if status.is_final]).count()


def all_ended() -> bool:
    return ended() == Job.objects.count()


def started(label: str) -> int:
    return Mark.objects.filter(label=f"{label} started").count()


def test_a_child_that_its_supervisor_saw_die_is_rescued_at_once() -> None:
    # Nobody would miss it for an hour.
    with worker("--processes", "2", "--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="3600"):
        eventually(lambda: Worker.objects.alive().count() == 2)
        result = mark_slowly.enqueue("x", 2)
        eventually(lambda: started("x") == 1)
        job = Job.objects.get(pk=result.id)
        assert job.worker is not None
        os.kill(job.worker.pid, signal.SIGKILL)
        result.wait(timeout=30)
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 2)
    assert [error.exception_class_path for error in result.errors] == ["dbqueue.exceptions.WorkerLost"]
    assert Worker.objects.filter(lost=True).count() == 1


def test_a_job_that_kills_its_workers_is_put_aside_and_hurts_nobody() -> None:
    short = [add.enqueue(number, 0) for number in range(300)]
    poison = die.enqueue(0.3)
    short += [add.enqueue(number, 0) for number in range(300)]
    with worker("--processes", "2", "--threads", "2", DBQUEUE_HEARTBEAT_TIMEOUT="3600"):
        eventually(lambda: ended() == 601, timeout=60)
    poison.refresh()
    assert poison.status == JobStatus.FAILED
    assert "worker lost" in poison.errors[-1].traceback
    job = Job.objects.get(pk=poison.id)
    assert job.crashes == 3
    assert Worker.objects.filter(lost=True).count() == 3
    for result in short:
        result.refresh()
        # What a dead worker had only taken ahead was no attempt.
        assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)


@pytest.mark.long
def test_several_deadly_jobs_neither_end_the_supervisor_nor_fail_their_neighbours() -> None:
    poison, neighbours = [], []
    for number in range(40):
        if number % 8 == 0:
            poison.append(die.enqueue(0))
        neighbours.append(mark_slowly.enqueue(str(number), 0.5))
    with worker("--processes", "2", "--threads", "8", DBQUEUE_HEARTBEAT_TIMEOUT="3600") as supervisor:
        eventually(lambda: ended() == 45, timeout=120)
        assert supervisor.poll() is None
    for result in poison:
        result.refresh()
        assert result.status == JobStatus.FAILED
    for result in neighbours:
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL, result.errors[-1].traceback


def test_what_a_killed_worker_had_not_begun_was_no_attempt() -> None:
    # So many short ones that it takes some ahead, and then one that keeps its only thread.
    for number in range(400):
        add.enqueue(number, 0)
    long = mark_slowly.enqueue("x", 60)
    waiting = [mark.enqueue(str(number)) for number in range(100)]
    first = spawn("--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="2")
    eventually(lambda: started("x") == 1)
    first.kill()
    first.wait()
    assert Job.objects.filter(status=JobStatus.RUNNING).count() > 1
    Job.objects.filter(pk=long.id).update(args=["y", 0])

    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="2"):
        eventually(lambda: ended() == 501, timeout=30)

    for result in waiting:
        result.refresh()
        assert (result.status, result.attempts, result.errors) == (JobStatus.SUCCESSFUL, 1, [])
    assert not Job.objects.exclude(status=JobStatus.SUCCESSFUL).exists()
    assert started("y") == 1


def test_who_starts_a_worker_after_a_crash_is_told_what_its_jobs_wait_for() -> None:
    mark_slowly.enqueue("x", 60)
    with worker("--threads", "1", "--name", "first", DBQUEUE_HEARTBEAT_TIMEOUT="6") as first:
        eventually(lambda: started("x") == 1)
        with worker("--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="6") as second:
            time.sleep(2.5)  # it looks after 1.5 s
            assert "no sign of life" not in second.output
        first.kill()
        first.wait()
    Job.objects.update(args=["y", 0])
    with worker("--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="6") as third:
        eventually(lambda: started("y") == 1)
    [line] = [line for line in third.output.splitlines() if "no sign of life" in line]
    assert re.search(
        r"WARNING Worker first \(id \d+\) has given no sign of life for [2-5] s and holds jobs: 1; "
        r"they are taken back when it has given none for 5 s$",
        line,
    )
    assert third.output.index(line) < third.output.index("Jobs of dead workers rescued")


def test_a_job_taken_ahead_that_has_begun_is_an_attempt() -> None:
    for number in range(400):
        add.enqueue(number, 0)
    long = mark_slowly.enqueue("x", 60)
    first = spawn("--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="2")
    eventually(lambda: started("x") == 1)
    eventually(lambda: not Job.objects.get(pk=long.id).ahead)
    first.kill()
    first.wait()
    Job.objects.filter(pk=long.id).update(args=["y", 0])
    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="2"):
        long.wait(timeout=30)
    assert (long.status, long.attempts) == (JobStatus.SUCCESSFUL, 2)
    assert Attempt.objects.filter(job_id=long.id).count() == 1


# The database does not do what it should


def test_a_worker_that_can_not_work_for_too_long_ends_with_the_reason() -> None:
    process = spawn(DBQUEUE_DATABASE_GRACE="2", DBQUEUE_HEARTBEAT_TIMEOUT="3")
    eventually(lambda: Worker.objects.alive().count() == 1)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dbqueue_worker RENAME TO dbqueue_worker_away")
    try:
        assert process.wait(30) == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE dbqueue_worker_away RENAME TO dbqueue_worker")
        process.kill()
        process.wait()
    assert "no use of its database for 2 s" in process.output
    assert "dbqueue_worker" in process.output.rpartition("no use of its database")[2]
    assert "Traceback" not in process.output


def test_a_worker_with_outcomes_in_its_hands_does_not_give_up() -> None:
    result = mark_slowly.enqueue("x", 1)
    with worker(DBQUEUE_DATABASE_GRACE="1", DBQUEUE_HEARTBEAT_TIMEOUT="3600") as process:
        eventually(lambda: started("x") == 1)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE dbqueue_job RENAME TO dbqueue_job_away")
        try:
            time.sleep(5)
            assert process.poll() is None
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE dbqueue_job_away RENAME TO dbqueue_job")
        result.wait(timeout=30)
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)
    assert started("x") == 1


@postgresql_only
def test_a_worker_waits_for_a_server_that_is_not_up_yet() -> None:
    with PostgresServer() as server:
        server.stop()
        process = spawn(DATABASE_URL=server.url, TEST_DATABASE_NAME="postgres")
        try:
            eventually(lambda: "The database failed, trying again" in process.output)
            assert process.poll() is None
            server.start()
            assert process.wait(30) == 1
        finally:
            process.kill()
            process.wait()
    # It got as far as to see that nobody has made its tables there.
    assert "Have you run manage.py migrate?" in process.output
    assert "Traceback" not in process.output


def _server_folder() -> Path:
    return Path(connection.settings_dict["HOST"] or connection.settings_dict["OPTIONS"]["host"])


@postgresql_only
def test_a_worker_that_can_not_listen_goes_on() -> None:
    with proxy(_server_folder()) as wire:
        wire.lose_the_reply_to(b"LISTEN dbqueue", times=1_000_000)
        url = f"postgres://postgres@/postgres?host={wire.folder}"
        with worker(DATABASE_URL=url, DBQUEUE_DATABASE_GRACE="1") as process:
            eventually(lambda: wire.cuts > 4)
            time.sleep(2)
            assert add.enqueue(1, 2).get(timeout=15) == 3
            assert process.poll() is None


@postgresql_only
@pytest.mark.parametrize(
    ("statement", "succeeds"),
    [
        pytest.param(b"COMMIT", True, id="claim"),
        pytest.param(b"AS ended (id, lease", True, id="outcome"),
        pytest.param(b"COMMIT", False, id="claim or failure"),
    ],
)
def test_a_commit_whose_reply_was_lost_neither_loses_nor_doubles(statement: bytes, succeeds: bool) -> None:
    task = mark if succeeds else fail
    with proxy(_server_folder()) as wire:
        url = f"postgres://postgres@/postgres?host={wire.folder}"
        with worker("--threads", "2", DATABASE_URL=url, DBQUEUE_HEARTBEAT_TIMEOUT="3600") as process:
            eventually(lambda: Worker.objects.alive().count() == 1)
            results: list[JobResult[None]] = []
            for number in range(8):
                wire.lose_the_reply_to(statement)
                results += [task.enqueue(f"{number} {place}") for place in range(5)]
                eventually(all_ended, timeout=30)
            assert wire.cuts > 4
            output = process.output
    for result in results:
        result.refresh()
        assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL if succeeds else JobStatus.FAILED, 1)
        assert len(result.errors) == (0 if succeeds else 1)
    assert Mark.objects.count() == (len(results) if succeeds else 0)
    assert "Lease lost" not in output
    assert not Worker.objects.exclude(leases_lost=0).exists()


def _connect_anew() -> None:
    """Also where a pool would hand out sessions from before."""
    own: Any = connection
    own.close()
    own.close_pool()


@contextmanager
def clock_of_the_server_ahead_by(interval: str) -> Iterator[None]:
    """The server tells a wrong time to all who connect from now on. Its own functions are looked for second."""
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA skewed")
        cursor.execute(
            "CREATE FUNCTION skewed.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE "
            f"AS $$ SELECT pg_catalog.statement_timestamp() + interval '{interval}' $$"
        )
        cursor.execute(f'ALTER DATABASE "{name}" SET search_path = skewed, pg_catalog, public')
    _connect_anew()
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" RESET search_path')
            cursor.execute("DROP SCHEMA skewed CASCADE")
        _connect_anew()


@postgresql_only
@pytest.mark.parametrize("interval", ["1 hour", "-1 hour"])
def test_only_the_servers_clock_counts(interval: str) -> None:
    with clock_of_the_server_ahead_by(interval):
        first = spawn("--threads", "2", DBQUEUE_HEARTBEAT_TIMEOUT="2")
        eventually(lambda: Worker.objects.alive().count() == 1)
        with worker(DBQUEUE_HEARTBEAT_TIMEOUT="2"):
            later = add.using(run_after=timedelta(seconds=2)).enqueue(1, 2)
            assert later.status == JobStatus.SCHEDULED
            long = mark_slowly.enqueue("x", 4)
            assert later.get(timeout=15) == 3
            assert later.started_at is not None and later.run_after is not None
            assert later.started_at >= later.run_after
            long.wait(timeout=15)
            assert (long.status, long.attempts) == (JobStatus.SUCCESSFUL, 1)
            assert not Worker.objects.filter(lost=True).exists()
            first.kill()
            first.wait()
            eventually(lambda: Worker.objects.filter(lost=True).count() == 1)


def terminate_all_other_sessions() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@postgresql_only
def test_what_is_interrupted_is_no_attempt_even_if_the_sessions_are_cut_meanwhile() -> None:
    result = mark_slowly.enqueue("x", 60)
    process = spawn("--grace", "2")
    eventually(lambda: started("x") == 1)
    process.send_signal(signal.SIGTERM)
    eventually(lambda: "stops: jobs still running" in process.output)
    terminate_all_other_sessions()
    assert process.wait(30) == 0
    result.refresh()
    assert (result.status, result.attempts, result.errors) == (JobStatus.READY, 0, [])
    assert Job.objects.get().crashes == 0


@postgresql_only
def test_a_call_that_comes_while_the_database_fails_is_not_slept_over() -> None:
    with worker(DBQUEUE_POLL_INTERVAL="3600", DBQUEUE_HEARTBEAT_TIMEOUT="3600") as process:
        eventually(lambda: "started" in process.output)
        assert add.enqueue(1, 1).get(timeout=20) == 2
        for number in range(5):
            terminate_all_other_sessions()
            assert add.enqueue(number, 1).get(timeout=20) == number + 1
