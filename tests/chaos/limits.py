"""Limits and unique keys between processes: how many ran at once, or started in a second, and how many jobs were made.

Each returns how many things are that must not be.
"""

import multiprocessing
import statistics
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from django.db import connections

from dbqueue import Concurrency, Rate, Unique, enqueue_many
from dbqueue.connections import close_all
from dbqueue.models import Job, JobStatus
from dbqueue.results import JobResult

from ..shop.chaos_tasks import toil
from ..shop.models import Run
from ..workers import eventually, worker
from .crew import Crew
from .faults import Faults
from .load import unfinished
from .stage import SETTINGS, Stage
from .verdict import print_table

LIMIT = 3
RATE = 50
PERIOD = 60
"""Seconds for which a rate is watched."""

KEY = "chaos"
PROCESSES = 8
"""Processes that enqueue one key."""


def concurrency(stage: Stage, options: Namespace) -> int:
    """Jobs under one key of concurrency, while processes are killed at random."""
    limited = toil.using(concurrency=Concurrency(LIMIT, key=KEY))
    random = Random(options.seed)
    enqueue_many(limited.s(number, "short", random.uniform(0, 0.03)) for number in range(options.jobs))
    with _watching() as seen, Crew(options.trees) as crew:
        faults = Faults(stage, crew, random)
        for number in range(1, options.times + 1):
            _await_done(number * options.jobs // (options.times + 1))
            random.choice((faults.kill_child, faults.kill_tree))()
        faults.settle()
        crew.drain(300.0)
        crew.dismiss()
    deaths = {pid: fault.began for fault in faults.made for pid in fault.pids or ()}
    at_once = _most_at_once([(run.began, run.ended or deaths.get(run.pid, run.began)) for run in Run.objects.all()])
    undone = Job.objects.exclude(status=JobStatus.SUCCESSFUL).count()
    figures = {
        "most rows RUNNING at one moment": max(seen, default=0),
        "most runs at one moment": at_once,
        "moments looked at": len(seen),
        "processes killed": len(deaths),
        "jobs not done (must be 0)": undone,
    }
    print_table(f"Figures (at most {LIMIT} at once)", figures)
    return undone + max(0, max(seen) - LIMIT) + max(0, at_once - LIMIT)


def rate(stage: Stage, options: Namespace) -> int:
    """Jobs under one rate, over three workers, for a minute; and then a look at when they were claimed."""
    limited = toil.using(rate=Rate(f"{RATE}/s", key=KEY))
    enqueue_many(limited.s(number, "short", 0.0) for number in range(RATE * (PERIOD + 5)))
    with worker(**SETTINGS), worker(**SETTINGS), worker(**SETTINGS):
        eventually(Job.objects.exclude(started_at=None).exists, timeout=60)
        time.sleep(PERIOD + 1)
    moments = Job.objects.values_list("started_at", flat=True)
    starts = sorted(moment.timestamp() for moment in moments if moment)
    began = starts[0]
    in_period = sum(moment < began + PERIOD for moment in starts)
    most = max(
        sum(begin <= moment < begin + 1 for moment in starts[place : place + 2 * RATE + 1])
        for place, begin in enumerate(starts)
    )
    by_second = [sum(began + n <= moment < began + n + 1 for moment in starts) for n in range(PERIOD)]
    figures = {
        f"starts in {PERIOD} s (at most {RATE * PERIOD})": in_period,
        "most starts in any second": most,
        "least starts of a second": min(by_second),
        "median starts of a second": statistics.median(by_second),
    }
    print_table(f"Figures ({RATE} a second)", figures)
    return max(0, most - RATE) + max(0, in_period - RATE * PERIOD)


def unique(stage: Stage, options: Namespace) -> int:
    """Eight processes enqueue one key, each its share of the calls."""
    each = options.jobs // PROCESSES
    connections.close_all()  # before the fork: parent and children must not share a session
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        shares = pool.map(_enqueue_one_key, [each] * PROCESSES)
    times = sorted(seconds for share in shares for seconds, _ in share)
    new = sum(not duplicate for share in shares for _, duplicate in share)
    made = Job.objects.count()
    alone = sorted(seconds for seconds, _ in _enqueue_one_key(500))
    figures = {
        "calls": len(times),
        "jobs made (must be 1)": made,
        "calls that were told so (must be 1)": new,
        f"median of a call, {PROCESSES} at once, ms": round(1000 * statistics.median(times), 2),
        "median of a duplicate, nobody else, ms": round(1000 * statistics.median(alone), 2),
    }
    print_table("Figures", figures)
    return abs(made - 1) + abs(new - 1)


def _enqueue_one_key(calls: int) -> list[tuple[float, bool]]:
    task = toil.using(unique=Unique(key=lambda number, kind, seconds: "one"))
    told = []
    for number in range(calls):
        began = time.perf_counter()
        result: JobResult[str] = task.enqueue(number, "short", 0.0)
        told.append((time.perf_counter() - began, result.duplicate))
    return told


def _await_done(jobs: int) -> None:
    eventually(lambda: Job.objects.filter(status=JobStatus.SUCCESSFUL).count() >= jobs or not unfinished(), timeout=300)


@contextmanager
def _watching() -> Iterator[list[int]]:
    """Count again and again, on a thread, how many run."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        try:
            while not done.wait(0.005):
                seen.append(Job.objects.filter(status=JobStatus.RUNNING, concurrency_key=KEY).count())
        finally:
            close_all()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    steps = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most
