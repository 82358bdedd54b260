"""The contract of the store: the same on every database. Time is given where it matters."""

import datetime
import threading
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dbqueue.claim import Bookmark, Claim, Selection
from dbqueue.connections import owned_connection
from dbqueue.draft import Draft
from dbqueue.exceptions import WorkerLost
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def store() -> Store:
    return store_for("default")


def draft(**changes: Any) -> Draft:
    values: dict[str, Any] = {
        "task": "tests.shop.tasks.add",
        "args": [1, 2],
        "kwargs": {},
        "args_json": "[1,2]",
        "kwargs_json": "{}",
        "queue_name": "default",
        "priority": 0,
        "run_after": None,
        "wait": None,
        "backend": "",
    }
    return Draft(**{**values, **changes})


def enqueue(store: Store, **changes: Any) -> int:
    return store.enqueue([draft(**changes)])[0][0]


def register(store: Store, name: str = "worker", now: datetime.datetime | None = None) -> int:
    return store.register(name=name, hostname="host", pid=1, queues="", threads=2, now=now)


def rescue(store: Store, now: datetime.datetime) -> list[int]:
    store.declare_lost(30, now)
    return list(store.rescue(3, now=now).again)


def states() -> dict[int, str]:
    return dict(Job.objects.values_list("id", "status"))


class Boom(Exception):
    pass


# Enqueue


def test_enqueue_stores_what_the_draft_says(store: Store) -> None:
    due = timezone.now() + HOUR
    made = store.enqueue(
        [draft(args=["ü", 1.5], args_json='["ü",1.5]', kwargs={"a": None}, kwargs_json='{"a":null}', priority=-7)]
    )
    later = enqueue(store, run_after=due, queue_name="mail", backend="tasks")

    job = Job.objects.get(pk=made[0][0])
    assert (job.task, job.args, job.kwargs, job.priority) == ("tests.shop.tasks.add", ["ü", 1.5], {"a": None}, -7)
    assert (job.status, job.enqueued_at, job.attempt, job.lease) == (JobStatus.READY, made[0][1], 0, 0)
    other = Job.objects.get(pk=later)
    assert (other.status, other.run_after, other.queue_name, other.backend) == (
        JobStatus.SCHEDULED,
        due,
        "mail",
        "tasks",
    )


def test_many_drafts_get_ids_in_their_order(store: Store) -> None:
    drafts = [draft(args=[number], args_json=f"[{number}]") for number in range(2345)]

    made = store.enqueue(drafts)

    stored = dict(Job.objects.values_list("id", "args"))
    assert [stored[pk] for pk, _ in made] == [[number] for number in range(2345)]
    assert [pk for pk, _ in made] == sorted(pk for pk, _ in made)


def test_enqueue_goes_with_the_callers_transaction(store: Store) -> None:
    with pytest.raises(Boom), transaction.atomic():
        store.enqueue([draft()])
        store.enqueue([draft(), draft()])
        raise Boom
    assert states() == {}


# Claim


def test_claim_takes_the_highest_priority_first_then_the_oldest(store: Store) -> None:
    old, low, high = enqueue(store), enqueue(store, priority=-1), enqueue(store, priority=1)
    worker = register(store)

    claims = store.claim(worker, 2) + store.claim(worker, 2)

    assert [claim.job_id for claim in claims] == [high, old, low]


def test_claim_tells_all_that_a_thread_needs(store: Store) -> None:
    pk = enqueue(store, queue_name="mail", priority=3, backend="tasks", kwargs={"a": 1}, kwargs_json='{"a":1}')
    worker = register(store)

    [claim] = store.claim(worker, 5)

    job = Job.objects.get(pk=pk)
    assert (claim.args, claim.kwargs) == ([1, 2], {"a": 1})
    assert claim == Claim(
        job_id=pk,
        lease=1,
        attempt=1,
        worker_id=worker,
        task=job.task,
        args_json=claim.args_json,
        kwargs_json=claim.kwargs_json,
        queue_name="mail",
        priority=3,
        backend="tasks",
        run_after=None,
        enqueued_at=job.enqueued_at,
        crashes=0,
        max_attempts=1,
        earlier_attempts=0,
        options_json=None,
        expires_at=None,
        concurrency_key=None,
        rate_key=None,
        workflow_id=None,
        started_at=claim.claimed_at,
        claimed_at=claim.claimed_at,
    )
    assert (job.status, job.worker_id, job.lease, job.attempt) == (JobStatus.RUNNING, worker, 1, 1)
    assert job.started_at == job.last_attempted_at == claim.claimed_at
    assert job.enqueued_at <= claim.claimed_at


