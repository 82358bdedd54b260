"""``python -m benchmarks.connections``: sessions of a worker whose jobs use the ORM.

Beside it, threads that run the same jobs and close nothing.
"""

import argparse
import bisect
import datetime
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db import connection

from . import naive
from .drain import empty, seconds_by_database
from .processes import WORKER, run, sockets
from .project import NAME as OWN_NAME
from .project import connect, on_postgresql
from .report import heading, table

COMMAND = "benchmarks.connections"

THREADS = 8

SERVICES = 5
"""Connections of a worker process that stay: dispatcher, completer, heartbeat, notifier, maintenance."""

BOUND = THREADS + SERVICES

LEAK_EVERY = 10
"""In the second run, every tenth job leaves ``atomic`` open."""

SAMPLE_EVERY = 0.02
"""Seconds between two looks at pg_stat_activity."""

LANES = 10
"""Parts of a run, for each of which the most sessions are printed: thousands, where there are 10,000 jobs."""

NAME = "dbqueue-measured"
"""The application_name of the measured process's sessions, by which they are told from all others."""

_SESSIONS = f"SELECT clock_timestamp(), count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'"


class Sample(NamedTuple):
    """``at`` by the database's clock; sessions that the server shows, and sockets that the process has open."""

    at: datetime.datetime
    sessions: int
    sockets: int


@dataclass
class Sampler:
    """Looks at the measured process, on a thread of its own."""

    samples: list[Sample] = field(default_factory=list)
    pid: int = 0

    def watch(self, pid: int) -> None:
        self.pid = pid

    @property
    def most(self) -> int:
        return max(sample.sessions for sample in self.samples)

    @property
    def most_sockets(self) -> int:
        return max(sample.sockets for sample in self.samples)

    @property
    def share_over_bound(self) -> float:
        return sum(sample.sessions > BOUND for sample in self.samples) / len(self.samples)

    def most_by_lane(self, finished: list[datetime.datetime]) -> list[int]:
        """The most sessions seen while the first tenth of the jobs finished, while the second did, and so on."""
        most = [0] * LANES
        for sample in self.samples:
            lane = bisect.bisect(finished, sample.at) * LANES // len(finished)
            if lane < LANES:
                most[lane] = max(most[lane], sample.sessions)
        return most

    def look_until(self, over: threading.Event) -> None:
        with closing(connect()) as session, session.cursor() as cursor:
            while not over.wait(SAMPLE_EVERY):
                cursor.execute(_SESSIONS)
                [(at, count)] = cursor.fetchall()
                self.samples.append(Sample(at, count, sockets(self.pid) or 0))


@contextmanager
def sampled() -> Iterator[Sampler]:
    """A sampler that looks while the block lasts."""
    sampler, over = Sampler(), threading.Event()
    thread = threading.Thread(target=sampler.look_until, args=(over,))
    thread.start()
    try:
        yield sampler
    finally:
        over.set()
        thread.join()


class Measured(NamedTuple):
    """One run of the worker: the most sessions by tenths of the jobs and in all, sockets, jobs a second."""

    title: str
    lanes: list[int]
    sessions: int
    sockets: int
    share_over_bound: float
    rate: float


def with_worker(title: str, jobs: int, leak_every: int | None = None) -> Measured:
    """Run the jobs in a real worker. Raises RuntimeError where a job or a write is missing."""
    from dbqueue import enqueue_many

    from .jobs.tasks import leak, visit

    clear()
    leaking = set(range(0, jobs, leak_every)) if leak_every else set()
    enqueue_many((leak if number in leaking else visit).s(number) for number in range(jobs))
    with sampled() as sampler:
        used = run(*WORKER, on_start=sampler.watch, PGAPPNAME=NAME)
    seconds = seconds_by_database(jobs)
    check_writes(jobs, leaking, used.output)
    return Measured(
        title,
        sampler.most_by_lane(finish_times()),
        sampler.most,
        sampler.most_sockets,
        sampler.share_over_bound,
        jobs / seconds,
    )


