"""Watches the jobs that run here: their deadlines, who wants them to end, and what they tell of themselves."""

import logging
import time
from collections.abc import Callable, Iterable

from ..connections import renew
from ..exceptions import DeadlineExceeded, JobCancelled
from ..running import Running
from ..store import Store
from .base import Service

logger = logging.getLogger("dbqueue.worker")

REPORT_EVERY = 0.5
"""Seconds between two writes of what jobs tell."""

ASK_EVERY = 1.0
"""Seconds between two questions whether somebody wants a job to end, and the age from which a job is asked about."""

OVERDUE_AFTER = 1.0
"""Seconds after its deadline in which an interrupted job is expected to end."""

AT_REST = 1.0
"""Seconds of one sleep; ``wake()`` ends it."""


class Monitor(Service):
    """Its connection is opened when a job first needs it, and closed when none does any more."""

    name = "monitor"
    essential = False

    def __init__(
        self,
        store: Store,
        running: Callable[[], Iterable[Running]],
        on_stuck: Callable[[Running], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._running = running
        self._on_stuck = on_stuck
        self._last_words: list[Running] = []
        self._report_at = self._ask_at = 0.0
        self._called = False
        self._is_connected = False

    def ask_now(self) -> None:
        """Somebody called all workers: perhaps for a job's end."""
        self._called = True
        self.wake()

    def leave(self, running: Running) -> None:
        """This job has ended. What it told last is still to be written."""
        self._last_words.append(running)
        self.wake()

    def run_once(self) -> float:
        jobs = list(self._running())
        if self._is_connected and not jobs and not self._last_words:
            renew(self._alias)
            self._is_connected = False
        for job in jobs:
            self._keep_time(job)
        self._ask(jobs)
        self._report(jobs)
        limits = [left for job in jobs if (left := job.seconds_left()) is not None and left > 0]
        soon = [REPORT_EVERY] if any(job.has_reports for job in jobs) else []
        late = [0.1] if any((job.seconds_left() or 1.0) <= 0 for job in jobs) else []
        return min([AT_REST, *limits, *soon, *late])

    def _keep_time(self, job: Running) -> None:
        took = time.monotonic() - job.began if job.began else 0.0
        if job.timeout is not None and took >= job.timeout and job.interrupted_by is None:
            job.interrupt(DeadlineExceeded)
        if job.hard_timeout is not None and took >= job.hard_timeout and not job.ended:
            self._on_stuck(job)
        elif job.timeout is not None and took >= job.timeout + OVERDUE_AFTER and not job.is_overdue and not job.ended:
            job.is_overdue = True
            logger.warning("Job %s is overdue: it can't be interrupted, its timeout was %g s", job.claim, job.timeout)

    def _ask(self, jobs: list[Running]) -> None:
        """Learn which of these jobs somebody wants to end."""
        now = time.monotonic()
        called, self._called = self._called, False
        if not called and now < self._ask_at:
            return
        old = {job.claim.job_id: job for job in jobs if job.began and (called or now - job.began >= ASK_EVERY)}
        if not old:
            return
        self._ask_at = now + ASK_EVERY
        self._is_connected = True
        for job_id, lease, interrupts in self._store.cancel_requests(old):
            job = old[job_id]
            if job.claim.lease == lease:
                job.cancelled = True
                if interrupts:
                    job.interrupt(JobCancelled)

    def _report(self, jobs: list[Running]) -> None:
        ended, self._last_words = self._last_words, []
        now = time.monotonic()
        due = ended if now < self._report_at else [*ended, *jobs]
        telling = [job for job in due if job.has_reports]
        if not telling:
            return
        self._report_at = now + REPORT_EVERY
        self._is_connected = True
        try:
            self._store.write_reports(telling)
        except BaseException:
            self._last_words[:0] = ended
            raise

    def _finished(self) -> bool:
        return super()._finished() and not self._last_words
