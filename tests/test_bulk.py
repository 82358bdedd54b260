"""Bulk operations: what is done to which jobs, in chunks, by workers that may die on the way."""

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, models, transaction
from django.test.utils import CaptureQueriesContext

from dbqueue import enqueue_many, group, registry, signals
from dbqueue.announcement import Announcement
from dbqueue.claim import Selection
from dbqueue.conf import Settings
from dbqueue.models import GROUP, Attempt, BulkAction, BulkOperation, Job, JobStatus
from dbqueue.outcome import Outcome
from dbqueue.search import Search
from dbqueue.services.maintenance import Maintenance
from dbqueue.store import Store, store_for
from dbqueue.store.bulk import TRIES
from dbqueue.store.database import BATCH
from dbqueue.testing import run_jobs

from .shop import tasks
from .shop import workflow_tasks as flow
from .shop.models import Receipt
from .test_admin import a_job
from .workers import eventually, spawn, worker

pytestmark = pytest.mark.django_db(transaction=True)

FAILED = Search(state="FAILED")


@pytest.fixture
def store() -> Store:
    return store_for("default")


def failed_jobs(store: Store, number: int) -> list[int]:
    """Jobs that failed, by the store's own ways."""
    calls = [tasks.add.using(queue_name="bad").s(1, 2)] * number
    ids = [int(result.id) for result in enqueue_many(calls)]
    holder = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    while claims := store.claim(holder, 1000, Selection(("bad",))):
        store.finish([Outcome.failed(claim, ValueError("no")) for claim in claims])
    store.unregister(holder)
    return ids


def start(store: Store, action: BulkAction, search: Search, **values: Any) -> BulkOperation:
    return store.start_bulk(action, search, user_id=1, user_name="operator", **values)


def carry_out(store: Store) -> int:
    """Returns how many chunks it took."""
    chunks = 0
    while store.step_bulk():
        chunks += 1
    return chunks


def figures(operation: BulkOperation) -> tuple[int, int, int]:
    operation.refresh_from_db()
    return operation.changed, operation.asked, operation.left_alone


def states() -> dict[str, int]:
    return dict(Job.objects.values_list("status").annotate(models.Count("pk")))


def test_all_that_a_search_finds_are_retried_in_chunks_and_nothing_else(store: Store) -> None:
    failed = failed_jobs(store, BATCH + 10)
    other = int(tasks.fail.enqueue("x").id)
    operation = start(store, BulkAction.RETRY, FAILED)
    later = failed_jobs(store, 3)  # came after it was asked for

    assert carry_out(store) == 2

    assert figures(operation) == (BATCH + 10, 0, 0)
    assert operation.finished_at is not None and operation.problem == ""
    assert set(Job.objects.filter(status=JobStatus.FAILED).values_list("pk", flat=True)) >= set(later)
    assert set(Job.objects.filter(pk__in=failed, status=JobStatus.READY).values_list("pk", flat=True)) == set(failed)
    assert Job.objects.get(pk=other).lease <= 1
    assert carry_out(store) == 0


