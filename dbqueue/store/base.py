"""A job from its INSERT to its outcome, and what an operator may do to it, in portable ORM.

Each transition names the state that it leaves; each write of an attempt names its lease and worker. An operation that
needs the time asks the database for it, unless a caller gives ``now``.
"""

import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..claim import Claim
from ..draft import Draft
from ..models import QUEUED, Attempt, Job, JobQuerySet, JobStatus
from ..outcome import EXPIRED, Outcome
from .bulk import Bulk
from .census import Census
from .claiming import Claiming
from .coming_back import ComingBack, uncounted
from .database import BATCH, key_after
from .history import HistoryRows
from .listener import ANY_QUEUE, Listener
from .queues import Queues
from .schedules import ScheduleRows
from .uniqueness import Uniqueness
from .workers import WorkerRows


class Finished(NamedTuple):
    """What became of outcomes that were not written."""

    refused: list[Outcome]
    left: list[Outcome]
    """Somebody else has their jobs or workflows locked."""


class Store(WorkerRows, Claiming, ComingBack, HistoryRows, Bulk, Uniqueness, Queues, ScheduleRows, Census):
    """The operations on the jobs of one database."""

    def listen(self) -> Listener | None:
        """A listener on this thread's connection, or None where the database has no way to call."""
        return None

    def listen_for_end(self, connection: BaseDatabaseWrapper, job_id: int) -> Listener | None:
        """A listener for the end of one job, which is to be looked at once more when this has returned.

        ``connection`` is in autocommit and nobody else's. None where the database has no way to call.
        """
        return None

    # The enqueue side

    def enqueue(self, drafts: Sequence[Draft]) -> list[tuple[int, datetime.datetime]]:
        """Insert all ``drafts``, or none, in the caller's transaction. Returns (id, enqueued_at) of each, in order."""
        now = self.clock()
        rows = [self._row(draft, now) for draft in drafts]
        if len(rows) > 1 and self.connection.features.can_return_rows_from_bulk_insert:
            self.jobs.bulk_create(rows, batch_size=BATCH)
        else:
            with self.atomic():
                for row in rows:
                    row.save(using=self.alias, force_insert=True)
        return [(row.pk, now) for row in rows]

    def _row(self, draft: Draft, now: datetime.datetime) -> Job:
        return Job(
            task=draft.task,
            args=draft.args,
            kwargs=draft.kwargs,
            queue_name=draft.queue_name,
            priority=draft.priority,
            # Whether it is due already is the promoter's question, asked by the database's clock.
            status=JobStatus.SCHEDULED if draft.run_after else JobStatus.READY,
            run_after=draft.run_after,
            backend=draft.backend,
            enqueued_at=now,
            max_attempts=draft.max_attempts,
            options=draft.options,
            expires_at=draft.expires_at,
            unique_key=draft.unique_key,
            unique_scope=draft.unique_scope,
            unique_until=draft.unique_until,
            concurrency_key=draft.concurrency_key,
            rate_key=draft.rate_key,
            schedule_id=draft.schedule_id,
            slot=draft.slot,
            external_id=draft.external_id,
        )

    # The run side

    def promote(self, limit: int = BATCH, now: datetime.datetime | None = None) -> list[str]:
        """Make jobs READY whose time has come, the longest due first. Returns a queue name for each."""
        now = now or self.clock()
        with self.atomic():
            due = self.jobs.due(now).order_by("run_after", "id").select_for_update(skip_locked=True)
            found = list(due.values_list("id", "queue_name")[:limit])
            if found:
                ids = [pk for pk, _ in found]
                self.jobs.leaving({JobStatus.SCHEDULED}, ids).update(status=JobStatus.READY)
        return [queue for _, queue in found]

    def promote_these(self, ids: Collection[int]) -> None:
        """Make these SCHEDULED jobs READY before their time, for a run inline."""
        self.jobs.leaving({JobStatus.SCHEDULED}, ids).update(status=JobStatus.READY)

    def expire(self, limit: int = BATCH, now: datetime.datetime | None = None) -> list[int]:
        """Cancel jobs that wait and were to be started by now. Returns their ids. One that had begun before goes on."""
        now = now or self.clock()
        late = self.jobs.filter(status__in=QUEUED, expires_at__lte=now, started_at=None)
        if not late.exists():
            return []
        with self.atomic():
            free = self._lock_free(late.order_by("expires_at"), limit)
            ids = list(late.filter(pk__in=free).select_for_update(skip_locked=True).values_list("id", flat=True))
            self.cancel(ids, now, reason=EXPIRED)
        return ids

    def seconds_to_next_due(self, now: datetime.datetime | None = None) -> float | None:
        """How long until the next SCHEDULED job is due; None if there is none, never below zero."""
        scheduled = self.jobs.filter(status=JobStatus.SCHEDULED).order_by("run_after")
        first = scheduled.values_list("run_after", flat=True).first()
        return None if first is None else max(0.0, (first - (now or self.clock())).total_seconds())

    def restore(self, claims: Collection[Claim]) -> int:
        """Take again what a crash of the server took back: READY, one lease before, as if never claimed.

        Nobody else can have claimed it since, as that would have drawn the same lease. Returns how many were restored.
        """
        restored = 0
        with self.atomic():
            for claim in sorted(claims):
                taken_back = self.jobs.leaving({JobStatus.READY}, [claim.job_id]).filter(lease=claim.lease - 1)
                restored += taken_back.update(
                    status=JobStatus.RUNNING,
                    worker_id=claim.worker_id,
                    lease=claim.lease,
                    attempt=claim.attempt,
                    started_at=claim.started_at,
                    last_attempted_at=claim.claimed_at,
                    ahead=False,
                )
        return restored

    def finish(self, outcomes: Sequence[Outcome], now: datetime.datetime | None = None) -> list[Outcome]:
        """Write the outcomes of attempts, all in one transaction.

        Returns those that were refused, because their claim does not hold the job any more. A job that was to be tried
        again, and that somebody wants to be cancelled, is.
        """
        return self._finish(outcomes, now, waits=True).refused

    def finish_free(self, outcomes: Sequence[Outcome], now: datetime.datetime | None = None) -> Finished:
        """The same without waiting for those who have jobs or workflows locked: what is of such is not written yet."""
        return self._finish(outcomes, now, waits=False)

    def _finish(self, outcomes: Sequence[Outcome], now: datetime.datetime | None, *, waits: bool) -> Finished:
        now = now or self.clock()
        with self.atomic():
            workflows = {outcome.claim.workflow_id for outcome in outcomes}
            busy = self._lock_workflows(workflows) if waits else self._lock_free_workflows(workflows)
            left = [outcome for outcome in outcomes if outcome.claim.workflow_id in busy]
            free = [outcome for outcome in outcomes if outcome.claim.workflow_id not in busy] if busy else outcomes
            if not waits and (locked := self._lock_free_jobs([outcome.claim.job_id for outcome in free])):
                left += [outcome for outcome in free if outcome.claim.job_id in locked]
                free = [outcome for outcome in free if outcome.claim.job_id not in locked]
            applied = self._apply(free, now) if free else set()
            written = [outcome for outcome in free if fence(outcome) in applied]
            self._record_failures(written, now)
            if later := [outcome.claim.job_id for outcome in written if outcome.status is JobStatus.SCHEDULED]:
                self._write_calls(written)
                self._write_requested(later, now)
                self.call_workers({ANY_QUEUE})
            if steps := [outcome for outcome in written if is_of_workflow(outcome)]:
                self._go_on(steps, now)
        return Finished([outcome for outcome in free if fence(outcome) not in applied], left)

    def _go_on(self, outcomes: Sequence[Outcome], now: datetime.datetime) -> None:
        """What follows from these outcomes of steps, and of jobs that become one."""
        # What somebody wants to end is not replaced any more.
        self._write_requested([o.claim.job_id for o in outcomes if o.replacement is not None], now)
        # All comes in before anything is decided: what an empty group ends may be what the next one is added to.
        groups = self._plant_in(outcomes, now)
        ids = [outcome.claim.job_id for outcome in outcomes]
        self._call_back([outcome.claim.job_id for outcome in outcomes if outcome.status is JobStatus.FAILED])
        self._settle([*ids, *self._end_empty(groups, now)], now)

    def _plant_in(self, outcomes: Sequence[Outcome], now: datetime.datetime) -> list[int]:
        """Plant what replaces these jobs, and what they add to groups. Returns the ids of the groups among it."""
        growing = [outcome for outcome in outcomes if outcome.added]
        adders, grown = [o.claim.job_id for o in growing], {pk for o in growing for pk in o.added}
        may_add, may_grow = self._open_to_members(adders, grown)
        groups: list[int] = []
        for outcome in outcomes:
            claim, workflow_id = outcome.claim, outcome.claim.workflow_id
            if outcome.replacement is not None and self.jobs.leaving({JobStatus.WAITING}, [claim.job_id]).exists():
                workflow_id, more = self._put_in_place(claim.job_id, workflow_id, outcome.replacement, now)
                groups += more
            if workflow_id is not None and claim.job_id in may_add:
                for group_id in may_grow & outcome.added.keys():
                    groups += self._add_members(group_id, outcome.added[group_id], workflow_id, now)
        return groups

    def written(self, outcomes: Collection[Outcome]) -> list[Outcome]:
        """Which of these stand in their jobs' rows: a commit may have succeeded although its reply was lost."""
        rows = self.jobs.filter(pk__in=[outcome.claim.job_id for outcome in outcomes])
        stand = set(rows.values_list("pk", "lease", "status", "worker_id"))
        return [outcome for outcome in outcomes if (*fence(outcome), outcome.status, _worker_after(outcome)) in stand]

    def _held(self, claim: Claim) -> JobQuerySet:
        return self.jobs.held(job_id=claim.job_id, lease=claim.lease, worker_id=claim.worker_id)

    def _apply(self, outcomes: Sequence[Outcome], now: datetime.datetime) -> set[tuple[int, int]]:
        """Write what the job rows keep. Returns (id, lease) of those whose fence let the write through."""
        applied = set()
        for outcome in sorted(outcomes, key=lambda outcome: outcome.claim.job_id):
            if self._held(outcome.claim).update(**_columns(outcome, now)):
                applied.add(fence(outcome))
        return applied

    def _write_calls(self, outcomes: Iterable[Outcome]) -> None:
        """Give those jobs other arguments that are tried again with them. Their fence has let them through."""
        for outcome in outcomes:
            if outcome.call is not None:
                args, kwargs = map(json.loads, outcome.call)
                again = self.jobs.leaving({JobStatus.SCHEDULED}, [outcome.claim.job_id])
                again.filter(lease=outcome.claim.lease).update(args=args, kwargs=kwargs)

    def _record_failures(self, outcomes: Iterable[Outcome], now: datetime.datetime) -> None:
        self._attempts().bulk_create(
            Attempt(
                job_id=outcome.claim.job_id,
                number=outcome.claim.attempt,
                worker_id=outcome.claim.worker_id,
                started_at=outcome.claim.claimed_at,
                ended_at=now,
                exception_class_path=outcome.failure.exception_class_path,
                traceback=outcome.failure.traceback,
            )
            for outcome in outcomes
            if outcome.failure
        )