def test_a_claimed_job_is_not_claimed_again(store: Store) -> None:
    enqueue(store)
    worker = register(store)
    assert len(store.claim(worker, 5)) == 1
    assert store.claim(worker, 5) == []


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {"a", "b", "c"}),
        (Selection(include=("a",)), {"a"}),
        (Selection(include=("a", "c")), {"a", "c"}),
        (Selection(exclude=("b",)), {"a", "c"}),
        (Selection(include=("a", "b"), exclude=("b",)), {"a"}),
        (Selection(include=("z",)), set()),
    ],
)
def test_claim_keeps_to_the_queues(store: Store, selection: Selection, expected: set[str]) -> None:
    for queue in "abc":
        enqueue(store, queue_name=queue)
    claims = store.claim(register(store), 10, selection)
    assert {claim.queue_name for claim in claims} == expected
    assert all(selection.serves(claim.queue_name) for claim in claims)


def test_no_named_queue_starves(store: Store) -> None:
    for _ in range(40):
        enqueue(store, queue_name="a")
        enqueue(store, queue_name="b")
    worker = register(store)
    first = [store.claim(worker, 1, Selection(include=("a", "b")))[0].queue_name for _ in range(40)]
    assert set(first) == {"a", "b"}


def test_claims_of_many_threads_never_share_a_job(store: Store) -> None:
    store.enqueue([draft() for _ in range(400)])
    worker = register(store)
    taken: list[int] = []

    def claim_all() -> None:
        with owned_connection("default"):
            while claims := store.claim(worker, 7):
                taken.extend(claim.job_id for claim in claims)

    in_threads(claim_all, 6)

    # A claim may find only rows that others hold at that moment and give up early; what is left is still there.
    while claims := store.claim(worker, 100):
        taken.extend(claim.job_id for claim in claims)
    assert len(taken) == len(set(taken)) == 400


def test_a_look_from_the_start_that_finds_too_few_has_found_all(store: Store) -> None:
    store.enqueue([draft() for _ in range(5)])
    worker, bookmark = register(store), Bookmark()
    assert len(store.claim(worker, 2, bookmark=bookmark)) == 2
    assert not bookmark.nothing_left

    bookmark.looked_from_the_start(0.0, nothing_left=False)  # good for longer than this test takes
    assert len(store.claim(worker, 4, bookmark=bookmark)) == 3
    assert not bookmark.nothing_left, "only what stands behind the mark was looked at"

    enqueue(store)
    bookmark.places.clear()
    assert len(store.claim(worker, 4, bookmark=bookmark)) == 1
    assert bookmark.nothing_left


def test_what_comes_before_a_mark_waits_only_while_the_mark_is_good(store: Store) -> None:
    store.enqueue([draft() for _ in range(9)])
    worker, bookmark = register(store), Bookmark()
    [back] = store.claim(worker, 1, bookmark=bookmark)
    store.release([back])
    urgent = enqueue(store, priority=9)

    bookmark.looked_from_the_start(0.0, nothing_left=False)  # good for longer than this test takes
    assert [claim.job_id for claim in store.claim(worker, 1, bookmark=bookmark)] == [back.job_id + 1]
    bookmark.looked_from_the_start(time.monotonic() + 60, nothing_left=False)  # good for no time
    assert [claim.job_id for claim in store.claim(worker, 2, bookmark=bookmark)] == [urgent, back.job_id]


def test_where_nothing_is_behind_a_mark_a_claim_looks_from_the_start(store: Store) -> None:
    enqueue(store)
    worker, bookmark = register(store), Bookmark()
    [back] = store.claim(worker, 1, bookmark=bookmark)
    store.release([back])
    bookmark.looked_from_the_start(0.0, nothing_left=False)
    assert [claim.job_id for claim in store.claim(worker, 1, bookmark=bookmark)] == [back.job_id]


