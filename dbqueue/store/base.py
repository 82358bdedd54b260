"""Every statement that moves a job, in portable ORM.

Each transition names the state that it leaves; each write of an attempt names its lease and worker. An operation that
needs the time asks the database for it, unless a caller gives ``now``.
"""

import datetime
import json
import random
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from django.db import IntegrityError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q, Value
from django.db.models.functions import Cast, Coalesce

from ..claim import Claim, Selection
from ..draft import Draft
from ..exceptions import WorkerLost
from ..models import CANCELLABLE, FINAL, RETRYABLE, Attempt, Job, JobQuerySet, JobStatus, Worker
from ..outcome import Failure, Outcome

BATCH = 500
"""Rows that one promotion, rescue or batch of pruning takes in one transaction."""

CLAIMED_COLUMNS = (
    "id",
    "lease",
    "attempt",
    "task",
    Cast("args", models.TextField()),
    Cast("kwargs", models.TextField()),
    "queue_name",
    "priority",
    "backend",
    "run_after",
    "enqueued_at",
    "started_at",
)


class Listener(Protocol):
    """Hears, on the connection of the thread that made it, that there is work. Polling stays the guarantee."""

    def wait(self, timeout: float) -> Collection[str]:
        """Wait up to ``timeout`` seconds. Returns the queues that got work; ANY_QUEUE among them means "look anew"."""


ANY_QUEUE = ""


class Pruned(NamedTuple):
    """What one batch of pruning did.

    ``deleted`` counts jobs by the state in which they had ended; ``refused`` counts those that other tables refer to.
    ``last_id`` is where the next batch goes on; None: nothing that is old enough comes after.
    """

    deleted: Counter[str]
    refused: int
    last_id: int | None


