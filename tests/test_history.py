"""The roll-up of how attempts went: what is counted, how sums meet in the rows, and how long they are kept."""

import datetime
import random
import threading
import time
from typing import Any

import pytest
from django.db import DataError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from dbqueue.conf import Settings
from dbqueue.history import (
    BUCKETS,
    TICK,
    WORKER_LOST,
    Key,
    Sums,
    Tally,
    added,
    bucket,
    quantile,
    shortened,
    upper_bound,
)
from dbqueue.models import History, Job, JobStatus, Resolution
from dbqueue.outcome import Outcome
from dbqueue.rescue import rescue_all
from dbqueue.retention import Sweep
from dbqueue.store import Store, store_for
from dbqueue.summing import Summing

from .shop import retry_tasks, tasks
from .test_pool import claim as a_claim
from .workers import eventually, spawn, worker

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def store() -> Store:
    return store_for("default")


def counted(number: int = 1, wait: float = 0.003, run: float = 0.1, **key: str) -> dict[tuple[int, Key], Sums]:
    """What a worker of this host's clock has counted just now."""
    sums = Sums()
    for _ in range(number):
        sums.note(wait, run)
    return {(int(time.time()) // TICK, Key(**{"queue_name": "q", "task": "t", "outcome": "SUCCESSFUL", **key})): sums}


def total(resolution: Resolution, **key: str) -> int:
    rows = History.objects.filter(seconds=resolution, **{"queue_name": "", **key})
    return sum(rows.values_list("count", flat=True))


# Histograms


@given(st.floats(min_value=-5, max_value=datetime.timedelta.max.total_seconds() / 300, allow_nan=False))
def test_a_duration_is_in_the_bucket_whose_bounds_hold_it(seconds: float) -> None:
    index = bucket(seconds)
    assert index < BUCKETS and seconds < upper_bound(index)
    # Whole milliseconds decide.
    assert index == 0 or int(seconds * 1000) >= round(upper_bound(index - 1) * 1000)


@given(st.lists(st.floats(min_value=0.0001, max_value=60_000), min_size=1), st.floats(min_value=0.01, max_value=1))
def test_a_quantile_is_right_to_a_factor_of_two_above_the_first_bucket(seconds: list[float], share: float) -> None:
    sums = Sums()
    for one in seconds:
        sums.note(None, one)
    right = sorted(seconds)[max(0, -int(-share * len(seconds) // 1) - 1)]
    told = quantile(sums.runs, share)
    assert told is not None
    assert max(right, 0.001) / 2.01 <= max(told, 0.001) <= max(right, 0.001) * 2.01


def test_no_durations_have_no_quantile() -> None:
    assert quantile([], 0.5) is None
    assert quantile([0, 0], 0.5) is None


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_shortened_histograms_add_up(some: list[int], more: list[int]) -> None:
    both = added(shortened(some), shortened(more))
    assert sum(both) == sum(some) + sum(more)
    assert shortened(both) == shortened(added(some, more))


def test_a_tally_counts_as_its_sums_would() -> None:
    first = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
    last = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    new = a_claim(1)._replace(enqueued_at=first, claimed_at=last, run_after=None, attempt=1)
    skewed = new._replace(enqueued_at=last, claimed_at=first)
    due = new._replace(attempt=2, run_after=last - datetime.timedelta(milliseconds=100))
    rescued = new._replace(attempt=2)
    tally = Tally()
    tally.note(Outcome.succeeded(claim, None, 0.1) for claim in (new, skewed, due, rescued))
    [sums] = tally.take().values()
    expected = Sums()
    for wait in ((last - first).total_seconds(), -1, 0.1, None):
        expected.note(wait, 0.1)
    assert (sums.count, sums.waits, sums.runs) == (4, expected.waits, expected.runs)
    assert sums.run_seconds == pytest.approx(expected.run_seconds)


def test_what_was_no_attempt_is_not_counted() -> None:
    tally = Tally()
    tally.note(
        [Outcome.postponed(a_claim(1), 5), Outcome.expired(a_claim(2)), Outcome.succeeded(a_claim(3), None, 0.5)]
    )
    [((_, key), sums)] = tally.take().items()
    assert (key.outcome, sums.count, sums.run_seconds, sum(sums.runs)) == ("SUCCESSFUL", 1, 0.5, 1)
    assert tally.take() == {}


# Rows


@pytest.mark.django_db
def test_sums_are_written_by_queue_and_task_and_all_together(store: Store) -> None:
    store.add_history(counted(3) | counted(2, task="u") | counted(1, outcome="FAILED", error="builtins.ValueError"))

    assert total(Resolution.EVER, queue_name="q") == 6
    assert total(Resolution.EVER, queue_name="q", task="u") == 2
    assert total(Resolution.MINUTE, queue_name="q", error="builtins.ValueError") == 1
    for resolution in (Resolution.MINUTE, Resolution.TEN_MINUTES, Resolution.HOUR):
        assert total(resolution) == 6, resolution
        assert total(resolution, outcome="FAILED") == 1, resolution
    row = History.objects.get(seconds=Resolution.MINUTE, task="u")
    assert sum(row.waits) == sum(row.runs) == 2
    assert row.run_seconds == pytest.approx(0.2)


@pytest.mark.django_db
def test_a_row_begins_when_its_minute_does_by_the_database_clock(store: Store) -> None:
    now = store.clock() + datetime.timedelta(days=3)
    store.add_history(counted(), now=now)
    [row] = store.history(Resolution.HOUR, now - HOUR)
    # Half a tick this way or that.
    assert row.begins_at - datetime.timedelta(seconds=10) <= now < row.begins_at + HOUR + datetime.timedelta(seconds=10)
    assert row.begins_at.minute == row.begins_at.second == 0


@pytest.mark.django_db(transaction=True)
def test_workers_that_write_at_once_lose_nothing_and_wait_for_nobody_in_a_ring(store: Store) -> None:
    errors: list[Exception] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(10):
                names = chance.sample("abcdefgh", 4)
                taken: dict[tuple[int, Key], Sums] = {}
                for name in names:
                    taken |= counted(task=name)
                while not store.add_history(taken):
                    time.sleep(0.01 * chance.random())
        except Exception as exc:
            errors.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert total(Resolution.EVER, queue_name="q") == total(Resolution.HOUR) == 6 * 10 * 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite lets one write at a time")
def test_nobody_waits_for_who_is_frozen_with_the_rows_and_nothing_is_lost(store: Store) -> None:
    store.add_history(counted())
    tally = Tally()
    tally.put_back(counted(2))
    holds, done = threading.Event(), threading.Event()

    def freeze() -> None:
        with transaction.atomic():
            list(History.objects.select_for_update())
            holds.set()
            done.wait(60)
        connections.close_all()

    frozen = threading.Thread(target=freeze)
    frozen.start()
    assert holds.wait(30)
    try:
        assert Summing(store, tally).write() is False
        assert total(Resolution.EVER, queue_name="q") == 1
    finally:
        done.set()
        frozen.join(60)
    assert Summing(store, tally).write() is True
    assert total(Resolution.EVER, queue_name="q") == total(Resolution.HOUR) == 3


@pytest.mark.django_db
def test_what_could_not_be_written_is_kept(store: Store) -> None:
    tally = Tally()
    tally.put_back(counted(2))
    with pytest.raises(DataError):
        Summing(store_that_fails(store), tally).write()
    assert Summing(store, tally).write()
    assert total(Resolution.HOUR) == 2


def store_that_fails(store: Store) -> Any:
    class Failing(type(store)):  # type: ignore[misc]
        def add_history(self, *args: Any) -> bool:
            super().add_history(*args)
            transaction.set_rollback(True)
            raise DataError

    class Apart:
        def add_history(self, *args: Any) -> bool:
            with transaction.atomic():
                return bool(Failing(store.alias).add_history(*args))

    return Apart()


@pytest.mark.django_db
def test_many_rows_for_ever_cost_a_write_nothing(store: Store) -> None:
    for number in range(50):
        store.add_history(counted(queue_name=f"tenant {number}"))
    with CaptureQueriesContext(connection) as captured:
        store.add_history(counted(queue_name="tenant 7", outcome="FAILED", error="a.B"))
    looks = [query["sql"] for query in captured if query["sql"].startswith("SELECT") and "count" in query["sql"]]
    assert looks
    assert all("tenant 7" in sql for sql in looks)
    assert set(History.objects.filter(seconds=Resolution.EVER).values_list("error", flat=True)) == {""}


@pytest.mark.django_db
def test_a_minute_is_summed_up_by_queue_too(store: Store) -> None:
    for queue, task in (("q", "one"), ("q", "two"), ("other", "one")):
        store.add_history(counted(2, queue_name=queue, task=task))
        store.add_history(counted(1, queue_name=queue, task=task, outcome="FAILED", error=f"a.{task}"))
    for queue, tasks_in_it in (("q", 2), ("other", 1)):
        sums = History.objects.filter(seconds=Resolution.MINUTE, queue_name=queue, task="")
        assert dict(sums.values_list("outcome", "count")) == {"SUCCESSFUL": 2 * tasks_in_it, "FAILED": tasks_in_it}
        assert all(sum(row.waits) == sum(row.runs) == row.count for row in sums)
    assert total(Resolution.MINUTE, task="") == 9


@pytest.mark.django_db
def test_old_rows_go_and_what_is_counted_for_ever_stays(store: Store) -> None:
    now = store.clock()
    for age in (datetime.timedelta(0), datetime.timedelta(days=3), datetime.timedelta(days=100)):
        store.add_history(counted(), now=now - age)
    sweep = Sweep(store, Settings())
    while sweep.step():
        pass
    assert total(Resolution.EVER, queue_name="q") == 3
    assert total(Resolution.MINUTE) == total(Resolution.TEN_MINUTES) == 1
    assert total(Resolution.HOUR) == 2


# Workers


@pytest.mark.django_db(transaction=True)
def test_a_worker_writes_what_has_ended_at_its_own_end() -> None:
    for _ in range(5):
        tasks.add.enqueue(1, 2)
    retry_tasks.fails.using(max_attempts=2, backoff=0).enqueue()
    spawn("--burst").finish()

    def ever(outcome: str) -> int:
        rows = History.objects.filter(seconds=Resolution.EVER, outcome=outcome)
        return sum(rows.values_list("count", flat=True))

    assert (ever("SUCCESSFUL"), ever("SCHEDULED"), ever("FAILED")) == (5, 1, 1)
    [failed] = History.objects.filter(seconds=Resolution.MINUTE, outcome="FAILED").exclude(task="")
    assert failed.error
    assert sum(failed.runs) == sum(failed.waits) == 1


@pytest.mark.django_db(transaction=True)
def test_a_worker_writes_while_it_works() -> None:
    with worker():
        tasks.add.enqueue(1, 2)
        eventually(lambda: total(Resolution.HOUR) == 1, 30)
        tasks.add.enqueue(1, 2)
        eventually(lambda: total(Resolution.HOUR) == 2, 30)


@pytest.mark.django_db(transaction=True)
def test_an_attempt_whose_worker_died_is_counted_by_who_finds_it(store: Store) -> None:
    pk = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    for _ in range(3):
        tasks.add.enqueue(1, 2)
    store.claim(pk, 3, free=3)
    Job.objects.filter(pk=Job.objects.order_by("id").values("pk")[:1]).update(crashes=5)
    store.unregister(pk)
    tally = Tally()
    rescue_all(store, 3, tally=tally)
    assert store.add_history(tally.take())
    assert total(Resolution.HOUR, outcome="FAILED") == 1
    assert set(History.objects.exclude(error="").values_list("error", flat=True)) == {WORKER_LOST}
    assert total(Resolution.HOUR, outcome="SCHEDULED") == 2
    assert Job.objects.filter(status=JobStatus.FAILED).count() == 1
