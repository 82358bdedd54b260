"""What PostgreSQL's NOTIFY brings to one session, whichever driver reads it."""

import selectors
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.psycopg_any import is_psycopg3


class Notifications:
    """The words that arrive on a connection that listens. Inside a transaction nothing arrives."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        """``connection`` is open."""
        self._connection = connection
        self._heard: set[str] = set()
        if is_psycopg3:
            # For what comes along with the answer to a statement.
            self._raw.add_notify_handler(lambda call: self._heard.add(call.payload))

    def wait(self, timeout: float) -> None:
        """Wait until the socket tells of something, at most ``timeout`` seconds."""
        with self._connection.wrap_database_errors, selectors.DefaultSelector() as selector:
            selector.register(self._raw, selectors.EVENT_READ)
            # What has come along with the answer to a statement makes no socket readable.
            selector.select(0 if self._has_heard else timeout)

    def received(self) -> set[str]:
        """All words since this was last asked."""
        with self._connection.wrap_database_errors:
            if is_psycopg3:
                self._raw.pgconn.consume_input()
                while call := self._raw.pgconn.notifies():
                    self._heard.add(call.extra.decode())
            else:
                self._raw.poll()
                self._heard.update(call.payload for call in self._raw.notifies)
                self._raw.notifies.clear()
        words, self._heard = self._heard, set()
        return words

    @property
    def _raw(self) -> Any:
        return self._connection.connection

    @property
    def _has_heard(self) -> bool:
        return bool(self._heard or (not is_psycopg3 and self._raw.notifies))
