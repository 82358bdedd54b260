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
        memory = _Memory(process.pid)
        memory.start()
        # Not process.wait(): only wait4 says what this one child used.
        _, status, used = os.wait4(process.pid, 0)
        guard.cancel()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode:
        raise RuntimeError(f"python -m {module} exited with {process.returncode}:\n{said}")
    return Usage(wall, used.ru_utime + used.ru_stime, memory.most, said)


class _Memory(threading.Thread):
    """Watches the most memory that a process has had resident, in MiB; 0 where that can't be seen (no Linux).

    Not ``ru_maxrss``: for a process that was forked, that begins with what its parent had.
    """

    EVERY = 0.02
    """Seconds between two looks."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        while found := self._peak():
            self.most = found
            time.sleep(self.EVERY)

    def _peak(self) -> float:
        try:
            fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        except OSError:
            return 0.0
        # A process that has ended and was not waited for has no memory.
        return int(fields.get("VmHWM", "0 kB").split()[0]) / 1024


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
