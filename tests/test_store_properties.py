"""The store's operations in random order, from several connections, beside a model that knows what may happen.

A step is one operation on one actor's connection, and does exactly what the model foretells. A race is two or three
operations at the same moment: some order of what they say they did leads from the rows before to the rows after.

``PROPERTY_EXAMPLES=2000`` explores further, with other examples each time.
"""

import datetime
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pytest
from django.db import OperationalError, connection
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dbqueue.claim import Claim, Selection
from dbqueue.connections import owned_connection
from dbqueue.draft import Draft
from dbqueue.exceptions import WorkerLost
from dbqueue.models import CANCELLABLE, FINAL, RETRYABLE, Attempt, Job, JobStatus, Worker
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SILENCE = 30.0
"""Seconds after which a worker is taken for dead."""
MAX_CRASHES = 2
QUEUES = ("default", "mail")
SELECTIONS = (Selection(), Selection(include=("mail",)), Selection(exclude=("mail",)))
ACTORS = 3


# What is in the tables


@dataclass(frozen=True)
class Row:
    """A job, as far as its way through the states goes. ``attempts``: number and worker of each row in Attempt."""

    status: str
    queue: str
    priority: int
    run_after: datetime.datetime | None
    lease: int = 0
    attempt: int = 0
    crashes: int = 0
    ahead: bool = False
    worker: int | None = None
    finished: bool = False
    attempts: tuple[tuple[int, int], ...] = ()

    def is_held_by(self, hold: "Hold") -> bool:
        return (self.status, self.lease, self.worker) == (JobStatus.RUNNING, hold.lease, hold.worker)


@dataclass(frozen=True)
class World:
    """All rows at one moment. ``heard``: the last heartbeat of each living worker."""

    now: datetime.datetime = START
    jobs: dict[int, Row] = field(default_factory=dict)
    heard: dict[int, datetime.datetime] = field(default_factory=dict)

    def silent(self) -> set[int]:
        limit = self.now - datetime.timedelta(seconds=SILENCE)
        return {worker for worker, heard in self.heard.items() if heard < limit}


def look(now: datetime.datetime) -> World:
    """Read all rows."""
    attempts: dict[int, tuple[tuple[int, int], ...]] = {}
    for job_id, number, worker in Attempt.objects.order_by("id").values_list("job_id", "number", "worker_id"):
        attempts[job_id] = (*attempts.get(job_id, ()), (number, worker))
    columns = "status", "queue_name", "priority", "run_after", "lease", "attempt", "crashes", "ahead", "worker_id"
    jobs = {
        pk: Row(*values, finished=finished_at is not None, attempts=attempts.pop(pk, ()))  # type: ignore[misc]
        for pk, finished_at, *values in Job.objects.values_list("id", "finished_at", *columns)
    }
    # What was taken ahead is of interest while it runs; afterwards the column says what it last said.
    jobs = {pk: row if row.status == JobStatus.RUNNING else replace(row, ahead=False) for pk, row in jobs.items()}
    assert attempts == {}, "attempts without a job"
    return World(now, jobs, dict(Worker.objects.alive().values_list("id", "heartbeat_at")))


# What may happen to a job


class Hold(NamedTuple):
    """What a claim says about the right to end an attempt."""

    lease: int
    worker: int
    attempt: int
    ahead: bool


class Event(NamedTuple):
    kind: str
    job: int
    hold: Hold | None = None
    run_after: datetime.datetime | None = None


def hold_of(claim: Claim) -> Hold:
    return Hold(claim.lease, claim.worker_id, claim.attempt, claim.ahead)