def test_each_action_leaves_its_states_and_no_others(store: Store) -> None:
    every = [JobStatus.SCHEDULED, JobStatus.READY, JobStatus.RUNNING, JobStatus.SUCCESSFUL, JobStatus.FAILED]
    expected: dict[BulkAction, dict[JobStatus, JobStatus | None]] = {
        BulkAction.RUN_NOW: {JobStatus.SCHEDULED: JobStatus.READY},
        BulkAction.RETRY: {JobStatus.FAILED: JobStatus.READY},
        BulkAction.CANCEL: {JobStatus.SCHEDULED: JobStatus.CANCELLED, JobStatus.READY: JobStatus.CANCELLED},
        BulkAction.DELETE: {JobStatus.SUCCESSFUL: None, JobStatus.FAILED: None},
        BulkAction.MOVE: {},
    }
    for action, moves in expected.items():
        jobs = {status: a_job(status) for status in sorted(every, key=lambda one: one == JobStatus.READY)}
        operation = start(store, action, Search(), queue_name="elsewhere")
        carry_out(store)
        for status, job in jobs.items():
            found = Job.objects.filter(pk=job.pk).values_list("status", flat=True).first()
            assert found == moves.get(status, status), (action, status)
        changed, asked, left = figures(operation)
        assert asked == (action == BulkAction.CANCEL)
        assert changed + asked + left == len(every), action
        moved = set(Job.objects.filter(queue_name="elsewhere").values_list("status", flat=True))
        assert moved == ({"SCHEDULED", "READY"} if action == BulkAction.MOVE else set())
        if action == BulkAction.CANCEL:
            assert Job.objects.get(pk=jobs[JobStatus.RUNNING].pk).cancel_requested_at is not None
        Job.objects.all().delete()


def test_steps_are_moved_before_their_turn(store: Store) -> None:
    result = (flow.give.s(1) | group(flow.inc.s(), flow.inc.s()) | flow.total.s()).enqueue()
    operation = start(store, BulkAction.MOVE, Search(), queue_name="elsewhere")
    carry_out(store)
    assert figures(operation) == (4, 0, 1)  # a group is no job
    run_jobs()
    assert result.get(0) == 4
    assert set(Job.objects.exclude(task=GROUP).values_list("queue_name", flat=True)) == {"elsewhere"}


def test_a_chunk_looks_at_a_window_of_ids_and_comes_to_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.store.bulk.WINDOW", 10)
    failed_jobs(store, 1)
    for _ in range(35):
        tasks.add.enqueue(1, 2)
    failed_jobs(store, 1)
    operation = start(store, BulkAction.RETRY, Search(queue="bad"))
    assert 4 <= carry_out(store) <= 5
    assert figures(operation) == (2, 0, 0)


def test_gaps_between_ids_cost_no_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.store.bulk.WINDOW", 10)
    ids = failed_jobs(store, 300)
    Job.objects.filter(pk__in=ids[1:-1]).delete()
    operation = start(store, BulkAction.RETRY, FAILED)
    assert carry_out(store) == 2
    assert figures(operation) == (2, 0, 0)


def test_one_that_is_cancelled_ends_before_its_next_chunk(store: Store) -> None:
    failed_jobs(store, BATCH + 1)
    operation = start(store, BulkAction.RETRY, FAILED)
    store.step_bulk()
    assert store.cancel_bulk(operation.pk)
    carry_out(store)
    assert figures(operation) == (BATCH, 0, 0)
    assert operation.finished_at is not None
    assert not store.cancel_bulk(operation.pk)
    assert states()["FAILED"] == 1


def test_one_with_nothing_to_do_ends(store: Store) -> None:
    operation = start(store, BulkAction.RETRY, FAILED)
    assert carry_out(store) == 1
    assert figures(operation) == (0, 0, 0) and operation.finished_at is not None


def test_one_that_nobody_can_read_ends_and_says_why(store: Store) -> None:
    broken = start(store, BulkAction.RETRY, FAILED)
    BulkOperation.objects.update(filter={"colour": "red"})
    good = start(store, BulkAction.RETRY, FAILED)
    carry_out(store)
    broken.refresh_from_db()
    good.refresh_from_db()
    assert broken.finished_at is not None and "colour" in broken.problem
    assert good.finished_at is not None and good.problem == ""


def test_jobs_that_somebody_refers_to_end_a_deletion_with_the_reason(store: Store) -> None:
    def refuse(**kwargs: Any) -> None:
        raise models.ProtectedError("somebody needs it", set())

    failed_jobs(store, 1)
    operation = start(store, BulkAction.DELETE, FAILED)
    models.signals.pre_delete.connect(refuse, sender=Job)
    try:
        carry_out(store)
    finally:
        models.signals.pre_delete.disconnect(refuse, sender=Job)
    operation.refresh_from_db()
    assert "somebody needs it" in operation.problem
    assert states() == {"FAILED": 1}


