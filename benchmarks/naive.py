"""``python -m benchmarks.naive WAY JOBS``: the same jobs as plain threads that use the ORM and close nothing.

Started by ``benchmarks.connections``, on its scratch database. Prints one line: jobs done, and the error that ended it.
"""

import gc
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import django
from django.db import OperationalError

THREADS = 8


def thread_per_job(job: Callable[[int], None], jobs: int) -> int:
    """One thread at a time, a new one for each job."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            job(number)
        except OperationalError as exc:
            failures.append(exc)

    for number in range(jobs):
        thread = threading.Thread(target=run, args=(number,))
        thread.start()
        thread.join()
        if failures:
            raise Refused(number, failures[0])
    return jobs


def thread_per_job_without_collector(job: Callable[[int], None], jobs: int) -> int:
    """The same with Python's cyclic garbage collector switched off, as some services run."""
    gc.disable()
    return thread_per_job(job, jobs)


def pool_per_batch(job: Callable[[int], None], jobs: int) -> int:
    """``with ThreadPoolExecutor(8) as pool: pool.map(…)`` for every 8 jobs; the collector runs as Python ships it."""
    for first in range(0, jobs, THREADS):
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                list(pool.map(job, range(first, min(first + THREADS, jobs))))
            except OperationalError as exc:
                raise Refused(first, exc) from exc
    return jobs


WAYS: dict[str, Callable[[Callable[[int], None], int], int]] = {
    "pool-per-batch": pool_per_batch,
    "thread-per-job": thread_per_job,
    "thread-per-job-without-collector": thread_per_job_without_collector,
}


TITLES = {
    "pool-per-batch": "a ThreadPoolExecutor(8) for every 8 jobs",
    "thread-per-job": "a new thread for each job, one at a time",
    "thread-per-job-without-collector": "the same after gc.disable()",
}


class Refused(Exception):
    """The server took no more sessions after ``done`` jobs."""

    def __init__(self, done: int, error: BaseException) -> None:
        super().__init__(str(error).strip().rpartition("FATAL:")[2].strip())
        self.done = done


def main(way: str, jobs: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    from .jobs.tasks import visit

    try:
        done, end = WAYS[way](visit, jobs), ""
    except Refused as exc:
        done, end = exc.done, str(exc)
    print(f"{done}\t{end}")
    # Straight out: how the interpreter tidies up is not what is measured.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
