"""A peer's worker, from its start to the end of its last process."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from benchmarks.processes import ROOT

from . import tree

STOP_PATIENCE = 30.0
"""Seconds that a worker gets to end after SIGTERM; then it is killed."""


@dataclass
class Worker:
    """One process, or several alike. Each is a session of its own: what it starts is found, and ended, with it."""

    processes: list[subprocess.Popen[str]]
    output: IO[str]

    @property
    def sessions(self) -> list[int]:
        return [process.pid for process in self.processes]

    def check(self) -> None:
        """Raises RuntimeError, with what was said, if a process has ended."""
        for process in self.processes:
            if (code := process.poll()) is not None:
                raise RuntimeError(f"the worker ended with {code}:\n{self.said()}")

    def said(self) -> str:
        """The end of its output."""
        self.output.seek(0)
        return self.output.read()[-2000:]

    def stop(self) -> None:
        """SIGTERM to what was started here, as a service manager would; SIGKILL to whatever doesn't end."""
        for process in self.processes:
            process.terminate()
        deadline = time.monotonic() + STOP_PATIENCE
        while self._lives() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._lives():
            print(f"Killed after {STOP_PATIENCE:.0f} s: {self.processes[0].args!r}", file=sys.stderr)
        for pid in tree.members(self.sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def _lives(self) -> bool:
        return any(process.poll() is None for process in self.processes) or bool(tree.members(self.sessions))


@contextlib.contextmanager
def running(arguments: tuple[str, ...], processes: int, environment: Mapping[str, str]) -> Iterator[Worker]:
    """Start ``python ARGUMENTS`` in this environment and no other; it is stopped at the end of the block."""
    with tempfile.TemporaryFile("w+") as output:
        worker = Worker([], output)
        try:
            for _ in range(processes):
                worker.processes.append(_started(arguments, environment, output))
            yield worker
        finally:
            worker.stop()


def _started(arguments: tuple[str, ...], environment: Mapping[str, str], output: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
