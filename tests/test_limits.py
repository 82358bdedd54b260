"""Limits under which jobs run: the arithmetic, and what claims make of it on every database."""

import datetime
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from dbqueue.claim import Bookmark, Claim, Selection
from dbqueue.connections import close_all
from dbqueue.exceptions import InvalidArguments, InvalidTask
from dbqueue.limits import SLICES, Concurrency, Rate, Window
from dbqueue.models import Job, JobStatus, Limit
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

from .shop.tasks import add, mark

NOW = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)


@pytest.fixture
def store(transactional_db: None) -> Store:
    return store_for("default")


def register(store: Store) -> int:
    return store.register(name="worker", hostname="host", pid=1, queues="", threads=2)


def finish(store: Store, claims: Iterable[Claim]) -> None:
    claims = list(claims)
    assert store.finish([Outcome.succeeded(claim, None) for claim in claims]) == []
    store.unblock({claim.concurrency_key for claim in claims if claim.concurrency_key})


def statuses() -> list[str]:
    return list(Job.objects.order_by("id").values_list("status", flat=True))


# The window of a rate


@given(
    limit=st.integers(1, 20),
    seconds=st.floats(0.1, 1000),
    steps=st.lists(st.floats(0, 30), min_size=1, max_size=200),
)
def test_a_window_never_lets_too_many_start(limit: int, seconds: float, steps: list[float]) -> None:
    now, starts, kept = 1_000_000.0, [], None
    for step in steps:
        now += step * seconds / 100
        window = Window(limit, seconds, kept, now)
        if window.room:
            window.start()
            starts.append(now)
        else:
            # What is promised comes true: there is room then.
            assert Window(limit, seconds, window.kept, window.opens_at).room > 0
            assert now < window.opens_at <= now + seconds * (1 + 2 / SLICES)
        kept = window.kept
    for first, last in zip(starts, starts[limit:], strict=False):
        assert last - first >= seconds * (1 - 1e-9)


@pytest.mark.parametrize("rate", ["", "5", "0/s", "5/x", "-1/s", "1.5/s", 5, "10000000/s", "5 / s"])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(InvalidTask, match="rate is"):
        add.using(rate=rate)


@given(
    before=st.tuples(st.integers(1, 20), st.floats(0.1, 1e6)),
    after=st.tuples(st.integers(1, 20), st.floats(0.1, 1e6)),
    wait=st.floats(0, 1e7),
)
def test_a_rate_that_changes_neither_forgets_nor_waits_for_ever(
    before: tuple[int, float], after: tuple[int, float], wait: float
) -> None:
    old = Window(*before, None, 1_000_000.0)
    old.start()
    now = 1_000_000.0 + wait

    new = Window(*after, old.kept, now)

    assert new.opens_at <= now + after[1] * (1 + 3 / SLICES)
    if wait < after[1] * (1 - 2 / SLICES) - before[1] / SLICES:
        assert new.room == after[0] - 1


def test_a_burst_makes_the_window_shorter() -> None:
    assert Rate("100/m").window == (100, 60.0)
    assert Rate("100/m", burst=10).window == (10, 6.0)
    with pytest.raises(ValueError, match="burst is 200"):
        Rate("100/m", burst=200)


def test_keys_that_can_not_be_made_are_refused_before_anything_is_written(store: Store) -> None:
    with pytest.raises(InvalidTask, match="names the argument 'z'"):
        add.using(concurrency=Concurrency(1, key="{z}"))
    with pytest.raises(InvalidTask, match="can't be combined"):
        add.using(concurrency=1, serial="{x}")
    with pytest.raises(InvalidTask, match="concurrency is 0"):
        add.using(concurrency=0)
    with pytest.raises(InvalidArguments, match="The key of serial is ''"):
        mark.using(serial="{label}").enqueue("")
    with pytest.raises(InvalidArguments, match="can't be made of these arguments"):
        add.using(serial=lambda x: x).enqueue(1, 2)
    assert not Job.objects.exists()


# Concurrency


def test_no_more_than_the_limit_run_and_the_others_are_blocked(store: Store) -> None:
    worker, limited = register(store), add.using(concurrency=Concurrency(2, key="x:{x}"))
    for _ in range(4):
        limited.enqueue(1, 0)
    other = limited.enqueue(2, 0)

    claims = store.claim(worker, 10)

    assert statuses() == ["RUNNING", "RUNNING", "BLOCKED", "BLOCKED", "RUNNING"]
    finish(store, claims[:1])
    assert statuses() == ["SUCCESSFUL", "RUNNING", "READY", "BLOCKED", "RUNNING"]
    assert [claim.job_id for claim in store.claim(worker, 10)] == [claims[0].job_id + 2]
    assert str(claims[2].job_id) == other.id