def moved(row: Row, event: Event, now: datetime.datetime, living: Iterable[int]) -> Row | None:
    """The row after an event; None if nothing of that kind may happen to it."""
    if event.kind in CLAIMING:
        return CLAIMING[event.kind](row, event, living)
    if event.hold is not None:
        return _ended(row, event, event.hold)
    match event.kind:
        case "promoted" if row.status == JobStatus.SCHEDULED and row.run_after and row.run_after <= now:
            return replace(row, status=JobStatus.READY)
        case "cancelled" if row.status in CANCELLABLE:
            return replace(row, status=JobStatus.CANCELLED, finished=True)
        case "retried" if row.status in RETRYABLE:
            anew = replace(row, worker=None, finished=False, crashes=0)
            if row.run_after and row.run_after > now:
                return replace(anew, status=JobStatus.SCHEDULED)
            return replace(anew, status=JobStatus.READY, run_after=None)
    return None


def _ended(row: Row, event: Event, hold: Hold) -> Row | None:
    """What only the holder of a claim may do."""
    if not row.is_held_by(hold):
        return None
    match event.kind:
        case "succeeded":
            return replace(row, status=JobStatus.SUCCESSFUL, finished=True, ahead=False)
        case "failed":
            attempts = (*row.attempts, (hold.attempt, hold.worker))
            return replace(row, status=JobStatus.FAILED, finished=True, ahead=False, attempts=attempts)
        case "postponed":
            back = replace(row, worker=None, attempt=row.attempt - 1, ahead=False)
            return replace(back, status=JobStatus.SCHEDULED, run_after=event.run_after)
        case "released":
            return replace(row, status=JobStatus.READY, worker=None, attempt=row.attempt - 1, ahead=False)
        case "begun":
            return replace(row, ahead=False)
    raise AssertionError(event)


# Claims and rescues: all that the model knows of them


def _claimed(row: Row, event: Event, living: Iterable[int]) -> Row | None:
    hold = event.hold
    assert hold is not None
    if row.status != JobStatus.READY or (hold.lease, hold.attempt) != (row.lease + 1, row.attempt + 1):
        return None
    return replace(
        row, status=JobStatus.RUNNING, lease=hold.lease, attempt=hold.attempt, worker=hold.worker, ahead=hold.ahead
    )


def _restored(row: Row, event: Event, living: Iterable[int]) -> Row | None:
    taken = _claimed(row, event, living)
    return taken and replace(taken, ahead=False)


def _rescued(row: Row, event: Event, living: Iterable[int]) -> Row | None:
    if row.status != JobStatus.RUNNING or row.worker is None or row.worker in living:
        return None
    if event.kind != rescue_of(row):
        return None
    if row.ahead:
        back = replace(row, status=JobStatus.READY, worker=None, attempt=row.attempt - 1, ahead=False)
        return replace(back, crashes=max(row.crashes, 1))
    dead = replace(row, crashes=row.crashes + 1, attempts=(*row.attempts, (row.attempt, row.worker)))
    if event.kind == "buried":
        return replace(dead, status=JobStatus.FAILED, finished=True)
    return replace(dead, status=JobStatus.READY, worker=None)


def rescue_of(row: Row) -> str:
    if row.ahead:
        return "unbegun"
    return "buried" if row.crashes + 1 >= MAX_CRASHES else "rescued"


CLAIMING: dict[str, Callable[[Row, Event, Iterable[int]], Row | None]] = {
    "claimed": _claimed,
    "restored": _restored,
    "rescued": _rescued,
    "unbegun": _rescued,
    "buried": _rescued,
}


# The operations


class Operation:
    """A call of the store: ``perform`` makes it, ``foretell`` says what it does to a world that stands still.

    ``perform`` returns the events that the store's answer tells, or None where it tells none.
    """

    def perform(self, store: Store, now: datetime.datetime) -> list[Event] | None:
        raise NotImplementedError

    def foretell(self, world: World) -> list[Event]:
        raise NotImplementedError

    def candidates(self, world: World) -> list[Event]:
        """What it may have done in a race, where its answer tells nothing."""
        return self.foretell(world)


