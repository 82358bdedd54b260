"""``python -m benchmarks.growth``: more workers, more who enqueue at once, more who hear each call."""

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import django
from django.db import connection

from .drain import empty, log_position, seconds_by_database
from .latency import NOBODYS, WORKER, await_registration, plain_insert, started
from .peers import count, tree
from .peers.harness import percentiles
from .peers.worker import running
from .project import on_postgresql
from .report import heading, table
from .spread import await_all_done

COMMAND = "benchmarks.growth"

NUMBERS = (1, 2, 4, 8, 16)

NAP = 0.05
"""Seconds of a job that waits for something, as most do."""

THREADS = 8

BUSY_FOR = 4.0
"""Seconds for which the jobs of one measurement would keep all threads busy."""

ENQUEUE_FOR = 3.0
"""Seconds for which is enqueued."""

CALLS = 300
"""Jobs that are enqueued one by one for those who hear each call."""

CALL_EVERY = 0.005
"""Seconds between two of them, on average."""

Enqueue = Callable[[int], object]


def with_workers(number: int) -> list[str]:
    """Jobs that wait for something, run by so many worker processes."""
    from dbqueue import enqueue_many

    from .jobs.tasks import nap

    empty()
    jobs = int(number * THREADS * BUSY_FOR / NAP)
    with tempfile.TemporaryDirectory() as name, running(WORKER, number, _environment(name)) as workers:
        await_registration(workers, number)
        sessions, before, began = _sessions(), tree.cpu(workers.sessions), _busy()
        enqueue_many(nap.s(0, NAP) for _ in range(jobs))
        await_all_done()
        used, busy = tree.cpu(workers.sessions) - before, _busy() - began
    rate = jobs / seconds_by_database(jobs)
    ideal = number * THREADS / NAP
    cost = f"{used / jobs * 1e6:.0f}", f"{busy / jobs * 1e6:.0f}"
    return [f"{number}", f"{rate:,.0f}", f"{100 * rate / ideal:.0f} %", *cost, str(sessions)]


def with_listeners(number: int) -> list[str]:
    """Jobs that come one by one, so that all workers hear of each and one runs it."""
    from .jobs.tasks import stamp

    empty()
    with tempfile.TemporaryDirectory() as name, running(WORKER, number, files := _environment(name)) as workers:
        await_registration(workers, number)
        before, transactions, log, begins = tree.cpu(workers.sessions), _transactions(), log_position(), []
        for job in range(CALLS):
            begins.append(time.monotonic_ns())
            stamp.enqueue(job)
            time.sleep(random.uniform(0, 2 * CALL_EVERY))
        used = tree.cpu(workers.sessions) - before
        times = started(count.opened(files[count.TIMES]), range(CALLS))
        looked, written = _transactions() - transactions, log_position() - log
    middle, last = percentiles([(began - before) / 1e9 for before, began in zip(begins, times, strict=True)])
    cost = f"{used / CALLS * 1e3:.1f}", f"{looked / CALLS:.1f}", f"{written / CALLS:,.0f}"
    return [f"{number}", f"{middle:.1f}", f"{last:.1f}", *cost]


def with_enqueuers(number: int) -> list[str]:
    """So many processes that enqueue one by one, each its own commit; beside it the same rows and no notification."""
    rates = []
    for notifies in (True, False):
        empty()
        spawn = multiprocessing.get_context("spawn")
        barrier = spawn.Barrier(number)
        with spawn.Pool(number, _set_up, (barrier,)) as pool:
            rates.append(sum(pool.map(_enqueue, [notifies] * number, chunksize=1)) / ENQUEUE_FOR)
    return [f"{number}", *(f"{rate:,.0f}" for rate in rates), f"{rates[0] / rates[1]:.2f}"]


_together: Barrier


def _set_up(barrier: Barrier) -> None:
    global _together
    _together = barrier
    django.setup()


def _enqueue(notifies: bool) -> int:
    """In a process of its own: how many it has enqueued in ENQUEUE_FOR seconds."""
    from .jobs.tasks import stamp

    task = stamp.using(queue_name=NOBODYS)
    enqueue: Enqueue = task.enqueue if notifies else plain_insert
    enqueue(0)  # connects
    _together.wait()
    number, end = 0, time.monotonic() + ENQUEUE_FOR
    while time.monotonic() < end:
        enqueue(number)
        number += 1
    return number


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, **count.make_files(Path(folder))}


def _sessions() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0]) - 1


def _transactions() -> int:
    """Transactions in this database until now. A session tells of its own at most once a second."""
    time.sleep(1.5)
    with connection.cursor() as cursor:
        cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def _busy() -> float:
    """Seconds in which the cores of this machine worked until now, whoever for but this process."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system = map(int, fields[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--most", type=int, default=max(NUMBERS), help="of workers and others (default: %(default)s)")
    options = parser.parse_args()
    numbers = [number for number in NUMBERS if number <= options.most]
    with on_postgresql(COMMAND):
        print(heading(f"Jobs that wait for {NAP} s; {THREADS} threads a worker"), flush=True)
        titles = [
            "workers",
            "jobs/s",
            "of what the threads could",
            "CPU µs a job",
            "of the whole machine",
            "sessions at rest",
        ]
        print(table([titles, *map(with_workers, numbers)]), flush=True)
        titles = [
            "workers at rest",
            "p50, ms",
            "p99, ms",
            "their CPU, ms a job",
            "transactions a job",
            "log, bytes a job",
        ]
        print(f"\nA job every {CALL_EVERY * 1000:.0f} ms\n", table([titles, *map(with_listeners, numbers)]), sep="\n")
        titles = ["processes that enqueue", "enqueue(), jobs/s", "INSERT, jobs/s", "ratio"]
        print("\nNo worker listens\n", table([titles, *map(with_enqueuers, numbers)]), sep="\n", flush=True)
        connection.close()


if __name__ == "__main__":
    main()