def test_what_the_commit_refuses_ends_the_operation_and_none_that_come_after_it(store: Store) -> None:
    ids = failed_jobs(store, 3)
    Receipt.objects.create(job_id=ids[1])
    refused = start(store, BulkAction.DELETE, FAILED)
    after = start(store, BulkAction.RETRY, FAILED)
    assert carry_out(store) == 2
    refused.refresh_from_db()
    assert figures(refused) == (0, 0, 0)
    assert "foreign key" in refused.problem.lower() and "DETAIL" not in refused.problem
    assert refused.finished_at is not None
    assert figures(after) == (3, 0, 0)


def test_a_row_that_can_not_be_written_ends_its_operation(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failed_jobs(store, 1)
    broken = start(store, BulkAction.RETRY, FAILED)
    monkeypatch.setattr(type(store), "retry", lambda self, ids, now: -5)
    carry_out(store)
    monkeypatch.undo()
    broken.refresh_from_db()
    assert broken.finished_at is not None and "IntegrityError" in broken.problem
    assert figures(broken) == (0, 0, 0) and states() == {"FAILED": 1}
    after = start(store, BulkAction.RETRY, FAILED)
    carry_out(store)
    assert figures(after) == (1, 0, 0)


def test_a_group_is_cancelled_with_what_is_inside_of_it(store: Store) -> None:
    result = group(flow.inc.s(number) for number in range(10)).enqueue()
    claimed = store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=1), 1)[0]
    ends = start(store, BulkAction.CANCEL, Search(state="WAITING"))
    chunk = store.step_bulk()
    assert chunk is not None and len(chunk.cancelled) == 10
    assert figures(ends) == (1, 0, 0) and ends.inside == 10
    assert ends.finished_at is not None and ends.problem == ""
    assert states() == {"CANCELLED": 10, "RUNNING": 1}
    assert Job.objects.get(pk=claimed.job_id).cancel_requested_at is not None
    assert Job.objects.get(pk=result.last_id).status == "CANCELLED"


def test_members_of_a_group_are_counted_where_they_match_themselves(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbqueue.store.bulk.BATCH", 4)
    group(flow.inc.s(number) for number in range(10)).enqueue()
    ends = start(store, BulkAction.CANCEL, Search())
    carry_out(store)
    changed, asked, left = figures(ends)
    assert changed + asked + left == 11 and changed + ends.inside == 11
    assert states() == {"CANCELLED": 11}


def test_members_that_run_are_asked_and_the_group_stays(store: Store) -> None:
    group(flow.inc.s(number) for number in range(3)).enqueue()
    assert len(store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=3), 3)) == 3
    ends = start(store, BulkAction.CANCEL, Search(state="RUNNING"))
    carry_out(store)
    assert figures(ends) == (0, 3, 0) and ends.inside == 0
    assert states() == {"RUNNING": 3, "WAITING": 1}


def test_two_workers_at_once_do_each_job_once(store: Store) -> None:
    failed_jobs(store, 3 * BATCH)
    operation = start(store, BulkAction.RETRY, FAILED)
    errors: list[Exception] = []

    def work() -> None:
        try:
            end = time.monotonic() + 30
            while BulkOperation.objects.filter(finished_at=None).exists() and time.monotonic() < end:
                store.step_bulk()
        except Exception as exc:
            errors.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert figures(operation) == (3 * BATCH, 0, 0)


def test_a_worker_carries_it_out(store: Store) -> None:
    ids = failed_jobs(store, 20)
    with worker():
        operation = start(store, BulkAction.RETRY, FAILED)
        eventually(lambda: BulkOperation.objects.get().finished_at)
        eventually(lambda: states() == {"SUCCESSFUL": 20})
    assert figures(operation) == (20, 0, 0)
    assert set(Job.objects.values_list("attempt", flat=True)) == {2}
    assert Attempt.objects.filter(job__in=ids).count() == 20


