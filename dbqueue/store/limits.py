"""How many jobs of a key run at once, and how many start in a while: counted where they are claimed.

A job that is over a limit is put aside, so that claims don't meet it again: BLOCKED until one of its key has ended, or
SCHEDULED for the time when its rate has room. What counts against a limit is what the rows say (jobs that are RUNNING),
never a counter that somebody might forget to give back.
"""

import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import models
from django.db.models import Case, Count, Exists, F, Min, OuterRef, Q, Value, When
from django.db.models.functions import Substr

from ..limits import Window
from ..models import UNFINISHED, Job, JobStatus, Limit
from .database import BATCH, Database
from .listener import ANY_QUEUE

CONCURRENCY, RATE = "c:", "r:"
"""What the rows of the two kinds of limits begin with."""

KEPT = datetime.timedelta(days=2)
"""How long the row of a limit that nobody uses is kept: longer than any rate's window."""


LONGEST_PROMISE = 1000 * 86_400.0
"""Seconds. Whoever is told to come back after so long is told anew then."""

FEW = 10
"""A tenth of a rate's number, and one at least: how many that come a moment too early are next."""


class Candidate(NamedTuple):
    """What limits need to know of a job that a claim has locked."""

    id: int
    concurrency_key: str | None
    rate_key: str | None
    options_json: str | None
    run_after: datetime.datetime | None

    @property
    def options(self) -> dict[str, Any]:
        return json.loads(self.options_json or "{}")  # type: ignore[no-any-return]


@dataclass
class Places:
    """What runs under one key of concurrency."""

    running: int
    head: int | None
    """The first job in line, where the order counts."""

    def admit(self, job: Candidate) -> bool:
        options = job.options
        if options.get("serial"):
            return self.running == 0 and self.head == job.id
        return bool(self.running < options.get("concurrency", 1))


class Turnstile:
    """What may start under one key of a rate."""

    def __init__(
        self, limit: Limit, window: tuple[int, float], now: datetime.datetime, last: datetime.datetime | None
    ) -> None:
        """``last``: the latest start that is promised to a job that still waits for it."""
        self._now = now
        self._window = Window(*window, limit.starts, now.timestamp())
        promised = last.timestamp() + self._window.pace if last else 0.0
        self._promised = max(now.timestamp(), promised)
        self._shifted = 0

    def admit(self, job: Candidate) -> bool:
        """Whoever comes for the first time goes behind those that were promised a start."""
        is_new = job.run_after is None
        return self._window.room > 0 and not (is_new and self._promised > self._now.timestamp())

    def start(self) -> None:
        self._window.start()

    def promise(self, job: Candidate) -> datetime.datetime:
        """When one more job may hope to start.

        One that comes in its time, a moment too early, is next: behind all others it would lose its place in the line.
        Of many that come at once, as by a ``run_after`` of their own, only the first are.
        """
        is_next = job.run_after is not None and self._shifted * FEW <= self._window.limit
        if is_next:
            at = self._window.opens_at + self._shifted * self._window.pace
            self._shifted += 1
        else:
            at = max(self._promised, self._window.opens_at)
            self._promised = at + self._window.pace
        at = min(at, self._now.timestamp() + LONGEST_PROMISE)
        return self._now + datetime.timedelta(seconds=at - self._now.timestamp())

    def columns(self) -> dict[str, Any]:
        ahead = datetime.timedelta(seconds=self._promised - self._now.timestamp())
        return {"starts": self._window.kept, "next_start_at": self._now + ahead, "used_at": self._now}


class Admission:
    """Asked for one job after another: may it run, and if not, what does it wait for?"""

    def __init__(
        self, places: dict[str, Places], gates: dict[str, Turnstile], room: int, admitted: Sequence[Candidate]
    ) -> None:
        self.accepted: set[int] = set()
        self.blocked: list[int] = []
        self.later: dict[int, datetime.datetime] = {}
        self.kept_in_line: list[int] = []
        self.gates = gates
        self._places = places
        self._room = room
        for job in admitted:
            if job.concurrency_key in places:
                places[job.concurrency_key].running += 1

    def ask(self, job: Candidate) -> None:
        place, gate = self._places.get(job.concurrency_key or ""), self.gates.get(job.rate_key or "")
        if (job.concurrency_key and not place) or (job.rate_key and not gate):
            return  # its limit's row has just been deleted: the next look makes it anew
        if place and not place.admit(job):
            self.blocked.append(job.id)
        elif gate and not gate.admit(job):
            self.later[job.id] = gate.promise(job)
            if place:
                self.kept_in_line.append(job.id)
        elif len(self.accepted) < self._room:
            self._accept(job, place, gate)

    def _accept(self, job: Candidate, place: Places | None, gate: Turnstile | None) -> None:
        self.accepted.add(job.id)
        if place:
            place.running += 1
        if gate:
            gate.start()