# Promote


def test_promote_makes_only_due_jobs_ready(store: Store) -> None:
    now = timezone.now()
    due, later = enqueue(store, run_after=now - HOUR, queue_name="mail"), enqueue(store, run_after=now + HOUR)

    assert store.promote(now=now) == ["mail"]

    assert states() == {due: JobStatus.READY, later: JobStatus.SCHEDULED}
    assert store.promote(now=now) == []
    assert store.promote(now=now + HOUR) == ["default"]


def test_promote_uses_the_databases_clock_by_default(store: Store) -> None:
    pk = enqueue(store, run_after=store.clock())
    store.promote()
    assert states() == {pk: JobStatus.READY}


def test_the_time_to_the_next_due_job(store: Store) -> None:
    now = timezone.now()
    assert store.seconds_to_next_due(now) is None
    enqueue(store, run_after=now + HOUR)
    assert store.seconds_to_next_due(now) == 3600.0
    enqueue(store, run_after=now - HOUR)
    assert store.seconds_to_next_due(now) == 0.0


# Finish


def claimed(store: Store, **changes: Any) -> Claim:
    enqueue(store, **changes)
    [claim] = store.claim(register(store), 1)
    return claim


def test_finish_writes_a_success(store: Store) -> None:
    claim = claimed(store)

    assert store.finish([Outcome.succeeded(claim, '{"a":[1,null,"ü"]}')]) == []

    job = Job.objects.get()
    assert (job.status, job.return_value, job.worker_id) == (
        JobStatus.SUCCESSFUL,
        {"a": [1, None, "ü"]},
        claim.worker_id,
    )
    assert job.finished_at is not None and job.finished_at >= claim.claimed_at
    assert Attempt.objects.count() == 0


def test_finish_writes_a_failure_and_its_attempt(store: Store) -> None:
    claim = claimed(store)

    assert store.finish([Outcome.failed(claim, Boom("bang"))]) == []

    job, attempt = Job.objects.get(), Attempt.objects.get()
    assert (job.status, job.return_value) == (JobStatus.FAILED, None)
    assert (attempt.job_id, attempt.number, attempt.worker_id) == (job.pk, 1, claim.worker_id)
    assert attempt.exception_class_path == f"{__name__}.Boom"
    assert attempt.traceback.endswith("Boom: bang\n")
    assert attempt.started_at == claim.claimed_at
    assert attempt.ended_at == job.finished_at


def test_finish_postpones_without_using_up_the_attempt(store: Store) -> None:
    claim = claimed(store)
    now = store.clock()

    assert store.finish([Outcome.postponed(claim, 60)], now) == []

    job = Job.objects.get()
    assert (job.status, job.attempt, job.lease, job.worker_id) == (JobStatus.SCHEDULED, 0, 1, None)
    assert job.run_after == now + datetime.timedelta(seconds=60)
    assert job.finished_at is None


class Portable(Store):
    """The statements that MySQL is given, on any database."""

    def clock(self) -> datetime.datetime:
        return store_for(self.alias).clock()


@pytest.mark.parametrize("is_portable", [False, True])
def test_a_retry_may_have_other_arguments_and_costs_one_statement_more(store: Store, is_portable: bool) -> None:
    store = Portable(store.alias) if is_portable else store

    def written(call: tuple[str, str] | None) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert store.finish([Outcome.retried(claimed(store), Boom(), 60, call)]) == []
        return len(queries)

    without, used = written(None), written(('["ü",2]', '{"day":null}'))

    job, other = Job.objects.order_by("-id")
    assert (job.status, job.args, job.kwargs) == (JobStatus.SCHEDULED, ["ü", 2], {"day": None})
    assert (other.args, other.kwargs) == ([1, 2], {})
    assert used == without + 1


def test_a_lost_lease_writes_no_arguments(store: Store) -> None:
    old = claimed(store)
    rescue(store, store.clock() + HOUR)
    late = Outcome.retried(old, Boom(), 0, ("[3,4]", "{}"))
    [new] = store.claim(register(store, "other"), 1)

    assert store.finish([late]) == [late]
    # Nor beside one that is let through.
    assert store.finish([late, Outcome.retried(new, Boom(), 0)]) == [late]
    assert Job.objects.get().args == [1, 2]


