"""``python -m benchmarks.drain``: no-op jobs a second, beside what the database itself allows."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from django.db import connection
from django.db.models import Max, Min

from . import limit
from .peers.worker import running
from .processes import WORKER, Usage, run
from .project import on_postgresql, on_sqlite
from .report import heading, table

COMMAND = "benchmarks.drain"


class Round(NamedTuple):
    """Jobs a second (``enqueue``, ``worker``, ``stays``, ``wall``, ``bare``), CPU microseconds a job, and resident MiB.

    ``stays``: by a worker that waits for more when all is done, as in production. ``log``: bytes a job in the
    write-ahead log, from the INSERT to the outcome. ``size``, ``compact``: bytes a job of the table with its indexes,
    just after the drain and after ``VACUUM FULL``. SQLite tells none of these three: 0.
    """

    enqueue: float
    worker: float
    stays: float
    wall: float
    cpu: float
    cpu_running: float
    memory: float
    log: float
    size: float
    compact: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.worker / self.bare


def measure(jobs: int, start_up: Usage) -> Round:
    """Fill the table and drain it with a worker process; fill it again and drain it with the bare loop."""
    enqueue, inserted = fill(jobs)
    before = log_position()
    used = run(*WORKER)
    log = inserted + log_position() - before
    size, compact = size_of_table(), size_of_table(compact=True)
    worker = jobs / seconds_by_database(jobs)
    fill(jobs)
    stays = drain_and_stay(jobs)
    fill(jobs)
    bare = limit.drain()
    seconds_by_database(jobs)
    return Round(
        enqueue=enqueue,
        worker=worker,
        stays=stays,
        wall=jobs / used.wall,
        cpu=used.cpu / jobs * 1e6,
        cpu_running=(used.cpu - start_up.cpu) / jobs * 1e6,
        memory=used.memory,
        log=log / jobs,
        size=size / jobs,
        compact=compact / jobs,
        bare=bare,
    )


def drain_and_stay(jobs: int) -> float:
    """Jobs a second of a worker that is told to end only after it has run them all."""
    from dbqueue.models import Job, JobStatus

    with running(("-m", *(word for word in WORKER if word != "--burst")), 1, os.environ) as worker:
        while Job.objects.exclude(status=JobStatus.SUCCESSFUL).exists():
            worker.check()
            time.sleep(0.2)
    return jobs / seconds_by_database(jobs)


def fill(jobs: int) -> tuple[float, int]:
    """Empty the table and enqueue no-op jobs in one call. Returns jobs a second, and bytes of write-ahead log."""
    from dbqueue import enqueue_many

    from .jobs.tasks import noop

    empty()
    before, began = log_position(), time.monotonic()
    enqueue_many(noop.s() for _ in range(jobs))
    rate = jobs / (time.monotonic() - began)
    written = log_position() - before
    with connection.cursor() as cursor:
        # Both drains begin with fresh statistics and no clean-up of the last round behind them.
        cursor.execute("VACUUM ANALYZE dbqueue_job" if connection.vendor == "postgresql" else "ANALYZE")
    return rate, written


def log_position() -> int:
    """Bytes that PostgreSQL has written to its log since it was made; always 0 elsewhere."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        return int(cursor.fetchone()[0])


def size_of_table(*, compact: bool = False) -> int:
    """Bytes of the jobs' table and its indexes; 0 on SQLite."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        if compact:
            cursor.execute("VACUUM FULL dbqueue_job")
        cursor.execute("SELECT pg_total_relation_size('dbqueue_job')")
        return int(cursor.fetchone()[0])


def empty() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("TRUNCATE dbqueue_attempt, dbqueue_logline, dbqueue_job, dbqueue_worker")
        else:
            for name in ("attempt", "job", "worker"):
                cursor.execute(f"DELETE FROM dbqueue_{name}")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def seconds_by_database(jobs: int) -> float:
    """From the first claim to the last outcome by the database's times. Raises RuntimeError if a job is not done."""
    from dbqueue.models import Job, JobStatus

    done = Job.objects.filter(status=JobStatus.SUCCESSFUL, attempt=1)
    if (count := done.count()) != jobs:
        raise RuntimeError(f"{count} of {jobs} jobs succeeded at their first attempt")
    times = done.aggregate(first=Min("last_attempted_at"), last=Max("finished_at"))
    seconds: float = (times["last"] - times["first"]).total_seconds()
    return seconds


def print_table(rounds: list[Round], start_up: Usage) -> None:
    def row(title: str, value: Callable[[Round], float], places: int = 0) -> list[str]:
        values = list(map(value, rounds))
        return [title, *(f"{figure:,.{places}f}" for figure in (statistics.median(values), min(values), max(values)))]

    rows = [
        ["", "median", "lowest", "highest"],
        row("dbqueue, jobs/s (first claim to last outcome)", lambda r: r.worker),
        row("the same by a worker that stays", lambda r: r.stays),
        row(f"bare loop, jobs/s (batches of {limit.BATCH}, one connection)", lambda r: r.bare),
        row("dbqueue / bare loop", lambda r: r.ratio, 2),
        row("dbqueue, jobs/s (life of the process, start-up included)", lambda r: r.wall),
        row("CPU of the worker process, µs a job", lambda r: r.cpu, 1),
        row("the same without start-up and shut-down, µs a job", lambda r: r.cpu_running, 1),
        row("memory of the worker process at most, MiB", lambda r: r.memory),
        row("enqueue_many, jobs/s", lambda r: r.enqueue),
    ]
    if connection.vendor == "postgresql":
        rows += [
            row("write-ahead log, enqueue to outcome, bytes a job", lambda r: r.log),
            row("table and indexes just after, bytes a job", lambda r: r.size),
            row("the same after VACUUM FULL", lambda r: r.compact),
        ]
    print(table(rows))
    print(
        f"\nStart-up and shut-down: {start_up.wall:.2f} s, {start_up.cpu:.2f} s of CPU (median of bursts without jobs)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=30_000, help="jobs of one drain (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each both ways (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="on a SQLite file; DATABASE_URL is not looked at")
    options = parser.parse_args()
    with on_sqlite() if options.sqlite else on_postgresql(COMMAND):
        print(heading(f"{options.jobs:,} no-op jobs, one process, 8 threads; {options.rounds} rounds"), flush=True)
        idle = sorted(run(*WORKER) for _ in range(3))[1]
        rounds = [measure(options.jobs, idle) for _ in range(options.rounds)]
        print_table(rounds, idle)
        connection.close()


if __name__ == "__main__":
    main()