@dataclass
class ClaimSome(Operation):
    worker: int
    limit: int
    free: int | None
    selection: Selection
    taken: list[Claim] = field(default_factory=list)

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        try:
            self.taken = store.claim(self.worker, self.limit, self.selection, now, self.free)
        except WorkerLost:
            return []
        return [Event("claimed", claim.job_id, hold_of(claim)) for claim in self.taken]

    def foretell(self, world: World) -> list[Event]:
        if self.worker not in world.heard:
            return []
        ready = [pk for pk, row in world.jobs.items() if row.status == JobStatus.READY]
        served = [pk for pk in ready if self.selection.serves(world.jobs[pk].queue)]
        first = sorted(served, key=lambda pk: (-world.jobs[pk].priority, pk))[: self.limit]
        first.sort(key=lambda pk: world.jobs[pk].crashes == 0)
        free = len(first) if self.free is None else self.free
        return [
            Event("claimed", pk, Hold(row.lease + 1, self.worker, row.attempt + 1, place >= free))
            for place, (pk, row) in enumerate((pk, world.jobs[pk]) for pk in first)
        ]


@dataclass
class CrashWhileClaiming(ClaimSome):
    """A claim that the worker was told and that is not in the database: a crash of the server took it back."""

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        class Crash(Exception):
            pass

        try:
            with store.atomic():
                super().perform(store, now)
                raise Crash
        except Crash:
            return []

    def foretell(self, world: World) -> list[Event]:
        return []


@dataclass
class Restore(Operation):
    claim: Claim

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        return [Event("restored", self.claim.job_id, hold_of(self.claim))] * store.restore([self.claim])

    def foretell(self, world: World) -> list[Event]:
        row = world.jobs.get(self.claim.job_id)
        back = row is not None and (row.status, row.lease) == (JobStatus.READY, self.claim.lease - 1)
        return [Event("restored", self.claim.job_id, hold_of(self.claim))] if back else []


@dataclass
class Begin(Operation):
    claims: list[Claim]

    def perform(self, store: Store, now: datetime.datetime) -> None:
        store.begun(self.claims)

    def foretell(self, world: World) -> list[Event]:
        return [event for event in self.candidates(world) if _is_held(world, event)]

    def candidates(self, world: World) -> list[Event]:
        return [Event("begun", claim.job_id, hold_of(claim)) for claim in self.claims]


KINDS = ("succeeded", "failed", "postponed")


@dataclass
class Finish(Operation):
    """The outcomes of some claims, all at once: as KINDS says, from ``first`` on."""

    claims: list[Claim]
    first: int

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        outcomes = self._outcomes()
        events = dict(zip(map(_key, outcomes), self._events(now), strict=True))
        for refused in store.finish(outcomes, now):
            del events[_key(refused)]
        return list(events.values())

    def foretell(self, world: World) -> list[Event]:
        return [event for event in self._events(world.now) if _is_held(world, event)]

    def _outcomes(self) -> list[Outcome]:
        make: list[Callable[[Claim], Outcome]] = [
            lambda claim: Outcome.succeeded(claim, '"done"'),
            lambda claim: Outcome.failed(claim, ValueError("bang")),
            lambda claim: Outcome.postponed(claim, 60),
        ]
        return [make[(self.first + place) % 3](claim) for place, claim in enumerate(self.claims)]

    def _events(self, now: datetime.datetime) -> list[Event]:
        later = now + datetime.timedelta(seconds=60)
        kinds = [KINDS[(self.first + place) % 3] for place in range(len(self.claims))]
        return [
            Event(kind, claim.job_id, hold_of(claim), later if kind == "postponed" else None)
            for kind, claim in zip(kinds, self.claims, strict=True)
        ]


@dataclass
class Release(Operation):
    claim: Claim

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        return [Event("released", self.claim.job_id, hold_of(self.claim))] * store.release([self.claim])

    def foretell(self, world: World) -> list[Event]:
        event = Event("released", self.claim.job_id, hold_of(self.claim))
        return [event] if _is_held(world, event) else []