@pytest.mark.long
def test_a_worker_that_is_killed_on_the_way_loses_nothing_and_nothing_is_retried_twice(store: Store) -> None:
    number = 12 * BATCH
    failed_jobs(store, number)
    # Nothing runs, so that every retried job stays as the operation left it.
    operation = start(store, BulkAction.RETRY, FAILED)
    kills = 0
    while BulkOperation.objects.filter(finished_at=None).exists():
        process = spawn("--queues", "nobody")
        before = figures(operation)[0]
        while figures(operation)[0] == before and not operation.finished_at and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        kills += figures(operation)[0] < number
    assert figures(operation) == (number, 0, 0)
    assert states() == {"READY": number}
    assert set(Job.objects.values_list("earlier_attempts", flat=True)) == {1}
    assert kills >= 1  # in the middle


@contextmanager
def held_by_somebody(*ids: int, **columns: Any) -> Iterator[Callable[[], None]]:
    """In another transaction, until what this gives is called or the block ends; which may change them, too."""
    holds, commit = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                list(Job.objects.filter(pk__in=ids).select_for_update())
                if columns:
                    Job.objects.filter(pk__in=ids).update(**columns)
                holds.set()
                commit.wait(60)
        finally:
            connections.close_all()

    somebody = threading.Thread(target=hold)

    def let_go() -> None:
        commit.set()
        somebody.join(60)

    somebody.start()
    try:
        assert holds.wait(30)
        yield let_go
    finally:
        let_go()


needs_row_locks = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite lets one write at a time")


@needs_row_locks
def test_a_job_that_somebody_has_locked_holds_nobody_up(store: Store) -> None:
    ids = failed_jobs(store, 10)
    operation = start(store, BulkAction.RETRY, FAILED)
    with held_by_somebody(ids[4]) as let_go:
        chunk = store.step_bulk()
        assert chunk and chunk.rests and not chunk.is_last
        assert figures(operation) == (4, 0, 0)
        assert store.step_bulk(resting=[operation.pk]) is None
        chunk = store.step_bulk()
        assert chunk and chunk.rests
        assert figures(operation) == (4, 0, 0)
        assert store.cancel_bulk(operation.pk) is True
        BulkOperation.objects.update(cancel_requested_at=None)
        let_go()
    carry_out(store)
    assert figures(operation) == (10, 0, 0)
    assert set(Job.objects.values_list("earlier_attempts", flat=True)) == {1}


@needs_row_locks
def test_a_job_that_becomes_another_meanwhile_is_let_be(store: Store) -> None:
    """Somebody moves it, which leaves it in a state that the action would take."""
    (job_id,) = failed_jobs(store, 1)
    operation = start(store, BulkAction.RETRY, Search(state="FAILED", queue="bad"))
    with held_by_somebody(job_id, queue_name="other"):
        chunk = store.step_bulk()
        assert chunk and chunk.rests
    carry_out(store)
    assert states() == {"FAILED": 1}
    assert figures(operation) == (0, 0, 0)


@needs_row_locks
def test_what_starts_to_run_while_it_is_looked_at_is_not_cancelled(store: Store) -> None:
    for _ in range(2):
        tasks.add.enqueue(1, 2)
    ids = list(Job.objects.values_list("pk", flat=True))
    start(store, BulkAction.CANCEL, Search(state="READY"))
    with held_by_somebody(*ids, status="RUNNING"):
        store.step_bulk()
    carry_out(store)
    assert not Job.objects.filter(cancel_requested_at__isnull=False).exists()


