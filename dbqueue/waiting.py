"""The pauses of somebody who waits for a job's end."""

import logging
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from django.db import Error

from .conf import Settings
from .connections import second_connection
from .store import Listener, store_for

logger = logging.getLogger("dbqueue.results")

FIRST_PAUSE = 0.005
"""Seconds before the second look. Every pause is twice as long as the one before."""

LISTEN_FROM = 0.08
"""Seconds of the pause from which on the wait is worth a connection: what ends sooner is found by looking."""

LAST_PAUSE = 0.25
LAST_PAUSE_OF_A_LISTENER = 1.0
"""Seconds of the longest pause. Looks go on where calls come: one may be lost, or a pooler may keep all of them."""


class Patience:
    """Waits between two looks at one job, until it may have ended."""

    def __init__(self, alias: str, job_id: int) -> None:
        self._alias = alias
        self._job_id = job_id
        self._pause = FIRST_PAUSE
        self._may_listen = Settings.load().listen
        self._listener: Listener | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._listener is not None:
            with suppress(Error):  # it is closed all the same
                self._listener.close()
        self._open.close()

    def wait(self, most: float) -> None:
        """Wait for the next look, at most ``most`` seconds."""
        if self._may_listen and self._pause >= LISTEN_FROM:
            self._may_listen = False
            if self._listen():
                return  # what ended before anybody listened is found by a look at once
        self._rest(min(self._pause, most))
        self._pause = min(2 * self._pause, LAST_PAUSE_OF_A_LISTENER if self._listener else LAST_PAUSE)

    def _rest(self, seconds: float) -> None:
        if self._listener is None:
            time.sleep(seconds)
            return
        try:
            self._listener.wait(seconds)
        except Error as exc:
            self._give_up(exc)

    def _listen(self) -> bool:
        try:
            connection = self._open.enter_context(second_connection(self._alias))
            connection.ensure_connection()
            self._listener = store_for(self._alias).listen_for_end(connection, self._job_id)
        except Error as exc:
            self._give_up(exc)
        return self._listener is not None

    def _give_up(self, exc: Error) -> None:
        """The wait goes on without being called."""
        logger.warning("Waiting for job %d without being called: %s", self._job_id, str(exc).strip())
        self._listener = None
        self._open.close()
