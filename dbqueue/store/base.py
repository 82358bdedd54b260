"""A job from its INSERT to its outcome, and what an operator may do to it, in portable ORM.

Each transition names the state that it leaves; each write of an attempt names its lease and worker. An operation that
needs the time asks the database for it, unless a caller gives ``now``.
"""

import datetime
import json
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Value
from django.db.models.functions import Cast, Coalesce

from ..claim import Bookmark, Claim, Selection
from ..draft import Draft
from ..exceptions import WorkerLost
from ..models import CANCELLABLE, RETRYABLE, WAITING, Attempt, Job, JobQuerySet, JobStatus, UniqueScope
from ..outcome import EXPIRED, Outcome
from .coming_back import ComingBack, uncounted
from .database import BATCH, key_after
from .deletion import Deletion
from .limits import Candidate, Limits
from .listener import ANY_QUEUE, Listener
from .queues import Queues
from .reports import Reports
from .schedules import ScheduleRows
from .uniqueness import Uniqueness
from .workers import WorkerRows

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
    "max_attempts",
    "earlier_attempts",
    Cast("options", models.TextField()),
    "expires_at",
    "concurrency_key",
    "rate_key",
    "started_at",
)
_CRASHES = CLAIMED_COLUMNS.index("crashes")
_PRIORITY = CLAIMED_COLUMNS.index("priority")
_RUN_AFTER = CLAIMED_COLUMNS.index("run_after")
_CONCURRENCY_KEY = CLAIMED_COLUMNS.index("concurrency_key")
_RATE_KEY = CLAIMED_COLUMNS.index("rate_key")
_OPTIONS = CLAIMED_COLUMNS.index("expires_at") - 1

_READY_QUEUES = f"""
    WITH RECURSIVE queue (name) AS (
        SELECT min(queue_name) FROM {Job._meta.db_table} WHERE status = 'READY'
        UNION ALL
        SELECT (SELECT min(queue_name) FROM {Job._meta.db_table} WHERE status = 'READY' AND queue_name > queue.name)
        FROM queue WHERE queue.name IS NOT NULL
    )
    SELECT name FROM queue WHERE name IS NOT NULL
"""


class Part(NamedTuple):
    """One range of an index of ready jobs, in its order.

    Of all queues, or of one. All of it; or one ``priority`` ``after`` an id; or everything below a ``priority``.
    """

    queue: str = ""
    priority: int | None = None
    after: int | None = None
    last: int | None = None
    """Up to this id, whatever else."""


_STAND_INS = ("a queue", -32_000, -1, -2)
_LIMIT = 987_654_321
"""What stands for the values of a Part, and for the limit, while Django puts a SELECT together."""


class Locking(NamedTuple):
    """A SELECT that locks one kind of Part: ``parameters`` has stand-ins where the part's own values belong."""

    sql: str
    parameters: tuple[Any, ...]
    converted: Callable[[list[tuple[Any, ...]]], list[tuple[Any, ...]]]