def test_finish_of_many_kinds_at_once(store: Store) -> None:
    store.enqueue([draft() for _ in range(30)])
    claims = store.claim(register(store), 30)
    kinds: list[Callable[[Claim], Outcome]] = [
        lambda claim: Outcome.succeeded(claim, str(claim.job_id)),
        lambda claim: Outcome.succeeded(claim, None),
        lambda claim: Outcome.failed(claim, Boom(str(claim.job_id))),
    ]
    outcomes = [kinds[number % 3](claim) for number, claim in enumerate(claims)]

    assert store.finish(list(reversed(outcomes))) == []

    for outcome in outcomes:
        job = Job.objects.get(pk=outcome.claim.job_id)
        assert job.status == outcome.status
        assert job.return_value == (job.pk if outcome.value_json else None)
    assert Attempt.objects.count() == 10


def test_an_outcome_is_written_once(store: Store) -> None:
    claim = claimed(store)
    store.finish([Outcome.succeeded(claim, "1")])
    late = Outcome.failed(claim, Boom())

    assert store.finish([late]) == [late]

    assert Job.objects.get().return_value == 1
    assert Attempt.objects.count() == 0


@pytest.mark.parametrize("wrong", [{"lease": 2}, {"lease": 0}, {"worker_id": 10**6}, {"job_id": 10**6}])
@pytest.mark.parametrize("kind", ["success", "failure", "postponed"])
def test_the_fence_lets_only_the_holder_through(store: Store, wrong: dict[str, Any], kind: str) -> None:
    claim = claimed(store)
    stranger = claim._replace(**wrong)
    outcome = {
        "success": Outcome.succeeded(stranger, "1"),
        "failure": Outcome.failed(stranger, Boom()),
        "postponed": Outcome.postponed(stranger, 1),
    }[kind]

    assert store.finish([outcome]) == [outcome]

    assert states() == {claim.job_id: JobStatus.RUNNING}
    assert Attempt.objects.count() == 0


def test_a_refused_outcome_does_not_keep_back_the_others(store: Store) -> None:
    store.enqueue([draft(), draft()])
    first, second = store.claim(register(store), 2)
    late = Outcome.failed(first._replace(lease=9), Boom())

    assert store.finish([late, Outcome.succeeded(second, None)]) == [late]

    assert states() == {first.job_id: JobStatus.RUNNING, second.job_id: JobStatus.SUCCESSFUL}


def test_an_old_and_a_new_outcome_of_one_job_in_one_batch(store: Store) -> None:
    old = claimed(store)
    store.release([old])
    [new] = store.claim(old.worker_id, 1)
    stale = Outcome.failed(old, Boom())

    assert store.finish([stale, Outcome.succeeded(new, "5")]) == [stale]

    assert Job.objects.get().return_value == 5
    assert Attempt.objects.count() == 0


# Release and rescue


def test_release_gives_back_without_using_up_the_attempt(store: Store) -> None:
    claim = claimed(store)

    assert store.release([claim]) == 1

    job = Job.objects.get()
    assert (job.status, job.worker_id, job.attempt, job.lease) == (JobStatus.READY, None, 0, 1)
    assert job.started_at is None
    [again] = store.claim(register(store), 1)
    assert (again.attempt, again.lease) == (1, 2)
    assert store.finish([Outcome.succeeded(claim, None)]) != []


def test_release_leaves_what_is_not_held(store: Store) -> None:
    claim = claimed(store)
    store.finish([Outcome.succeeded(claim, None)])
    assert store.release([claim]) == 0
    assert states() == {claim.job_id: JobStatus.SUCCESSFUL}


def test_rescue_returns_the_jobs_of_a_silent_worker_only(store: Store) -> None:
    now = store.clock()
    enqueue(store)
    enqueue(store)
    silent, lively = register(store, now=now - HOUR), register(store, now=now)
    [lost] = store.claim(silent, 1)
    [kept] = store.claim(lively, 1)

    assert rescue(store, now) == [lost.job_id]

    assert states() == {lost.job_id: JobStatus.READY, kept.job_id: JobStatus.RUNNING}
    assert list(Worker.objects.alive().values_list("pk", flat=True)) == [lively]
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.worker_id) == (1, silent)
    assert attempt.exception_class_path == f"{WorkerLost.__module__}.WorkerLost"
    assert rescue(store, now) == []