class Limits(Database):
    """Admission to RUNNING under limits, and the way back from BLOCKED."""

    def _within_limits(
        self,
        jobs: Sequence[Candidate],
        room: int,
        now: datetime.datetime | None,
        admitted: Sequence[Candidate] | None = None,
    ) -> tuple[set[int], datetime.datetime]:
        """Which of these READY, locked jobs may run: at most ``room``. Those that are over a limit are put aside.

        ``admitted`` (by a first call) may run already, and are not yet marked so. Returns with them the time of their
        start.
        """
        locked = self._lock_limits(jobs, waits=admitted is None)
        # Not before: by then others may have let jobs start while this waited for its turn.
        now = now or self.clock()
        admission = Admission(self._places(jobs, locked), self._turnstiles(jobs, locked, now), room, admitted or ())
        for job in jobs:
            admission.ask(job)
        self._put_aside(admission.blocked, admission.later)
        # What was claimed once keeps its place in its line while it is SCHEDULED: this one is to keep it too.
        self.jobs.filter(pk__in=admission.kept_in_line).update(lease=F("lease") + 1)
        for key, gate in admission.gates.items():
            self._limits().filter(key=RATE + key).update(**gate.columns())
        return admission.accepted, now

    def unblock(self, keys: Collection[str], now: datetime.datetime | None = None) -> int:
        """Make BLOCKED jobs of these keys READY, as many as may run. Returns how many.

        With ``now`` it is the guarantee: rows of limits that are missing are made, and what is READY already, but
        perhaps in a queue that nobody serves, keeps no place.
        """
        if not keys:
            return 0
        queues: list[str] = []
        with self.atomic():
            if now is not None:
                self._make_limits([CONCURRENCY + key for key in keys], now)
            limits = self._limits().filter(key__in=[CONCURRENCY + key for key in keys])
            locked = list(limits.order_by("key").select_for_update().values_list("key", flat=True))
            # Looked for only now: a claim that was under way may have put some aside.
            blocked = self.jobs.filter(status=JobStatus.BLOCKED, concurrency_key=Substr(OuterRef("key"), 3))
            with_blocked = limits.filter(Exists(blocked), key__in=locked)
            for key in with_blocked.order_by("key").values_list("key", flat=True):
                queues += self._unblock_key(key.removeprefix(CONCURRENCY), thoroughly=now is not None)
            self.call_workers(set(queues))
        return len(queues)

    def blocked_keys(self, after: str = "", limit: int = BATCH) -> list[str]:
        """Keys that have BLOCKED jobs, in their order, from behind ``after`` on: a step of the index for each."""
        keys: list[str] = []
        blocked = self.jobs.filter(status=JobStatus.BLOCKED).order_by("concurrency_key")
        while len(keys) < limit:
            after_key = blocked.filter(concurrency_key__gt=after).values_list("concurrency_key", flat=True).first()
            if after_key is None:
                break
            keys.append(after := after_key)
        return keys

    def prune_limits(self, now: datetime.datetime, limit: int = BATCH) -> int:
        """Delete up to ``limit`` rows of limits that no unfinished job needs. Returns how many."""
        unfinished = Job.objects.using(self.alias).filter(
            concurrency_key=Substr(OuterRef("key"), 3), status__in=UNFINISHED
        )
        unused = self._limits().filter(~Exists(unfinished), used_at__lt=now - KEPT)
        with self.atomic():
            keys = list(
                unused.order_by("key")
                .select_for_update(skip_locked=True, of=self._of())
                .values_list("key", flat=True)[:limit]
            )
            self._limits().filter(key__in=keys).delete()
        return len(keys)

    def _unblock_key(self, key: str, *, thoroughly: bool) -> list[str]:
        """Returns the queue of each job that is READY now. One that a caller's transaction holds on to is left."""
        of_key = self.jobs.filter(concurrency_key=key)
        blocked = of_key.filter(status=JobStatus.BLOCKED).order_by("-priority", "id")
        waiting = blocked.select_for_update(skip_locked=True)
        options = blocked.values_list("options", flat=True).first() or {}
        running = of_key.filter(status=JobStatus.RUNNING).count()
        if options.get("serial"):
            head = 0 if running else self._heads([key]).get(key, 0)
            found = list(waiting.filter(pk=head).values_list("id", "queue_name"))
        else:
            free = max(0, options.get("concurrency", 1) - running)
            found = list(waiting.values_list("id", "queue_name")[:free])
            if found and not thoroughly:
                # What was made READY before, and nobody has claimed yet, has these places.
                before = of_key.filter(status=JobStatus.READY, pk__lt=max(pk for pk, _ in found))[:free].count()
                found = found[: free - before]
        self.jobs.leaving({JobStatus.BLOCKED}, [pk for pk, _ in found]).update(status=JobStatus.READY)
        return [queue for _, queue in found]

    def _places(self, jobs: Sequence[Candidate], limits: Iterable[Limit]) -> dict[str, Places]:
        keys = {limit.key.removeprefix(CONCURRENCY) for limit in limits if limit.key.startswith(CONCURRENCY)}
        if not keys:
            return {}
        running = self.jobs.filter(status=JobStatus.RUNNING, concurrency_key__in=keys)
        counts = dict(running.values_list("concurrency_key").annotate(Count("id")))
        heads = self._heads({job.concurrency_key for job in jobs if job.concurrency_key and job.options.get("serial")})
        return {key: Places(counts.get(key, 0), heads.get(key)) for key in keys}

    def _turnstiles(
        self, jobs: Iterable[Candidate], limits: Iterable[Limit], now: datetime.datetime
    ) -> dict[str, Turnstile]:
        rows = {limit.key: limit for limit in limits}
        windows = {job.rate_key: tuple(job.options["rate"]) for job in jobs if job.rate_key}
        return {
            key: Turnstile(rows[RATE + key], window, now, self._last_promise(key, rows[RATE + key], now))
            for key, window in windows.items()
            if RATE + key in rows
        }

    def _last_promise(self, key: str, limit: Limit, now: datetime.datetime) -> datetime.datetime | None:
        """Those to whom a start was promised may have been cancelled since."""
        if limit.next_start_at is None or limit.next_start_at <= now:
            return None
        waiting = self.jobs.filter(status=JobStatus.SCHEDULED, rate_key=key, run_after__lt=limit.next_start_at)
        return waiting.order_by("-run_after").values_list("run_after", flat=True).first()

    def _heads(self, keys: Iterable[str | None]) -> dict[str, int]:
        """The first unfinished job of each line. One whose time has not come, never begun, is not in line."""
        if not (wanted := list(keys)):
            return {}
        in_line = Q(status__in=(JobStatus.READY, JobStatus.BLOCKED, JobStatus.RUNNING))
        begun = Q(status=JobStatus.SCHEDULED, lease__gt=0)
        line = self.jobs.filter(in_line | begun, concurrency_key__in=wanted)
        return dict(line.values_list("concurrency_key").annotate(Min("id")))

    def _lock_limits(self, jobs: Sequence[Candidate], *, waits: bool) -> list[Limit]:
        """In the order of their keys, so that two claims never wait for each other; who has some waits for no more."""
        keys = {CONCURRENCY + job.concurrency_key for job in jobs if job.concurrency_key}
        keys |= {RATE + job.rate_key for job in jobs if job.rate_key}
        if waits:
            self._make_limits(keys, self.clock())
        return list(self._limits().filter(key__in=keys).order_by("key").select_for_update(skip_locked=not waits))

    def _make_limits(self, keys: Iterable[str], now: datetime.datetime) -> None:
        self._limits().bulk_create([Limit(key=key, used_at=now) for key in sorted(keys)], ignore_conflicts=True)

    def _put_aside(self, blocked: list[int], later: dict[int, datetime.datetime]) -> None:
        if blocked:
            self.jobs.leaving({JobStatus.READY}, blocked).update(status=JobStatus.BLOCKED)
        if later:
            field = models.DateTimeField()
            due = Case(*(When(pk=pk, then=Value(at, field)) for pk, at in later.items()), output_field=field)
            self.jobs.leaving({JobStatus.READY}, later).update(status=JobStatus.SCHEDULED, run_after=due)
            self.call_workers({ANY_QUEUE})

    def _limits(self) -> "models.QuerySet[Limit]":
        return Limit.objects.using(self.alias)
