"""Faults of the database, made to a private server on which real workers run."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
import pytest
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, InternalError, connection, connections

from dbqueue import JobResult
from dbqueue.models import Job, JobStatus, Worker
from tests.settings import env

from .chaos.stage import SETTINGS
from .servers import Mode, PgBouncer, PostgresServer
from .shop.tasks import add, nap
from .workers import ROOT, WorkerProcess, eventually, worker

pytestmark = [
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="the faults made here are a server's"),
    pytest.mark.long,
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(max_connections=30) as server:
        yield server


@pytest.fixture
def database(server: PostgresServer, django_db_blocker: Any) -> Iterator[PostgresServer]:
    """This thread's default database is a private server then."""
    theirs = connections[DEFAULT_DB_ALIAS]
    settings = {**theirs.settings_dict, **env.db_url_config(server.url), "TEST": theirs.settings_dict["TEST"]}
    with django_db_blocker.unblock():
        connections[DEFAULT_DB_ALIAS] = ours = type(theirs)(settings, DEFAULT_DB_ALIAS)
        try:
            call_command("migrate", verbosity=0)
            call_command("flush", verbosity=0, interactive=False)
            yield server
        finally:
            ours.close()
            connections[DEFAULT_DB_ALIAS] = theirs


def settings(url: str) -> dict[str, str]:
    """A worker's environment."""
    return {**SETTINGS, "DATABASE_URL": url}


def sessions() -> list[int]:
    """The process ids of all sessions but this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in cursor]


def terminate(pids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])


def await_worker() -> None:
    eventually(lambda: Worker.objects.alive().exists())


def assert_unharmed(results: Sequence[JobResult[Any]], process: WorkerProcess) -> None:
    """Every job ended well, in one attempt, and so does the worker."""
    for result in results:
        result.wait(timeout=30)
        assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1), result.errors
    assert process.poll() is None, process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_the_server_harms_no_job(database: PostgresServer, mode: Mode) -> None:
    results = [nap.enqueue(0.3) for _ in range(40)]
    with worker("--threads", "4", **settings(database.url)) as process:
        eventually(lambda: Job.objects.filter(status=JobStatus.SUCCESSFUL).exists())
        for _ in range(2):
            database.restart(mode)
            connection.close()
            eventually(lambda: Job.objects.filter(status=JobStatus.RUNNING).exists())
        assert_unharmed(results, process)


def test_each_session_of_a_worker_may_be_terminated(database: PostgresServer) -> None:
    with worker("--threads", "4", **settings(database.url)) as process:
        await_worker()
        results: list[JobResult[Any]] = [nap.enqueue(0.2) for _ in range(60)]
        for pid in sessions():
            terminate([pid])
            results.append(add.enqueue(1, 2))
            results[-1].wait(timeout=30)
        for _ in range(5):
            terminate(sessions())
            time.sleep(0.1)
        assert_unharmed(results, process)


def test_a_worker_goes_on_after_the_server_was_full(database: PostgresServer) -> None:
    hogs: list[Any] = []
    with worker(**settings(database.url)) as process, closing_all(hogs):
        await_worker()
        running = nap.enqueue(1)
        eventually(lambda: Job.objects.filter(status=JobStatus.RUNNING).exists())
        # The worker may be faster in getting a new session than the others are, but not for ever. One that is just
        # being opened is not listed yet.
        looks_without = 0
        while looks_without < 5:
            workers = set(sessions()) - {hog.info.backend_pid for hog in hogs}
            looks_without = 0 if workers else looks_without + 1
            terminate(list(workers))
            with suppress(psycopg2.OperationalError):
                while True:
                    hogs.append(psycopg2.connect(host=str(database.folder), user="postgres", dbname="postgres"))
            time.sleep(0.1)
        waiting = add.enqueue(1, 2)
        time.sleep(2)
        waiting.refresh()
        assert waiting.status == JobStatus.READY
        for hog in hogs:
            hog.close()
        assert_unharmed([running, waiting], process)


@contextmanager
def closing_all(hogs: list[Any]) -> Iterator[None]:
    """Also where a test fails: the next one needs the server."""
    try:
        yield
    finally:
        for hog in hogs:
            hog.close()


def test_a_worker_goes_on_after_the_server_was_read_only(database: PostgresServer) -> None:
    results = [nap.enqueue(0.3) for _ in range(30)]
    with worker("--threads", "4", **settings(database.url)) as process:
        eventually(lambda: Job.objects.filter(status=JobStatus.SUCCESSFUL).exists())
        database.configure(default_transaction_read_only="on")
        eventually(refuses_to_enqueue)
        time.sleep(3)  # longer than HEARTBEAT_TIMEOUT: nobody can beat, and nobody must be judged for it
        database.configure(default_transaction_read_only=None)
        eventually(lambda: not refuses_to_enqueue())
        assert_unharmed(results, process)
    assert not Worker.objects.filter(lost=True).exists()


def refuses_to_enqueue() -> bool:
    try:
        add.enqueue(1, 2)
    except InternalError as exc:
        return "read-only" in str(exc)
    return False


@pytest.mark.skipif(not (shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")), reason="needs pgbouncer")
def test_a_worker_runs_jobs_behind_a_pgbouncer_that_restarts(database: PostgresServer) -> None:
    with PgBouncer(database) as bouncer, worker(**settings(bouncer.url)) as process:
        await_worker()
        results = [nap.enqueue(0.3) for _ in range(30)]
        eventually(lambda: Job.objects.filter(status=JobStatus.SUCCESSFUL).exists())
        bouncer.kill()
        bouncer.start()
        assert_unharmed(results, process)


@pytest.mark.parametrize(
    "figure",
    [
        ("rolling", "--times", "2", "--jobs", "300"),
        ("failover", "--jobs", "300"),
        ("tree-kills", "--times", "2", "--jobs", "300"),
        ("leaks", "--times", "20", "--jobs", "100"),
    ],
    ids=lambda figure: figure[0],
)
def test_a_small_version_of_a_figure(figure: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.figures", *figure],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