class Store(WorkerRows, ComingBack, Deletion, Uniqueness, Limits, Queues, Reports, ScheduleRows):
    """The operations on the jobs of one database."""

    LOCK: Mapping[str, Any] = MappingProxyType({"skip_locked": True})
    """How a claim locks: options of select_for_update()."""

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

    def expire(self, limit: int = BATCH, now: datetime.datetime | None = None) -> list[int]:
        """Cancel jobs that wait and were to be started by now. Returns their ids. One that had begun before goes on."""
        now = now or self.clock()
        late = self.jobs.filter(status__in=WAITING, expires_at__lte=now, started_at=None)
        if not (ids := list(late.order_by("expires_at").values_list("id", flat=True)[:limit])):
            return []
        with self.atomic():
            ids = list(late.filter(pk__in=ids).select_for_update(skip_locked=True).values_list("id", flat=True))
            self.cancel(ids, now, reason=EXPIRED)
        return ids

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
        bookmark: Bookmark | None = None,
    ) -> list[Claim]:
        """Take up to ``limit`` READY jobs for a worker: RUNNING, one lease and one attempt further.

        The first ``free`` of them (None: all) are for threads that wait for work; the others are marked ``ahead``.
        Those of which a worker may have died come first. With ``last_chance`` crashes or more they are ``ahead`` too,
        as they will wait until they can run alone. A worker that claims again and again has a ``bookmark``.

        Hand nothing out before this has returned: then the claim is committed. Raises WorkerLost if the worker was
        declared lost: what it took would be rescued from it at once, and run twice.
        """
        if not self._has_ready(selection):
            return []
        bookmark = bookmark or Bookmark()
        is_callers = self.connection.in_atomic_block  # whose transaction is to wait for the disk as it always does
        with self.atomic():
            rows = self._lock_ready(selection, limit, bookmark)
            if limited := any(map(_is_limited, rows)):
                rows, now = self._admitted(rows, selection, limit, bookmark, now)
            if not rows:
                return []
            rows.sort(key=lambda row: row[_CRASHES] == 0)
            at_once = {row[0] for row in rows[:free] if last_chance is None or row[_CRASHES] < last_chance}
            claimed_at = self._mark_running(
                [row[0] for row in rows], at_once, worker_id, now, limited=limited or is_callers
            )
        return [_claim(row, worker_id, claimed_at, ahead=row[0] not in at_once) for row in rows]

    def claim_these(self, worker_id: int, ids: Collection[int]) -> list[Claim]:
        """Take those of these jobs that are READY, for a run inline: limits and closed queues are between workers.

        Raises WorkerLost.
        """
        with self.atomic():
            ready = self.jobs.leaving({JobStatus.READY}, ids).order_by("id").select_for_update(**self.LOCK)
            rows = list(ready.values_list(*CLAIMED_COLUMNS))
            if not rows:
                return []
            taken = [row[0] for row in rows]
            # "limited": the transaction may be the caller's, whose commit is to reach the disk.
            claimed_at = self._mark_running(taken, set(taken), worker_id, None, limited=True)
        return [_claim(row, worker_id, claimed_at, ahead=False) for row in rows]

    def _has_ready(self, selection: Selection) -> bool:
        """A look before the claim, where a look is cheaper than a transaction that finds nothing."""
        return True

    def _lock_ready(self, selection: Selection, limit: int, bookmark: Bookmark) -> list[tuple[Any, ...]]:
        bookmark.nothing_left = bookmark.put_aside = False
        if bookmark.is_good() and not selection.ageing and (rows := self._look(selection, limit, bookmark.places)):
            return rows
        bookmark.places.clear()
        began = time.monotonic()
        rows = self._look(selection, limit, bookmark.places)
        bookmark.looked_from_the_start(began, nothing_left=len(rows) < limit)
        return rows

    def _admitted(
        self,
        rows: list[tuple[Any, ...]],
        selection: Selection,
        limit: int,
        bookmark: Bookmark,
        now: datetime.datetime | None,
    ) -> tuple[list[tuple[Any, ...]], datetime.datetime]:
        """Those of the locked rows that limits let through, and the time for which that holds.

        Where some are put aside, so are those behind them, many at once and at the price of one claim: the next claims
        find what may run.
        """
        accepted, now = self._within_limits(list(map(_candidate, rows)), limit, now)
        admitted = [row for row in rows if row[0] in accepted]
        bookmark.put_aside = len(admitted) < len(rows)
        if bookmark.put_aside:
            bookmark.places.clear()
            taken = {row[0] for row in rows}
            more = [row for row in self._look(selection, BATCH, {}) if row[0] not in taken]
            room = limit - len(admitted)
            accepted, now = self._within_limits(list(map(_candidate, more)), room, now, list(map(_candidate, admitted)))
            admitted += [row for row in more if row[0] in accepted]
        return admitted, now

    def _look(self, selection: Selection, limit: int, places: dict[str, tuple[int, int]]) -> list[tuple[Any, ...]]:
        """Lock what is READY behind these places, from the start where there is none, and move them on."""
        rows: dict[int, tuple[Any, ...]] = {}
        for queue, last in self._lanes(selection):
            for part in self._aged(queue, last, selection.ageing) or _behind(queue, last, places.get(queue)):
                if len(rows) < limit:
                    found = self._lock_part(part, limit - len(rows))
                    # By id: two names may be one queue to a database that doesn't tell capitals apart.
                    rows |= {row[0]: row for row in found}
                    if found:
                        places[queue] = found[-1][_PRIORITY], found[-1][0]
        return list(rows.values())

    def _lock_part(self, part: Part, limit: int) -> list[tuple[Any, ...]]:
        locking = self._locking(*(value is not None and value != "" for value in part))
        values = dict(zip(_STAND_INS, part, strict=True))
        with self.connection.cursor() as cursor:
            cursor.execute(locking.sql, [*(values.get(stands, stands) for stands in locking.parameters), limit])
            return locking.converted(cursor.fetchall())

    @cache  # noqa: B019  a store lives as long as its process
    def _locking(self, by_queue: bool, by_priority: bool, by_id: bool, up_to_id: bool) -> Locking:
        """Django takes longer to put such a statement together than the server to carry it out."""
        queue, priority, after, last = _STAND_INS
        part = Part(
            queue if by_queue else "",
            priority if by_priority else None,
            after if by_id else None,
            last if up_to_id else None,
        )
        jobs = self._part(part).select_for_update(**self.LOCK).values_list(*CLAIMED_COLUMNS)
        compiler = jobs[:_LIMIT].query.get_compiler(self.alias)
        sql, parameters = compiler.as_sql()
        converters = compiler.get_converters([column for column, *_ in compiler.select])

        def converted(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
            return list(map(tuple, compiler.apply_converters(rows, converters))) if converters else rows

        return Locking(sql.replace(f"LIMIT {_LIMIT}", "LIMIT %s"), parameters, converted)

    def _part(self, part: Part) -> JobQuerySet:
        jobs = self.jobs.ready()
        if part.queue:
            jobs = jobs.filter(queue_name=part.queue)
        if part.last is not None:
            jobs = jobs.filter(pk__lte=part.last)
        if part.priority is None:
            return jobs
        if part.after is None:
            return jobs.filter(priority__lt=part.priority)
        return jobs.filter(priority=part.priority, pk__gt=part.after)

    def _lanes(self, selection: Selection) -> "Iterable[tuple[str, int | None]]":
        """The queues to ask, each by one ordered scan of one index; "" stands for all queues in one order.

        Where not all queues are served, they are asked one by one, in random order, so that none starves: a single
        scan would walk past every job of the other queues, or sort all of these. With each stands the last id that may
        be taken (None: any).
        """
        if not selection.include and not selection.exclude and not selection.closed:
            return (("", None),)
        names = dict.fromkeys(selection.include or self._ready_queues())
        lanes = [(name, selection.closed.get(name)) for name in names if name not in selection.exclude]
        return random.sample(open_lanes := [lane for lane in lanes if lane[1] != 0], len(open_lanes))

    def _aged(self, queue: str, last: int | None, ageing: float) -> tuple[Part, ...]:
        """The priorities that wait, the most urgent first, where each ``ageing`` seconds of waiting count as one.

        What has waited is told by the first job of each priority: so a claim takes whole runs of one priority.
        """
        if not ageing:
            return ()
        heads: list[tuple[float, int]] = []
        jobs = self._part(Part(queue, last=last)).values_list("priority", "enqueued_at", "run_after")
        head = jobs.first()
        while head is not None:
            priority, enqueued_at, run_after = head
            since = max(enqueued_at, run_after or enqueued_at)
            heads.append((priority - since.timestamp() / ageing, priority))
            head = jobs.filter(priority__lt=priority).first()
        return tuple(Part(queue, priority, -1, last) for _, priority in sorted(heads, reverse=True))

    def _ready_queues(self) -> list[str]:
        """The queues that have a READY job, found by one step in the index for each, however many jobs they have."""
        with self.connection.cursor() as cursor:
            cursor.execute(_READY_QUEUES)
            return [name for (name,) in cursor.fetchall()]

    def _mark_running(
        self, ids: list[int], at_once: set[int], worker_id: int, now: datetime.datetime | None, *, limited: bool = False
    ) -> datetime.datetime:
        """Returns the time of the claim. ``limited``: whether it counts under a limit. Raises WorkerLost."""
        if not self._workers().alive().filter(pk=worker_id).exists():
            raise declared_lost(worker_id)
        now = now or self.clock()
        self.jobs.leaving({JobStatus.READY}, ids).update(
            status=JobStatus.RUNNING,
            worker_id=worker_id,
            lease=F("lease") + 1,
            attempt=F("attempt") + 1,
            started_at=Coalesce("started_at", Value(now)),
            last_attempted_at=now,
            ahead=models.Case(models.When(pk__in=at_once, then=False), default=True),
            unique_key=models.Case(models.When(unique_scope=UniqueScope.STARTED, then=None), default="unique_key"),
        )
        return now

    def begun(self, claims: Collection[Claim]) -> list[Claim]:
        """Remember that threads have begun these claims, which were taken ahead. Returns those that it was written for.

        The others' rows are locked, most likely by the write of their outcome: to wait for that could be a deadlock.
        """
        held = {(claim.job_id, claim.lease, claim.worker_id): claim for claim in claims}
        with self.atomic():
            running = self.jobs.leaving({JobStatus.RUNNING}, [claim.job_id for claim in claims])
            rows = running.select_for_update(**self.LOCK).values_list("pk", "lease", "worker_id")
            marked = [held[row] for row in rows if row in held]
            self.jobs.leaving({JobStatus.RUNNING}, [claim.job_id for claim in marked]).update(ahead=False)
        return marked

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
        now = now or self.clock()
        with self.atomic():
            applied = self._apply(outcomes, now)
            self._record_failures((outcome for outcome in outcomes if fence(outcome) in applied), now)
            if later := [outcome.claim.job_id for outcome in outcomes if outcome.status is JobStatus.SCHEDULED]:
                self._cancel_requested(later, now)
                self.call_workers({ANY_QUEUE})
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

    def held_by(self, worker_id: int) -> list[Claim]:
        """The jobs that the database thinks this worker runs."""
        rows = self.jobs.filter(status=JobStatus.RUNNING, worker_id=worker_id)
        found = rows.values_list(*CLAIMED_COLUMNS)
        return [Claim._make((*row[:3], worker_id, *row[3:], row[-1], False)) for row in found]

    # Operators

    def cancel(self, ids: Collection[int], now: datetime.datetime | None = None, *, reason: str = "") -> int:
        """Cancel jobs that wait. Returns how many; what runs or has ended is left alone."""
        cancelled = self.jobs.leaving(CANCELLABLE, ids).update(
            status=JobStatus.CANCELLED, finished_at=now or self.clock(), reason=reason, unique_key=None
        )
        self.call_waiters(ids)
        return cancelled

    def retry(self, ids: Collection[int], now: datetime.datetime | None = None) -> int:
        """Let failed and cancelled jobs run again, with a fresh count of attempts. Returns how many.

        Their history stays.
        They are READY, or SCHEDULED again where the time that they were to wait for has not come.
        """
        now = now or self.clock()
        anew: dict[str, Any] = {
            "finished_at": None,
            "worker": None,
            "crashes": 0,
            "earlier_attempts": F("attempt"),
            "reason": "",
            "expires_at": None,
            "cancel_requested_at": None,
            "progress": None,
        }
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


def _behind(queue: str, last: int | None, place: tuple[int, int] | None) -> tuple[Part, ...]:
    """What stands behind this place in the order of a queue's ready jobs."""
    if place is None:
        return (Part(queue, last=last),)
    priority, pk = place
    return Part(queue, priority, pk, last), Part(queue, priority, last=last)


def _is_limited(row: tuple[Any, ...]) -> bool:
    return row[_CONCURRENCY_KEY] is not None or row[_RATE_KEY] is not None


def _candidate(row: tuple[Any, ...]) -> Candidate:
    return Candidate(row[0], row[_CONCURRENCY_KEY], row[_RATE_KEY], row[_OPTIONS], row[_RUN_AFTER])


def declared_lost(worker_id: int) -> WorkerLost:
    return WorkerLost(f"Worker {worker_id} was declared lost.")


def _claim(row: tuple[Any, ...], worker_id: int, now: datetime.datetime, ahead: bool) -> Claim:
    pk, lease, attempt, *middle, started_at = row
    return Claim._make((pk, lease + 1, attempt + 1, worker_id, *middle, started_at or now, now, ahead))


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
    value = None if outcome.value_json is None else json.loads(outcome.value_json)
    columns |= {"status": outcome.status, "finished_at": now, "return_value": value, "reason": outcome.reason}
    return columns | {"unique_key": key_after(outcome.status)}
