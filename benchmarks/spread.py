"""``python -m benchmarks.spread``: whether work spreads over two workers, and over two processes of one."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from .drain import empty, seconds_by_database
from .latency import await_registration
from .peers import count
from .peers.worker import running
from .project import on_postgresql
from .report import heading, table

COMMAND = "benchmarks.spread"

WORKER = ("-m", "django", "dbqueue_worker", "-v", "0")

SHORT = 2_000
"""Short jobs that both workers run before, so that they have learnt to take many ahead."""

THREADS = 8
LONG = 2 * THREADS
"""Jobs of a second each: as many as both workers have threads."""

STARTED_WITHIN = 0.9
"""Seconds within which a job began beside the others, and not after one of them."""

BUSY = 2_000
"""Jobs that hold the interpreter's lock for 5 ms each."""


def long_jobs() -> tuple[float, float, int]:
    """Seconds until the median and until the last long job began, and how many waited for another to end."""
    from dbqueue import enqueue_many

    from .jobs.tasks import nap, noop

    empty()
    with two_workers() as times:
        enqueue_many(noop.s() for _ in range(SHORT))
        await_all_done()
        first = time.monotonic_ns()
        enqueue_many(nap.s(number, 1.0) for number in range(LONG))
        await_all_done()
        waits = [(times[number] - first) / 1e9 for number in range(LONG)]
    return statistics.median(waits), max(waits), sum(wait > STARTED_WITHIN for wait in waits)


@contextmanager
def two_workers() -> Iterator[memoryview]:
    with tempfile.TemporaryDirectory() as name:
        files = count.make_files(Path(name))
        with running((*WORKER, "--threads", str(THREADS)), 2, {**os.environ, **files}) as worker:
            await_registration(worker, 2)
            yield count.opened(files[count.TIMES])


def await_all_done() -> None:
    """Raises RuntimeError if it takes longer than a minute."""
    from dbqueue.models import Job, JobStatus

    end = time.monotonic() + 60
    while Job.objects.exclude(status=JobStatus.SUCCESSFUL).exists():
        if time.monotonic() > end:
            raise RuntimeError("jobs were not done within a minute")
        time.sleep(0.05)


def busy_jobs(processes: int) -> float:
    """Jobs a second of a worker with so many processes, by the database's times."""
    from dbqueue import enqueue_many

    from .jobs.tasks import busy

    empty()
    with running((*WORKER, "--threads", str(THREADS), "--processes", str(processes)), 1, os.environ) as worker:
        await_registration(worker, processes)
        enqueue_many(busy.s(0.005) for _ in range(BUSY))
        await_all_done()
    return BUSY / seconds_by_database(BUSY)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    options = parser.parse_args()
    with on_postgresql(COMMAND):
        print(heading(f"{options.rounds} rounds"), flush=True)
        rows = [["jobs of 1 s, two workers", "began, median, s", "last, s", "waited for another"]]
        for number in range(options.rounds):
            median, last, waited = long_jobs()
            rows.append([f"round {number + 1}, {LONG} jobs", f"{median:.2f}", f"{last:.2f}", str(waited)])
        print(table(rows), flush=True)
        rates = [[busy_jobs(processes) for processes in (1, 2)] for _ in range(options.rounds)]
        one, two = (statistics.median(rate[way] for rate in rates) for way in range(2))
        ratio = statistics.median(rate[1] / rate[0] for rate in rates)
        print(f"\nJobs that hold the interpreter's lock for 5 ms: one process {one:,.0f} jobs/s, two {two:,.0f};")
        print(f"ratio {ratio:.2f} ({', '.join(f'{rate[1] / rate[0]:.2f}' for rate in rates)})")
        connection.close()


if __name__ == "__main__":
    main()