def test_a_rescued_jobs_old_outcome_is_refused(store: Store) -> None:
    now = store.clock()
    enqueue(store)
    silent = register(store, now=now - HOUR)
    [old] = store.claim(silent, 1)
    rescue(store, now)
    [new] = store.claim(register(store), 1)

    assert store.finish([Outcome.succeeded(old, '"old"')]) != []
    assert store.finish([Outcome.succeeded(new, '"new"')]) == []
    assert Job.objects.get().return_value == "new"
    assert (new.attempt, new.lease) == (2, 2)


def test_rescue_finds_a_job_whose_worker_has_ended(store: Store) -> None:
    claim = claimed(store)
    store.unregister(claim.worker_id)
    assert store.rescue(3) == ({claim.job_id: claim.attempt}, {}, [])


def test_a_worker_that_was_declared_lost_can_not_claim(store: Store) -> None:
    enqueue(store)
    worker = register(store)
    rescue(store, store.clock() + HOUR)
    with pytest.raises(WorkerLost):
        store.claim(worker, 1)
    assert set(states().values()) == {JobStatus.READY}


def test_a_queue_that_is_named_twice_is_served_once(store: Store) -> None:
    store.enqueue([draft(), draft(), draft()])
    claims = store.claim(register(store), 10, Selection(include=("default", "default")))
    assert len(claims) == len({claim.job_id for claim in claims}) == 3


def test_rescue_moves_a_great_many_in_steps(store: Store) -> None:
    store.enqueue([draft() for _ in range(25)])
    worker = register(store)
    store.claim(worker, 25)
    store.unregister(worker)
    assert [len(store.rescue(3, limit=10).again) for _ in range(4)] == [10, 10, 5, 0]


def test_what_was_taken_ahead_is_told_from_what_a_thread_will_begin(store: Store) -> None:
    first, second, third = (enqueue(store) for _ in range(3))
    claims = store.claim(register(store), 3, free=1)
    assert [(claim.job_id, claim.ahead) for claim in claims] == [(first, False), (second, True), (third, True)]

    store.begun([claims[1], claims[2]._replace(lease=9)])

    assert dict(Job.objects.values_list("pk", "ahead")) == {first: False, second: False, third: True}


def test_what_has_begun_is_told_past_an_outcome_that_is_being_written(store: Store) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("one writer at a time: rows are not locked")
    store.enqueue([draft(), draft()])
    ended, runs = store.claim(register(store), 2, free=0)
    written, told = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def finish() -> None:
        with owned_connection("default"), store.atomic():
            store.finish([Outcome.succeeded(ended, None)])
            written.set()
            in_time.append(told.wait(10))

    thread = threading.Thread(target=finish)
    thread.start()
    assert written.wait(10)
    marked = store.begun([ended, runs])
    told.set()
    thread.join()

    assert (in_time, marked) == ([True], [runs])
    assert dict(Job.objects.values_list("status", "ahead")) == {JobStatus.SUCCESSFUL: True, JobStatus.RUNNING: False}


def test_a_dead_worker_uses_up_no_attempt_of_a_job_that_it_had_not_begun(store: Store) -> None:
    begun, ahead = enqueue(store), enqueue(store)
    worker = register(store)
    claims = store.claim(worker, 2, free=1)
    store.unregister(worker)

    assert store.rescue(3) == ({begun: 1}, {ahead: 0}, [])

    assert list(Job.objects.order_by("pk").values_list("status", "attempt", "lease", "crashes")) == [
        (JobStatus.READY, 1, 1, 1),
        (JobStatus.READY, 0, 1, 1),
    ]
    assert Job.objects.get(pk=ahead).started_at is None
    assert list(Attempt.objects.values_list("job_id", flat=True)) == [begun]
    assert store.finish([Outcome.succeeded(claim, None) for claim in claims]) != []
    # Suspected now, so they come before a job of higher priority, to be begun at once.
    enqueue(store, priority=9)
    assert [claim.job_id for claim in store.claim(register(store), 3, free=2)][:2] == [begun, ahead]


