"""Listens for work and wakes those who look for it."""

import logging
from collections.abc import Callable, Collection

from django.db import Error

from ..store import ANY_QUEUE, Listener, Store
from .base import Service, backoff

logger = logging.getLogger("dbqueue.worker")

MOST_DEAF = 0.25
"""Seconds of one wait, so that the service can be stopped."""

NOTHING_TO_HEAR = 3600.0
"""Seconds to sleep on a database that has no way to call, or none that reaches this connection."""


TRIES = 3
"""Calls to itself without an answer, each on a connection of its own, before a worker takes itself for deaf."""

TRY_AGAIN = 60.0
"""Seconds to sleep where it could be heard once."""


class Notifier(Service):
    """Shortens the wait for work; the dispatcher polls all the same."""

    name = "notifier"
    essential = False

    def __init__(self, store: Store, on_call: Callable[[Collection[str]], None], on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._on_call = on_call
        self._listener: Listener | None = None
        self._proven = False
        self._failures = 0

    def run_once(self) -> float:
        try:
            if self._listener is None:
                self._listener = self._store.listen()
                # What was enqueued before this moment called nobody.
                self._on_call((ANY_QUEUE,))
            if self._listener is None:
                return NOTHING_TO_HEAR
            queues = self._listener.wait(MOST_DEAF)
            if self._listener.proven:
                self._proven, self._failures = True, 0
        except Error:
            self._listener = None
            raise
        if queues:
            self._on_call(queues)
        return self._give_up(self._listener) if self._listener.is_deaf() else 0.0

    def _give_up(self, listener: Listener) -> float:
        """Leave a connection on which nothing is heard. Returns how many seconds to wait before the next attempt."""
        self._listener = None
        listener.close()
        if listener.proven:
            return 0.0  # it did hear, so another connection may hear again
        self._failures += 1
        if self._failures < TRIES:
            return backoff(self._failures)  # a slow moment is not a pooler
        if self._failures == TRIES:
            logger.warning(
                "LISTEN has no effect here: this worker called itself through the database %r and heard nothing. Most "
                "likely a connection pooler in transaction mode, such as PgBouncer, stands between them. The worker "
                "goes on without being woken and looks for work every POLL_INTERVAL seconds. Give it a direct "
                'connection, or set DBQUEUE["LISTEN"] = False to keep it from trying and from saying this.',
                self._store.alias,
            )
        return TRY_AGAIN if self._proven else NOTHING_TO_HEAR