def test_what_is_blocked_does_not_hide_what_may_run(store: Store) -> None:
    worker = register(store)
    for _ in range(30):
        add.using(concurrency=1).enqueue(1, 2)
    free = add.enqueue(3, 4)
    bookmark = Bookmark()

    first = store.claim(worker, 2, bookmark=bookmark)

    assert bookmark.put_aside
    assert [claim.job_id for claim in first][1:] == [int(free.id)]
    assert statuses().count("BLOCKED") == 29


def test_where_all_is_put_aside_a_worker_may_rest(store: Store) -> None:
    worker, bookmark = register(store), Bookmark()
    for _ in range(3):
        add.using(concurrency=1).enqueue(1, 2)
    store.claim(worker, 5, bookmark=bookmark)
    assert bookmark.put_aside

    assert store.claim(worker, 5, bookmark=bookmark) == []
    assert not bookmark.put_aside


def test_a_dead_workers_place_is_free_again(store: Store) -> None:
    dead, alive = register(store), register(store)
    for _ in range(2):
        add.using(concurrency=1).enqueue(1, 2)
    [claim] = store.claim(dead, 10)
    store.unregister(dead)

    store.rescue(1)  # its first crash was its last

    assert store.unblock(store.blocked_keys()) == 1
    assert [one.job_id for one in store.claim(alive, 10)] == [claim.job_id + 1]


def test_unblocking_makes_a_missing_limit_anew(store: Store) -> None:
    worker = register(store)
    for _ in range(2):
        add.using(concurrency=1).enqueue(1, 2)
    store.finish([Outcome.succeeded(claim, None) for claim in store.claim(worker, 10)])
    Limit.objects.all().delete()

    assert store.unblock(store.blocked_keys(), store.clock()) == 1


def test_limits_hold_between_workers_that_claim_at_once(store: Store) -> None:
    workers = [register(store) for _ in range(4)]
    limited = add.using(concurrency=Concurrency(3, key="k"))
    for _ in range(60):
        limited.enqueue(1, 2)
    most, lock, done = 0, threading.Lock(), []

    def work(worker: int) -> None:
        nonlocal most
        try:
            for _ in range(400):
                claims = store.claim(worker, 5)
                if claims:
                    with lock:
                        most = max(most, Job.objects.filter(status=JobStatus.RUNNING).count())
                    finish(store, claims)
                    done.extend(claims)
                elif len(done) == 60:
                    return
        finally:
            close_all()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 60
    assert 1 <= most <= 3


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer")
def test_a_caller_who_holds_on_to_a_blocked_job_keeps_nobody_waiting(store: Store) -> None:
    worker = register(store)
    task = add.using(unique=True, concurrency=1)
    task.enqueue(0, 0)
    [claim] = store.claim(worker, 5)
    task.enqueue(1, 1)
    store.claim(worker, 5)
    held, go_on = threading.Event(), threading.Event()

    def hold_on() -> None:
        try:
            with transaction.atomic():
                assert task.enqueue(1, 1).duplicate
                held.set()
                go_on.wait(30)
        finally:
            close_all()

    thread = threading.Thread(target=hold_on)
    thread.start()
    held.wait(30)
    finish(store, [claim])
    assert statuses() == ["SUCCESSFUL", "BLOCKED"]
    go_on.set()
    thread.join()
    assert store.unblock(store.blocked_keys(), store.clock()) == 1


def test_a_ready_job_that_nobody_serves_keeps_none_of_its_key_out(store: Store) -> None:
    worker, limited = register(store), add.using(concurrency=1)
    limited.enqueue(0, 0)
    claims = store.claim(worker, 5)
    limited.using(queue_name="mail").enqueue(1, 1)
    store.pause("mail")
    limited.enqueue(2, 2)
    open_queues = Selection(closed=store.closed_queues())
    assert store.claim(worker, 5, open_queues) == []

    finish(store, claims)
    store.unblock(store.blocked_keys(), store.clock())

    assert [claim.args for claim in store.claim(worker, 5, open_queues)] == [[2, 2]]


# Serial


def test_jobs_of_one_line_run_in_the_order_of_their_enqueue(store: Store) -> None:
    worker, line = register(store), mark.using(serial="line:{label}")
    ids = [int(line.using(priority=number).enqueue("a").id) for number in range(3)]
    ran = []

    for _ in range(20):
        claims = store.claim(worker, 10)
        assert len(claims) <= 1
        ran += [claim.job_id for claim in claims]
        finish(store, claims)

    assert ran == ids


