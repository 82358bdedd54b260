"""Processes that are measured, and what they used."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PATIENCE = 600
"""Seconds after which a process that has not ended is killed, and the benchmark fails."""

WORKER = ("django", "dbqueue_worker", "--burst", "--threads", "8", "-v", "0")


class Usage(NamedTuple):
    """Of one process, from its start to its end: wall and CPU seconds, resident MiB at most, and what it said."""

    wall: float
    cpu: float
    memory: float
    output: str


def run(
    module: str, *arguments: str, on_start: Callable[[int], object] = lambda pid: None, **environment: str
) -> Usage:
    """Run ``python -m module`` to its end; ``on_start`` is told its process id.

    Raises RuntimeError, with what it said, unless it exits with 0.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        on_start(process.pid)
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        # Not process.wait(): only wait4 says what this one child used.
        _, status, used = os.wait4(process.pid, 0)
        guard.cancel()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(f"python -m {module} exited with {process.returncode}:\n{said}")
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, said)


def sockets(pid: int) -> int | None:
    """How many sockets a process has open; None where that can't be seen (the process has gone, or no Linux)."""
    folder = Path(f"/proc/{pid}/fd")
    count = 0
    try:
        for entry in os.listdir(folder):
            try:
                count += os.readlink(folder / entry).startswith("socket:")
            except FileNotFoundError:
                continue  # closed since the folder was read
    except OSError:
        return None
    return count
