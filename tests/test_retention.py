"""What is old goes, in small batches; what may still run, or is younger, stays."""

import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext

from dbqueue.conf import Settings
from dbqueue.connections import owned_connection
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.outcome import Outcome
from dbqueue.retention import Retention, Sweep
from dbqueue.store import Store, store_for

from .shop.tasks import add, fail, mark_slowly
from .workers import eventually, worker

pytestmark = pytest.mark.django_db(transaction=True)

DAY = datetime.timedelta(days=1)
ENDED = (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED)
QUEUED = (JobStatus.READY, JobStatus.SCHEDULED, JobStatus.RUNNING)


@pytest.fixture
def store() -> Store:
    return store_for("default")


def jobs(store: Store, count: int, status: JobStatus, days: float) -> list[int]:
    """Jobs that came to this state ``days`` ago, and were enqueued a day before that."""
    moment = store.clock() - days * DAY
    return [
        Job.objects.create(
            task=add.name,
            args=[number, 0],
            status=status,
            enqueued_at=moment - DAY,
            finished_at=moment if status.is_final else None,
        ).pk
        for number in range(count)
    ]


def cutoffs(store: Store, days: float = 7.0) -> dict[JobStatus, datetime.datetime]:
    return dict.fromkeys(ENDED, store.clock() - days * DAY)


def kept() -> set[int]:
    return set(Job.objects.values_list("pk", flat=True))


def sweep(store: Store, **days: float) -> Sweep:
    done = Sweep(store, Settings().replace(**{f"keep_{name}_days": value for name, value in days.items()}))
    while done.step():
        pass
    return done


def in_a_thread(work: Callable[[], Any]) -> threading.Thread:
    """Run ``work`` on a connection of its own, as another process would."""

    def run() -> None:
        with owned_connection("default"):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# What goes and what stays


def test_each_state_has_its_own_age(store: Store) -> None:
    ages = (6, 8, 29, 31)
    made = {(status, days): jobs(store, 1, status, days)[0] for status in ENDED for days in ages}

    done = sweep(store)

    assert kept() == {
        *(made[JobStatus.SUCCESSFUL, days] for days in (6,)),
        *(made[JobStatus.FAILED, days] for days in (6, 8, 29)),
        *(made[JobStatus.CANCELLED, days] for days in (6, 8, 29)),
    }
    assert str(done) == "jobs: 3 successful, 1 failed, 1 cancelled; rows of workers: 0"


def test_what_waits_or_runs_stays_however_old(store: Store) -> None:
    waiting = [pk for status in QUEUED for pk in jobs(store, 3, status, 1000)]
    # No operation leaves such a row; should one ever stand there, it is not retention that loses its job.
    Job.objects.filter(pk__in=waiting).update(finished_at=store.clock() - 1000 * DAY)
    jobs(store, 3, JobStatus.SUCCESSFUL, 1000)

    sweep(store, successful=0, failed=0)

    assert kept() == set(waiting)


def test_zero_days_keep_nothing_that_has_ended_and_a_century_keeps_all(store: Store) -> None:
    ended = [pk for status in ENDED for pk in jobs(store, 2, status, 0.001)]
    sweep(store, successful=36500, failed=36500)
    assert kept() == set(ended)
    sweep(store, successful=0, failed=36500)
    assert kept() == set(ended[2:])
    sweep(store, successful=0, failed=0)
    assert kept() == set()


def test_attempts_go_with_their_job_and_only_with_it(store: Store) -> None:
    old, young = jobs(store, 1, JobStatus.FAILED, 31) + jobs(store, 1, JobStatus.FAILED, 1)
    for pk in (old, old, young):
        Attempt.objects.create(job_id=pk, number=1, worker_id=1, started_at=store.clock(), ended_at=store.clock())

    sweep(store)

    assert list(Attempt.objects.values_list("job_id", flat=True)) == [young]


def test_rows_of_workers_that_stopped_long_ago_go(store: Store) -> None:
    now = store.clock()
    for name, stopped in (("alive", None), ("stopped lately", 29), ("stopped", 31), ("lost", 31)):
        Worker.objects.create(
            name=name,
            pid=1,
            threads=1,
            started_at=now - 100 * DAY,
            heartbeat_at=now - 100 * DAY,
            stopped_at=None if stopped is None else now - stopped * DAY,
            lost=name == "lost",
        )

    assert sweep(store).workers == 2

    assert set(Worker.objects.values_list("name", flat=True)) == {"alive", "stopped lately"}


# The walk


def test_a_batch_deletes_no_more_than_its_limit_and_a_sweep_deletes_all(store: Store) -> None:
    jobs(store, 35, JobStatus.SUCCESSFUL, 8)
    left, limit = 35, 10
    after: int | None = 0
    while after is not None:
        with CaptureQueriesContext(connection) as captured:
            deleted, refused, after = store.prune(cutoffs(store), after, limit)
        assert refused == 0
        assert deleted.total() == min(limit, left)
        left -= deleted.total()
        assert Job.objects.count() == left
        # One transaction, whose statements grow with the batch and not with the table.
        assert sum("BEGIN" in query["sql"] for query in captured) <= 1
        assert len(captured) <= 10
    assert left == 0


