"""Makes due jobs ready and those of schedules, returns the jobs of workers that died, and deletes what is old."""

import logging
import time
from collections.abc import Callable, Collection, Mapping

from .. import signals
from ..announcement import Announcement
from ..conf import Settings
from ..history import Tally
from ..outcome import EXPIRED
from ..rescue import rescue_all
from ..retention import Retention
from ..scheduling import Scheduling
from ..store import ANY_QUEUE, Chunk, Store
from ..summing import Summing
from .base import BEATS, Service

logger = logging.getLogger("dbqueue.worker")

RESCUES = 8
"""Looks for dead workers in one HEARTBEAT_TIMEOUT."""

TIME_TO_BEAT = 0.4
"""Share of HEARTBEAT_TIMEOUT after which everybody alive has had two beats."""

CARRY_OUT_FOR = 0.2
"""Seconds of one turn in which bulk operations are carried out, so that whatever else there is to do can wait."""

REST = 1.0
"""Seconds in which this worker lets an operation be whose next job somebody has locked, or that met an error."""


class Maintenance(Service):
    """Every worker does this; SKIP LOCKED and the named states keep them out of each other's way."""

    name = "maintenance"

    def __init__(
        self,
        store: Store,
        settings: Settings,
        on_ready: Callable[[Collection[str]], None],
        on_change: Callable[[], None],
        on_closed: Callable[[Mapping[str, int]], None] = lambda queues: None,
        announce: Callable[[Announcement], None] = Announcement.send,
        tally: Tally | None = None,
        is_crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._poll_interval = settings.poll_interval
        self._timeout = settings.heartbeat_timeout
        self._silence = settings.silence
        self._max_crashes = settings.max_crashes
        self._on_ready = on_ready
        self._on_closed = on_closed
        self._announce = announce
        self._last_key = ""
        self._retention = Retention(store, settings)
        self._scheduling = Scheduling(store)
        self._is_crowded = is_crowded
        self._tally = tally or Tally()
        self._summing = Summing(store, self._tally)
        self._resting: dict[int, float] = {}
        self._bulk_at = 0.0
        self._rescue_at = 0.0
        self._since_a_beat = 1.5 * self._timeout / BEATS
        self._tell_at: float | None = 0.0
        self._last_seen = 0.0
        self._pause = 0.0

    def run_once(self) -> float:
        began = time.time()
        if self._was_away():
            self._give_time_to_beat()
        self._rescue()
        self._tell_of_silent()
        self._scheduling.step()
        self._on_closed(self._store.closed_queues())
        self._expire()
        self._unblock()
        due = self._store.seconds_to_next_due()
        promoted = due == 0 and self._promote()
        if promoted:
            due = self._store.seconds_to_next_due()
        self._retention.step()
        self._summing.step()
        has_more = self._carry_out()
        if time.time() - began > self._timeout / BEATS:
            # The server, or this process, was frozen or cut off meanwhile: nobody could beat.
            self._give_time_to_beat()
            # Steps that take so long are not to keep it from judging for ever.
            self._bulk_at = self._rescue_at + self._timeout / RESCUES
        if due == 0 and not promoted:
            due = None  # it is locked by somebody: no reason to ask without a pause
        pauses = (
            self._poll_interval,
            self._until_rescue(),
            self._retention.pause,
            self._scheduling.pause,
            self._summing.pause,
        )
        self._pause = min(pauses) if due is None else min(due, *pauses)
        if has_more:
            self._pause = min(self._pause, max(0.0, self._bulk_at - time.monotonic()))
        self._last_seen = time.time()
        return self._pause

    def lost_database(self) -> None:
        self._give_time_to_beat()

    def _promote(self) -> bool:
        """Returns whether there was something that could be."""
        queues = set(self._store.promote())
        self._store.call_workers(queues)
        self._on_ready(queues)
        return bool(queues)

    def _expire(self) -> None:
        while ids := self._store.expire():
            logger.warning("Jobs that were not started in time are cancelled: %s", ", ".join(map(str, ids)))
            expired = self._store.jobs.filter(pk__in=ids)
            for announcement in Announcement.of_jobs(signals.job_cancelled, expired, reason=EXPIRED):
                self._announce(announcement)

    def _unblock(self) -> None:
        """Some of the keys whose jobs are blocked, in turn: the guarantee behind those who unblock at once."""
        keys = self._store.blocked_keys(self._last_key)
        self._last_key = keys[-1] if keys else ""
        if keys and self._store.unblock(keys, self._store.clock()):
            self._on_ready((ANY_QUEUE,))

    def _carry_out(self) -> bool:
        """Do some of what operators want to be done to many jobs. Returns whether there is more.

        Then it rests for as long as that took: jobs are to have the database, too.
        """
        began = time.monotonic()
        if began < self._bulk_at:
            return True
        self._resting = {pk: until for pk, until in self._resting.items() if until > began}
        end = began + min(CARRY_OUT_FOR, 0.5 * self._timeout / BEATS)
        chunk: Chunk | None = None
        while time.monotonic() < end and not self._is_crowded():
            chunk = self._store.step_bulk(resting=list(self._resting))
            if chunk is None:
                break
            self._heed_chunk(chunk)
        self._bulk_at = 2 * time.monotonic() - began
        if chunk is None and self._resting:
            self._bulk_at = min(self._resting.values())
        return chunk is not None or bool(self._resting)

    def _heed_chunk(self, chunk: Chunk) -> None:
        self._on_ready((ANY_QUEUE,))
        cancelled = self._store.jobs.filter(pk__in=self._store.among(chunk.cancelled))
        for announcement in Announcement.of_jobs(signals.job_cancelled, cancelled, reason=""):
            self._announce(announcement)
        if chunk.rests:
            self._resting[chunk.operation_id] = time.monotonic() + REST

    def _rescue(self) -> None:
        if self._until_rescue() > 0:
            return
        asked = time.time()
        now = self._store.clock()
        if time.time() - asked > self._timeout / BEATS:
            return  # run_once() has seen it too
        self._store.declare_lost(self._silence, now)
        rescue_all(self._store, self._max_crashes, self._announce, self._tally)
        self._rescue_at = time.monotonic() + self._timeout / RESCUES

    def _tell_of_silent(self) -> None:
        """Once, when all that live have beaten since this worker began: who waits for jobs of a dead one learns why."""
        if self._tell_at is None or time.monotonic() < self._tell_at:
            return
        now = self._store.clock()
        for worker, held in self._store.silent_holders(self._since_a_beat, now):
            logger.warning(
                "Worker %s (id %d) has given no sign of life for %.0f s and holds jobs: %d; "
                "they are taken back when it has given none for %.0f s",
                worker.name,
                worker.pk,
                (now - worker.heartbeat_at).total_seconds(),
                held,
                self._silence,
            )
        self._tell_at = None

    def _until_rescue(self) -> float:
        return max(0.0, self._rescue_at - time.monotonic())

    def _was_away(self) -> bool:
        """Whether this process has just begun, was stopped, or slept with its host: the wall clock tells."""
        return time.time() - self._last_seen > self._pause + self._timeout / BEATS

    def _give_time_to_beat(self) -> None:
        """Judge nobody for a while: after an outage all workers look silent, this one too."""
        self._rescue_at = time.monotonic() + self._timeout * TIME_TO_BEAT
        if self._tell_at is not None:
            self._tell_at = time.monotonic() + self._since_a_beat
