"""Unique jobs: one holds a key, whoever enqueues it and however often."""

import datetime
import threading
import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dbqueue import Unique, enqueue_many
from dbqueue.connections import close_all
from dbqueue.exceptions import InvalidTask
from dbqueue.models import Job, JobStatus
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

from .shop.tasks import add, mark

HOUR = datetime.timedelta(hours=1)

once = add.using(unique=True)


@pytest.fixture
def store(transactional_db: None) -> Store:
    return store_for("default")


def register(store: Store) -> int:
    return store.register(name="worker", hostname="host", pid=1, queues="", threads=2)


def test_a_second_enqueue_returns_the_job_that_waits(store: Store) -> None:
    first, second, other = once.enqueue(1, 2), once.enqueue(1, y=2), once.enqueue(1, 3)

    assert not first.duplicate
    assert second.duplicate
    assert second == first
    assert not other.duplicate
    assert add.enqueue(1, 2).id != first.id  # unique is an option of the call, not of the task


def test_the_key_is_free_when_the_job_has_been_started(store: Store) -> None:
    worker = register(store)
    first = once.enqueue(1, 2)
    [claim] = store.claim(worker, 1)

    second = once.enqueue(1, 2)
    store.finish([Outcome.retried(claim, ValueError(), 0)])

    assert second.id != first.id
    assert not second.duplicate


def test_until_finished_the_key_is_held_while_it_runs(store: Store) -> None:
    worker, task = register(store), add.using(unique=Unique(until="finished"), max_attempts=2)
    first = task.enqueue(1, 2)
    [claim] = store.claim(worker, 1)
    assert task.enqueue(1, 2).duplicate
    store.finish([Outcome.retried(claim, ValueError(), 0)])
    assert task.enqueue(1, 2).id == first.id
    store.promote(now=timezone.now() + HOUR)
    store.finish([Outcome.succeeded(claim, None) for claim in store.claim(worker, 1)])

    assert not task.enqueue(1, 2).duplicate


def test_within_a_period_a_success_keeps_others_out(store: Store) -> None:
    worker, task = register(store), add.using(unique=Unique(until=HOUR))
    first = task.enqueue(1, 2)
    store.finish([Outcome.succeeded(claim, None) for claim in store.claim(worker, 1)])

    assert task.enqueue(1, 2).id == first.id
    Job.objects.update(unique_until=timezone.now())
    assert task.enqueue(1, 2).id != first.id


@pytest.mark.parametrize("until", ["started", "finished", HOUR])
def test_what_failed_or_was_cancelled_keeps_nobody_out(store: Store, until: Any) -> None:
    worker, task = register(store), add.using(unique=Unique(until=until))
    failed = task.enqueue(1, 2)
    store.finish([Outcome.failed(claim, ValueError()) for claim in store.claim(worker, 1)])
    cancelled = task.enqueue(1, 2)
    assert cancelled.id != failed.id
    store.cancel([int(cancelled.id)])

    assert not task.enqueue(1, 2).duplicate


def test_retention_keeps_a_job_for_its_period(store: Store) -> None:
    worker, task = register(store), add.using(unique=Unique(until=HOUR))
    task.enqueue(1, 2)
    store.finish([Outcome.succeeded(claim, None) for claim in store.claim(worker, 1)])
    cutoffs = {JobStatus.SUCCESSFUL: timezone.now() + HOUR}

    assert not store.prune(cutoffs).deleted
    Job.objects.update(unique_until=timezone.now())
    assert store.prune(cutoffs).deleted.total() == 1


@pytest.mark.parametrize("key", [("x",), "{x}", lambda x, y: str(x)])
def test_a_key_of_some_arguments(store: Store, key: Any) -> None:
    task = add.using(unique=Unique(key=key))

    assert task.enqueue(1, 3).id == task.enqueue(1, 2).id
    assert not task.enqueue(2, 2).duplicate


def test_replace_is_a_debounce(store: Store) -> None:
    task = add.using(unique=Unique(key=("x",), replace=True), run_after=HOUR)
    first = task.enqueue(1, 2)
    later = task.using(run_after=2 * HOUR, priority=5).enqueue(1, 3)

    assert later.id == first.id
    assert later.duplicate
    assert (later.args, later.priority) == ([1, 3], 5)
    assert later.run_after is not None
    assert first.run_after is not None
    assert later.run_after - first.run_after >= HOUR
    assert later.status is JobStatus.SCHEDULED


def test_what_runs_is_not_replaced(store: Store) -> None:
    worker, task = register(store), add.using(unique=Unique(key=("x",), until="finished", replace=True))
    task.enqueue(1, 2)
    store.claim(worker, 1)

    found = task.enqueue(1, 3)

    assert (found.args, found.status) == ([1, 2], JobStatus.RUNNING)


def test_in_enqueue_many_each_signature_has_its_result(store: Store) -> None:
    made = enqueue_many([once.s(1, 2), add.s(9, 9), once.s(3, 4), once.s(1, 2)])

    assert [result.duplicate for result in made] == [False, False, False, True]
    assert made[3].id == made[0].id
    assert [result.args for result in made] == [[1, 2], [9, 9], [3, 4], [1, 2]]
    assert Job.objects.count() == 3


def test_with_replace_the_last_of_many_wins(store: Store) -> None:
    task = add.using(unique=Unique(key=("x",), replace=True))

    made = enqueue_many(task.s(1, number) for number in range(5))

    assert Job.objects.get().args == [1, 4]
    assert {result.id for result in made} == {made[0].id}


