"""How ready jobs are taken: found in their order, locked, let through by limits, and marked RUNNING."""

import datetime
import random
import time
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any, NamedTuple

from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Cast, Coalesce

from ..claim import Bookmark, Claim, Selection
from ..exceptions import WorkerLost
from ..models import Job, JobQuerySet, JobStatus, UniqueScope
from .database import BATCH
from .limits import Candidate, Limits

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
    "workflow_id",
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


class Claiming(Limits):
    """The way from READY to RUNNING."""

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
        bookmark = bookmark or Bookmark()
        bookmark.put_aside = False
        if not self._has_ready(selection):
            return []
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

    def held_by(self, worker_id: int) -> list[Claim]:
        """The jobs that the database thinks this worker runs."""
        rows = self.jobs.filter(status=JobStatus.RUNNING, worker_id=worker_id)
        found = rows.values_list(*CLAIMED_COLUMNS)
        return [Claim._make((*row[:3], worker_id, *row[3:], row[-1], False)) for row in found]


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
