"""Writes outcomes: all that gathered since the last write, in one statement."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue

from django.db import DataError, IntegrityError

from ..outcome import Outcome
from ..store import Store, fence
from .base import Service

logger = logging.getLogger("dbqueue.worker")

MOST_AT_ONCE = 500
"""Outcomes of one statement."""

IDLE = 60.0
"""Seconds to sleep when nobody puts an outcome; ``put()`` wakes."""


class Completer(Service):
    """At rest an outcome is written at once; under load hundreds go in one statement. No timer, no added latency."""

    name = "completer"

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._arrived: SimpleQueue[Outcome] = SimpleQueue()
        self._batch: list[Outcome] = []
        self._unwritten: dict[tuple[int, int], Outcome] = {}

    @property
    def pending(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._unwritten)

    def put(self, outcome: Outcome) -> None:
        self._unwritten[fence(outcome)] = outcome
        self._arrived.put(outcome)
        self.wake()

    def unwritten(self) -> set[tuple[int, int]]:
        """(id, lease) of jobs that have ended but still stand as RUNNING."""
        return set(self._unwritten.copy())

    def run_once(self) -> float:
        self._gather()
        while self._batch:
            self._write(self._batch)
            for outcome in self._batch:
                self._unwritten.pop(fence(outcome), None)
            self._batch = []
            self._gather()
        return IDLE

    def _gather(self) -> None:
        # What an error of the database left in the batch goes first.
        try:
            while len(self._batch) < MOST_AT_ONCE:
                self._batch.append(self._arrived.get_nowait())
        except Empty:
            return

    def _write(self, outcomes: list[Outcome]) -> None:
        try:
            refused = self._store.finish(outcomes)
        except (DataError, IntegrityError) as exc:
            self._write_singly(outcomes, exc)
            return
        for outcome in refused:
            logger.warning(
                "Lease lost: the outcome %s of job %s was refused, the job is not this attempt's any more",
                outcome.status,
                outcome.claim,
            )

    def _write_singly(self, outcomes: list[Outcome], exc: Exception) -> None:
        """One value that the database refuses must not keep back the others."""
        if len(outcomes) == 1 and outcomes[0].failure is None:
            logger.error("Job %s failed: the database refused its return value: %s", outcomes[0].claim, exc)
            self._write([outcomes[0].refused(exc)])
        elif len(outcomes) == 1:
            raise exc
        else:
            for outcome in outcomes:
                self._write([outcome])

    def _finished(self) -> bool:
        return super()._finished() and self.pending == 0
