"""One round of one peer: enqueue, drain, ask an idle worker, stop. All of it is seen from outside the worker."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from benchmarks.processes import PATIENCE, ROOT
from benchmarks.project import NAME

from . import count, tree
from .peer import Peer
from .stores import Store
from .worker import Worker, running

START_PATIENCE = 60.0
"""Seconds from the start of a worker to its first job."""

STALL_PATIENCE = 20.0
"""Seconds without any progress after which jobs that did not run are lost."""

LOOK_EVERY = 0.002
"""Seconds between two looks at the jobs' own count, which is shared memory."""

ASK_EVERY = 0.05
"""Seconds between two questions to the server: its connections while the jobs run, what is unfinished after that."""

REST = 0.5
"""Seconds between the drain and the first job whose latency is measured."""


class Load(NamedTuple):
    """Jobs of a round: enqueued together, one at a time, and one after the other to an idle worker."""

    many: int
    each: int
    timed: int


class Drained(NamedTuple):
    """Jobs a second; microseconds of CPU a job; MiB at the end; the most connections seen; jobs that never ran.

    ``lost`` below 0: so many more ran than were enqueued, so some ran twice.
    """

    rate: float
    cpu: float
    memory: float
    connections: int
    lost: int


class Round(NamedTuple):
    """``drain``, and jobs a second of enqueuing by one call and one at a time; latencies in milliseconds."""

    drain: Drained
    many: float
    each: float
    p50: float
    p99: float
    lost: int


def measure(peer: Peer, store: Store, load: Load, files: Mapping[str, str]) -> Round:
    """Raises RuntimeError, with what was said, where the peer's processes fail or no job runs at all."""
    environment = environment_of(peer, store, files)
    filled = produce(peer, environment, "fill", load.many, load.each)
    store.settle()
    with running(peer.worker, peer.processes, environment) as worker:
        drained = drain(worker, store, count.opened(files[count.COUNTS]), filled["enqueued"])
        time.sleep(REST)
        waited = produce(peer, environment, "wait", load.timed)
        worker.check()
    return Round(
        drained,
        filled["many"],
        filled["each"],
        *percentiles(waited["latencies"]),
        drained.lost + waited["lost"],
    )


def set_up(peer: Peer, store: Store) -> None:
    """Make the peer's tables. Raises RuntimeError where that fails."""
    produce(peer, environment_of(peer, store, {}), "set_up")


def environment_of(peer: Peer, store: Store, files: Mapping[str, str]) -> dict[str, str]:
    """Of the peer's processes: this one's, but with settings of its own, or without any."""
    environment = {**os.environ, **store.environment, **files, "PYTHONUNBUFFERED": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    if find_spec(settings := f"{peer.package}.settings"):
        environment["DJANGO_SETTINGS_MODULE"] = settings
    return environment


def produce(peer: Peer, environment: Mapping[str, str], deed: str, *numbers: int) -> dict[str, Any]:
    """Let the peer's producer do something. Returns what it says; raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.producer", peer.package, deed, *map(str, numbers)],
        cwd=ROOT,
        env={**environment, "PGAPPNAME": NAME},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{deed} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def drain(worker: Worker, store: Store, counts: memoryview, enqueued: int) -> Drained:
    """Watch the worker until all is finished, or nothing moves any more."""
    with most(store) as connections:
        first = _until(worker, counts, START_PATIENCE, lambda seen: seen.ran > 0)
        if not first.ran:
            raise RuntimeError(f"no job ran in {START_PATIENCE:.0f} s:\n{worker.said()}")
        before = tree.cpu(worker.sessions)
        # What ran before the CPU was read is not in it.
        uncounted = count.progress(counts).ran
        last = _until(worker, counts, STALL_PATIENCE, lambda seen: seen.ran >= enqueued)
        _finish(store)
        used = tree.cpu(worker.sessions) - before
    return Drained(
        rate=(last.ran - 1) / last.seconds,
        cpu=used / max(1, last.ran - uncounted) * 1e6,
        memory=tree.memory(worker.sessions),
        connections=connections.most,
        lost=enqueued - last.ran,
    )


def _until(
    worker: Worker, counts: memoryview, patience: float, enough: Callable[[count.Progress], bool]
) -> count.Progress:
    """Look until it is enough, or until no job has run for ``patience`` seconds."""
    seen, moved = count.progress(counts), time.monotonic()
    while not enough(seen) and time.monotonic() - moved < patience:
        time.sleep(LOOK_EVERY)
        worker.check()
        now = count.progress(counts)
        if now.ran != seen.ran:
            seen, moved = now, time.monotonic()
    return seen


def _finish(store: Store) -> None:
    """Wait until the queue itself calls every job finished, or until that number no longer falls."""
    left, moved = store.unfinished(), time.monotonic()
    while left and time.monotonic() - moved < STALL_PATIENCE:
        time.sleep(ASK_EVERY)
        if (now := store.unfinished()) != left:
            left, moved = now, time.monotonic()


@dataclass
class Most:
    most: int = 0


@contextmanager
def most(store: Store) -> Iterator[Most]:
    """The most connections seen while the block lasts, by a thread that asks the server."""
    seen, over, failures = Most(), threading.Event(), list[BaseException]()

    def look() -> None:
        try:
            with store.watched() as connections:
                while not over.wait(ASK_EVERY):
                    seen.most = max(seen.most, connections())
        except BaseException as exc:  # noqa: BLE001 - raised again below, on the thread that can tell it
            failures.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def percentiles(latencies: list[float]) -> tuple[float, float]:
    """The middle one and the ninety-ninth of a hundred, in milliseconds; not a number where there are none."""
    if not latencies:
        return float("nan"), float("nan")
    ordered = sorted(latencies)
    return statistics.median(ordered) * 1000, ordered[-(-len(ordered) * 99 // 100) - 1] * 1000
