"""Jobs with a unique key: at most one holds it, and a unique index sees to that."""

import datetime
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from django.db import IntegrityError
from django.db.models import Q

from ..draft import Draft
from ..exceptions import DBQueueError
from ..models import QUEUED, JobStatus, UniqueScope
from .database import Database
from .listener import ANY_QUEUE

TRIES = 20
"""How often a key is tried that others take and free again meanwhile."""

BEGUN = (JobStatus.RUNNING, JobStatus.WAITING)
"""A job with a key waits for others only where they replace it: it has begun, and not ended."""

HOLDS = (
    Q(status__in=QUEUED)
    | Q(status__in=BEGUN, unique_scope__in=(UniqueScope.FINISHED, UniqueScope.PERIOD))
    | Q(status=JobStatus.SUCCESSFUL, unique_scope=UniqueScope.PERIOD)
)
"""The jobs whose key counts. A worker of a version that knows no keys may have left one on others."""


class Entered(NamedTuple):
    """What became of a draft: a new job, or one that was there already (``exists``; its time is not told)."""

    id: int
    enqueued_at: datetime.datetime
    exists: bool


class Uniqueness(Database):
    """Enqueue where a key may be taken."""

    @abstractmethod
    def enqueue(self, drafts: Sequence[Draft]) -> list[tuple[int, datetime.datetime]]: ...

    def enqueue_unique(self, drafts: Sequence[Draft]) -> list[Entered]:
        """Insert those of ``drafts`` whose unique key nobody holds. Returns for each its job, in their order.

        In a transaction the job that holds a key stays locked until the caller's commit. It can't be claimed before
        that, so it sees what the caller has written, and the caller is right to take it for its own.
        """
        together = len(drafts) > 1 or any(draft.replaces for draft in drafts)
        with self.atomic() if together else nullcontext():
            if any(draft.concurrency_key for draft in drafts):
                return [self._enter_one(draft) for draft in drafts]  # in a line the order counts
            plain = [place for place, draft in enumerate(drafts) if draft.unique_key is None]
            made = self.enqueue([drafts[place] for place in plain]) if plain else []
            entered = {place: Entered(*job, exists=False) for place, job in zip(plain, made, strict=True)}
            entered |= self._enter({place: draft for place, draft in enumerate(drafts) if draft.unique_key is not None})
        return [entered[place] for place in range(len(drafts))]

    def _enter_one(self, draft: Draft) -> Entered:
        if draft.unique_key is not None:
            return self._enter({0: draft})[0]
        [(pk, enqueued_at)] = self.enqueue([draft])
        return Entered(pk, enqueued_at, exists=False)

    def _enter(self, left: dict[int, Draft]) -> dict[int, Entered]:
        entered: dict[int, Entered] = {}
        for _ in range(TRIES):
            new = self._insert_where_free(list(left.values()))
            for place, draft in list(left.items()):
                if (job := new.pop(draft.unique_key, None)) is not None:
                    entered[place] = Entered(*job, exists=False)
                    del left[place]
                elif (found := self._holder(draft)) is not None:
                    entered[place] = found
                    del left[place]
            if not left:
                return entered
        raise DBQueueError(f"The unique key {next(iter(left.values())).unique_key!r} was taken and freed all the time.")

    def _insert_where_free(self, drafts: Sequence[Draft]) -> dict[str | None, tuple[int, datetime.datetime]]:
        """Insert a job for each key that nobody holds: the first of those that have it. Returns (id, time) by key."""
        made: dict[str | None, tuple[int, datetime.datetime]] = {}
        for draft in drafts:
            if draft.unique_key not in made:
                try:
                    with self.atomic():
                        [made[draft.unique_key]] = self.enqueue([draft])
                except IntegrityError:
                    if not self.jobs.filter(unique_key=draft.unique_key).exists() and draft.slot is not None:
                        raise  # it is the slot that is taken
        return made

    def _holder(self, draft: Draft) -> Entered | None:
        """The job that holds the draft's key, locked, and changed where the draft says so. None: nobody does now."""
        over = Q(unique_scope=UniqueScope.PERIOD, unique_until__lte=self.clock())
        holding = self.jobs.filter(unique_key=draft.unique_key)
        found = holding.filter(HOLDS).exclude(over).values_list("id", "enqueued_at", "status").first()
        if found is None:
            holding.filter(over | ~HOLDS).update(unique_key=None)
            return None
        pk, enqueued_at, status = found
        # One that has begun needs no lock, and its outcome must not wait for a caller's commit.
        if status in QUEUED and self.connection.in_atomic_block and not self._hold_on(pk, draft):
            return None  # it has just been claimed, or cancelled: look again
        if draft.replaces:
            self._replace(pk, draft)
        return Entered(pk, enqueued_at, exists=True)

    def _hold_on(self, pk: int, draft: Draft) -> bool:
        """Lock a job that waits, until the caller's commit. Returns whether it still waits."""
        waiting = self.jobs.leaving(QUEUED, [pk]).filter(unique_key=draft.unique_key)
        return bool(waiting.select_for_update().values_list("id"))

    def _replace(self, pk: int, draft: Draft) -> None:
        """Make a job that still waits what the draft says. One that runs stays as it is."""
        status = JobStatus.SCHEDULED if draft.run_after else JobStatus.READY
        self.jobs.leaving(QUEUED, [pk]).update(
            args=draft.args,
            kwargs=draft.kwargs,
            queue_name=draft.queue_name,
            priority=draft.priority,
            status=status,
            run_after=draft.run_after,
            expires_at=draft.expires_at,
            unique_scope=draft.unique_scope,
            unique_until=draft.unique_until,
            concurrency_key=draft.concurrency_key,
            rate_key=draft.rate_key,
            max_attempts=draft.max_attempts,
            options=draft.options,
        )
        self.call_workers({ANY_QUEUE, draft.queue_name})
