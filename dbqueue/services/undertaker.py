"""Buries worker processes that their supervisor saw die: nobody has to wait for their silence."""

import uuid
from collections.abc import Callable
from queue import SimpleQueue

from ..connections import renew
from ..history import Tally
from ..rescue import rescue_all
from ..store import Store
from .base import Service

IDLE = 3600.0
"""Seconds to sleep while nobody dies; ``bury()`` wakes."""


class Undertaker(Service):
    """Belongs to a supervisor. It opens a connection when a process has died, and closes it after."""

    name = "undertaker"

    def __init__(self, store: Store, max_crashes: int, on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._max_crashes = max_crashes
        self._dead: SimpleQueue[uuid.UUID] = SimpleQueue()
        self._unburied: set[uuid.UUID] = set()

    def bury(self, token: uuid.UUID) -> None:
        """Declare lost whoever registered with this token, and rescue its jobs."""
        self._dead.put(token)
        self.wake()

    def run_once(self) -> float:
        while not self._dead.empty():
            self._unburied.add(self._dead.get())
        if self._unburied:
            for token in self._unburied:
                self._store.lose(token)
            tally = Tally()
            rescue_all(self._store, self._max_crashes, tally=tally)
            self._store.add_history(tally.take())  # or not, where somebody has the rows: they are only figures
            self._unburied.clear()
            renew(self._alias)
        return IDLE

    def _finished(self) -> bool:
        return super()._finished() and not self._unburied and self._dead.empty()
