"""``python -m benchmarks.console``: how long the operator's pages take with millions of ended jobs in the table."""

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.db import connection

from .project import on_postgresql
from .report import heading, table

COMMAND = "benchmarks.console"

TOKEN = "benchmark"

MOST = 250_000
"""Rows that a statement may look at in vain: a list without an index looks through 200,000 ids."""

REMOVALS = ("Filter", "Join Filter", "Index Recheck")

ROUNDS = 5
"""Times that each page is loaded; the first is not timed."""

_JOBS = """
    INSERT INTO dbqueue_job (task, args, kwargs, queue_name, priority, status, run_after, backend, enqueued_at,
                             started_at, last_attempted_at, finished_at, worker_id, lease, attempt, concurrency_key,
                             workflow_id, held)
    SELECT CASE WHEN number %% %(rare)s = 0 THEN 'benchmarks.jobs.tasks.rare' ELSE 'benchmarks.jobs.tasks.remind' END,
           '[]', jsonb_build_object('user_id', number %% 1000),
           CASE WHEN number %% 5 = 0 THEN 'mail' ELSE 'default' END,
           0, %(status)s, CASE WHEN %(status)s = 'SCHEDULED' THEN now() + interval '1 day' END, '',
           now() - (%(number)s - number) * interval '7 days' / %(number)s, {past}, {past}, {past},
           CASE WHEN %(ended)s OR %(status)s = 'RUNNING' THEN 1 END, %(ended)s::int, %(ended)s::int,
           CASE WHEN %(status)s = 'BLOCKED' THEN 'key ' || number %% 100 END,
           CASE WHEN %(status)s = 'WAITING' THEN -1 - number / 100 END, %(status)s = 'WAITING'
    FROM generate_series(1, %(number)s) AS number
"""

_ATTEMPTS = """
    INSERT INTO dbqueue_attempt (job_id, number, worker_id, started_at, ended_at, exception_class_path, traceback)
    SELECT id, 1, 1, now(), now(), CASE WHEN id % 1000 = 0 THEN 'shop.errors.Rare' ELSE 'builtins.ValueError' END, 'x'
    FROM dbqueue_job WHERE status = 'FAILED'
"""

_HISTORY = """
    INSERT INTO dbqueue_history (seconds, begins_at, queue_name, task, outcome, error, count, waits, runs, wait_seconds,
                                 run_seconds)
    SELECT seconds,
           CASE WHEN seconds = 0 THEN 'epoch' ELSE date_trunc('hour', now()) - n * seconds * interval '1 second' END,
           queue, task, outcome, CASE WHEN seconds > 0 AND outcome = 'FAILED' AND task <> '' THEN 'a.B' ELSE '' END,
           100, '[1, 2, 3, 4, 50, 20, 10, 5, 5]', '[50, 30, 10, 5, 5]', 10, 1
    FROM (VALUES (0, -60), (60, 2880), (600, 288), (3600, 2160)) AS sizes (seconds, rows),
         LATERAL generate_series(-60, rows) AS n,
         (VALUES ('SUCCESSFUL'), ('FAILED')) AS outcomes (outcome),
         (SELECT '' AS queue, '' AS task, true AS fails UNION ALL
          SELECT 'queue ' || number, '', true FROM generate_series(0, 9) AS number UNION ALL
          SELECT 'queue ' || number % 10, 'task ' || number, number <= 30
          FROM generate_series(1, 300) AS number) AS tasks
    WHERE (fails OR outcome = 'SUCCESSFUL')
        AND CASE WHEN seconds = 60 THEN true WHEN seconds = 0 THEN task <> '' ELSE queue = '' END
"""
"""Three hundred tasks in ten queues, of which thirty also fail."""

_WORKFLOWS = """
    INSERT INTO dbqueue_workflow (name, created_at, finished_at)
    SELECT 'benchmarks.jobs.tasks.give', now(), now() FROM generate_series(1, %s)
"""

FINDS_NOTHING = frozenset(
    {
        "a queue without jobs",
        "a task without jobs",
        "failed, an error that never was",
        "search: no such task",
        "search: an argument that never was",
    }
)
"""Lists that are to be empty: of any other that is, the time would tell nothing."""


