"""``python -m benchmarks.orm``: jobs that use the ORM, whose connections are closed, or go back to psycopg 3's pool."""

import argparse
import statistics

from django.db import connection

from .connections import clear
from .drain import seconds_by_database
from .processes import WORKER, run
from .project import on_postgresql
from .report import heading, table

COMMAND = "benchmarks.orm"

WAYS = {"closed after each job": "0", "given back to the pool": "8"}
"""What ``close_all()`` does to a connection, and BENCHMARK_POOL for it."""


def rate(task: str, jobs: int, pool: str) -> tuple[float, float]:
    """Jobs a second of one worker, and CPU microseconds a job of its process."""
    from dbqueue import enqueue_many

    from .jobs import tasks

    clear()
    enqueue_many(getattr(tasks, task).s(number) for number in range(jobs))
    used = run(*WORKER, BENCHMARK_POOL=pool)
    return jobs / seconds_by_database(jobs), used.cpu / jobs * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=4_000, help="jobs of a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each both ways (default: %(default)s)")
    options = parser.parse_args()
    with on_postgresql(COMMAND):
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        if not is_psycopg3:
            raise SystemExit("This needs psycopg 3 with its pool: pip install 'django-dbqueue[psycopg]'")
        print(heading(f"{options.jobs:,} jobs a run, one process, 8 threads; {options.rounds} rounds"), flush=True)
        rows = [["", *(f"{way}, jobs/s" for way in WAYS), "ratio", *(f"{way}, CPU µs a job" for way in WAYS)]]
        for task, title in (("look_up", "one query"), ("visit", "one query and one write")):
            found = [[rate(task, options.jobs, pool) for pool in WAYS.values()] for _ in range(options.rounds)]
            rates = [statistics.median(runs[way][0] for runs in found) for way in range(2)]
            ratio = statistics.median(runs[1][0] / runs[0][0] for runs in found)
            cpu = [statistics.median(runs[way][1] for runs in found) for way in range(2)]
            rows.append([title, *(f"{r:,.0f}" for r in rates), f"{ratio:.1f}", *(f"{c:,.0f}" for c in cpu)])
        print(table(rows))
        connection.close()


if __name__ == "__main__":
    main()