def test_a_job_whose_workers_die_ends_failed(store: Store) -> None:
    pk = enqueue(store)
    for number in (1, 2):
        worker = register(store)
        store.claim(worker, 1)
        store.unregister(worker)
        assert store.rescue(3) == ({pk: number}, {}, []), number
    worker = register(store)
    store.claim(worker, 1)
    store.unregister(worker)

    assert store.rescue(3) == ({}, {}, [pk])

    job = Job.objects.get()
    assert (job.status, job.attempt, job.crashes, job.worker_id) == (JobStatus.FAILED, 3, 3, None)
    assert job.finished_at is not None
    last = Attempt.objects.order_by("number").last()
    assert last is not None
    assert "worker lost" in last.traceback and "DBQUEUE['MAX_CRASHES'] is 3" in last.traceback
    assert store.claim(register(store), 1) == []
    assert store.retry([pk]) == 1
    assert Job.objects.get().crashes == 0


def test_what_nobody_had_begun_is_never_failed_for_its_workers(store: Store) -> None:
    pk = enqueue(store)
    for _ in range(5):
        worker = register(store)
        store.claim(worker, 1, free=0)
        store.unregister(worker)
        assert store.rescue(2) == ({}, {pk: 0}, [])
    assert Job.objects.get().crashes == 1


def test_a_worker_that_was_seen_to_die_is_lost_at_once(store: Store) -> None:
    token = uuid.uuid4()
    dead = store.register(name="dead", hostname="h", pid=1, queues="", threads=1, token=token)
    other = register(store)

    assert store.lose(token) == 1

    assert list(Worker.objects.alive().values_list("pk", flat=True)) == [other]
    assert Worker.objects.get(pk=dead).lost
    assert store.lose(token) == 0


def test_on_its_last_chance_a_job_waits_until_it_can_run_alone(store: Store) -> None:
    for _ in range(2):
        enqueue(store)
    Job.objects.filter(pk=enqueue(store)).update(crashes=2)
    claims = store.claim(register(store), 3, free=3, last_chance=2)
    assert [(claim.crashes, claim.ahead) for claim in claims] == [(2, True), (0, False), (0, False)]


def take_back(claim: Claim) -> None:
    """What a crash of the server does to a claim that was not on disk."""
    Job.objects.filter(pk=claim.job_id).update(
        status=JobStatus.READY, lease=claim.lease - 1, attempt=claim.attempt - 1, worker=None, started_at=None
    )


def test_a_claim_that_a_crash_took_back_is_restored(store: Store) -> None:
    claim = claimed(store)
    before = Job.objects.values().get()
    take_back(claim)

    assert store.restore([claim]) == 1

    assert Job.objects.values().get() == before
    assert store.finish([Outcome.succeeded(claim, "1")]) == []


@pytest.mark.parametrize("meanwhile", ["claimed by another", "released", "ended", "cancelled", "claimed twice"])
def test_only_a_claim_that_a_crash_took_back_is_restored(store: Store, meanwhile: str) -> None:
    claim = claimed(store)
    match meanwhile:
        case "claimed by another":
            take_back(claim)
            store.claim(register(store), 1)
        case "released":
            store.release([claim])
        case "ended":
            store.finish([Outcome.succeeded(claim, None)])
        case "cancelled":
            take_back(claim)
            store.cancel([claim.job_id])
        case "claimed twice":
            take_back(claim)
            other = register(store)
            store.release(store.claim(other, 1))
            store.release(store.claim(other, 1))
    before = Job.objects.values().get()

    assert store.restore([claim]) == 0

    assert Job.objects.values().get() == before


def test_what_was_written_although_its_reply_was_lost_is_known(store: Store) -> None:
    claim, other = claimed(store), claimed(store)
    done, failed = Outcome.succeeded(claim, "1"), Outcome.failed(other, Boom())
    store.finish([done])
    store.release([other])
    assert store.finish([done, failed]) == [done, failed]
    assert store.written([done, failed]) == [done]


