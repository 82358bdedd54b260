"""``python -m benchmarks.latency``: how soon a job begins in a worker at rest, and what rest and enqueueing cost."""

import argparse
import os
import random
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from django.db import connection
from django.utils import timezone

from .peers import count
from .peers.harness import percentiles
from .peers.worker import Worker, running
from .project import on_postgresql, on_sqlite
from .report import heading, table
from .scale import insert

COMMAND = "benchmarks.latency"

REST = 10.0
"""Seconds for which the worker's CPU at rest is watched."""

GAPS = (0.05, 0.25)
"""Seconds between two jobs that are enqueued one by one, at least and at most."""

SCHEDULED = 1_000_000
"""Jobs that wait for another day, beside those whose start is watched."""

SPREAD = (2.0, 20.0)
"""Seconds from now, at least and at most, at which the watched ones are due."""

NAPS = (0.2, 1.2)
"""Seconds that an awaited job takes, at least and at most."""

WORKER = ("-m", "django", "dbqueue_worker", "--threads", "8", "--queues", "default", "-v", "0")
NOBODYS = "nobody's"
"""A queue that this worker leaves alone."""

_INSERT = """
    INSERT INTO dbqueue_job (task, args, kwargs, queue_name, priority, status, backend, enqueued_at, lease, attempt,
                             ahead, crashes)
    VALUES (%s, %s, %s, %s, 0, 'READY', '', %s, 0, 0, %s, 0)
"""


def await_registration(worker: Worker, rows: int = 1) -> None:
    """Wait until it is among the workers, and at rest. Raises RuntimeError, with what it said, if it ends."""
    from dbqueue.models import Worker as Row

    while Row.objects.alive().count() < rows:
        worker.check()
        time.sleep(0.05)
    time.sleep(2)


def rest(pid: int) -> float:
    """CPU of a process that has nothing to do, in percent of one core."""
    before, began = cpu(pid), time.monotonic()
    time.sleep(REST)
    return 100 * (cpu(pid) - before) / (time.monotonic() - began)


def cpu(pid: int) -> float:
    """Seconds of CPU of all threads until now, as the scheduler counts them: /proc/…/stat counts in hundredths."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def one_by_one(times: memoryview, jobs: int) -> list[float]:
    """Seconds from before the call of ``enqueue()`` to the first line of the job."""
    from .jobs.tasks import stamp

    begins = []
    for number in range(jobs):
        begins.append(time.monotonic_ns())
        stamp.enqueue(number)
        time.sleep(random.uniform(*GAPS))
    return [(began - before) / 1e9 for before, began in zip(begins, started(times, range(jobs)), strict=True)]


def when_due(times: memoryview, jobs: int, first: int) -> list[float]:
    """Seconds from the time for which jobs were scheduled to their first line."""
    from .jobs.tasks import stamp

    numbers = range(first, first + jobs)
    due = [timezone.now() + timedelta(seconds=random.uniform(*SPREAD)) for _ in numbers]
    for number, moment in zip(numbers, due, strict=True):
        stamp.using(run_after=moment).enqueue(number)
    # The jobs note a clock that only goes forward; the schedule is told by the wall clock.
    wall = time.time_ns() - time.monotonic_ns()
    return [
        (began + wall) / 1e9 - moment.timestamp() for began, moment in zip(started(times, numbers), due, strict=True)
    ]


def awaited(times: memoryview, jobs: int, first: int) -> list[float]:
    """Seconds from the last line of a job that takes a while to the return of the ``get()`` that waits for it."""
    from .jobs.tasks import nap

    seconds = []
    for number in range(first, first + jobs):
        length = random.uniform(*NAPS)
        nap.enqueue(number, length).get(timeout=60)
        seconds.append((time.monotonic_ns() - times[number]) / 1e9 - length)
    return seconds


def started(times: memoryview, numbers: range) -> list[int]:
    """When these jobs began, in nanoseconds. Raises RuntimeError if one does not within a minute."""
    end = time.monotonic() + 60
    while not all(times[number] for number in numbers):
        if time.monotonic() > end:
            raise RuntimeError(f"{sum(not times[number] for number in numbers)} jobs did not begin")
        time.sleep(0.1)
    return [times[number] for number in numbers]


def plain_insert(number: int) -> None:
    """What ``enqueue()`` writes, as one INSERT through Django's cursor, and nobody notified."""
    with connection.cursor() as cursor:
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        cursor.execute(_INSERT, ["benchmarks.jobs.tasks.stamp", f"[{number}]", "{}", NOBODYS, now, False])


def enqueueing(jobs: int) -> tuple[float, float]:
    """Medians in seconds: ``enqueue()``, and a plain INSERT of the same row through Django's cursor, in turn."""
    from .jobs.tasks import stamp

    task, ours, plain = stamp.using(queue_name=NOBODYS), [], []
    for number in range(jobs):
        began = time.perf_counter()
        task.enqueue(number)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        plain_insert(number)
        plain.append(time.perf_counter() - began)
    return statistics.median(ours), statistics.median(plain)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="jobs of each measurement (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="on a SQLite file; DATABASE_URL is not looked at")
    options = parser.parse_args()
    with on_sqlite() if options.sqlite else on_postgresql(COMMAND), tempfile.TemporaryDirectory() as name:
        print(heading(f"A worker at rest with 8 threads; {options.jobs} jobs of each kind"), flush=True)
        files = count.make_files(Path(name))
        times = count.opened(files[count.TIMES])
        with running(WORKER, 1, {**os.environ, **files}) as process:
            await_registration(process)
            at_rest = rest(process.processes[0].pid)
            rows = [["", "p50, ms", "p99, ms"]]
            rows.append(row("enqueued → first line of the job", one_by_one(times, options.jobs)))
            rows.append(row("last line of the job → get() returns", awaited(times, options.jobs // 3, options.jobs)))
            ours, plain = enqueueing(options.jobs)
            fill_with_scheduled()
            rows.append(row("due → first line of the job", when_due(times, options.jobs, 2 * options.jobs)))
        print(table(rows))
        print(f"\nCPU at rest: {at_rest:.2f} % of a core")
        print(f"enqueue(): {1000 * ours:.2f} ms; the same INSERT: {1000 * plain:.2f} ms; ratio {ours / plain:.2f}")
        connection.close()


def fill_with_scheduled() -> None:
    """A million jobs for other days."""
    if connection.vendor == "postgresql":
        insert(SCHEDULED, "SCHEDULED", run_after="now() + interval '1 day' + number * interval '1 second'")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE dbqueue_job")


def row(title: str, seconds: list[float]) -> list[str]:
    return [title, *(f"{figure:.2f}" for figure in percentiles(seconds))]


if __name__ == "__main__":
    main()