def fill(share: float) -> None:
    """Ten million that went well, a hundred thousand that failed among the last of them, and some of all others."""
    numbers = {
        "SUCCESSFUL": 9_000_000,
        "FAILED": 100_000,
        "CANCELLED": 1_000,
        "SCHEDULED": 100_000,
        "BLOCKED": 100_000,
        "WAITING": 100_000,
        "READY": 20_000,
        "RUNNING": 8 / share,
    }
    for status, number in [*numbers.items(), ("SUCCESSFUL", 1_000_000)]:
        ended = status in ("SUCCESSFUL", "FAILED", "CANCELLED")
        values: dict[str, str | int | bool] = {
            "status": status,
            "number": round(number * share),
            "rare": int(1_000_000 * share),
            "ended": ended,
        }
        with connection.cursor() as cursor:
            cursor.execute(_JOBS.format(past="now() - interval '1 hour'" if ended else "NULL"), values)
        print(f"{number * share:,.0f} {status}", file=sys.stderr, flush=True)
    with connection.cursor() as cursor:
        cursor.execute(_ATTEMPTS)
        cursor.execute(_HISTORY)
        cursor.execute(_WORKFLOWS, [int(1_000_000 * share)])
        cursor.execute("VACUUM ANALYZE")


def plant(steps: int) -> int:
    """A group and what comes after it. Returns the workflow's id."""
    from dbqueue import chord

    from .jobs.tasks import give

    return chord([give.s(1)] * (steps - 2), give.s()).enqueue().workflow_id


def a_living_worker() -> None:
    """One that will have been heard of for as long as this takes."""
    from dbqueue.models import Worker
    from dbqueue.store import store_for

    store = store_for("default")
    store.register(name="w", hostname="h", pid=1, queues="", threads=8)
    Worker.objects.update(heartbeat_at=store.clock() + datetime.timedelta(hours=1))


def pages(workflows: dict[int, int]) -> Iterator[tuple[str, str]]:
    """What an operator opens, and where it is; ``workflows`` by how many steps they have."""
    from dbqueue.models import OPEN, Job, JobStatus

    jobs = "/admin/dbqueue/job/"
    yield "overview, 1 hour", "/admin/dbqueue/overview/"
    yield "overview, 24 hours", "/admin/dbqueue/overview/?range=24h"
    yield "overview, 7 days", "/admin/dbqueue/overview/?range=7d"
    yield "overview, what is fetched again", "/admin/dbqueue/overview/live/"
    yield "queues", "/admin/dbqueue/queue/"
    yield "workers", "/admin/dbqueue/worker/"
    yield "schedules", "/admin/dbqueue/schedule/"
    yield "jobs", jobs
    yield "jobs, the last page", f"{jobs}?p=100"
    for state in JobStatus:
        yield f"jobs, {state.lower()}", f"{jobs}?state={state}"
    for title, query in {
        "queue": "queue=mail",
        "a queue without jobs": "queue=nobody",
        "task": "task=benchmarks.jobs.tasks.remind",
        "a rare task": "task=benchmarks.jobs.tasks.rare",
        "a task without jobs": "task=nobody.knows",
        "failed, a common error": "state=FAILED&error=builtins.ValueError",
        "failed, a rare error": "state=FAILED&error=shop.errors.Rare",
        "failed, an error that never was": "state=FAILED&error=no.Error",
        "failed, a task": "state=FAILED&task=benchmarks.jobs.tasks.remind",
        "search: id": "q=4711",
        "search: part of a task's name": "q=benchmarks.jobs",
        "search: no such task": "q=nothing",
        "search: since:2h": "q=since:2h",
        "search: before:6d": "q=before:6d",
        "search: an argument": "q=args.user_id:42",
        "search: an argument that never was": "q=args.user_id:nobody",
        "search: worker": "q=worker:1",
    }.items():
        yield f"jobs, {title}", f"{jobs}?{query}"
    yield "all that match: failed", f"{jobs}bulk/?state=FAILED"
    for state in OPEN:
        yield f"all that match: {state.lower()}", f"{jobs}bulk/?state={state}"
    yield "all that match: ready, an argument", f"{jobs}bulk/?state=READY&q=args.user_id:42"
    failed = Job.objects.filter(status="FAILED").values_list("pk", flat=True).first()
    yield "a job", f"{jobs}{failed}/change/"
    for state in OPEN:
        last = Job.objects.filter(status=state).values_list("pk", flat=True).last()
        yield f"the last of those {state.lower()}", f"{jobs}{last}/change/"
    yield "its arguments", f"{jobs}{failed}/edit/"
    yield "its deletion", f"{jobs}{failed}/delete/"
    yield "its log", f"{jobs}{failed}/history/"
    yield "the choice of a task", f"{jobs}add/"
    yield "the form of its clone", f"{jobs}add/?task=benchmarks.jobs.tasks.remind&from={failed}"
    yield "bulk operations", "/admin/dbqueue/bulkoperation/"
    yield "a worker", "/admin/dbqueue/worker/1/change/"
    yield "a new schedule", "/admin/dbqueue/schedule/add/"
    yield "/metrics", "/queue/metrics"
    yield "/healthz", "/queue/healthz"
    yield "workflows", "/admin/dbqueue/workflow/"
    for steps, workflow in workflows.items():
        yield f"a workflow of {steps:,} steps", f"/admin/dbqueue/workflow/{workflow}/change/"
        step = Job.objects.filter(workflow_id=workflow).values_list("pk", flat=True).last()
        yield f"a job of {steps:,} in a workflow", f"{jobs}{step}/change/"