def test_what_somebody_else_wrote_is_not_taken_for_ones_own(store: Store) -> None:
    claim = claimed(store)
    outcome = Outcome.failed(claim, Boom())
    store.unregister(claim.worker_id)
    assert store.rescue(1).failed == [claim.job_id]
    assert store.written([outcome]) == []
    stranger = claimed(store)
    store.finish([Outcome.succeeded(stranger, "1")])
    assert store.written([Outcome.succeeded(stranger._replace(worker_id=claim.worker_id), "1")]) == []


def test_lost_leases_are_counted_with_their_worker(store: Store) -> None:
    claims = [claimed(store), claimed(store)]
    claims.append(claims[0]._replace(lease=7))
    store.count_lost_leases([Outcome.succeeded(claim, None) for claim in claims])
    assert dict(Worker.objects.values_list("pk", "leases_lost")) == {claims[0].worker_id: 2, claims[1].worker_id: 1}


def test_a_worker_that_was_declared_lost_is_told(store: Store) -> None:
    worker = register(store)
    assert store.beat(worker)
    rescue(store, store.clock() + HOUR)
    assert not store.beat(worker)


def test_beat_moves_the_heartbeat(store: Store) -> None:
    worker = register(store)
    moment = store.clock() + HOUR
    store.beat(worker, now=moment)
    assert Worker.objects.get().heartbeat_at == moment


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="about SQLite's one write lock")
def test_a_beat_does_not_stand_back_behind_a_crowd_of_writers(store: Store) -> None:
    worker, is_over = register(store), threading.Event()
    taken: list[None] = []

    def write_again_and_again() -> None:
        with owned_connection("default"):
            while not is_over.is_set():
                with store.atomic():
                    taken.append(None)
                    time.sleep(0.03)
                time.sleep(0.002)

    crowd = threading.Thread(target=write_again_and_again)
    crowd.start()
    try:
        for _ in range(20):
            before = len(taken)
            while len(taken) == before and crowd.is_alive():
                time.sleep(0.001)
            assert store.beat(worker)
    finally:
        is_over.set()
        crowd.join()
    # A beat waits for one turn of the writer, or for a few; SQLite's own waiting takes more than twenty in the mean.
    assert len(taken) < 100
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone()[0] > 0, "others on this connection wait as before"


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="about SQLite's one write lock")
@pytest.mark.parametrize(("journal", "pushes"), [("wal", True), ("delete", False)])
def test_a_beat_pushes_where_a_patient_writer_keeps_nobody_out(store: Store, journal: str, pushes: bool) -> None:
    worker, is_held = register(store), threading.Event()

    def hold_the_lock() -> None:
        with owned_connection("default"), store.atomic():
            Worker.objects.update(leases_lost=1)
            is_held.set()
            time.sleep(0.3)

    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA journal_mode = {journal}")
        assert cursor.fetchone() == (journal,)
    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    try:
        assert is_held.wait(10)
        with CaptureQueriesContext(connection) as captured:
            assert store.beat(worker)
    finally:
        holder.join()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = wal")
    tries = sum("UPDATE" in query["sql"] for query in captured.captured_queries)
    assert tries > 5 if pushes else tries == 1


def test_held_by_tells_what_a_worker_runs(store: Store) -> None:
    claim = claimed(store)
    enqueue(store)
    assert store.held_by(claim.worker_id) == [claim]
    assert store.held_by(claim.worker_id + 1) == []


# Operators


def test_cancel_takes_waiting_jobs_only(store: Store) -> None:
    running = claimed(store).job_id
    ready, scheduled = enqueue(store), enqueue(store, run_after=timezone.now() + HOUR)

    assert store.cancel([running, ready, scheduled]) == 2

    assert states() == {running: JobStatus.RUNNING, ready: JobStatus.CANCELLED, scheduled: JobStatus.CANCELLED}
    assert Job.objects.get(pk=ready).finished_at is not None


def test_retry_takes_failed_and_cancelled_jobs_and_keeps_their_history(store: Store) -> None:
    claim = claimed(store)
    store.finish([Outcome.failed(claim, Boom())])
    done = claimed(store)
    store.finish([Outcome.succeeded(done, "1")])
    cancelled = enqueue(store)
    store.cancel([cancelled])

    assert store.retry([claim.job_id, done.job_id, cancelled]) == 2

    assert states() == {
        claim.job_id: JobStatus.READY,
        done.job_id: JobStatus.SUCCESSFUL,
        cancelled: JobStatus.READY,
    }
    [again, _] = store.claim(register(store), 5)
    assert (again.job_id, again.attempt, again.lease) == (claim.job_id, 2, 2)
    assert Attempt.objects.count() == 1