def is_of_workflow(outcome: Outcome) -> bool:
    return outcome.claim.workflow_id is not None or outcome.replacement is not None


def fence(outcome: Outcome) -> tuple[int, int]:
    """(id, lease): names one claim of this worker. Only a crash of the server can draw a lease twice (restore())."""
    return outcome.claim.job_id, outcome.claim.lease


def _worker_after(outcome: Outcome) -> int | None:
    """The worker that a row names when this outcome was written: nobody's, if it waits for another attempt."""
    return None if outcome.status is JobStatus.SCHEDULED else outcome.claim.worker_id


def _columns(outcome: Outcome, now: datetime.datetime) -> dict[str, Any]:
    """What an outcome changes in the job's row."""
    columns = {} if outcome.counted else uncounted(outcome.claim.attempt)
    if outcome.status is JobStatus.SCHEDULED:
        due = now + datetime.timedelta(seconds=outcome.delay)
        return columns | {"status": JobStatus.SCHEDULED, "run_after": due, "worker": None}
    if outcome.status is JobStatus.WAITING:
        return columns | {"status": JobStatus.WAITING}
    value = None if outcome.value_json is None else json.loads(outcome.value_json)
    columns |= {"status": outcome.status, "finished_at": now, "return_value": value, "reason": outcome.reason}
    return columns | {"unique_key": key_after(outcome.status)}
