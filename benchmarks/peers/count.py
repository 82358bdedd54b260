"""What every job of every peer calls, so that progress is counted in one way: in shared memory, by the job itself.

No Django and nothing of a peer is imported here. A call costs a microsecond or two. Times are CLOCK_MONOTONIC's
nanoseconds, which Linux counts for all processes alike.
"""

import fcntl
import mmap
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

COUNTS = "BENCHMARK_COUNTS"
"""The environment variable that names the file of ``ran()``: a slot for each process that runs jobs."""

TIMES = "BENCHMARK_TIMES"
"""The environment variable that names the file of ``began()``: a time for each job that is waited for."""

SLOTS = 64
"""Processes that may run jobs in one drain."""

JOBS_TIMED = 10_000
"""Jobs that ``began()`` may be called by."""

_WORD = 8
_PID, _RAN, _FIRST, _LAST = range(4)
_WORDS = 4

_lock = threading.Lock()
_slot: memoryview | None = None
_times: memoryview | None = None


class Progress(NamedTuple):
    """Jobs that ran, and when the first and the last of them did, in nanoseconds; 0 where none ran."""

    ran: int
    first: int
    last: int

    @property
    def seconds(self) -> float:
        return (self.last - self.first) / 1e9


def make_files(folder: Path) -> dict[str, str]:
    """Make both files anew, all zeros. Returns the environment of the processes that are to write them."""
    counts, times = folder / "counts", folder / "times"
    counts.write_bytes(bytes(SLOTS * _WORDS * _WORD))
    times.write_bytes(bytes(JOBS_TIMED * _WORD))
    return {COUNTS: str(counts), TIMES: str(times)}


def opened(path: str) -> memoryview:
    """The file as numbers of 64 bits. Raises OSError where there is none."""
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


def progress(counts: memoryview) -> Progress:
    """What all processes together have run until now."""
    slots = [counts[first : first + _WORDS].tolist() for first in range(0, len(counts), _WORDS)]
    used = [slot for slot in slots if slot[_RAN]]
    if not used:
        return Progress(0, 0, 0)
    ran = sum(slot[_RAN] for slot in used)
    return Progress(ran, min(slot[_FIRST] for slot in used), max(slot[_LAST] for slot in used))


def ran() -> None:
    """A job runs: count it."""
    global _slot
    now = time.monotonic_ns()
    with _lock:
        if _slot is None:
            _slot = _take_slot()
        if not _slot[_FIRST]:
            _slot[_FIRST] = now
        _slot[_LAST] = now
        # Last, so that whoever sees the job sees its time.
        _slot[_RAN] += 1


def began(number: int) -> None:
    """A job that somebody waits for runs: write the time down."""
    global _times
    now = time.monotonic_ns()
    if _times is None:
        _times = opened(os.environ[TIMES])
    _times[number] = now


def _take_slot() -> memoryview:
    path = os.environ[COUNTS]
    counts = opened(path)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for first in range(0, len(counts), _WORDS):
            if not counts[first + _PID]:
                counts[first + _PID] = os.getpid()
                return counts[first : first + _WORDS]
    raise RuntimeError(f"More than {SLOTS} processes run jobs")


def _forget() -> None:
    """A forked process counts in a slot of its own."""
    global _lock, _slot
    _lock, _slot = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)