def check_writes(jobs: int, leaking: set[int], log: str) -> None:
    """Every job that left nothing open has written its row once; the others' are rolled back and told in the log."""
    from .jobs.models import Visit

    written = sorted(Visit.objects.values_list("number", flat=True))
    if written != [number for number in range(jobs) if number not in leaking]:
        raise RuntimeError(f"{len(written)} rows were written by {jobs - len(leaking)} jobs")
    if (told := log.count("the job left a transaction open")) != len(leaking):
        raise RuntimeError(f"{told} leaks are in the log, of {len(leaking)}:\n{log[-2000:]}")


def finish_times() -> list[datetime.datetime]:
    from dbqueue.models import Job

    return [moment for moment in Job.objects.order_by("finished_at").values_list("finished_at", flat=True) if moment]


def without_closing(way: str, jobs: int) -> list[str]:
    """Run the jobs in plain threads until the server refuses, at most ``jobs``; return a row of the table."""
    clear()
    with sampled() as sampler:
        used = run("benchmarks.naive", way, str(jobs), PGAPPNAME=NAME)
    done, _, end = used.output.strip("\n").partition("\t")
    return [naive.TITLES[way], done, str(sampler.most), end or "not refused"]


def clear() -> None:
    from .jobs.models import Item, Visit

    empty()
    Visit.objects.all().delete()
    Item.objects.all().delete()
    Item.objects.bulk_create(Item(pk=number, price=number) for number in range(1, 101))


def others() -> int:
    """Sessions of anybody else on this server, who would be refused too."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND datname <> current_database() AND application_name <> %s",
            [OWN_NAME],
        )
        count: int = cursor.fetchone()[0]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of a run (default: %(default)s)")
    parser.add_argument("--naive-jobs", type=int, default=2_000, help="at most, without closing (default: %(default)s)")
    options = parser.parse_args()
    with on_postgresql(COMMAND):
        print_workers(options.jobs)
        print_naive(options.naive_jobs)
        connection.close()


def print_workers(jobs: int) -> None:
    print(heading(f"{jobs:,} jobs, each one query and one write through the ORM; CONN_MAX_AGE 0, {THREADS} threads"))
    every = f"{SAMPLE_EVERY * 1000:.0f} ms"
    print(f"The most sessions of the worker process in pg_stat_activity, looked at every {every}, by tenths")
    print("of the jobs; in all; and the most sockets that the process itself had open at once.", flush=True)
    plain = with_worker("dbqueue", jobs)
    leaking = with_worker("one job in ten leaves atomic open", jobs, LEAK_EVERY)
    rows = [
        [
            run.title,
            *map(str, run.lanes),
            str(run.sessions),
            str(run.sockets),
            f"{run.share_over_bound:.1%}",
            f"{run.rate:,.0f}",
        ]
        for run in (plain, leaking)
    ]
    lanes = [f"{(number + 1) * jobs // LANES:,}" for number in range(LANES)]
    print("\n" + table([["jobs finished, up to", *lanes, "in all", "open", f"looks over {BOUND}", "jobs/s"], *rows]))
    held = max(plain.sockets, leaking.sockets)
    print(f"\nThe bound is threads + services = {THREADS} + {SERVICES} = {BOUND}. {verdict(held)}")
    print(
        "Every job succeeded; every row that was to be written is there once; the log tells each transaction left open."
    )
    sys.stdout.flush()


def verdict(held: int) -> str:
    if held > BOUND:
        return f"BROKEN: the process held {held} connections."
    if held == 0:
        return "The process's own sockets can't be seen on this system."
    return (
        f"The process was never seen with more than\n{held} sockets open. What the server shows above that is taken for"
        " sessions that were closed here and not ended there yet."
    )


def print_naive(jobs: int) -> None:
    print(f"\nThe same job in plain threads that close nothing, until the server refuses; at most {jobs:,} jobs.")
    if busy := others():
        print(f"Left out: {busy} other sessions are open on this server, and they would be refused too.")
        return
    rows = [without_closing(way, jobs) for way in naive.WAYS]
    print()
    print(table([["", "jobs done", "most sessions", "end"], *rows]))


if __name__ == "__main__":
    main()