@dataclass
class RescueSome(Operation):
    """What maintenance does: end the silent, then return what the dead had claimed."""

    limit: int

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        store.declare_lost(SILENCE, now)
        done = store.rescue(MAX_CRASHES, self.limit, now)
        kinds = {"rescued": done.again, "unbegun": done.unbegun, "buried": done.failed}
        return [Event(kind, pk) for kind, ids in kinds.items() for pk in ids]

    def foretell(self, world: World) -> list[Event]:
        living = world.heard.keys() - world.silent()
        running = sorted(pk for pk, row in world.jobs.items() if row.status == JobStatus.RUNNING)
        stalled = [pk for pk in running if world.jobs[pk].worker not in living]
        return [Event(rescue_of(world.jobs[pk]), pk) for pk in stalled[: self.limit]]


@dataclass
class Promote(Operation):
    limit: int

    def perform(self, store: Store, now: datetime.datetime) -> None:
        store.promote(self.limit, now)

    def foretell(self, world: World) -> list[Event]:
        return self.candidates(world)[: self.limit]

    def candidates(self, world: World) -> list[Event]:
        waiting = [
            (row.run_after, pk)
            for pk, row in world.jobs.items()
            if row.status == JobStatus.SCHEDULED and row.run_after is not None and row.run_after <= world.now
        ]
        return [Event("promoted", pk) for _, pk in sorted(waiting)]


@dataclass
class Operate(Operation):
    """What an operator does to one job: "cancelled", "retried" or "deleted"."""

    kind: str
    job: int

    def perform(self, store: Store, now: datetime.datetime) -> list[Event]:
        match self.kind:
            case "cancelled":
                number = store.cancel([self.job], now)
            case "retried":
                number = store.retry([self.job], now)
            case _:
                number = store.delete([self.job])
        return [Event(self.kind, self.job)] * number

    def foretell(self, world: World) -> list[Event]:
        may = {"cancelled": CANCELLABLE, "retried": RETRYABLE, "deleted": FINAL}[self.kind]
        row = world.jobs.get(self.job)
        return [Event(self.kind, self.job)] if row is not None and row.status in may else []