def test_retry_keeps_a_time_that_has_not_come(store: Store) -> None:
    now = store.clock()
    later, past = enqueue(store, run_after=now + HOUR), enqueue(store, run_after=now - HOUR)
    store.cancel([later, past])

    assert store.retry([later, past], now=now) == 2

    assert states() == {later: JobStatus.SCHEDULED, past: JobStatus.READY}
    assert Job.objects.get(pk=later).run_after == now + HOUR


# Wake-ups


@pytest.mark.parametrize("how", ["one", "many", "scheduled", "retry", "release"])
def test_a_listener_hears_of_work_after_the_commit(store: Store, how: str) -> None:
    failed = claimed(store, queue_name="mail")
    if how == "retry":
        store.finish([Outcome.failed(failed, Boom())])
    heard: list[str] = []
    ready, done = threading.Event(), threading.Event()

    def listen() -> None:
        with owned_connection("default"):
            listener = store.listen()
            assert listener is not None
            ready.set()
            while not done.is_set():
                heard.extend(listener.wait(0.2))

    if store.listen() is None:
        pytest.skip("this database has no way to call")
    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(10)
    with transaction.atomic():
        match how:
            case "one":
                store.enqueue([draft(queue_name="mail")])
            case "many":
                store.enqueue([draft(queue_name="mail") for _ in range(5)])
            case "scheduled":
                store.enqueue([draft(queue_name="mail", run_after=timezone.now())])
            case "retry":
                store.retry([failed.job_id])
            case "release":
                store.release([failed])
        done.wait(0.5)  # long enough for several rounds of the listener
        before_commit = list(heard)
    for _ in range(100):
        if heard:
            break
        done.wait(0.05)
    done.set()
    thread.join()
    connection.close()
    assert before_commit == []
    assert set(heard) == ({"mail"} if connection.vendor == "postgresql" and how != "scheduled" else {""})


@pytest.mark.parametrize("stamps", [[(1, 1), (1, 1), (1, 1), (2, 1)], [(1, 1), (2, 1), (2, 1)]])
def test_sqlite_is_asked_when_its_log_changes_and_once_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, stamps: list[tuple[int, int]]
) -> None:
    """The commit comes together with the last of these stamps: with a change, or in the same tick as one before."""
    if connection.vendor != "sqlite":
        pytest.skip("this database calls")
    heard: list[Collection[str]] = []

    def stamp() -> tuple[int, int]:
        if len(stamps) == 1:
            enqueue_elsewhere(store)
        return stamps.pop(0) if stamps else (0, 0)

    def listen() -> None:
        with owned_connection("default"):
            listener = store.listen()
            assert listener is not None
            monkeypatch.setattr(listener, "_stamp", stamp)
            heard.append(listener.wait(60))

    in_threads(listen, 1)
    assert heard == [("",)]
    assert stamps == []


@pytest.mark.parametrize("stamp", [None, (1, 1)])
def test_sqlite_is_asked_whatever_the_time_of_its_log_tells(
    store: Store, monkeypatch: pytest.MonkeyPatch, stamp: tuple[int, int] | None
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("this database calls")
    heard: list[Collection[str]] = []

    def listen() -> None:
        with owned_connection("default"):
            listener = store.listen()
            assert listener is not None
            monkeypatch.setattr(listener, "_stamp", lambda: stamp)
            assert listener.wait(0.1) == ()
            enqueue_elsewhere(store)
            heard.append(listener.wait(5))

    in_threads(listen, 1)
    assert heard == [("",)]


def enqueue_elsewhere(store: Store) -> None:
    """By another connection than this thread's."""

    def enqueue_one() -> None:
        with owned_connection("default"):
            store.enqueue([draft()])

    in_threads(enqueue_one, 1)


def in_threads(work: Callable[[], None], number: int) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=guarded) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
