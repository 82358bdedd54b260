"""Sends the signals of a worker, so that a slow receiver delays nobody's outcome."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue

from ..announcement import Announcement
from ..connections import close_all
from .base import Service

logger = logging.getLogger("dbqueue.worker")

MOST_UNSENT = 10_000
"""Signals that may wait for slow receivers. What comes after is left out, and said so: memory is bounded."""

IDLE = 60.0
"""Seconds to sleep when nothing happens; ``put()`` wakes."""


class Herald(Service):
    """Its connections are closed when it has nothing to tell, as a job's are after the job."""

    name = "herald"
    essential = False

    def __init__(self, alias: str, on_change: Callable[[], None]) -> None:
        super().__init__(alias, on_change)
        self._unsent: SimpleQueue[Announcement] = SimpleQueue()
        self._left_out = 0

    @property
    def pending(self) -> int:
        return self._unsent.qsize()

    @property
    def is_half_full(self) -> bool:
        """Whether whoever can wait should."""
        return self.pending > MOST_UNSENT // 2

    def put(self, announcement: Announcement | None) -> None:
        """May be called on any thread. None: nobody would hear it."""
        if announcement is None:
            return
        if self.pending < MOST_UNSENT:
            self._unsent.put(announcement)
            self.wake()
        else:
            self._leave_out()

    def run_once(self) -> float:
        try:
            while True:
                self._unsent.get_nowait().send()
        except Empty:
            pass
        for leak in close_all():
            logger.error("A receiver of a signal leaked a database connection's state: %s", leak)
        if self._left_out:
            logger.error("Signals left out because their receivers are too slow: %d", self._left_out)
            self._left_out = 0
        return IDLE

    def _leave_out(self) -> None:
        if not self._left_out:
            logger.error("%d signals wait for their receivers: further ones are left out", MOST_UNSENT)
        self._left_out += 1

    def _finished(self) -> bool:
        return super()._finished() and self._unsent.empty()
