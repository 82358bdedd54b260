"""How PostgreSQL carries out what workers do, in tables of some size: by which index, and how much is touched."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dbqueue import enqueue_many
from dbqueue.claim import Bookmark, Claim, Selection
from dbqueue.models import JobStatus
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

from .shop.tasks import add

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="reads PostgreSQL's plans"),
]

BATCH = 50
"""Jobs of one claim here."""

MANY = 50_000
"""Rows that a statement must not walk over."""


@pytest.fixture
def store() -> Store:
    return store_for("default")


@pytest.fixture
def worker(store: Store) -> int:
    return store.register(name="w", hostname="h", pid=1, queues="", threads=1)


def insert(number: int, status: str = "READY", queue: str = "default", due_in: str = "NULL") -> None:
    """Rows that the server makes itself."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO dbqueue_job (task, args, kwargs, queue_name, priority, status, run_after, backend, enqueued_at,
                                     finished_at, lease, attempt)
            SELECT 'tests.shop.tasks.add', '[1, 2]', '{{}}', %s, 0, %s, now() + {due_in}::interval, '', now(),
                   CASE WHEN %s = 'SUCCESSFUL' THEN now() END, 0, 0
            FROM generate_series(1, %s)
            """,
            [queue, status, status, number],
        )
        cursor.execute("ANALYZE dbqueue_job")


@pytest.fixture
def old_snapshot() -> Iterator[None]:
    """A session that keeps everybody's dead rows from being removed."""
    with closing(connection.copy()) as session, session.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT 1")
        yield


def statements(act: Callable[[], object]) -> list[str]:
    """What is executed, but for the frame of the transaction."""
    with CaptureQueriesContext(connection) as captured:
        act()
    sent = [query["sql"].strip() for query in captured.captured_queries]
    return [sql for sql in sent if not sql.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]


class Scan:
    """What one statement did to the table of jobs."""

    def __init__(self, sql: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
            found = cursor.fetchone()[0]
            cursor.execute("ROLLBACK")
        plan = (found if isinstance(found, list) else json.loads(found))[0]["Plan"]
        nodes = list(_nodes(plan))
        self.indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
        self.is_sequential = any(
            node["Node Type"] == "Seq Scan" and node["Relation Name"] == "dbqueue_job" for node in nodes
        )
        self.sorts = any("Sort" in node["Node Type"] for node in nodes)
        self.buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        """Pages of 8 kB that were looked at, each as often as it was."""


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def look(store: Store, worker: int, selection: Selection = Selection(), bookmark: Bookmark | None = None) -> Scan:
    """The statement with which a claim finds and locks its jobs, executed once more in the state after it."""
    sent = statements(lambda: store.claim(worker, BATCH, selection, bookmark=bookmark))
    [locking] = [sql for sql in sent if "FOR NO KEY UPDATE SKIP LOCKED" in sql]
    return Scan(locking)


@pytest.mark.parametrize(("status", "due_in"), [("READY", "NULL"), ("SCHEDULED", "'1 day'"), ("SUCCESSFUL", "NULL")])
def test_a_claim_touches_what_it_takes(store: Store, worker: int, status: str, due_in: str) -> None:
    insert(MANY, status, due_in=due_in)
    insert(2 * BATCH)

    scan = look(store, worker)

    assert scan.indexes == {"dbqueue_job_ready"}
    assert not scan.is_sequential and not scan.sorts
    assert scan.buffers < 10 * BATCH


def test_a_claim_from_one_of_many_queues_touches_what_it_takes(store: Store, worker: int) -> None:
    insert(MANY, queue="another")
    insert(2 * BATCH, queue="mail")

    for selection in (Selection(include=("mail",)), Selection(exclude=("another",))):
        scan = look(store, worker, selection)
        assert scan.indexes == {"dbqueue_job_ready_queue"}
        assert not scan.sorts
        assert scan.buffers < 10 * BATCH


def test_the_queues_with_work_are_found_by_a_step_for_each(store: Store, worker: int) -> None:
    insert(MANY, queue="another")
    insert(2 * BATCH, queue="mail")

    sent = statements(lambda: store.claim(worker, 1, Selection(exclude=("another",))))
    [names] = [sql for sql in sent if "WITH RECURSIVE" in sql]

    assert Scan(names).buffers < 50


def drain(store: Store, worker: int, bookmark: Bookmark) -> None:
    while claims := store.claim(worker, 500, bookmark=bookmark):
        store.finish([Outcome.succeeded(claim, None) for claim in claims])


@pytest.mark.usefixtures("old_snapshot")
def test_behind_a_bookmark_a_claim_does_not_walk_over_what_is_done(store: Store, worker: int) -> None:
    insert(MANY // 5)
    bookmark = Bookmark()
    drain(store, worker, bookmark)
    insert(3 * BATCH)
    store.claim(worker, BATCH, bookmark=bookmark)
    bookmark.looked_from_the_start(0.0, nothing_left=False)  # good for longer than this test takes

    from_the_start, marked = look(store, worker), look(store, worker, bookmark=bookmark)

    assert marked.buffers < 10 * BATCH
    assert from_the_start.buffers > 2 * marked.buffers, "the snapshot keeps nothing: this test shows nothing"


@pytest.mark.usefixtures("old_snapshot")
def test_claimed_and_ended_jobs_are_written_by_their_ids(store: Store, worker: int) -> None:
    insert(MANY // 5)
    drain(store, worker, Bookmark())
    insert(2 * BATCH)
    claims: list[Claim] = []

    sent = statements(lambda: claims.extend(store.claim(worker, BATCH)))
    sent += statements(lambda: store.finish([Outcome.succeeded(claim, None) for claim in claims]))

    writing = [sql for sql in sent if 'UPDATE "dbqueue_job"' in sql and "SKIP LOCKED" not in sql]
    assert len(writing) == 2
    for sql in writing:
        scan = Scan(sql)
        assert {index for index in scan.indexes if "_job_" in index} == {"dbqueue_job_pkey"}
        assert scan.buffers < 20 * BATCH


def test_promoting_touches_what_is_due(store: Store) -> None:
    insert(MANY, "SCHEDULED", due_in="'1 day'")
    insert(BATCH, "SCHEDULED", due_in="'-1 minute'")

    [due, _] = [sql for sql in statements(lambda: store.promote()) if "dbqueue_job" in sql]
    [next_due] = [sql for sql in statements(lambda: store.seconds_to_next_due()) if "dbqueue_job" in sql]

    for sql in (due, next_due):
        scan = Scan(sql)
        assert scan.indexes == {"dbqueue_job_due"}
        assert scan.buffers < 10 * BATCH


def test_how_often_the_server_is_asked(store: Store, worker: int) -> None:
    claims: list[Claim] = []

    assert len(statements(lambda: add.enqueue(1, 2))) == 1
    assert len(statements(lambda: enqueue_many(add.s(1, number) for number in range(BATCH)))) == 2
    assert len(statements(lambda: claims.extend(store.claim(worker, BATCH)))) == 2
    assert len(statements(lambda: store.finish([Outcome.succeeded(claim, "1") for claim in claims]))) == 1
    assert store.jobs.filter(status=JobStatus.SUCCESSFUL).count() == BATCH