def test_a_rollback_frees_the_key(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        once.enqueue(1, 2)
        raise ZeroDivisionError

    assert not once.enqueue(1, 2).duplicate


def test_many_at_once_make_one_job(store: Store) -> None:
    made: list[Any] = []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait()
            made.extend(once.enqueue(1, 2) for _ in range(20))
            made.extend(enqueue_many(once.s(1, 2) for _ in range(20)))
        finally:
            close_all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Job.objects.count() == 1
    assert len(made) == 8 * 40
    assert sum(not result.duplicate for result in made) == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite's one writer keeps everybody out meanwhile")
def test_a_job_that_stands_for_another_is_not_claimed_before_the_commit(store: Store) -> None:
    worker, first = register(store), once.enqueue(1, 2)
    held, go_on, seen = threading.Event(), threading.Event(), []

    def enqueue_in_a_transaction() -> None:
        try:
            with transaction.atomic():
                seen.append(once.enqueue(1, 2))
                held.set()
                go_on.wait(30)
        finally:
            close_all()

    thread = threading.Thread(target=enqueue_in_a_transaction)
    thread.start()
    held.wait(30)
    assert store.claim(worker, 1) == []
    assert once.enqueue(1, 2).duplicate  # and nobody else waits for that transaction
    go_on.set()
    thread.join()

    assert seen[0].id == first.id
    assert len(store.claim(worker, 1)) == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer")
def test_a_duplicate_waits_for_the_first_ones_commit(store: Store) -> None:
    entered, results = threading.Event(), []

    def enqueue_slowly() -> None:
        try:
            with transaction.atomic():
                results.append(once.enqueue(1, 2))
                entered.set()
                time.sleep(0.2)
        finally:
            close_all()

    thread = threading.Thread(target=enqueue_slowly)
    thread.start()
    entered.wait(30)
    results.append(once.enqueue(1, 2))
    thread.join()

    assert len({result.id for result in results}) == 1


@pytest.mark.parametrize(
    ("unique", "said"),
    [
        ("yes", "unique is 'yes'; it must be True, False or a Unique"),
        (lambda: Unique(until="ended"), "until is 'ended'"),  # type: ignore[arg-type]
        (lambda: Unique(until=-HOUR), "until is"),
        (lambda: Unique(key=("z",)), "names the argument 'z'"),
        (lambda: Unique(key=5), "The key of unique is 5"),  # type: ignore[arg-type]
    ],
)
def test_what_can_not_be_unique_is_refused(unique: Any, said: str) -> None:
    with pytest.raises((InvalidTask, ValueError), match=said):
        mark.using(unique=unique() if callable(unique) else unique)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="a setting of PostgreSQL")
def test_only_a_claim_that_may_be_lost_skips_the_disk(store: Store) -> None:
    worker = register(store)

    def commit_after_a_claim() -> str:
        sent = CaptureQueriesContext(connection)
        with sent:
            assert store.claim(worker, 1)
        [marking] = [query["sql"] for query in sent if "set_config" in query["sql"]]
        reset = any("TO DEFAULT" in query["sql"] for query in sent)
        return "off" if "coalesce('off'" in marking and not reset else "on"

    add.enqueue(1, 2)
    assert commit_after_a_claim() == "off"
    once.enqueue(1, 2)
    assert commit_after_a_claim() == "on"
    add.using(concurrency=1).enqueue(1, 2)
    assert commit_after_a_claim() == "on"
    add.enqueue(1, 2)
    with transaction.atomic():
        assert commit_after_a_claim() == "on"


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer")
def test_an_outcome_does_not_wait_for_a_caller_with_a_duplicate(store: Store) -> None:
    worker, task = register(store), add.using(unique=Unique(until="finished"))
    task.enqueue(1, 2)
    [claim] = store.claim(worker, 1)
    held, go_on = threading.Event(), threading.Event()

    def enqueue_in_a_transaction() -> None:
        try:
            with transaction.atomic():
                assert task.enqueue(1, 2).duplicate
                held.set()
                go_on.wait(30)
        finally:
            close_all()

    thread = threading.Thread(target=enqueue_in_a_transaction)
    thread.start()
    held.wait(30)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '5s'")
    assert store.finish([Outcome.succeeded(claim, None)]) == []
    go_on.set()
    thread.join()


def test_a_key_that_another_version_left_keeps_nobody_out(store: Store) -> None:
    task = add.using(unique=Unique(until="finished"))
    left = task.enqueue(1, 2)
    Job.objects.filter(pk=left.id).update(status=JobStatus.SUCCESSFUL, finished_at=timezone.now())

    assert not task.enqueue(1, 2).duplicate


def test_unique_jobs_of_one_line_keep_the_order_of_enqueue_many(store: Store) -> None:
    line = mark.using(serial="line")

    made = enqueue_many([line.using(unique=True).s("a"), line.s("b"), line.using(unique=True).s("c")])

    assert [int(result.id) for result in made] == sorted(int(result.id) for result in made)


@pytest.mark.parametrize(
    ("key", "said"),
    [("x", r"write \('x',\), or '{x}'"), ((), "must name some"), ("a:{x", "no template"), ("a:}", "no template")],
)
def test_a_key_that_would_keep_all_others_out_is_refused(key: Any, said: str) -> None:
    with pytest.raises(InvalidTask, match=said):
        add.using(unique=Unique(key=key))
