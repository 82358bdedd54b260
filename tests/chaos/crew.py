"""Worker trees: a supervisor and its children each."""

import os
import signal
import time
from contextlib import suppress
from typing import Self

from django.db import Error

from dbqueue.connections import close_all
from dbqueue.models import Worker

from ..servers import children_of
from ..workers import WorkerProcess, eventually, spawn
from .load import unfinished
from .stage import SETTINGS

PROCESSES = 2
"""Worker processes of a tree."""

TAIL = 2000
"""Characters of a worker's output that are shown of one that ended by itself."""


class Tree:
    """A supervisor and its children."""

    def __init__(self, name: str, **environment: str) -> None:
        self.name = name
        self.was_told = False
        self.process: WorkerProcess = spawn(
            "--processes", str(PROCESSES), "--name", name, **{**SETTINGS, **environment}
        )

    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> list[int]:
        """SIGKILL all of it. Returns the children."""
        self.was_told = True
        # Stopped first, or it could start another child in between.
        self.process.send_signal(signal.SIGSTOP)
        children = self.children()
        for pid in (self.process.pid, *children):
            send(pid, signal.SIGKILL)
        self.process.wait()
        return children

    def behead(self) -> list[int]:
        """SIGKILL the supervisor alone. Returns the children, who will notice."""
        self.was_told = True
        children = self.children()
        self.process.kill()
        self.process.wait()
        return children

    def tell_to_stop(self) -> None:
        self.was_told = True
        self.process.send_signal(signal.SIGTERM)


class Crew:
    """Some trees, each in its place. Whoever ends by himself is replaced, and remembered with his last words."""

    def __init__(self, trees: int, **environment: str) -> None:
        self._environment = environment
        self._started = 0
        self.deserters: list[str] = []
        self.outputs: list[WorkerProcess] = []
        self.trees = [self._start() for _ in range(trees)]

    def __enter__(self) -> Self:
        eventually(lambda: Worker.objects.alive().count() == PROCESSES * len(self.trees), timeout=60)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for tree in self.trees:
            if not tree.ended():
                tree.kill()

    def replace(self, tree: Tree) -> Tree:
        """Start another in the place of ``tree``, whatever that one is doing. Returns the new one."""
        place = self.trees.index(tree)
        self.trees[place] = self._start()
        return self.trees[place]

    def await_ready(self, tree: Tree, timeout: float = 60.0) -> None:
        """Wait until all of a tree's workers have registered. Raises TimeoutError after so many seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and not tree.ended():
            try:
                if Worker.objects.alive().filter(name__startswith=f"{tree.name}.").count() == PROCESSES:
                    return
            except Error:
                close_all()
            time.sleep(0.1)
        if not tree.ended():
            raise TimeoutError(f"the workers of {tree.name} are not there after {timeout:g} s:\n{tree.process.output}")

    def look_after(self) -> None:
        """Replace those that ended without being told."""
        for tree in list(self.trees):
            if tree.ended() and not tree.was_told:
                told = f"{tree.name} ended with {tree.process.returncode}:\n{tree.process.output[-TAIL:]}"
                self.deserters.append(told)
                self.replace(tree)

    def drain(self, timeout: float) -> float:
        """Wait until no job is left to run, at most so long. Returns how many seconds it took."""
        began = time.monotonic()
        while unfinished() and time.monotonic() < began + timeout:
            self.look_after()
            time.sleep(0.1)
        return time.monotonic() - began

    def cries(self) -> list[str]:
        """What workers have logged as critical, as that a part of them died."""
        return [line for process in self.outputs for line in process.output.splitlines() if " CRITICAL " in line]

    def dismiss(self, timeout: float = 30.0) -> None:
        """Tell all to stop, and wait. Raises TimeoutExpired for one that does not."""
        self.look_after()
        for tree in self.trees:
            tree.tell_to_stop()
        for tree in self.trees:
            tree.process.wait(timeout)

    def _start(self) -> Tree:
        self._started += 1
        tree = Tree(f"tree{self._started}", **self._environment)
        self.outputs.append(tree.process)
        return tree


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