@needs_row_locks
def test_an_error_ends_the_operation_that_it_is_one_of(store: Store) -> None:
    """And not an older one, which another worker has in its hands."""
    failed_jobs(store, 3)
    older = start(store, BulkAction.RETRY, FAILED)
    broken = start(store, BulkAction.RETRY, FAILED)
    BulkOperation.objects.filter(pk=broken.pk).update(filter={"colour": "red"})
    holds, done = threading.Event(), threading.Event()

    def work() -> None:
        with transaction.atomic():
            BulkOperation.objects.select_for_update().get(pk=older.pk)
            holds.set()
            done.wait(60)
        connections.close_all()

    other = threading.Thread(target=work)
    other.start()
    assert holds.wait(30)
    chunk = store.step_bulk()
    done.set()
    other.join(60)
    assert chunk and chunk.operation_id == broken.pk and chunk.is_last
    carry_out(store)
    assert figures(older) == (3, 0, 0)
    assert older.problem == ""


def test_an_error_that_may_go_away_is_met_some_times_before_it_ends_it(store: Store) -> None:
    failed_jobs(store, 1)
    operation = start(store, BulkAction.DELETE, FAILED)

    def refuse(**kwargs: Any) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    models.signals.pre_delete.connect(refuse, sender=Job)
    try:
        for number in range(1, TRIES):
            chunk = store.step_bulk()
            assert chunk and chunk.rests and not chunk.is_last
            operation.refresh_from_db()
            assert operation.failures == number
        chunk = store.step_bulk()
    finally:
        models.signals.pre_delete.disconnect(refuse, sender=Job)
    assert chunk and chunk.is_last
    operation.refresh_from_db()
    assert "statement timeout" in operation.problem
    assert states() == {"FAILED": 1}


