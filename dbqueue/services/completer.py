"""Writes outcomes: all that gathered since the last write, in one statement."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from django.db import DataError, Error, IntegrityError

from ..claim import Claim
from ..connections import is_about_locks, renew, sqlstate
from ..outcome import Failure, Outcome, secrets_of
from ..store import Finished, Store, fence
from .base import Service

logger = logging.getLogger("dbqueue.worker")

MOST_AT_ONCE = 1000
"""Outcomes of one statement."""

MOST_UNWRITTEN = 4000
"""Outcomes that may wait to be written; at the bound nothing more is claimed."""

MOST_CHARACTERS = 16_000_000
"""Characters of return values and tracebacks, after which a statement takes in no further outcome."""

ABOUT_THE_SERVER = ("08", "25", "40", "53", "57")
"""Classes of SQLSTATE that tell nothing of the values: connection, state of the transaction (as read-only), rollback,
resources, an operator's intervention."""

PATIENCE = 0.1
"""Seconds for which the lock of a job or of its workflow is waited for, at most: meanwhile nothing else is written.
Other workers have it for a few milliseconds, a caller who cancels or retries until his transaction ends."""

TRY_AGAIN = 0.1
"""Seconds after which those are tried again that were set aside."""

LONG = 5.0
"""Seconds after which it is said, once, that outcomes wait for a lock."""

MOST_NAMED = 5

IDLE = 60.0
"""Seconds to sleep when nobody puts an outcome; ``put()`` wakes."""