def test_a_job_that_is_tried_again_keeps_its_place_in_line(store: Store) -> None:
    worker, line = register(store), mark.using(serial="line")
    line.enqueue("a")
    line.enqueue("b")
    [claim] = store.claim(worker, 10, now=NOW)
    store.finish([Outcome.retried(claim, ValueError(), 60)], NOW)
    store.unblock(["line"])

    assert store.claim(worker, 10, now=NOW) == []
    store.promote(now=NOW + 61 * SECOND)
    assert [one.job_id for one in store.claim(worker, 10)] == [claim.job_id]


def test_a_job_whose_time_has_not_come_is_not_in_line_yet(store: Store) -> None:
    worker, line = register(store), mark.using(serial="line")
    line.using(run_after=datetime.timedelta(hours=1)).enqueue("later")
    now = line.enqueue("now")

    assert [str(claim.job_id) for claim in store.claim(worker, 10)] == [now.id]


def test_the_next_in_line_follows_one_that_was_cancelled(store: Store) -> None:
    worker, line = register(store), mark.using(serial="line")
    first, second, third = (int(line.enqueue("x").id) for _ in range(3))
    [claim] = store.claim(worker, 10)
    store.cancel([second])
    finish(store, [claim])

    assert [one.job_id for one in store.claim(worker, 10)] == [third]
    assert claim.job_id == first


# Rates


def test_jobs_over_a_rate_wait_for_their_time(store: Store) -> None:
    worker, limited = register(store), add.using(rate="2/m")
    for _ in range(5):
        limited.enqueue(1, 2)

    assert len(store.claim(worker, 10, now=NOW)) == 2
    assert statuses() == ["RUNNING", "RUNNING", "SCHEDULED", "SCHEDULED", "SCHEDULED"]
    due = Job.objects.filter(status="SCHEDULED").order_by("id").values_list("run_after", flat=True)
    waits = [(moment - NOW).total_seconds() for moment in due if moment]
    assert 60 <= waits[0] <= 63
    # A fiftieth more than half a minute each, as whole slices of the window are counted.
    assert [round(wait - waits[0], 1) for wait in waits] == [0, 30.6, 61.2]

    for seconds, expected in ((59, 0), (64, 1), (95, 1), (126, 1)):
        moment = NOW + seconds * SECOND
        store.promote(now=moment)
        assert len(store.claim(worker, 10, now=moment)) == expected


def test_one_that_comes_a_moment_too_early_is_next(store: Store) -> None:
    worker, limited = register(store), add.using(rate="2/m")
    ids = [int(limited.enqueue(1, 2).id) for _ in range(6)]
    store.claim(worker, 10, now=NOW)
    Job.objects.filter(pk=ids[2]).update(run_after=NOW + 30 * SECOND)
    store.promote(now=NOW + 30 * SECOND)
    assert store.claim(worker, 10, now=NOW + 30 * SECOND) == []

    waiting = Job.objects.filter(status="SCHEDULED").order_by("run_after")
    assert list(waiting.values_list("id", flat=True)) == ids[2:]


def test_of_many_that_come_at_once_only_the_first_are_next(store: Store) -> None:
    worker, due = register(store), NOW + 30 * SECOND
    first = [int(add.using(rate="2/m").enqueue(1, 2).id) for _ in range(4)]
    crowd = [int(add.using(rate="2/m", run_after=due).enqueue(1, 2).id) for _ in range(20)]
    store.claim(worker, 10, now=NOW)
    store.promote(now=due)
    assert store.claim(worker, 100, now=due) == []

    times = list(Job.objects.filter(status="SCHEDULED").order_by("run_after").values_list("id", "run_after"))
    # One of them is next, beside whoever was promised that moment; all others come one after another.
    assert len({moment for _, moment in times}) == len(times) - 1
    assert [pk for pk, _ in times if pk != crowd[0]] == [*first[2:], *crowd[1:]]


def test_after_an_outage_the_rate_still_holds(store: Store) -> None:
    worker, limited = register(store), add.using(rate="2/m")
    for _ in range(6):
        limited.enqueue(1, 2)
    assert len(store.claim(worker, 10, now=NOW)) == 2

    moment = NOW + datetime.timedelta(hours=1)  # all of them are due
    store.promote(now=moment)

    assert len(store.claim(worker, 10, now=moment)) == 2
    assert statuses().count("SCHEDULED") == 2


def test_a_newcomer_does_not_overtake_those_that_were_promised_a_start(store: Store) -> None:
    worker, limited = register(store), add.using(rate="1/m")
    for _ in range(3):
        limited.enqueue(1, 2)
    store.claim(worker, 10, now=NOW)
    newcomer = limited.enqueue(3, 4)

    moment = NOW + 62 * SECOND
    assert store.claim(worker, 10, now=moment) == []
    store.promote(now=moment)
    assert [one.args for one in store.claim(worker, 10, now=moment)] == [[1, 2]]
    promised = Job.objects.get(pk=newcomer.id).run_after
    assert promised is not None
    assert promised > NOW + 120 * SECOND


