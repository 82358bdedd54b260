"""The one shape of a service: a step, done again and again on a thread with a connection of its own."""

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from django.db import Error

from ..connections import owned_connection, renew
from ..wakeup import Wakeup

logger = logging.getLogger("dbqueue.worker")

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
"""Seconds to wait after an error of the database: doubled from the first to the last, drawn from the upper half."""


BEATS = 6
"""Beats of a worker in one HEARTBEAT_TIMEOUT: three may be late before anybody takes it for dead."""


def backoff(failures: int) -> float:
    """Seconds to wait after ``failures`` errors in a row: somewhere from half of min(10, 0.1 · 2^n) to all of it."""
    longest = min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 20))
    return random.uniform(longest / 2, longest)


class Trouble:
    """Errors of the database in a row: said once, tried again later and later."""

    def __init__(self, what: str) -> None:
        self.error: Error | None = None
        self._what = what
        self._failures = 0
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0 where there is none."""
        return 0.0 if self.error is None else time.monotonic() - self._since

    def note(self, error: Error) -> float:
        """Return how many seconds to wait before the next try."""
        if self.error is None:
            self._since = time.monotonic()
            logger.warning("%s failed, trying again: %s", self._what, str(error).strip())
        self.error = error
        self._failures += 1
        return backoff(self._failures - 1)

    def over(self) -> None:
        if self.error is not None:
            logger.info("%s works again, after %.1f s", self._what, self.seconds)
        self.error = None
        self._failures = 0


class Service(ABC):
    """One thread's work. An error of the database is tried again; any other ends the service and is told."""

    name: str
    longest_pause = LAST_PAUSE

    essential = True
    """Whether a worker that has to do without it for DATABASE_GRACE can't do its work."""

    def __init__(self, alias: str, on_change: Callable[[], None]) -> None:
        self.crashed: BaseException | None = None
        self.trouble = Trouble(f"The service {self.name}")
        self._alias = alias
        self._on_change = on_change
        self._stopping = threading.Event()
        self._wakeup = Wakeup()
        self._thread = threading.Thread(target=self._work, name=f"dbqueue-{self.name}", daemon=True)

    @abstractmethod
    def run_once(self) -> float:
        """Do one step, and return how many seconds to wait before the next (less if woken)."""

    def lost_database(self) -> None:
        """Called after an error of the database, before the step is tried again."""

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wakeup.set()

    def stop(self) -> None:
        """Ask the thread to end after the step it is in."""
        self._stopping.set()
        self._wakeup.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread, at most ``timeout`` seconds. Returns whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            with owned_connection(self._alias):
                self._repeat()
        except BaseException as exc:
            self.crashed = exc
            self._on_change()
            logger.exception("The service %s died", self.name)

    def _repeat(self) -> None:
        while not self._finished():
            try:
                pause = self.run_once()
                self.trouble.over()
            except Error as exc:
                renew(self._alias)
                self.lost_database()
                pause = min(self.trouble.note(exc), self.longest_pause)
            if not self._finished():
                self._wakeup.wait(pause)

    def _finished(self) -> bool:
        return self._stopping.is_set()