class Completer(Service):
    """At rest an outcome is written at once; under load hundreds go in one statement. No timer, no added latency."""

    name = "completer"

    def __init__(
        self,
        store: Store,
        on_change: Callable[[], None],
        on_written: Callable[[list[Outcome]], None] = lambda outcomes: None,
    ) -> None:
        super().__init__(store.alias, on_change)
        self._store = store
        self._on_written = on_written
        self._arrived: SimpleQueue[Outcome] = SimpleQueue()
        self._batch: dict[tuple[int, int], Outcome] = {}
        self._unwritten: dict[tuple[int, int], Outcome] = {}
        self._later: dict[tuple[int, int], Outcome] = {}
        self._later_at = 0.0
        self._waits_since: float | None = None
        self._in_doubt: set[tuple[int, int]] = set()
        """Those whose commit may have succeeded, and its reply have been lost."""
        self._refusals = 0
        self._refusals_told = 0

    @property
    def pending(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._unwritten)

    @property
    def room(self) -> int:
        """Outcomes that may come until the bound is reached. When half of it is free again, ``on_change`` is called."""
        return max(0, MOST_UNWRITTEN - self.pending)

    def put(self, outcome: Outcome) -> None:
        if self._unwritten.setdefault(fence(outcome), outcome) is not outcome:
            return  # an attempt ends once: its thread, or a worker that gives up on it
        self._arrived.put(outcome)
        self.wake()

    def unwritten(self) -> dict[tuple[int, int], Claim]:
        """Claims whose job has ended but still stands as RUNNING, by (id, lease)."""
        return {key: outcome.claim for key, outcome in self._unwritten.copy().items()}

    def unwritten_keys(self) -> set[tuple[int, int]]:
        """Those of ``unwritten()``."""
        return set(self._unwritten.copy())

    def was_refused(self) -> bool:
        """Whether an outcome was refused since this was last asked: what stands as running may not be what runs."""
        told, self._refusals_told = self._refusals_told, self._refusals
        return told != self._refusals_told

    def run_once(self) -> float:
        self._gather()
        while self._batch:
            self._write(list(self._batch.values()))
            self._write_later()
            self._gather()
        self._write_later()
        return max(0.0, self._later_at - time.monotonic()) if self._later else IDLE

    def _write_later(self) -> None:
        """Try those that were set aside once more, and wait a moment for one of them: it may never be seen free."""
        if not self._later or time.monotonic() < self._later_at:
            return
        self._write(_portion(self._later.values()))
        if self._later:
            first = next(iter(self._later.values()))
            of_one = [o for o in self._later.values() if o.claim.workflow_id == first.claim.workflow_id]
            self._write([first] if first.claim.workflow_id is None else _portion(of_one), waits=True)
        self._later_at = time.monotonic() + TRY_AGAIN if self._later else 0.0
        self._warn_of_long_waits()

    def _warn_of_long_waits(self) -> None:
        if not self._later:
            self._waits_since = None
        elif self._waits_since is not None and time.monotonic() > self._waits_since + LONG:
            ids = sorted(outcome.claim.job_id for outcome in self._later.values())
            logger.warning(
                "Outcomes wait for a transaction of somebody else to end, which has their jobs or workflows locked: "
                "%d, of job %s",
                len(ids),
                ", ".join(map(str, ids[:MOST_NAMED])),
            )
            self._waits_since = math.inf  # said

    def _set_aside(self, outcomes: Iterable[Outcome]) -> None:
        """Others go on without these, and those that were set aside before are next."""
        if self._waits_since is None:
            self._waits_since = time.monotonic()
        for outcome in outcomes:
            self._batch.pop(fence(outcome), None)
            self._later.pop(fence(outcome), None)
            self._later[fence(outcome)] = outcome

    def _gather(self) -> None:
        # What an error of the database left in the batch goes first.
        size = sum(map(_size, self._batch.values()))
        try:
            while len(self._batch) < MOST_AT_ONCE and size < MOST_CHARACTERS:
                outcome = self._arrived.get_nowait()
                self._batch[fence(outcome)] = outcome
                size += _size(outcome)
        except Empty:
            return

    def _write(self, outcomes: list[Outcome], *, waits: bool = False) -> None:
        """``waits``: for whoever has their workflow locked, as long as that holds up the others by a moment only."""
        try:
            refused, left = self._finish(outcomes, waits=waits)
        except Exception as exc:
            if not isinstance(exc, Error):
                self._write_despite(exc, outcomes)
                return
            if waits and is_about_locks(exc):
                self._set_aside(outcomes)
                return
            self._in_doubt.update(map(fence, outcomes))
            if len(outcomes) == 1:
                self._write_what_is_left_of(outcomes[0], exc)
            elif sqlstate(exc)[:2] not in ABOUT_THE_SERVER and self._database_answers():
                self._write_singly(outcomes)
            else:
                raise
            return
        if left:
            self._set_aside(left)
            busy = set(map(fence, left))
            outcomes = [outcome for outcome in outcomes if fence(outcome) not in busy]
        self._settle(outcomes, refused)

    def _finish(self, outcomes: list[Outcome], *, waits: bool = False) -> Finished:
        """Write them, and return those that are refused for good, and those that can't be written just now."""
        if waits:
            with self._store.waiting_at_most(PATIENCE):
                refused, left = Finished(self._store.finish(outcomes), [])
        else:
            refused, left = self._store.finish_free(outcomes)
        if doubtful := [outcome for outcome in refused if fence(outcome) in self._in_doubt]:
            written = self._store.written(doubtful)
            refused = [outcome for outcome in refused if outcome not in written]
        if refused:
            refused, busy = self._restore(refused)
            left = [*left, *busy]
        self._store.count_lost_leases(refused)
        self._unblock({key for outcome in outcomes if (key := outcome.claim.concurrency_key)})
        return Finished(refused, left)

    def _restore(self, refused: list[Outcome]) -> Finished:
        """Write those of these whose claims a crash of the server had taken back."""
        try:
            with self._store.waiting_at_most(PATIENCE):
                if self._store.restore([outcome.claim for outcome in refused]):
                    refused = self._store.finish(refused)
        except Error as exc:
            if not is_about_locks(exc):
                raise
            return Finished([], refused)
        return Finished(refused, [])

    def _unblock(self, keys: set[str]) -> None:
        """Let those run for whom there is room now. Should this fail, maintenance does it: the outcomes are written."""
        try:
            self._store.unblock(keys)
        except Error as exc:
            renew(self._alias)
            logger.warning("Jobs that wait for others could not be unblocked at once: %s", str(exc).strip())

    def _write_singly(self, outcomes: list[Outcome]) -> None:
        """One outcome that the database does not take must not keep back the others."""
        last: Error | None = None
        for outcome in outcomes:
            try:
                self._write([outcome])
            except Error as exc:
                last = exc
        if last is not None:
            raise last

    def _write_despite(self, exc: Exception, outcomes: list[Outcome]) -> None:
        """An error that is nobody's but dbqueue's own: it costs the outcome that causes it, and no other.

        Where even the failure of its job can't be written, it is tried again later.
        """
        if len(outcomes) > 1:
            self._in_doubt.update(map(fence, outcomes))
            self._write_singly(outcomes)
            return
        [outcome] = outcomes
        why = Failure.of(exc, secrets_of(outcome.claim)).traceback
        if self._store.written([outcome]):
            logger.error("After the outcome of job %s was written, there was an error\n%s", outcome.claim, why)
            self._settle([outcome], [])
            return
        left = outcome.refused(exc)
        try:
            refused, busy = self._finish([left])
        except Error:
            raise
        except Exception:  # noqa: BLE001  whatever it is, the worker goes on with all others
            if fence(outcome) not in self._later:
                logger.error("The outcome of job %s can't be written, and is tried again\n%s", outcome.claim, why)
            self._set_aside(outcomes)
            return
        if busy:
            self._set_aside(outcomes)
            return
        logger.error("The outcome of job %s could not be written\n%s", outcome.claim, why)
        self._settle([left], refused)

    def _write_what_is_left_of(self, outcome: Outcome, exc: Error) -> None:
        """Fail a job whose outcome the database refuses for what is in it. Any other error is tried again."""
        if not _refuses_the_value(exc) or not self._database_answers():
            raise exc
        why = secrets_of(outcome.claim).scrub(str(exc).strip())
        logger.error("The database refused the outcome of job %s: %s", outcome.claim, why)
        left = outcome.refused(exc)
        refused, busy = self._finish([left])
        if busy:
            self._set_aside([outcome])
        else:
            self._settle([left], refused)

    def _database_answers(self) -> bool:
        renew(self._alias)
        try:
            self._store.clock()
        except Error:
            return False
        return True

    def _settle(self, outcomes: list[Outcome], refused: list[Outcome]) -> None:
        was_full = self.pending > MOST_UNWRITTEN / 2
        for key in map(fence, outcomes):
            self._batch.pop(key, None)
            self._unwritten.pop(key, None)
            self._later.pop(key, None)
            self._in_doubt.discard(key)
        if was_full and self.pending <= MOST_UNWRITTEN / 2:
            self._on_change()
        if refused:
            self._refusals += len(refused)
            self._on_change()
        for outcome in refused:
            logger.warning(
                "Lease lost: the outcome %s of job %s was refused, the job is not this attempt's any more",
                outcome.status,
                outcome.claim,
            )
        self._tell_written(outcomes, refused)

    def _tell_written(self, outcomes: list[Outcome], refused: list[Outcome]) -> None:
        lost = {fence(outcome) for outcome in refused}
        self._on_written([outcome for outcome in outcomes if fence(outcome) not in lost] if lost else outcomes)

    def _finished(self) -> bool:
        return super()._finished() and self.pending == 0


def _portion(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """As many of them as go into one statement."""
    taken: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        if len(taken) >= MOST_AT_ONCE or size >= MOST_CHARACTERS:
            break
        taken.append(outcome)
        size += _size(outcome)
    return taken


def _size(outcome: Outcome) -> int:
    if outcome.failure is None and outcome.call is None:  # as for most
        return len(outcome.value_json or "")
    written = (outcome.value_json or "", outcome.failure.traceback if outcome.failure else "", *(outcome.call or ()))
    return sum(map(len, written))


def _refuses_the_value(exc: Error) -> bool:
    """Whether the database says that it can't hold what it was given, and not that it can't work just now.

    SQLSTATE class 54, "program limit exceeded", arrives as an OperationalError, as a lost connection does.
    """
    return isinstance(exc, DataError | IntegrityError) or sqlstate(exc).startswith("54")
