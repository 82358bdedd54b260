"""Keeps the deadlines of the jobs that run here. It never talks to the database, which may keep it waiting."""

import logging
from collections.abc import Callable, Iterable

from ..exceptions import DeadlineExceeded
from ..running import Running
from .base import Service

logger = logging.getLogger("dbqueue.worker")

OVERDUE_AFTER = 1.0
"""Seconds after its deadline in which an interrupted job is expected to end."""

LOOK = 0.1
"""Seconds between two looks at a job that is late."""

AT_REST = 60.0
"""Seconds of one sleep while no job has a deadline; ``wake()`` ends it."""


class Timekeeper(Service):
    """Wake it when a job with a deadline begins."""

    name = "timekeeper"
    essential = False

    def __init__(
        self,
        alias: str,
        running: Callable[[], Iterable[Running]],
        on_stuck: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(alias, on_change)
        self._running = running
        self._on_stuck = on_stuck

    def run_once(self) -> float:
        jobs = [job for job in self._running() if job.timeout is not None or job.hard_timeout is not None]
        for job in jobs:
            self._look_at(job)
        return min([AT_REST, *map(_pause, jobs)])

    def _look_at(self, job: Running) -> None:
        if job.timeout is not None and job.seconds >= job.timeout:
            job.ask(DeadlineExceeded)
            if job.seconds >= job.timeout + OVERDUE_AFTER and not job.is_overdue and not job.ended:
                job.is_overdue = True
                logger.warning("Job %s is overdue: it does not end, its timeout was %g s", job.claim, job.timeout)
        if job.is_stuck:
            self._on_stuck()


def _pause(job: Running) -> float:
    """Until the next of its limits; a job that has not begun, or is late, is looked at again soon."""
    left = min(limit for limit in (job.timeout, job.hard_timeout) if limit is not None) - job.seconds
    return left if job.began and left > 0 else LOOK
