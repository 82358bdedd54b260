"""Says that this worker lives."""

from collections.abc import Callable

from ..store import Store
from .base import BEATS, Service


class Heartbeat(Service):
    """``lost`` says that the row was declared dead by others."""

    name = "heartbeat"

    def __init__(self, store: Store, timeout: float, on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self.lost = False
        self._store = store
        self._interval = self.longest_pause = timeout / BEATS
        self._worker_id = 0

    def beat_for(self, worker_id: int) -> None:
        """Speak for this row from now on."""
        self._worker_id = worker_id
        self.lost = False

    def run_once(self) -> float:
        worker_id = self._worker_id
        if not self.lost and not self._store.beat(worker_id) and worker_id == self._worker_id:
            self.lost = True
            self._on_change()
        return self._interval
