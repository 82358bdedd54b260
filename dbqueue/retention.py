"""How long ended jobs and workers are kept, and the walk that deletes what is older."""

import datetime
import logging
import random
import time
from collections import Counter

from django.db import Error

from .conf import Settings
from .models import JobStatus, Resolution
from .store import Store

logger = logging.getLogger("dbqueue.worker")

FIRST = (2.0, 10.0)
"""Seconds from a worker's start to its first sweep, at least and at most: those of one deploy don't sweep at once."""

EVERY = (2700.0, 4500.0)
"""Seconds from one sweep to the next, at least and at most: about an hour."""

REST = 3
"""How many times as long as a batch took a worker rests after it, so that jobs have the database for themselves.

A batch of more than a sixth of HEARTBEAT_TIMEOUT makes Maintenance judge nobody for 0.4 of it (TIME_TO_BEAT). The rest
is longer than that, three sixths at least, so dead workers are found also while batches are slow.
"""

_TWO_DAYS = datetime.timedelta(days=2)

KEEP_HISTORY = {
    Resolution.MINUTE: _TWO_DAYS,
    Resolution.TEN_MINUTES: _TWO_DAYS,
    Resolution.HOUR: datetime.timedelta(days=90),
}
"""Those since ever, which a monitoring system counts on, are never deleted: one a queue, task, outcome and error."""


class Sweep:
    """One walk through all jobs, then through the workers' rows. Each step is one short transaction."""

    def __init__(self, store: Store, settings: Settings, *, dry_run: bool = False) -> None:
        now = store.clock()
        failed = now - datetime.timedelta(days=settings.keep_failed_days)
        self.deleted: Counter[str] = Counter()
        self.refused = 0
        self.workers = 0
        self._store = store
        self._dry_run = dry_run
        self._cutoffs = {
            JobStatus.SUCCESSFUL: now - datetime.timedelta(days=settings.keep_successful_days),
            JobStatus.FAILED: failed,
            JobStatus.CANCELLED: failed,
        }
        self._after_id: int | None = 0

    def step(self) -> bool:
        """Delete one batch. Returns whether there may be more."""
        if self._after_id is None:
            if self._dry_run:
                return False
            workers = self._store.prune_workers(self._cutoffs[JobStatus.FAILED])
            self.workers += workers
            return workers > 0 or any(
                prune() > 0 for prune in (self._prune_limits, self._prune_history, self._prune_bulk, self._forget)
            )
        pruned = self._store.prune(self._cutoffs, self._after_id, dry_run=self._dry_run)
        self.deleted += pruned.deleted
        self.refused += pruned.refused
        self._after_id = pruned.last_id
        return True

    def _prune_limits(self) -> int:
        return self._store.prune_limits(self._store.clock())

    def _prune_bulk(self) -> int:
        return self._store.prune_bulk(self._cutoffs[JobStatus.FAILED])

    def _forget(self) -> int:
        """Workflows, as long after their end as the jobs that are kept for longest. The next sweep deletes theirs."""
        return self._store.prune_workflows(min(self._cutoffs.values()))

    def _prune_history(self) -> int:
        now = self._store.clock()
        cutoffs = {resolution: now - kept for resolution, kept in KEEP_HISTORY.items()}
        return self._store.prune_history(cutoffs)

    def __str__(self) -> str:
        jobs = ", ".join(f"{self.deleted[state]} {state.lower()}" for state in self._cutoffs)
        kept = f"; {self.refused} more are kept, because other tables refer to them" if self.refused else ""
        workers = "" if self._dry_run else f"; rows of workers: {self.workers}"
        return f"jobs: {jobs}{kept}{workers}"


class Retention:
    """A worker's sweeps: the first soon after its start, then one an hour."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._sweep: Sweep | None = None
        self._next_at = time.monotonic() + random.uniform(*FIRST)

    @property
    def pause(self) -> float:
        """Seconds until there is something to do."""
        return max(0.0, self._next_at - time.monotonic())

    def step(self) -> None:
        """Delete one batch, if it is time. After an error, the database's or a signal receiver's, the sweep is over."""
        began = time.monotonic()
        if began < self._next_at:
            return
        sweep, self._sweep = self._sweep, None
        self._next_at = began + random.uniform(*EVERY)
        try:
            sweep = sweep or Sweep(self._store, self._settings)
            if sweep.step():
                self._sweep = sweep
                self._next_at = time.monotonic() + REST * (time.monotonic() - began)
            elif sweep.deleted or sweep.refused or sweep.workers:
                logger.info("Retention deleted %s", sweep)
        except Error:
            raise
        except Exception:
            # Django tells receivers of pre_delete and post_delete, which may be anybody's.
            logger.exception("Retention failed, and is tried again in an hour")
