"""``python -m benchmarks.peers.producer PACKAGE set_up|fill|wait …``: what enqueues, in a process of the peer's own.

Started by the harness. Prints one line of JSON.
"""

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from . import count
from .peer import Jobs

WARM_UP = 3
"""Jobs before those whose latency is measured: what loads lazily has loaded then."""

GAP = (0.05, 0.25)
"""Seconds between two jobs whose latency is measured: by chance, so that they don't step in time with a poll."""

PATIENCE = 30.0
"""Seconds after which a job that did not begin is lost."""


def set_up(jobs: Jobs) -> dict[str, Any]:
    jobs.set_up()
    return {}


def fill(jobs: Jobs, many: int, each: int) -> dict[str, Any]:
    """Enqueue both ways. Returns jobs a second of each way, and how many there are now in all."""
    jobs.enqueue_each(1)  # connects
    began = time.monotonic()
    jobs.enqueue_each(each)
    between = time.monotonic()
    jobs.enqueue_many(many)
    ended = time.monotonic()
    return {"each": each / (between - began), "many": many / (ended - between), "enqueued": 1 + each + many}


def wait(jobs: Jobs, number: int) -> dict[str, Any]:
    """Enqueue jobs one after the other, each when the last has run. Returns seconds until the first line of each.

    A job that does not run is the last, and is told as lost.
    """
    times = count.opened(os.environ[count.TIMES])
    latencies: list[float] = []
    for current in range(WARM_UP + number):
        time.sleep(random.uniform(*GAP))
        enqueued = time.monotonic_ns()
        jobs.enqueue_timed(current)
        while not times[current]:
            if time.monotonic_ns() - enqueued > PATIENCE * 1e9:
                return {"latencies": latencies, "lost": 1}
            time.sleep(0.001)
        if current >= WARM_UP:
            latencies.append((times[current] - enqueued) / 1e9)
    return {"latencies": latencies, "lost": 0}


DEEDS: dict[str, Callable[..., dict[str, Any]]] = {"set_up": set_up, "fill": fill, "wait": wait}


def main(package: str, deed: str, *numbers: str) -> None:
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        import django

        django.setup()
    jobs = cast(Jobs, importlib.import_module(f"{package}.jobs"))
    answer = DEEDS[deed](jobs, *map(int, numbers))
    print(json.dumps(answer), flush=True)
    # Straight out: a pool or a loop that is left open has no say in what was measured.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
