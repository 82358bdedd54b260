"""Behind a real PgBouncer in transaction mode: everything works but LISTEN, and that is found out and said."""

import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import environ
import pytest
from django.db import connection, connections

from dbqueue import enqueue_many
from dbqueue.models import Job, JobStatus, Worker
from dbqueue.services.notifier import NOTHING_TO_HEAR, Notifier
from dbqueue.store import postgresql, store_for

from .servers import PgBouncer, PostgresServer
from .shop.models import Mark
from .shop.tasks import add, leak, mark
from .workers import ROOT, eventually, worker

HAS_PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") is not None

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PgBouncer stands in front of PostgreSQL only"),
    pytest.mark.skipif(not HAS_PGBOUNCER, reason="there is no pgbouncer here (on Debian: the package pgbouncer)"),
]

SENTENCE = "LISTEN has no effect here"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        environment = {**os.environ, "DATABASE_URL": server.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        subprocess.run(
            [sys.executable, "-m", "tests", "migrate", "--verbosity=0"], cwd=ROOT, env=environment, check=True
        )
        yield server


@pytest.fixture
def bouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    server.execute("TRUNCATE dbqueue_job, dbqueue_attempt, dbqueue_logline, dbqueue_worker, shop_mark CASCADE")
    with PgBouncer(server) as bouncer:
        yield bouncer


@contextmanager
def connected_to(url: str) -> Iterator[None]:
    """Give this thread a connection to another server, under the alias "default"."""
    theirs = connections["default"]
    settings = {**copy.deepcopy(theirs.settings_dict), **environ.Env.db_url_config(url)}
    connections["default"] = type(theirs)(settings, "default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"] = theirs


def test_the_main_job_works(bouncer: PgBouncer) -> None:
    with connected_to(bouncer.url), worker(DATABASE_URL=bouncer.url, DBQUEUE_POLL_INTERVAL="0.1"):
        one = add.enqueue(1, 2)
        many = enqueue_many([add.s(number, 1) for number in range(200)])
        later = add.using(run_after=timedelta(seconds=1)).enqueue(3, 4)
        leak.enqueue("open")
        mark.enqueue("through the ORM")

        assert one.get(timeout=30) == 3
        assert [result.get(timeout=30) for result in many] == list(range(1, 201))
        assert later.get(timeout=30) == 7
        assert later.started_at is not None and later.run_after is not None and later.started_at >= later.run_after
        eventually(lambda: list(Mark.objects.values_list("label", flat=True)) == ["through the ORM"])


def test_a_worker_that_is_not_called_says_so_once_and_polls(bouncer: PgBouncer) -> None:
    with connected_to(bouncer.url), worker(DATABASE_URL=bouncer.url, DBQUEUE_POLL_INTERVAL="0.1") as process:
        eventually(lambda: SENTENCE in process.output)
        assert add.enqueue(1, 2).get(timeout=15) == 3
    assert process.output.count(SENTENCE) == 1
    assert 'DBQUEUE["LISTEN"] = False' in process.output


def test_it_is_said_once_however_often_it_is_tried(bouncer: PgBouncer, caplog: pytest.LogCaptureFixture) -> None:
    with connected_to(bouncer.url):
        notifier = Notifier(store_for("default"), lambda queues: None, lambda: None)
        for _ in range(2):
            while notifier.run_once() < NOTHING_TO_HEAR:
                pass
            assert connection.connection is None  # nobody needs it
    assert [record.levelname for record in caplog.records if SENTENCE in record.getMessage()] == ["WARNING"]


def test_no_session_of_the_pool_is_left_listening(server: PostgresServer, bouncer: PgBouncer) -> None:
    with connected_to(bouncer.url):
        notifier = Notifier(store_for("default"), lambda queues: None, lambda: None)
        while notifier.run_once() < NOTHING_TO_HEAR:
            pass
    told = bouncer.log.count("when not linked")  # what PgBouncer says of a notification that nobody asked for
    server.execute("NOTIFY dbqueue, 'mail'")
    time.sleep(0.5)
    assert bouncer.log.count("when not linked") == told


def test_a_worker_with_listen_off_says_nothing(bouncer: PgBouncer) -> None:
    silent = {"DATABASE_URL": bouncer.url, "DBQUEUE_POLL_INTERVAL": "0.1", "DBQUEUE_LISTEN": "False"}
    with connected_to(bouncer.url), worker(**silent) as process:
        assert add.enqueue(1, 2).get(timeout=15) == 3
        time.sleep(postgresql.ANSWER_WITHIN + 1)
    assert SENTENCE not in process.output


def test_a_worker_with_a_direct_connection_says_nothing_and_is_woken(
    server: PostgresServer, bouncer: PgBouncer
) -> None:
    with connected_to(bouncer.url), worker(DATABASE_URL=server.url, DBQUEUE_POLL_INTERVAL="3600") as process:
        eventually(lambda: Worker.objects.alive().exists())
        time.sleep(postgresql.ANSWER_WITHIN + 1)
        # Enqueued through the pooler: a NOTIFY passes it.
        assert add.enqueue(1, 2).get(timeout=15) == 3
    assert SENTENCE not in process.output


def test_restarts_of_the_pooler_and_ended_sessions_lose_nothing(server: PostgresServer, bouncer: PgBouncer) -> None:
    results, ended = [], 0
    with (
        connected_to(server.url),
        worker(DATABASE_URL=bouncer.url, DBQUEUE_POLL_INTERVAL="0.05"),
        worker(DATABASE_URL=bouncer.url, DBQUEUE_POLL_INTERVAL="0.05"),
    ):
        eventually(lambda: Worker.objects.alive().count() == 2)
        for fault in ("restart", "sessions", "restart", "sessions"):
            for number in range(60):
                results.append((number, add.enqueue(number, 1)))
                time.sleep(0.005)
                if number == 30 and fault == "restart":
                    bouncer.kill()
                    bouncer.start()
                elif number % 20 == 10:
                    ended += end_the_poolers_sessions()
        for number, result in results:
            assert result.get(timeout=60) == number + 1
        assert Job.objects.filter(status=JobStatus.SUCCESSFUL).count() == len(results) == 240
    assert ended


def end_the_poolers_sessions() -> int:
    """Returns how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return len(cursor.fetchall())