@needs_row_locks
def test_a_worker_with_a_locked_job_does_everything_else(store: Store) -> None:
    ids = failed_jobs(store, 2)
    with worker() as process, held_by_somebody(ids[1]):
        operation = start(store, BulkAction.RETRY, FAILED)
        cancelled = start(store, BulkAction.CANCEL, Search(state="SCHEDULED"))
        eventually(lambda: figures(operation) == (1, 0, 0))
        eventually(lambda: figures(cancelled) and cancelled.finished_at)
        assert tasks.add.enqueue(1, 2).get(timeout=15) == 3
        assert operation.finished_at is None
    assert process.returncode == 0


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="reads PostgreSQL's plans")
def test_a_chunk_walks_over_no_more_than_its_window(store: Store) -> None:
    ids = failed_jobs(store, 1)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dbqueue_job (task, args, kwargs, queue_name, priority, status, backend, enqueued_at, lease,
                                     attempt)
            SELECT 't', '[]', '{}', 'default', 0, 'SUCCESSFUL', '', now(), 0, 0 FROM generate_series(1, 200000)
            """
        )
        cursor.execute(
            "INSERT INTO dbqueue_attempt"
            " (job_id, number, worker_id, started_at, ended_at, exception_class_path, traceback)"
            " SELECT id, 1, 1, now(), now(), 'a.Common', '' FROM dbqueue_job"
        )
        cursor.execute("VACUUM ANALYZE dbqueue_job, dbqueue_attempt")
        start(store, BulkAction.RETRY, Search(queue="nobody"))
        start(store, BulkAction.RETRY, Search(error="a.Common"))
        Job.objects.filter(pk=ids[0]).update(queue_name="bad")
        with CaptureQueriesContext(connection) as captured:
            for _ in range(4):
                store.step_bulk()
        for query in captured:
            if query["sql"].startswith("SELECT") and "dbqueue_job" in query["sql"] and "FOR" not in query["sql"]:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
                (plan,) = cursor.fetchone()
                assert most_rows(plan[0]["Plan"]) <= 50_001, query["sql"]


def most_rows(plan: dict[str, Any]) -> float:
    """The most that any part of a plan has read."""
    own: float = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return max([own, *(most_rows(part) for part in plan.get("Plans", []))])


def test_who_listens_hears_of_every_job_that_is_cancelled(store: Store) -> None:
    for _ in range(3):
        tasks.add.enqueue(1, 2)
    start(store, BulkAction.CANCEL, Search(state="READY"))
    told: list[Announcement] = []

    def listen(**kwargs: Any) -> None: ...

    crowded = [True]
    maintenance = Maintenance(
        store, Settings(), lambda queues: None, lambda: None, announce=told.append, is_crowded=lambda: crowded[0]
    )
    signals.job_cancelled.connect(listen)
    try:
        maintenance.run_once()
        assert told == []  # too many wait already
        crowded[0] = False
        time.sleep(maintenance.run_once())
        maintenance.run_once()
    finally:
        signals.job_cancelled.disconnect(listen)
    assert len(told) == 3
    assert states() == {"CANCELLED": 3}


@pytest.mark.parametrize("how", ["bulk", "cancel"])
def test_of_a_workflow_that_is_cancelled_its_jobs_are_told_and_no_group(store: Store, how: str) -> None:
    """The same whoever cancels it, to those who listen to the task."""
    result = (flow.give.s(1) | group(flow.inc.s(), flow.inc.s()) | flow.total.s()).enqueue()
    told: list[tuple[int, object]] = []

    def listen(sender: object, job_id: int, **kwargs: Any) -> None:
        told.append((job_id, sender))

    signals.job_cancelled.connect(listen)
    try:
        if how == "cancel":
            result.cancel()
        else:
            start(store, BulkAction.CANCEL, Search())
            Maintenance(store, Settings(), lambda queues: None, lambda: None).run_once()
    finally:
        signals.job_cancelled.disconnect(listen)
    assert states() == {"CANCELLED": 5}
    jobs = Job.objects.exclude(task=GROUP).order_by("pk")
    assert [job.task for job in jobs] == [one.name for one in (flow.give, flow.inc, flow.inc, flow.total)]
    assert sorted(told) == [(job.pk, registry.find(job.task)) for job in jobs]


def test_since_when_a_retried_job_waits_is_not_known(store: Store) -> None:
    (job_id,) = failed_jobs(store, 1)
    store.retry([job_id])
    assert store.line("bad") == (1, None)
    fresh = tasks.add.using(queue_name="bad").enqueue(1, 2)
    assert store.line("bad") == (2, fresh.enqueued_at)


def test_the_oldest_in_a_line_is_found_behind_many_of_higher_priority(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbqueue.store.census.HEAD", 3)
    old = tasks.add.using(priority=-5).enqueue(1, 2)
    for priority in (7, 7, 7, 7, 0, 0, 0, 0):
        tasks.add.using(priority=priority).enqueue(1, 2)
    assert store.line(None) == store.line("default") == (9, old.enqueued_at)
    assert store.line(None, limit=5) == (6, old.enqueued_at)
    assert store.line("nobody") == (0, None)


@pytest.mark.parametrize("other", [{"queue_name": "other"}, {"status": "CANCELLED"}])
def test_what_becomes_another_between_the_look_and_the_lock_is_let_be(
    store: Store, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    """In a state that the action would leave: the search is asked again under the lock."""
    ids = failed_jobs(store, 3)
    operation = start(store, BulkAction.RETRY, Search(state="FAILED", queue="bad"))
    look = type(store)._lock_workflows_soon

    def change_meanwhile(self: Store, seen: Collection[int]) -> set[int]:
        if connection.vendor == "sqlite":  # which lets one write at a time: it was in this transaction
            Job.objects.filter(pk=ids[1]).update(**other)
        else:
            with held_by_somebody(ids[1], **other):
                pass
        return look(self, seen)

    monkeypatch.setattr(type(store), "_lock_workflows_soon", change_meanwhile)
    carry_out(store)
    assert figures(operation) == (2, 0, 1)
    assert Job.objects.get(pk=ids[1]).status == other.get("status", "FAILED")
