"""``python -m benchmarks.workflows``: what it costs that jobs wait for each other, beside jobs that don't."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Max, Min

from .drain import empty
from .peers.worker import running
from .processes import WORKER, run
from .project import on_postgresql, on_sqlite
from .report import heading, table

COMMAND = "benchmarks.workflows"

MEMBERS = 1000
"""Of the group whose end is followed to its body."""


class Figures(NamedTuple):
    """``rows`` and ``statements`` of the enqueue, its seconds; seconds from the first claim to the last outcome;
    commits of the server meanwhile, and row versions that UPDATE has written (0 on SQLite)."""

    rows: float
    statements: float
    enqueue: float
    finish: float
    commits: float
    updates: float


def shapes(jobs: int) -> dict[str, Callable[[], object]]:
    """What is enqueued, by name: each has so many jobs."""
    from dbqueue import chain, chord, enqueue_many, group

    from .jobs.tasks import give, noop

    return {
        "plain": lambda: enqueue_many(noop.s() for _ in range(jobs)),
        "a group and its body": lambda: chord([give.s(1)] * (jobs - 1), give.s()).enqueue(),
        "chains of four in a group": lambda: group(
            chain(give.s(1), give.s(), give.s(), give.s()) for _ in range(jobs // 4)
        ).enqueue(),
        "a hundred groups of a hundred, one after another": lambda: chain(
            [group([give.si(1)] * (jobs // 100)) for _ in range(100)]
        ).enqueue(),
    }


def measure(enqueue: Callable[[], object]) -> Figures:
    from dbqueue.models import Job, JobStatus

    _clear()
    with _counted() as statements:
        began = time.monotonic()
        enqueue()
        seconds = time.monotonic() - began
    rows = Job.objects.count()
    _analyze()
    commits, updates = _written()
    run(*WORKER)
    commits, updates = (now - before for now, before in zip(_written(), (commits, updates), strict=True))
    if left := Job.objects.exclude(status=JobStatus.SUCCESSFUL).count():
        raise RuntimeError(f"{left} jobs have not succeeded")
    times = Job.objects.aggregate(first=Min("last_attempted_at"), last=Max("finished_at"))
    finish = (times["last"] - times["first"]).total_seconds()
    return Figures(rows, len(statements), seconds, finish, commits, updates)


def until_the_body_begins() -> float:
    """Seconds from the end of the last of a thousand members to the start of what follows the group."""
    from dbqueue import chord
    from dbqueue.models import GROUP, Job, JobStatus

    from .jobs.tasks import give

    _clear()
    with running(("-m", *(word for word in WORKER if word != "--burst")), 1, os.environ) as worker:
        result = chord([give.s(1)] * MEMBERS, give.s()).enqueue()
        while Job.objects.get(pk=result.last_id).status != JobStatus.SUCCESSFUL:
            worker.check()
            time.sleep(0.05)
    body = Job.objects.get(pk=result.last_id)
    members = Job.objects.filter(workflow_id=result.workflow_id).exclude(pk=body.pk).exclude(task=GROUP)
    last = members.aggregate(last=Max("finished_at"))["last"]
    assert body.started_at is not None and last is not None
    seconds: float = (body.started_at - last).total_seconds()
    return seconds


def plain_beside_waiting(jobs: int, waiting: int) -> float:
    """Seconds in which a worker drains plain jobs while so many steps wait for one that nobody runs."""
    from dbqueue import chord, enqueue_many, pause
    from dbqueue.models import Job, JobStatus

    from .jobs.tasks import give, noop

    _clear()
    if waiting:
        pause("aside")
        (give.si(1).set(queue_name="aside") | chord([give.si(1)] * waiting, give.s())).enqueue()
    enqueue_many(noop.s() for _ in range(jobs))
    _analyze()
    run(*WORKER)
    done = Job.objects.filter(status=JobStatus.SUCCESSFUL)
    if (number := done.count()) != jobs:
        raise RuntimeError(f"{number} of {jobs} jobs succeeded")
    times = done.aggregate(first=Min("last_attempted_at"), last=Max("finished_at"))
    seconds: float = (times["last"] - times["first"]).total_seconds()
    return seconds


@contextmanager
def _counted() -> Any:
    """The statements of this process meanwhile."""
    found: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield found


def _clear() -> None:
    from dbqueue.models import Queue, Workflow

    Workflow.objects.all().delete()
    Queue.objects.all().delete()
    empty()


def _analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE dbqueue_job" if connection.vendor == "postgresql" else "ANALYZE")


def _written() -> tuple[int, int]:
    """Commits, and row versions that an UPDATE has written of jobs and workflows, so far."""
    if connection.vendor != "postgresql":
        return 0, 0
    time.sleep(1.1)  # sessions tell about once a second what they did
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),"
            " (SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname IN ('dbqueue_job', 'dbqueue_workflow'))"
        )
        commits, updates = cursor.fetchone()
        return int(commits), int(updates)


def print_costs(found: dict[str, list[Figures]], jobs: int) -> None:
    rows = [["medians", "rows", "statements", "enqueue, s", "finish, s", "jobs/s", "commits", "updates"]]
    for name, figures in found.items():
        medians = Figures(*map(statistics.median, zip(*figures, strict=True)))
        rows.append(
            [
                name,
                f"{medians.rows:,.0f}",
                f"{medians.statements:,.0f}",
                f"{medians.enqueue:.2f}",
                f"{medians.finish:.2f}",
                f"{jobs / medians.finish:,.0f}",
                f"{medians.commits:,.0f}",
                f"{medians.updates:,.0f}",
            ]
        )
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of one workflow (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="on a SQLite file; DATABASE_URL is not looked at")
    options = parser.parse_args()
    with on_sqlite() if options.sqlite else on_postgresql(COMMAND):
        print(heading(f"{options.jobs:,} no-op jobs, one process, 8 threads; {options.rounds} rounds"), flush=True)
        made = shapes(options.jobs)
        rounds = [{name: measure(enqueue) for name, enqueue in made.items()} for _ in range(options.rounds)]
        print_costs({name: [figures[name] for figures in rounds] for name in made}, options.jobs)
        bodies = sorted(until_the_body_begins() * 1000 for _ in range(5))
        print(f"\nFrom the end of the last of {MEMBERS:,} members to the start of the body: median {bodies[2]:.0f} ms,")
        print(f"longest {bodies[-1]:.0f} ms.")
        beside = [(plain_beside_waiting(20_000, 0), plain_beside_waiting(20_000, 10_000)) for _ in range(5)]
        alone, waiting = (statistics.median(column) for column in zip(*beside, strict=True))
        print(
            f"\n20,000 plain jobs: {alone:.2f} s; the same while 10,000 steps wait: {waiting:.2f} s (medians of five)."
        )
        connection.close()


if __name__ == "__main__":
    main()
