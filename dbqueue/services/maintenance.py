"""Makes due jobs ready, and returns the jobs of workers that died."""

import logging
import time
from collections.abc import Callable, Collection

from ..conf import Settings
from ..store import Store
from .base import Service

logger = logging.getLogger("dbqueue.worker")

RESCUES = 3
"""Looks for dead workers in one HEARTBEAT_TIMEOUT."""


class Maintenance(Service):
    """Every worker does this; SKIP LOCKED and the named states keep them out of each other's way."""

    name = "maintenance"

    def __init__(
        self,
        store: Store,
        settings: Settings,
        on_ready: Callable[[Collection[str]], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._poll_interval = settings.poll_interval
        self._timeout = settings.heartbeat_timeout
        self._on_ready = on_ready
        self._rescue_at = 0.0

    def run_once(self) -> float:
        self._rescue()
        due = self._store.seconds_to_next_due()
        if due == 0:
            self._promote()
            due = self._store.seconds_to_next_due()
        return self._poll_interval if due is None else min(due, self._poll_interval)

    def lost_database(self) -> None:
        # After an outage all workers look silent; they get the time to beat again before anybody judges them.
        self._rescue_at = time.monotonic() + self._timeout

    def _promote(self) -> None:
        while queues := set(self._store.promote()):
            self._store.call_workers(queues)
            self._on_ready(queues)

    def _rescue(self) -> None:
        if time.monotonic() < self._rescue_at:
            return
        while rescued := self._store.rescue(self._timeout):
            logger.warning("Rescued %d jobs of dead workers: %s", len(rescued), ", ".join(map(str, rescued[:20])))
        self._rescue_at = time.monotonic() + self._timeout / RESCUES
