"""Says that this worker lives, and hears what is asked of it."""

from collections.abc import Callable

from ..store import Store
from .base import BEATS, Service


class Heartbeat(Service):
    """Beats for one row, and learns when that row was declared dead by others."""

    name = "heartbeat"

    def __init__(
        self,
        store: Store,
        timeout: float,
        on_change: Callable[[], None],
        on_asked: Callable[[str], None] = lambda request: None,
    ) -> None:
        super().__init__(store.alias, on_change)
        self._on_asked = on_asked
        self._store = store
        self._interval = self.longest_pause = timeout / BEATS
        self._worker_id = 0
        self._lost_id = -1

    @property
    def lost(self) -> bool:
        """Whether the row that it beats for was declared dead."""
        return self._lost_id == self._worker_id

    def beat_for(self, worker_id: int) -> None:
        """Speak for this row from now on."""
        self._worker_id = worker_id

    def lose(self, worker_id: int) -> None:
        """Take this row for lost. Named, because it may be the one before by now."""
        self._lost_id = worker_id
        self._on_change()

    def run_once(self) -> float:
        worker_id = self._worker_id
        if not self.lost and not self._store.beat(worker_id):
            self.lose(worker_id)
        self._on_asked(self._store.asked_of(worker_id))
        return self._interval
