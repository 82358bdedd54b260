"""Between the jobs that run here and the database: who wants them to end, and what they tell of themselves."""

import time
from collections.abc import Callable, Iterable

from ..connections import renew
from ..exceptions import CancelRequested
from ..running import Running
from ..store import Store
from .base import Service

REPORT_EVERY = 0.5
"""Seconds between two writes of what jobs tell."""

ASK_EVERY = 1.0
"""Seconds between two questions whether somebody wants a job to end, and the age from which a job is asked about."""

AT_REST = 1.0
"""Seconds of one sleep; ``wake()`` ends it."""

TRIES = 20
"""How often the last words of a job are tried to be written, where somebody else has locked its row."""


class Monitor(Service):
    """Its connection is opened when a job first needs it, and closed when none does any more."""

    name = "monitor"
    essential = False

    def __init__(self, store: Store, running: Callable[[], Iterable[Running]], on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._running = running
        self._last_words: dict[Running, int] = {}
        self._report_at = self._ask_at = 0.0
        self._called = False
        self._is_connected = False

    def ask_now(self) -> None:
        """Somebody called all workers: perhaps for a job's end."""
        self._called = True
        self.wake()

    def leave(self, running: Running) -> None:
        """This job has ended. What it told last is still to be written."""
        self._last_words[running] = 0
        self.wake()

    def run_once(self) -> float:
        jobs = list(self._running())
        if self._is_connected and not jobs and not self._last_words:
            renew(self._alias)
            self._is_connected = False
        self._ask(jobs)
        self._report(jobs)
        return REPORT_EVERY if self._last_words or any(job.has_reports for job in jobs) else AT_REST

    def _ask(self, jobs: list[Running]) -> None:
        """Learn which of these jobs somebody wants to end."""
        now = time.monotonic()
        if not self._called and now < self._ask_at:
            return
        called, self._called = self._called, False
        old = {job.claim.job_id: job for job in jobs if job.began and (called or job.seconds >= ASK_EVERY)}
        if not old:
            return
        self._is_connected = True
        for job_id, lease, interrupts in self._store.cancel_requests(old):
            job = old[job_id]
            if job.claim.lease == lease:
                job.cancelled = True
                if interrupts:
                    job.ask(CancelRequested)
        self._ask_at = now + ASK_EVERY

    def _report(self, jobs: list[Running]) -> None:
        ended = list(self._last_words)
        now = time.monotonic()
        due = ended if now < self._report_at else list(dict.fromkeys([*ended, *jobs]))
        telling = [job for job in due if job.has_reports]
        if telling:
            self._is_connected = True
            self._store.write_reports(telling)
            self._report_at = now + REPORT_EVERY
        for job in ended:
            self._last_words[job] += 1
            if not job.has_reports or self._last_words[job] > TRIES:
                del self._last_words[job]

    def _finished(self) -> bool:
        return super()._finished() and not self._last_words
