"""Listens for work and wakes those who look for it."""

from collections.abc import Callable, Collection

from django.db import Error

from ..store import ANY_QUEUE, Listener, Store
from .base import Service

MOST_DEAF = 0.25
"""Seconds of one wait, so that the service can be stopped."""

NOTHING_TO_HEAR = 3600.0
"""Seconds to sleep on a database that has no way to call."""


class Notifier(Service):
    """Shortens the wait for work; the dispatcher polls all the same."""

    name = "notifier"

    def __init__(self, store: Store, on_call: Callable[[Collection[str]], None], on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._on_call = on_call
        self._listener: Listener | None = None

    def run_once(self) -> float:
        try:
            if self._listener is None:
                self._listener = self._store.listen()
                # What was enqueued before this moment called nobody.
                self._on_call((ANY_QUEUE,))
            if self._listener is None:
                return NOTHING_TO_HEAR
            queues = self._listener.wait(MOST_DEAF)
        except Error:
            self._listener = None
            raise
        if queues:
            self._on_call(queues)
        return 0.0