def test_a_batch_without_old_rows_opens_no_transaction(store: Store) -> None:
    made = jobs(store, 20, JobStatus.RUNNING, 8)
    with CaptureQueriesContext(connection) as captured:
        deleted, _, last_id = store.prune(cutoffs(store), 0, 10)
    assert (deleted.total(), last_id) == (0, made[9])
    assert not [query["sql"] for query in captured if "FOR UPDATE" in query["sql"] or "BEGIN" in query["sql"]]


def test_the_walk_passes_over_what_it_keeps(store: Store) -> None:
    running = jobs(store, 25, JobStatus.RUNNING, 50)
    jobs(store, 5, JobStatus.SUCCESSFUL, 50)
    after: int | None = 0
    while after is not None:
        _, _, after = store.prune(cutoffs(store), after, 10)
    assert kept() == set(running)


def test_the_walk_ends_where_all_is_younger(store: Store) -> None:
    jobs(store, 10, JobStatus.SUCCESSFUL, 8)
    jobs(store, 1000, JobStatus.READY, 0)
    Job.objects.filter(status=JobStatus.READY).update(enqueued_at=store.clock())
    steps = 0
    after: int | None = 0
    while after is not None:
        _, _, after = store.prune(cutoffs(store), after, 10)
        steps += 1
    assert steps == 2


def test_ids_out_of_order_and_clocks_that_were_wrong_hide_nothing_for_ever(store: Store) -> None:
    """A single row from the future, or one that was enqueued late under an early id, does not end the walk."""
    first, *rest = jobs(store, 30, JobStatus.SUCCESSFUL, 8)
    Job.objects.filter(pk=first).update(enqueued_at=store.clock() + 3650 * DAY)
    after: int | None = 0
    while after is not None:
        _, _, after = store.prune(cutoffs(store), after, 10)
    assert not kept() & set(rest)


def test_a_dry_run_counts_and_deletes_nothing(store: Store) -> None:
    made = jobs(store, 3, JobStatus.SUCCESSFUL, 8)
    deleted, _, _ = store.prune(cutoffs(store), dry_run=True)
    assert deleted == {"SUCCESSFUL": 3}
    assert kept() == set(made)


# In company