def _key(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.claim.job_id, outcome.claim.lease, outcome.claim.worker_id


def _is_held(world: World, event: Event) -> bool:
    row = world.jobs.get(event.job)
    return row is not None and event.hold is not None and row.is_held_by(event.hold)


# The judges


def rows_after(world: World, events: Sequence[Event], living: Iterable[int]) -> dict[int, Row]:
    """The rows that these events, in this order, make of a world. Fails if one of them may not happen."""
    rows = dict(world.jobs)
    for event in events:
        if event.kind == "deleted":
            assert rows.pop(event.job).status in FINAL
        else:
            row = moved(rows[event.job], event, world.now, living)
            assert row is not None, f"{event} happened to {rows[event.job]}"
            rows[event.job] = row
    return rows


def explains(before: Row, after: Row | None, events: Sequence[Event], now: datetime.datetime, living: set[int]) -> bool:
    """Whether these events, in this order, lead from one row to the other (None: deleted)."""
    row: Row | None = before
    for event in events:
        if row is None:
            return False
        if event.kind == "deleted":
            if row.status not in FINAL:
                return False
            row = None
        elif (row := moved(row, event, now, living)) is None:
            return False
    return row == after


def orders(events: list[Event], perhaps: list[Event]) -> Iterator[tuple[Event, ...]]:
    """All orders of all the events, with any of those that may have happened."""
    for number in range(len(perhaps) + 1):
        for some in itertools.combinations(perhaps, number):
            yield from itertools.permutations([*events, *some])


def assert_no_step_back(before: dict[int, Row], after: dict[int, Row], events: Iterable[Event]) -> None:
    """What holds whatever happened, said without the model."""
    kinds: dict[int, list[str]] = {}
    for event in events:
        kinds.setdefault(event.job, []).append(event.kind)
    for pk, old in before.items():
        happened, new = kinds.get(pk, []), after.get(pk)
        if new is None:
            assert "deleted" in happened
            continue
        assert new.lease - old.lease == happened.count("claimed") + happened.count("restored")
        given_back = [kind for kind in happened if kind in ("released", "postponed", "unbegun")]
        assert new.attempt - old.attempt == new.lease - old.lease - len(given_back)
        assert new.attempts[: len(old.attempts)] == old.attempts
        assert old.status not in FINAL or new.status == old.status or "retried" in happened
        assert (new.status == JobStatus.RUNNING) <= (new.worker is not None)
        assert new.finished == (new.status in FINAL)


# The actors


class Actor:
    """A thread with a database connection of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = owned_connection("default")
        self._thread.submit(self._connection.__enter__).result()
        self.submit = self._thread.submit

    def do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return self._thread.submit(work, *arguments).result(60)

    def close(self) -> None:
        self._thread.submit(self._connection.__exit__, None, None, None).result()
        self._thread.shutdown()


@pytest.fixture
def actors() -> Iterator[list[Actor]]:
    actors = [Actor() for _ in range(ACTORS)]
    yield actors
    for actor in actors:
        actor.close()


# The machine

Plan = tuple[str, int, int]
"""An operation and two numbers that choose among what there is, the latest first."""


def plans(*kinds: str) -> st.SearchStrategy[Plan]:
    return st.tuples(st.sampled_from(kinds), st.integers(0, 5), st.integers(0, 5))


ENDINGS = ("succeed", "fail", "postpone", "begin", "release")
CARE = ("rescue", "promote")
OPERATORS = ("cancel", "retry", "delete")
CRASHES = ("crash", "restore")
actor_numbers = st.integers(0, ACTORS - 1)
anything = plans("claim", "claim", "claim", *ENDINGS, *CARE, *OPERATORS, *CRASHES)


class StoreMachine(RuleBasedStateMachine):
    actors: list[Actor] = []

    def __init__(self) -> None:
        super().__init__()
        self.store = store_for("default")
        self.workers: list[int] = []
        self.jobs: list[int] = []
        self.claims: list[Claim] = []
        Attempt.objects.all().delete()
        Job.objects.all().delete()
        Worker.objects.all().delete()
        self.world = look(START)

    @initialize(numbers=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def begin_with_workers_and_jobs(self, numbers: list[int]) -> None:
        self._register()
        self._register()
        for place, number in enumerate(numbers):
            self.enqueue(0, number, place, wait=place == 1)

    @rule(actor=actor_numbers, number=st.integers(1, 3), choice=st.integers(0, 3), wait=st.booleans())
    def enqueue(self, actor: int, number: int, choice: int, wait: bool) -> None:
        run_after = self.world.now + datetime.timedelta(seconds=choice - 1) if wait else None
        queue, priority = QUEUES[choice % 2], choice // 2
        drafts = [
            Draft("tests.shop.tasks.add", [], {}, "[]", "{}", queue, priority, run_after, None, "")
            for _ in range(number)
        ]
        made = [pk for pk, _ in self.actors[actor].do(self.store.enqueue, drafts)]
        row = Row(JobStatus.SCHEDULED if wait else JobStatus.READY, queue, priority, run_after)
        self.jobs += made
        assert len(made) == len(set(made)) == number
        self._expect(replace(self.world, jobs={**self.world.jobs, **dict.fromkeys(made, row)}))

    @rule(kind=st.sampled_from(("beat", "silence", "register", "time passes")), number=st.integers(0, 5))
    def life(self, kind: str, number: int) -> None:
        match kind:
            case "beat":
                self._beat(_latest(self.workers, number), self.world.now)
            case "silence":  # as if it had not been heard of for an hour
                self._beat(_latest(self.workers, number), self.world.now - datetime.timedelta(hours=1))
            case "register" if len(self.workers) < 4:
                self._register()
            case "time passes":
                self.world = replace(self.world, now=self.world.now + datetime.timedelta(seconds=1 + 9 * number))

    @rule(actor=actor_numbers, plan=plans("claim"))
    def claim(self, actor: int, plan: Plan) -> None:
        self._step(actor, plan)

    @rule(actor=actor_numbers, plan=plans(*ENDINGS))
    def end(self, actor: int, plan: Plan) -> None:
        self._step(actor, plan)

    @rule(actor=actor_numbers, number=st.integers(0, 5))
    def claim_again(self, actor: int, number: int) -> None:
        """The same worker gives a job back and takes it anew: only the lease tells its two claims apart."""
        standing = [claim for claim in self.claims if self._holds(claim)]
        if standing:
            claim = _latest(standing, number)
            self._do(actor, Release(claim))
            self._do(actor, ClaimSome(claim.worker_id, 10, None, Selection()))

    @rule(actor=actor_numbers, plan=plans(*CARE))
    def care(self, actor: int, plan: Plan) -> None:
        self._step(actor, plan)

    @rule(actor=actor_numbers, plan=plans(*OPERATORS))
    def operate(self, actor: int, plan: Plan) -> None:
        self._step(actor, plan)

    @rule(actor=actor_numbers, plan=plans(*CRASHES))
    def crash(self, actor: int, plan: Plan) -> None:
        self._step(actor, plan)

    @rule(first=anything, second=anything, third=st.none() | anything)
    def race(self, first: Plan, second: Plan, third: Plan | None) -> None:
        operations = [self._operation(plan) for plan in (first, second, third) if plan is not None]
        racing = [operation for operation in operations if operation is not None]
        if len(racing) < 2:
            return
        note(f"{racing}")
        before = self.world

        told = self._at_once(racing)

        self.world = look(before.now)
        events = [event for answer in told for event in answer or ()]
        perhaps = [
            event
            for operation, answer in zip(racing, told, strict=True)
            if answer is None
            for event in operation.candidates(before)
        ]
        self._judge(before, events, perhaps)
        for operation in racing:
            self._keep(operation)

    def teardown(self) -> None:
        connection.close()

    def _register(self) -> None:
        number = len(self.workers)
        values: dict[str, Any] = {"name": str(number), "hostname": "host", "pid": 1, "queues": "", "threads": 2}
        self.workers.append(self.store.register(**values, token=uuid.UUID(int=number), now=self.world.now))
        self._expect(replace(self.world, heard={**self.world.heard, self.workers[-1]: self.world.now}))

    def _beat(self, worker: int, moment: datetime.datetime) -> None:
        assert self.store.beat(worker, moment) == (worker in self.world.heard)
        if worker in self.world.heard:
            self._expect(replace(self.world, heard={**self.world.heard, worker: moment}))

    def _step(self, actor: int, plan: Plan) -> None:
        operation = self._operation(plan)
        if operation is not None:
            self._do(actor, operation)

    def _do(self, actor: int, operation: Operation) -> None:
        note(f"{operation}")
        before, foretold = self.world, operation.foretell(self.world)

        told = self.actors[actor].do(operation.perform, self.store, before.now)

        self._keep(operation)
        assert told is None or sorted(told, key=_by_job) == sorted(foretold, key=_by_job)
        dead = before.silent() if isinstance(operation, RescueSome) else set()
        heard = {worker: heard for worker, heard in before.heard.items() if worker not in dead}
        self._expect(replace(before, heard=heard, jobs=rows_after(before, foretold, heard.keys())))
        assert_no_step_back(before.jobs, self.world.jobs, foretold)

    def _at_once(self, operations: list[Operation]) -> list[list[Event] | None]:
        barrier, now = threading.Barrier(len(operations)), self.world.now

        def perform(operation: Operation) -> list[Event] | None:
            barrier.wait(30)
            try:
                return operation.perform(self.store, now)
            except OperationalError as exc:
                if connection.vendor == "mysql" and exc.args[0] == DEADLOCK:
                    return []  # InnoDB has rolled one of them back; whoever called tries again
                raise

        futures = [actor.submit(perform, operation) for actor, operation in zip(self.actors, operations, strict=False)]
        return [future.result(60) for future in futures]

    def _judge(self, before: World, events: list[Event], perhaps: list[Event]) -> None:
        after, living = self.world, set(self.world.heard)
        assert before.heard.keys() - living <= before.silent(), "a worker that was heard of was declared lost"
        assert after.jobs.keys() <= before.jobs.keys()
        for pk, row in before.jobs.items():
            ours = [event for event in events if event.job == pk]
            maybe = [event for event in perhaps if event.job == pk]
            assert any(explains(row, after.jobs.get(pk), order, before.now, living) for order in orders(ours, maybe)), (
                f"no order of {ours}, perhaps with {maybe}, leads from {row} to {after.jobs.get(pk)}"
            )
        holds = [(event.job, event.hold.lease) for event in events if event.kind == "claimed" and event.hold]
        assert len(holds) == len(set(holds)), "two claims of one lease"
        if not perhaps:
            assert_no_step_back(before.jobs, after.jobs, events)

    def _operation(self, plan: Plan) -> Operation | None:
        """The operation that is meant; None if there is nothing yet that it could be done to."""
        kind, one, two = plan
        match kind:
            case "claim" | "crash":
                make = ClaimSome if kind == "claim" else CrashWhileClaiming
                free = None if two == 5 else two
                return make(_latest(self.workers, one), 1 + two, free, SELECTIONS[(one + two) % 3])
            case "rescue":
                return RescueSome(1 + one)
            case "promote":
                return Promote(1 + one)
            case "cancel" | "retry" | "delete":
                kinds = {"cancel": "cancelled", "retry": "retried", "delete": "deleted"}
                return Operate(kinds[kind], _latest(self.jobs, one)) if self.jobs else None
        if not self.claims:
            return None
        claims = self._claims_to_end(stale=one % 3 == 0)
        chosen = _latest(claims, two)
        some = list({claim[:2]: claim for claim in (chosen, _latest(claims, one + two))}.values())
        match kind:
            case "succeed" | "fail" | "postpone":
                return Finish(some, ENDINGS.index(kind))
            case "begin":
                return Begin(some)
            case "release":
                return Release(chosen)
        return Restore(chosen)

    def _claims_to_end(self, stale: bool) -> list[Claim]:
        """Those that hold their job, or those whose job runs for somebody else or under another lease; else all."""
        running = [claim for claim in self.claims if self._status(claim) == JobStatus.RUNNING]
        return [claim for claim in running if self._holds(claim) != stale] or self.claims

    def _holds(self, claim: Claim) -> bool:
        row = self.world.jobs.get(claim.job_id)
        return row is not None and row.is_held_by(hold_of(claim))

    def _status(self, claim: Claim) -> str:
        row = self.world.jobs.get(claim.job_id)
        return "deleted" if row is None else row.status

    def _keep(self, operation: Operation) -> None:
        if isinstance(operation, ClaimSome):
            self.claims += operation.taken

    def _expect(self, world: World) -> None:
        """The tables hold this, and nothing else."""
        assert look(world.now) == world
        self.world = world


DEADLOCK = 1213
"""MySQL's number of an error that says: try again."""


def _latest(things: list[Any], number: int) -> Any:
    return things[-1 - number % len(things)]


def _by_job(event: Event) -> tuple[int, int]:
    return event.job, event.hold.lease if event.hold else 0


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_whatever_is_done_in_whatever_order_the_rows_are_what_the_model_says(actors: list[Actor]) -> None:
    explore = int(os.environ.get("PROPERTY_EXAMPLES", "0"))
    machine = type("Machine", (StoreMachine,), {"actors": actors})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=explore or 100,
            stateful_step_count=50,
            derandomize=not explore,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