class Walked(NamedTuple):
    """What the statements of a page did to the tables of dbqueue, at their worst.

    ``in_vain``: rows that one looked at and did not want. ``blocks``: pages of 8 kB that one looked at, each as often
    as it was, which also tells of a walk over an index. ``scans``: the statements that read a table of jobs in sequence
    as far as a list without an index would.
    """

    in_vain: int
    blocks: int
    scans: list[str]

    @property
    def is_too_much(self) -> bool:
        return self.in_vain > MOST or bool(self.scans)


def measure(title: str, url: str) -> tuple[float, Walked]:
    """The median of the page's milliseconds, and what its statements walked over.

    Raises RuntimeError where the page doesn't come, or is a list without a job that ought to have some.
    """
    from django.contrib.auth.models import User
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"Authorization": f"Bearer {TOKEN}"})
    client.force_login(User.objects.get())
    times = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        response = client.get(url)
        if number:
            times.append(1000 * (time.perf_counter() - began))
        if response.status_code != 200:
            raise RuntimeError(f"{url} answers {response.status_code}")
    is_list = url.partition("?")[0] == "/admin/dbqueue/job/"
    if is_list and (b"action-select" in response.content) is (title.removeprefix("jobs, ") in FINDS_NOTHING):
        raise RuntimeError(f"{title}: this list must show a job, unless it is one of FINDS_NOTHING")
    with CaptureQueriesContext(connection) as captured:
        client.get(url)
    sent = [query["sql"] for query in captured]
    return statistics.median(times), walked(sql for sql in sent if sql.startswith("SELECT") and "dbqueue_" in sql)


def walked(statements: Iterable[str]) -> Walked:
    """Each of these carried out once more."""
    in_vain, blocks, scans = 0, 0, []
    for sql in statements:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
            found = cursor.fetchone()[0]
        plan = (found if isinstance(found, list) else json.loads(found))[0]["Plan"]
        blocks = max(blocks, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        for node in nodes(plan):
            removed = round(node["Actual Loops"] * sum(node.get(f"Rows Removed by {what}", 0) for what in REMOVALS))
            in_vain = max(in_vain, removed)
            read = removed + node["Actual Rows"] * node["Actual Loops"]
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "dbqueue_job" and read > MOST:
                scans.append(sql)
    return Walked(in_vain, blocks, scans)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's parts."""
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a trial (default: %(default)s)")
    options = parser.parse_args()
    with on_postgresql(COMMAND, "benchmarks.console_settings"):
        from django.contrib.auth.models import User

        User.objects.create_superuser("operator")
        a_living_worker()
        fill(options.share)
        workflows = {steps: plant(steps) for steps in (200, 10_000)}
        print(heading("The operator's pages"), flush=True)
        rows = [["page", "ms", "rows in vain", "blocks", "sequential scans of jobs"]]
        too_much = []
        for title, url in pages(workflows):
            milliseconds, found = measure(title, url)
            rows.append(
                [title, f"{milliseconds:.0f}", f"{found.in_vain:,}", f"{found.blocks:,}", str(len(found.scans))]
            )
            print(f"{title}: {milliseconds:.0f} ms {found}", file=sys.stderr, flush=True)
            too_much += [title] * found.is_too_much
        print(table(rows))
        connection.close()
    if too_much:
        raise SystemExit(f"These walk over more than they may: {', '.join(too_much)}.")


if __name__ == "__main__":
    main()
