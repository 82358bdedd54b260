"""When a worker writes what it has counted."""

import random
import time

from .history import TICK, Tally
from .store import Store

EVERY = (0.75 * TICK, 1.25 * TICK)
"""Seconds from one write to the next, at least and at most: workers that started together don't write together."""

AGAIN = (0.5, 1.5)
"""The same where another worker had the rows."""


class Summing:
    """A worker's part in the history."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._next_at = time.monotonic() + random.uniform(*EVERY)

    @property
    def pause(self) -> float:
        """Seconds until there may be something to write."""
        return max(0.0, self._next_at - time.monotonic())

    def step(self) -> None:
        """Write what was counted, if it is time. What could not be written is kept for the next time."""
        if self.pause > 0:
            return
        self._next_at = time.monotonic() + random.uniform(*EVERY)
        if not self.write():
            self._next_at = time.monotonic() + random.uniform(*AGAIN)

    def write(self) -> bool:
        """Returns False where another worker has the rows. Raises django.db.Error."""
        taken = self._tally.take()
        written = False
        try:
            written = self._store.add_history(taken)
        finally:
            if not written:
                self._tally.put_back(taken)
        return written
