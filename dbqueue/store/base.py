"""Every statement that moves a job, in portable ORM.

Each transition names the state that it leaves; each write of an attempt names its lease and worker. An operation that
needs the time asks the database for it, unless a caller gives ``now``.
"""

import datetime
import json
import random
import uuid
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from django.db import Error, IntegrityError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Q, Value
from django.db.models.functions import Cast, Coalesce, Greatest

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
    "crashes",
    "started_at",
)
_CRASHES = CLAIMED_COLUMNS.index("crashes")


class Listener(ABC):
    """Hears, on the connection of the thread that made it, that there is work. Polling stays the guarantee."""

    proven = True
    """Whether it has ever heard a call that it made to itself. Where that is out of question: True."""

    @abstractmethod
    def wait(self, timeout: float) -> Collection[str]:
        """Wait up to ``timeout`` seconds. Returns the queues that got work; ANY_QUEUE among them means "look anew"."""

    def is_deaf(self) -> bool:
        """Whether a call that it made to itself has not come in time. ``wait()`` is what makes these calls."""
        return False

    def close(self) -> None:
        """Stop listening, and close the connection."""


ANY_QUEUE = ""


class Rescue(NamedTuple):
    """The ids of the jobs that dead workers had claimed, by what became of them."""

    again: list[int]
    """READY, an attempt further."""

    unbegun: list[int]
    """READY, as if never claimed: no thread had begun them."""

    failed: list[int]
    """FAILED: too many workers died of them."""


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
        self,
        worker_id: int,
        limit: int,
        selection: Selection = Selection(),
        now: datetime.datetime | None = None,
        free: int | None = None,
        last_chance: int | None = None,
    ) -> list[Claim]:
        """Take up to ``limit`` READY jobs for a worker: RUNNING, one lease and one attempt further.

        The first ``free`` of them (None: all) are for threads that wait for work; the others are marked ``ahead``.
        Those of which a worker may have died come first. With ``last_chance`` crashes or more they are ``ahead`` too,
        as they will wait until they can run alone.

        Hand nothing out before this has returned: then the claim is committed. Raises WorkerLost if the worker was
        declared lost: what it took would be rescued from it at once, and run twice.
        """
        with self.atomic():
            claimed_at, alive = self._begin_claim(worker_id)
            if not alive:
                raise WorkerLost(f"Worker {worker_id} was declared lost.")
            now = now or claimed_at
            rows = self._lock_ready(selection, limit)
            rows.sort(key=lambda row: row[_CRASHES] == 0)
            ids = [row[0] for row in rows]
            at_once = {row[0] for row in rows[:free] if last_chance is None or row[_CRASHES] < last_chance}
            if ids:
                self._mark_running(ids, at_once, worker_id, now)
        return [_claim(row, worker_id, now, ahead=row[0] not in at_once) for row in rows]

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

    def _mark_running(self, ids: list[int], at_once: set[int], worker_id: int, now: datetime.datetime) -> None:
        self.jobs.leaving({JobStatus.READY}, ids).update(
            status=JobStatus.RUNNING,
            worker_id=worker_id,
            lease=F("lease") + 1,
            attempt=F("attempt") + 1,
            started_at=Coalesce("started_at", Value(now)),
            last_attempted_at=now,
            ahead=models.Case(models.When(pk__in=at_once, then=False), default=True),
        )

    def begun(self, claims: Iterable[Claim]) -> None:
        """Remember that threads have begun these claims, which were taken ahead."""
        with self.atomic():
            for claim in sorted(claims):
                self._held(claim).update(ahead=False)

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

        Returns those that were refused, because their claim does not hold the job any more.
        """
        now = now or self.clock()
        with self.atomic():
            applied = self._apply(outcomes, now)
            self._record_failures((outcome for outcome in outcomes if fence(outcome) in applied), now)
        return [outcome for outcome in outcomes if fence(outcome) not in applied]

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
                released += held.filter(lease=lease, worker_id=worker_id).update(**_unclaimed(attempt))
        self.call_workers({claim.queue_name for claim in claims})
        return released

    def held_by(self, worker_id: int) -> list[Claim]:
        """The jobs that the database thinks this worker runs."""
        rows = self.jobs.filter(status=JobStatus.RUNNING, worker_id=worker_id)
        found = rows.values_list(*CLAIMED_COLUMNS)
        return [Claim._make((*row[:3], worker_id, *row[3:], row[-1], False)) for row in found]

    # Workers

    def register(
        self,
        *,
        name: str,
        hostname: str,
        pid: int,
        queues: str,
        threads: int,
        token: uuid.UUID | None = None,
        now: datetime.datetime | None = None,
    ) -> int:
        """Enter a worker process. Returns its id, which is never used again."""
        now = now or self.clock()
        worker = Worker(
            name=name,
            hostname=hostname,
            pid=pid,
            queues=queues,
            threads=threads,
            token=token or uuid.uuid4(),
            started_at=now,
            heartbeat_at=now,
        )
        worker.save(using=self.alias, force_insert=True)
        return worker.pk

    def beat(self, worker_id: int, now: datetime.datetime | None = None) -> bool:
        """Say that this worker lives. False: it was declared lost, its jobs are others' now."""
        alive = self._workers().alive().filter(pk=worker_id)
        return bool(alive.update(heartbeat_at=now or self.clock()))

    def count_lost_leases(self, outcomes: Iterable[Outcome]) -> None:
        """Note with each worker how many of these outcomes it could not write."""
        for worker_id, number in Counter(outcome.claim.worker_id for outcome in outcomes).items():
            self._workers().filter(pk=worker_id).update(leases_lost=F("leases_lost") + number)

    def unregister(self, worker_id: int, now: datetime.datetime | None = None) -> None:
        self._workers().alive().filter(pk=worker_id).update(stopped_at=now or self.clock())

    def declare_lost(self, timeout: float, now: datetime.datetime | None = None) -> int:
        """End the workers that were silent for ``timeout`` seconds. Returns how many."""
        now = now or self.clock()
        silent = self._workers().silent_since(now - datetime.timedelta(seconds=timeout))
        return silent.update(stopped_at=now, lost=True)  # type: ignore[no-any-return]

    def lose(self, token: uuid.UUID, now: datetime.datetime | None = None) -> int:
        """End the worker with this token, whose process somebody saw die. Returns how many rows it had."""
        alive = self._workers().alive().filter(token=token)
        return alive.update(stopped_at=now or self.clock(), lost=True)  # type: ignore[no-any-return]

    def rescue(self, max_crashes: int, limit: int = BATCH, now: datetime.datetime | None = None) -> Rescue:
        """Return up to ``limit`` jobs that dead workers had claimed.

        What a thread had begun is an attempt that ended with WorkerLost, and a crash: READY again, or FAILED at the
        ``max_crashes``th. What had been taken ahead was no attempt; it is READY, and not taken ahead again, because
        nobody knows that it had not just begun.
        """
        now = now or self.clock()
        with self.atomic():
            stalled = list(
                self.jobs.stalled().order_by("id").select_for_update(skip_locked=True, of=self._of())[:limit]
            )
            unbegun = [job.pk for job in stalled if job.ahead]
            begun = [job for job in stalled if not job.ahead]
            failed = [job.pk for job in begun if job.crashes + 1 >= max_crashes]
            again = [job.pk for job in begun if job.crashes + 1 < max_crashes]
            self._record_lost(begun, max_crashes, now)
            crashed = F("crashes") + 1
            self._leave_running(again, status=JobStatus.READY, worker=None, crashes=crashed)
            self._leave_running(failed, status=JobStatus.FAILED, worker=None, finished_at=now, crashes=crashed)
            for attempt in {job.attempt for job in stalled if job.ahead}:
                ids = [job.pk for job in stalled if job.ahead and job.attempt == attempt]
                self._leave_running(ids, **_unclaimed(attempt), crashes=Greatest("crashes", Value(1)))
        self.call_workers({job.queue_name for job in stalled if job.pk not in failed})
        return Rescue(again, unbegun, failed)

    def _leave_running(self, ids: list[int], **columns: Any) -> None:
        if ids:
            self.jobs.leaving({JobStatus.RUNNING}, ids).update(**columns)

    def has_abandoned(self, timeout: float) -> bool:
        """Whether jobs run for workers that are dead, or silent for ``timeout`` seconds: whether to rescue."""
        heard = self.clock() - datetime.timedelta(seconds=timeout)
        living = self._workers().alive().filter(pk=models.OuterRef("worker_id"), heartbeat_at__gte=heard)
        return self.jobs.filter(~models.Exists(living), status=JobStatus.RUNNING).exists()

    def _of(self) -> tuple[str, ...]:
        return ("self",) if self.connection.features.has_select_for_update_of else ()

    def _record_lost(self, jobs: Iterable[Job], max_crashes: int, now: datetime.datetime) -> None:
        self._attempts().bulk_create(
            Attempt(
                job_id=job.pk,
                number=job.attempt,
                worker_id=job.worker_id or 0,
                started_at=job.last_attempted_at or now,
                ended_at=now,
                exception_class_path=f"{WorkerLost.__module__}.{WorkerLost.__qualname__}",
                traceback=Failure.of(_lost(job, max_crashes)).traceback,
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
        now = now or self.clock()
        anew: dict[str, Any] = {"finished_at": None, "worker": None, "crashes": 0}
        with self.atomic():
            # Locked first: of what is cancelled meanwhile, one of two statements might take what the other left.
            locked = self.jobs.leaving(RETRYABLE, ids).order_by("id").select_for_update()
            found = list(locked.values_list("id", "queue_name", "run_after"))
            later = [pk for pk, _, run_after in found if run_after is not None and run_after > now]
            ready = [pk for pk, _, run_after in found if run_after is None or run_after <= now]
            self.jobs.leaving(RETRYABLE, later).update(status=JobStatus.SCHEDULED, **anew)
            self.jobs.leaving(RETRYABLE, ready).update(status=JobStatus.READY, run_after=None, **anew)
            queues = {queue for _, queue, _ in found}
            self.call_workers(queues | {ANY_QUEUE} if later else queues)
        return len(found)

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
        """Returns how many were deleted, by state, and how many can't be, because somebody else refuses it."""
        ended = Q(*(Q(status=state, finished_at__lt=cutoff) for state, cutoff in cutoffs.items()), _connector=Q.OR)
        try:
            with self.atomic():
                # Asked again under the lock: an operator may have retried one since the look.
                rows = self.jobs.filter(ended, pk__in=ids).order_by("id").select_for_update(skip_locked=True)
                locked = dict(rows.values_list("id", "status"))
                self._delete_locked(locked)
        except Exception as exc:
            # What another table refers to, or what a receiver of pre_delete or post_delete, anybody's, refuses.
            if isinstance(exc, Error) and not isinstance(exc, IntegrityError):
                raise
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


def _claim(row: tuple[Any, ...], worker_id: int, now: datetime.datetime, ahead: bool) -> Claim:
    pk, lease, attempt, *middle, started_at = row
    return Claim._make((pk, lease + 1, attempt + 1, worker_id, *middle, started_at or now, now, ahead))


def _lost(job: Job, max_crashes: int) -> WorkerLost:
    said = "worker lost: the process that ran this attempt died, or went silent for too long."
    if job.crashes + 1 < max_crashes:
        return WorkerLost(said)
    return WorkerLost(f"{said} That was crash {job.crashes + 1}, and DBQUEUE['MAX_CRASHES'] is {max_crashes}.")


def _unclaimed(attempt: int) -> dict[str, Any]:
    """What makes a row as it was before it was claimed for this attempt, but for its lease."""
    columns: dict[str, Any] = {"status": JobStatus.READY, "worker": None, "attempt": attempt - 1}
    if attempt == 1:
        columns["started_at"] = columns["last_attempted_at"] = None
    return columns


def fence(outcome: Outcome) -> tuple[int, int]:
    """(id, lease): a lease is never given twice, so this names one claim for ever."""
    return outcome.claim.job_id, outcome.claim.lease


def _worker_after(outcome: Outcome) -> int | None:
    """The worker that a row names when this outcome was written: nobody's, if it waits for another attempt."""
    return None if outcome.status is JobStatus.SCHEDULED else outcome.claim.worker_id


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