def test_a_line_keeps_its_order_under_a_rate(store: Store) -> None:
    worker = register(store)
    add.using(rate=Rate("1/h", key="full")).enqueue(0, 0)
    store.claim(worker, 5, now=NOW)
    line = mark.using(serial="line")
    line.using(rate=Rate("1/h", key="full")).enqueue("first")
    line.using(rate=Rate("1/h", key="free")).enqueue("second")

    assert store.claim(worker, 5, now=NOW) == []
    assert statuses() == ["RUNNING", "SCHEDULED", "BLOCKED"]


def test_what_was_promised_to_the_cancelled_is_forgotten(store: Store) -> None:
    worker, limited = register(store), add.using(rate="1/m")
    for _ in range(50):
        limited.enqueue(1, 2)
    store.claim(worker, 60, now=NOW)
    store.cancel(list(Job.objects.filter(status=JobStatus.SCHEDULED).values_list("id", flat=True)))

    newcomer = limited.enqueue(3, 4)

    [claim] = store.claim(worker, 5, now=NOW + 120 * SECOND)
    assert str(claim.job_id) == newcomer.id


def test_a_key_whose_rate_changes_goes_on(store: Store) -> None:
    worker = register(store)
    for rate in ("50/s", "10/m", "100/s", "1/d"):
        add.using(rate=Rate(rate, key="k")).enqueue(1, 2)
        store.claim(worker, 5, now=NOW)
    late = NOW + datetime.timedelta(days=2)
    store.promote(now=late)
    add.using(rate=Rate("10/m", key="k")).enqueue(3, 4)

    assert [claim.args for claim in store.claim(worker, 5, now=late)][-1] == [3, 4]


def test_limits_nobody_uses_are_deleted(store: Store) -> None:
    worker = register(store)
    add.using(concurrency=1).enqueue(1, 2)
    add.using(rate="1/m").enqueue(1, 2)
    finish(store, store.claim(worker, 10))
    mark.using(serial="still needed").enqueue("x")
    mark.using(serial="still needed").enqueue("x")
    store.claim(worker, 10)

    assert store.prune_limits(timezone.now()) == 0
    assert store.prune_limits(timezone.now() + datetime.timedelta(days=3)) == 2
    assert [limit.key for limit in Limit.objects.all()] == ["c:still needed"]


# Closed queues, ageing, expiry


def test_nothing_of_a_paused_queue_starts(store: Store) -> None:
    worker = register(store)
    add.using(queue_name="mail").enqueue(1, 2)
    other = add.enqueue(1, 2)
    store.pause("mail", "the provider is down")

    closed = store.closed_queues()

    assert closed == {"mail": 0}
    assert [str(claim.job_id) for claim in store.claim(worker, 10, Selection(closed=closed))] == [other.id]
    assert store.resume("mail")
    assert not store.resume("mail")
    assert len(store.claim(worker, 10, Selection(closed=store.closed_queues()))) == 1


def test_a_drained_queue_lets_start_what_was_in_it(store: Store) -> None:
    worker = register(store)
    before = add.enqueue(1, 2)
    store.drain("default")
    add.enqueue(3, 4)

    selection = Selection(closed=store.closed_queues())

    assert [str(claim.job_id) for claim in store.claim(worker, 10, selection)] == [before.id]
    assert store.claim(worker, 10, selection) == []


def test_with_ageing_a_low_priority_comes_up(store: Store) -> None:
    worker = register(store)
    low = add.using(priority=-1).enqueue(1, 2)
    Job.objects.filter(pk=low.id).update(enqueued_at=timezone.now() - 100 * SECOND)
    high = add.using(priority=8).enqueue(1, 2)

    assert [str(c.job_id) for c in store.claim(worker, 1, Selection(ageing=12.0))] == [high.id]
    add.using(priority=8).enqueue(1, 2)
    assert [str(c.job_id) for c in store.claim(worker, 1, Selection(ageing=10.0))] == [low.id]


def test_a_job_that_was_not_started_in_time_is_cancelled(store: Store) -> None:
    worker = register(store)
    hour = datetime.timedelta(hours=1)
    begun = add.using(expires=hour).enqueue(1, 2)
    [claim] = store.claim(worker, 10)
    store.finish([Outcome.retried(claim, ValueError(), 60)])
    waits, patient = add.using(expires=hour).enqueue(1, 2), add.enqueue(1, 2)

    assert store.expire() == []
    assert [str(pk) for pk in store.expire(now=timezone.now() + 2 * hour)] == [waits.id]
    for result, status, reason in ((begun, "SCHEDULED", ""), (waits, "CANCELLED", "expired"), (patient, "READY", "")):
        result.refresh()
        assert (result.status, result.reason) == (status, reason)