class Store(ABC):
    """The operations on the jobs of one database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    @property
    def jobs(self) -> JobQuerySet:
        return Job.objects.using(self.alias)

    def atomic(self) -> AbstractContextManager[None]:
        return transaction.atomic(using=self.alias)

    @abstractmethod
    def clock(self) -> datetime.datetime:
        """The time by the database's clock, as Django would read it from a column."""

    def listen(self) -> Listener | None:
        """A listener on this thread's connection, or None where the database has no way to call."""
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

    def seconds_to_next_due(self, now: datetime.datetime | None = None) -> float | None:
        """How long until the next SCHEDULED job is due; None if there is none, never below zero."""
        scheduled = self.jobs.filter(status=JobStatus.SCHEDULED).order_by("run_after")
        first = scheduled.values_list("run_after", flat=True).first()
        return None if first is None else max(0.0, (first - (now or self.clock())).total_seconds())

    def claim(
        self, worker_id: int, limit: int, selection: Selection = Selection(), now: datetime.datetime | None = None
    ) -> list[Claim]:
        """Take up to ``limit`` READY jobs for a worker: RUNNING, one lease and one attempt further.

        Hand nothing out before this has returned: then the claim is committed. Raises WorkerLost if the worker was
        declared lost: what it took would be rescued from it at once, and run twice.
        """
        with self.atomic():
            claimed_at, alive = self._begin_claim(worker_id)
            if not alive:
                raise WorkerLost(f"Worker {worker_id} was declared lost.")
            now = now or claimed_at
            rows = self._lock_ready(selection, limit)
            if rows:
                self._mark_running([row[0] for row in rows], worker_id, now)
        return [_claim(row, worker_id, now) for row in rows]

    def _begin_claim(self, worker_id: int) -> tuple[datetime.datetime, bool]:
        """The time, and whether this worker is alive."""
        return self.clock(), self._workers().alive().filter(pk=worker_id).exists()

    def _lock_ready(self, selection: Selection, limit: int) -> list[tuple[Any, ...]]:
        rows: dict[int, tuple[Any, ...]] = {}
        for lane in self._lanes(selection):
            if len(rows) < limit:
                # By id: two names may be one queue to a database that doesn't tell capitals apart.
                found = self._locked(lane).values_list(*CLAIMED_COLUMNS)[: limit - len(rows)]
                rows |= {row[0]: row for row in found}
        return list(rows.values())

    def _locked(self, jobs: JobQuerySet) -> JobQuerySet:
        return jobs.select_for_update(skip_locked=True)

    def _lanes(self, selection: Selection) -> Iterator[JobQuerySet]:
        """One ordered scan of one index each.

        Named queues are asked one by one, in random order, so that none starves: a single ``IN`` would walk past every
        job of the other queues, or sort all of these.
        """
        if selection.include:
            names = [name for name in dict.fromkeys(selection.include) if name not in selection.exclude]
            for name in random.sample(names, len(names)):
                yield self.jobs.ready().filter(queue_name=name)
        elif selection.exclude:
            yield self.jobs.ready().exclude(queue_name__in=selection.exclude)
        else:
            yield self.jobs.ready()

    def _mark_running(self, ids: list[int], worker_id: int, now: datetime.datetime) -> None:
        self.jobs.leaving({JobStatus.READY}, ids).update(
            status=JobStatus.RUNNING,
            worker_id=worker_id,
            lease=F("lease") + 1,
            attempt=F("attempt") + 1,
            started_at=Coalesce("started_at", Value(now)),
            last_attempted_at=now,
        )

    def finish(self, outcomes: Sequence[Outcome], now: datetime.datetime | None = None) -> list[Outcome]:
        """Write the outcomes of attempts, all in one transaction.

        Returns those that were refused, because their claim does not hold the job any more.
        """
        now = now or self.clock()
        with self.atomic():
            applied = self._apply(outcomes, now)
            self._record_failures((outcome for outcome in outcomes if fence(outcome) in applied), now)
        return [outcome for outcome in outcomes if fence(outcome) not in applied]

    def _apply(self, outcomes: Sequence[Outcome], now: datetime.datetime) -> set[tuple[int, int]]:
        """Write what the job rows keep. Returns (id, lease) of those whose fence let the write through."""
        applied = set()
        for outcome in sorted(outcomes, key=lambda outcome: outcome.claim.job_id):
            claim = outcome.claim
            held = self.jobs.held(job_id=claim.job_id, lease=claim.lease, worker_id=claim.worker_id)
            if held.update(**_columns(outcome, now)):
                applied.add(fence(outcome))
        return applied

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

    def release(self, claims: Collection[Claim]) -> int:
        """Give back claims that did not end, without using up their attempt. Returns how many were still held."""
        groups: dict[tuple[int, int, int], list[Claim]] = defaultdict(list)
        for claim in claims:
            groups[claim.worker_id, claim.lease, claim.attempt].append(claim)
        released = 0
        with self.atomic():
            for (worker_id, lease, attempt), group in groups.items():
                held = self.jobs.leaving({JobStatus.RUNNING}, [claim.job_id for claim in group])
                back: dict[str, Any] = {"status": JobStatus.READY, "worker": None, "attempt": attempt - 1}
                if attempt == 1:
                    back["started_at"] = back["last_attempted_at"] = None
                released += held.filter(lease=lease, worker_id=worker_id).update(**back)
        self.call_workers({claim.queue_name for claim in claims})
        return released

    def held_by(self, worker_id: int) -> list[Claim]:
        """The jobs that the database thinks this worker runs."""
        rows = self.jobs.filter(status=JobStatus.RUNNING, worker_id=worker_id)
        return [Claim._make((*row[:3], worker_id, *row[3:], row[-1])) for row in rows.values_list(*CLAIMED_COLUMNS)]

    # Workers

    def register(
        self, *, name: str, hostname: str, pid: int, queues: str, threads: int, now: datetime.datetime | None = None
    ) -> int:
        """Enter a worker process. Returns its id, which is never used again."""
        now = now or self.clock()
        worker = Worker(
            name=name, hostname=hostname, pid=pid, queues=queues, threads=threads, started_at=now, heartbeat_at=now
        )
        worker.save(using=self.alias, force_insert=True)
        return worker.pk

    def beat(self, worker_id: int, now: datetime.datetime | None = None) -> bool:
        """Say that this worker lives. False: it was declared lost, its jobs are others' now."""
        alive = self._workers().alive().filter(pk=worker_id)
        return bool(alive.update(heartbeat_at=now or self.clock()))

    def unregister(self, worker_id: int, now: datetime.datetime | None = None) -> None:
        self._workers().alive().filter(pk=worker_id).update(stopped_at=now or self.clock())

    def rescue(self, timeout: float, limit: int = BATCH, now: datetime.datetime | None = None) -> list[int]:
        """Declare workers lost that were silent for ``timeout`` seconds, and make READY what dead workers ran.

        The attempt counts, and its error is WorkerLost. Returns the ids of the jobs.
        """
        now = now or self.clock()
        with self.atomic():
            silent = self._workers().silent_since(now - datetime.timedelta(seconds=timeout))
            silent.update(stopped_at=now, lost=True)
            stalled = list(
                self.jobs.stalled().order_by("id").select_for_update(skip_locked=True, of=self._of())[:limit]
            )
            if stalled:
                self._record_lost(stalled, now)
                self.jobs.leaving({JobStatus.RUNNING}, [job.pk for job in stalled]).update(
                    status=JobStatus.READY, worker=None
                )
        self.call_workers({job.queue_name for job in stalled})
        return [job.pk for job in stalled]

    def has_abandoned(self, timeout: float) -> bool:
        """Whether jobs run for workers that are dead, or silent for ``timeout`` seconds: whether to rescue."""
        heard = self.clock() - datetime.timedelta(seconds=timeout)
        living = self._workers().alive().filter(pk=models.OuterRef("worker_id"), heartbeat_at__gte=heard)
        return self.jobs.filter(~models.Exists(living), status=JobStatus.RUNNING).exists()

    def _of(self) -> tuple[str, ...]:
        return ("self",) if self.connection.features.has_select_for_update_of else ()

    def _record_lost(self, jobs: Iterable[Job], now: datetime.datetime) -> None:
        error = Failure.of(WorkerLost("The worker process that ran this attempt died, or went silent for too long."))
        self._attempts().bulk_create(
            Attempt(
                job_id=job.pk,
                number=job.attempt,
                worker_id=job.worker_id or 0,
                started_at=job.last_attempted_at or now,
                ended_at=now,
                exception_class_path=error.exception_class_path,
                traceback=error.traceback,
            )
            for job in jobs
        )

    # Operators

    def cancel(self, ids: Collection[int], now: datetime.datetime | None = None) -> int:
        """Cancel jobs that wait. Returns how many; what runs or has ended is left alone."""
        return self.jobs.leaving(CANCELLABLE, ids).update(status=JobStatus.CANCELLED, finished_at=now or self.clock())

    def retry(self, ids: Collection[int], now: datetime.datetime | None = None) -> int:
        """Let failed and cancelled jobs run again. Returns how many; their history stays.

        They are READY, or SCHEDULED again where the time that they were to wait for has not come.
        """
        anew: dict[str, Any] = {"finished_at": None, "worker": None}
        with self.atomic():
            rows = self.jobs.leaving(RETRYABLE, ids)
            queues = set(rows.values_list("queue_name", flat=True).distinct())
            later = rows.filter(run_after__gt=now or self.clock()).update(status=JobStatus.SCHEDULED, **anew)
            ready = rows.update(status=JobStatus.READY, run_after=None, **anew)
            self.call_workers(queues | {ANY_QUEUE} if later else queues)
        return ready + later

    def delete(self, ids: Collection[int]) -> int:
        """Delete jobs that have ended, with their history. Returns how many; what may still run is left alone."""
        with self.atomic():
            ended = self.jobs.leaving(FINAL, ids).order_by("id").select_for_update()
            locked = list(ended.values_list("pk", flat=True))
            self._delete_locked(locked)
        return len(locked)

    # Retention

    def prune(
        self,
        cutoffs: Mapping[JobStatus, datetime.datetime],
        after_id: int = 0,
        limit: int = BATCH,
        *,
        dry_run: bool = False,
    ) -> Pruned:
        """Of the ``limit`` jobs whose ids follow ``after_id``, delete those that ended before their state's cutoff.

        One short transaction, and none where nothing is old. A row that somebody else has locked is left for the next
        time. ``dry_run`` only counts.

        The walk goes by id, so it needs no index on finished_at that each finish would have to keep. It is over when a
        whole batch was enqueued after the last cutoff: what follows can't have ended before.
        """
        columns = ("id", "status", "enqueued_at", "finished_at")
        batch = list(self.jobs.filter(pk__gt=after_id).order_by("id").values_list(*columns)[:limit])
        old = {pk: status for pk, status, _, ended in batch if ended and ended < cutoffs.get(status, ended)}
        deleted, refused = Counter(old.values()), 0
        if old and not dry_run:
            deleted, refused = self._delete_ended(list(old), cutoffs)
        over = len(batch) < limit or min(row[2] for row in batch) >= max(cutoffs.values())
        return Pruned(deleted, refused, None if over else batch[-1][0])

    def _delete_ended(self, ids: list[int], cutoffs: Mapping[JobStatus, datetime.datetime]) -> tuple[Counter[str], int]:
        """Returns how many were deleted, by state, and how many can't be, because another table refers to them."""
        ended = Q(*(Q(status=state, finished_at__lt=cutoff) for state, cutoff in cutoffs.items()), _connector=Q.OR)
        try:
            with self.atomic():
                # Asked again under the lock: an operator may have retried one since the look.
                rows = self.jobs.filter(ended, pk__in=ids).order_by("id").select_for_update(skip_locked=True)
                locked = dict(rows.values_list("id", "status"))
                self._delete_locked(locked)
        except IntegrityError:
            if len(ids) == 1:
                return Counter(), 1
            # One row that can't go must not keep the others.
            half = len(ids) // 2
            (some, refused), (more, also) = (self._delete_ended(part, cutoffs) for part in (ids[:half], ids[half:]))
            return some + more, refused + also
        return Counter(locked.values()), 0

    def prune_workers(self, before: datetime.datetime, limit: int = BATCH) -> int:
        """Delete up to ``limit`` rows of workers that stopped or were lost before this time. Returns how many."""
        stopped = self._workers().filter(stopped_at__lt=before)
        ids = list(stopped.order_by("id").values_list("id", flat=True)[:limit])
        deleted: int = stopped.filter(pk__in=ids).delete()[0]
        return deleted

    def _delete_locked(self, ids: Collection[int]) -> None:
        """Delete jobs with their attempts, without reading their arguments and results."""
        self.jobs.leaving(FINAL, ids).only("id").delete()

    def call_workers(self, queues: Collection[str]) -> None:
        """Tell listening workers, when the transaction commits, that these queues got work."""

    def _attempts(self) -> "models.QuerySet[Attempt]":
        return Attempt.objects.using(self.alias)

    def _workers(self) -> Any:
        return Worker.objects.using(self.alias)


def _claim(row: tuple[Any, ...], worker_id: int, now: datetime.datetime) -> Claim:
    pk, lease, attempt, *middle, started_at = row
    return Claim._make((pk, lease + 1, attempt + 1, worker_id, *middle, started_at or now, now))


def fence(outcome: Outcome) -> tuple[int, int]:
    """(id, lease): a lease is never given twice, so this names one claim for ever."""
    return outcome.claim.job_id, outcome.claim.lease


def _columns(outcome: Outcome, now: datetime.datetime) -> dict[str, Any]:
    """What an outcome changes in the job's row."""
    if outcome.status is JobStatus.SCHEDULED:
        return {
            "status": JobStatus.SCHEDULED,
            "run_after": now + datetime.timedelta(seconds=outcome.delay),
            "worker": None,
            "attempt": F("attempt") - 1,
        }
    value = None if outcome.value_json is None else json.loads(outcome.value_json)
    return {"status": outcome.status, "finished_at": now, "return_value": value}