def test_a_job_that_an_operator_retries_in_the_same_moment_is_not_deleted(store: Store) -> None:
    retried, *_ = jobs(store, 10, JobStatus.FAILED, 31)
    statements: list[str] = []

    def retry_before_the_second(execute: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        if len(statements) == 2:  # the first has read which rows are old
            in_a_thread(lambda: store.retry([retried])).join()
        return execute(sql, *rest)

    with connection.execute_wrapper(retry_before_the_second):
        deleted, _, _ = store.prune(cutoffs(store))

    assert deleted == {"FAILED": 9}
    assert kept() == {retried}
    assert Job.objects.get().status == JobStatus.READY


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite locks the file, not a row")
def test_a_row_that_a_retry_has_locked_is_left_alone_and_not_waited_for(store: Store) -> None:
    retried, *others = jobs(store, 10, JobStatus.FAILED, 31)
    locked, done = threading.Event(), threading.Event()

    def retry() -> None:
        with transaction.atomic():
            store.retry([retried])
            locked.set()
            done.wait(30)

    thread = in_a_thread(retry)
    assert locked.wait(10)
    try:
        deleted, _, _ = store.prune(cutoffs(store))
        assert not done.is_set()
    finally:
        done.set()
        thread.join()

    assert deleted == {"FAILED": len(others)}
    assert list(Job.objects.values_list("pk", "status")) == [(retried, JobStatus.READY)]


def test_sweeps_at_once_delete_each_row_once(store: Store) -> None:
    jobs(store, 1500, JobStatus.SUCCESSFUL, 8)
    young = jobs(store, 5, JobStatus.SUCCESSFUL, 1)
    start = threading.Barrier(3)
    counts: list[int] = []

    def run() -> None:
        start.wait(10)
        counts.append(sweep(store).deleted["SUCCESSFUL"])

    for thread in [in_a_thread(run) for _ in range(3)]:
        thread.join()

    assert len(counts) == 3
    assert sum(counts) == 1500
    assert kept() == set(young)


def test_the_outcome_of_a_pruned_job_is_refused_without_harm(store: Store) -> None:
    """What an operator cancelled or another attempt ended may be gone before a late outcome comes."""
    gone, running = jobs(store, 1, JobStatus.CANCELLED, 31) + jobs(store, 1, JobStatus.READY, 0)
    sweep(store)
    me = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [claim] = store.claim(me, 1)
    late = claim._replace(job_id=gone)
    refused = store.finish([Outcome.succeeded(late, "1"), Outcome.succeeded(claim, "1")])
    assert [outcome.claim.job_id for outcome in refused] == [gone]
    assert Job.objects.get(pk=running).status == JobStatus.SUCCESSFUL


@contextmanager
def referring_table() -> Iterator[None]:
    """A table of somebody else that refers to jobs, without Django knowing of it."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE receipt (job_id bigint NOT NULL REFERENCES dbqueue_job (id))")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE receipt")


def test_a_row_that_another_table_refers_to_is_kept_and_keeps_no_other(store: Store) -> None:
    made = jobs(store, 20, JobStatus.SUCCESSFUL, 8)
    with referring_table():
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO receipt VALUES (%s)", [(made[3],), (made[17],)])
        done = sweep(store)
        assert kept() == {made[3], made[17]}
    assert (done.deleted["SUCCESSFUL"], done.refused) == (18, 2)
    assert "2 more are kept, because other tables refer to them" in str(done)


# A worker


def test_a_worker_prunes_by_itself(store: Store) -> None:
    jobs(store, 700, JobStatus.SUCCESSFUL, 8)
    young = jobs(store, 1, JobStatus.SUCCESSFUL, 6)
    failed = fail.enqueue("x")
    running = mark_slowly.enqueue("x", 3600)
    with worker("--grace", "0", DBQUEUE_KEEP_FAILED_DAYS="0") as process:
        eventually(lambda: kept() == {*young, int(running.id)}, timeout=60)
        assert add.enqueue(1, 2).get(timeout=10) == 3
        eventually(lambda: "Retention deleted jobs: 700 successful, 1 failed, 0 cancelled" in process.output)
    assert int(failed.id) not in kept()


def test_an_error_of_a_receiver_does_not_end_the_worker(store: Store) -> None:
    jobs(store, 3, JobStatus.SUCCESSFUL, 8)
    retention = Retention(store, Settings())
    retention._next_at = 0.0

    def refuse(**kwargs: Any) -> None:
        raise RuntimeError("not this one")

    pre_delete.connect(refuse, sender=Job)
    try:
        retention.step()
    finally:
        pre_delete.disconnect(refuse, sender=Job)
    assert Job.objects.count() == 3


def test_one_job_that_a_receiver_refuses_to_let_go_keeps_no_others(store: Store) -> None:
    jobs(store, 2000, JobStatus.SUCCESSFUL, 8)
    precious = Job.objects.order_by("id")[700].pk

    def refuse(instance: Job, **kwargs: Any) -> None:
        if instance.pk == precious:
            raise RuntimeError("not this one")

    pre_delete.connect(refuse, sender=Job)
    try:
        sweep = Sweep(store, Settings())
        while sweep.step():
            pass
    finally:
        pre_delete.disconnect(refuse, sender=Job)
    assert list(Job.objects.values_list("pk", flat=True)) == [precious]
    assert sweep.refused == 1


def test_after_a_batch_comes_a_rest_and_after_a_sweep_a_long_one(store: Store) -> None:
    jobs(store, 600, JobStatus.SUCCESSFUL, 8)
    retention = Retention(store, Settings())
    assert retention.pause > 1
    retention.step()
    assert Job.objects.count() == 600
    retention._next_at = 0.0
    retention.step()
    assert Job.objects.count() == 100
    assert retention.pause > 0
    while Job.objects.exists() or retention.pause < 60:
        retention._next_at = 0.0
        retention.step()
    assert retention.pause > 60


# By hand


def prune(*arguments: str) -> str:
    out = StringIO()
    call_command("dbqueue_prune", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_says_what_it_deleted(store: Store) -> None:
    for status in ENDED:
        jobs(store, 2, status, 8)
    found = "from the database 'default': jobs: 2 successful, 0 failed, 0 cancelled"
    assert prune("--dry-run") == f"Would delete {found}\n"
    assert Job.objects.count() == 6
    assert prune() == f"Deleted {found}; rows of workers: 0\n"
    assert Job.objects.count() == 4
    assert "0 successful, 2 failed, 2 cancelled" in prune("--failed-days", "7.5", "--database", "default")
    assert not Job.objects.exists()


def test_the_command_keeps_as_long_as_it_is_told(store: Store) -> None:
    jobs(store, 1, JobStatus.SUCCESSFUL, 8)
    assert "0 successful" in prune("--successful-days", "9")
    assert "1 successful" in prune("--successful-days", "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--successful-days", "-1"], "KEEP_SUCCESSFUL_DAYS is -1.0; it must be days, from 0 to 36500"),
        (["--failed-days", "nan"], "KEEP_FAILED_DAYS is nan; it must be days, from 0 to 36500"),
        (["--failed-days", "x"], "argument --failed-days: invalid float value: 'x'"),
        (["--database", "nowhere"], "DATABASE is 'nowhere'; it must be an alias of DATABASES"),
    ],
)
def test_what_the_command_refuses_is_named(store: Store, arguments: list[str], message: str) -> None:
    jobs(store, 1, JobStatus.SUCCESSFUL, 8)
    with pytest.raises(CommandError) as caught:
        prune(*arguments)
    assert message in str(caught.value)
    assert Job.objects.count() == 1
