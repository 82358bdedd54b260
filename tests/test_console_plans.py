"""How the databases carry out what the pages ask of large tables: by which index, and how much they walk over."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dbqueue.models import Job, JobStatus
from dbqueue.store import store_for

from .test_admin import JOBS
from .test_plans import insert

MANY = 80_000
"""Newer jobs that have succeeded: no page is to walk over them."""

SOME = 2_000
"""Older jobs of each other state."""

STATES = [state for state in JobStatus if state != JobStatus.SUCCESSFUL]

LISTS = [
    JOBS,
    *(f"{JOBS}?state={state}" for state in JobStatus),
    f"{JOBS}?state=FAILED&queue=mail",
    *(f"{JOBS}?q=state:{state.lower()}" for state in (JobStatus.BLOCKED, JobStatus.SCHEDULED, JobStatus.WAITING)),
    *(f"{JOBS}bulk/?state={state}" for state in STATES),
]


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def selects(client: Client, url: str) -> Iterator[str]:
    """The statements of a page that read jobs."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    for query in captured:
        if query["sql"].startswith("SELECT") and "dbqueue_job" in query["sql"]:
            yield query["sql"]


@pytest.mark.django_db
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="reads SQLite's plans")
@pytest.mark.parametrize("url", LISTS)
def test_no_list_walks_over_all_jobs_on_sqlite(operator: Client, url: str) -> None:
    states = [JobStatus.FAILED] * 10 + [JobStatus.SUCCESSFUL] * 500
    Job.objects.bulk_create(Job(task="t", status=state, enqueued_at=timezone.now()) for state in states)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        for sql in selects(operator, url):
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            # Without a condition it is by the primary key, to the end of the page.
            assert " WHERE " not in sql or "SCAN dbqueue_job" not in {step[3] for step in cursor.fetchall()}, sql


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="reads PostgreSQL's plans")
def test_no_page_walks_over_what_it_does_not_show_on_postgresql(operator: Client) -> None:
    for state in STATES:
        insert(
            20 if state == JobStatus.RUNNING else SOME,
            state,
            due_in="'1 day'" if state == JobStatus.SCHEDULED else "NULL",
        )
    insert(MANY, "SUCCESSFUL")
    failed = Job.objects.filter(status="FAILED").values_list("pk", flat=True)[0]
    holder = store_for("default").register(name="w", hostname="h", pid=1, queues="", threads=1)
    pages = [
        *LISTS,
        f"{JOBS}{failed}/change/",
        f"/admin/dbqueue/worker/{holder}/change/",
        *(f"/admin/dbqueue/{name}/" for name in ("overview", "queue", "worker", "workflow", "bulkoperation")),
    ]
    found = {url: [walk for sql in selects(operator, url) for walk in walks(sql)] for url in pages}
    assert {url: walks for url, walks in found.items() if walks} == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="reads PostgreSQL's plans")
def test_figures_of_many_tasks_are_read_as_sums(operator: Client) -> None:
    """An hour of 300 tasks in ten queues, three of which also fail."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dbqueue_history (seconds, begins_at, queue_name, task, outcome, error, count, waits, runs,
                                         wait_seconds, run_seconds)
            SELECT 60, date_trunc('minute', now()) - n * interval '1 minute', queue, task, outcome, '', 1, '[1]', '[1]',
                   0, 0
            FROM generate_series(0, 59) AS n,
                 (SELECT 'queue ' || number % 10, 'task ' || number, outcome
                  FROM generate_series(1, 300) AS number, (VALUES ('SUCCESSFUL'), ('FAILED')) AS outcomes (outcome)
                  WHERE outcome = 'SUCCESSFUL' OR number <= 3
                  UNION ALL SELECT 'queue ' || number, '', 'SUCCESSFUL' FROM generate_series(0, 9) AS number
                  UNION ALL SELECT '', '', 'SUCCESSFUL') AS kinds (queue, task, outcome)
            """
        )
        cursor.execute("ANALYZE dbqueue_history")
    for url in ("/admin/dbqueue/overview/", "/admin/dbqueue/queue/"):
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(url).status_code == 200
        read = [query["sql"] for query in captured if 'FROM "dbqueue_history"' in query["sql"]]
        assert read
        for sql in read:
            plan = plan_of(sql)
            most = max(part["Actual Rows"] + part.get("Rows Removed by Filter", 0) for part in _nodes(plan))
            assert most <= 60 * 11, sql  # the sums, and those of all queues


def walks(sql: str) -> Iterator[str]:
    """Where a statement reads most jobs, or many that it does not want, or sorts them."""
    for node in _nodes(plan_of(sql)):
        removed = node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
        sorted_rows = node["Plans"][0]["Actual Rows"] if "Sort" in node["Node Type"] else 0
        if node["Node Type"] == "Seq Scan" and removed + node["Actual Rows"] > MANY / 2:
            yield f"a sequential scan of {node['Relation Name']}"
        if removed > MANY / 2:
            yield f"{removed} rows of {node.get('Index Name')} are looked at in vain"
        if sorted_rows >= SOME:
            yield f"{sorted_rows} rows are sorted"


def plan_of(sql: str) -> dict[str, Any]:
    """As it was carried out."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (found if isinstance(found, list) else json.loads(found))[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)
