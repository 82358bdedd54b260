"""The worker as a process: real signals, real databases, faults that are made."""

import os
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test import override_settings
from django.utils import timezone

from dbqueue import enqueue_many
from dbqueue.conf import Settings
from dbqueue.connections import owned_connection
from dbqueue.definition import Task
from dbqueue.dispatcher import Dispatcher, Mode
from dbqueue.models import Attempt, Job, JobStatus, Worker
from dbqueue.services.heartbeat import Heartbeat
from dbqueue.services.maintenance import Maintenance
from dbqueue.store import Store, store_for
from dbqueue.store.database import BATCH

from .shop import tasks as tasks_module
from .shop.models import Mark
from .shop.tasks import (
    activate_german,
    add,
    add_later,
    enqueue_another,
    fail,
    give_back,
    hostile,
    leak,
    mark,
    mark_slowly,
    pid,
    spoil_session,
    spoil_session_and_begin,
    tell_context,
    tell_language,
)
from .workers import burst, eventually, settings_file, spawn, stop_between_transactions, worker

pytestmark = pytest.mark.django_db(transaction=True)

postgresql_only = pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="what is made here exists on PostgreSQL only"
)


def marks() -> set[str]:
    return set(Mark.objects.values_list("label", flat=True))


def all_final() -> bool:
    return not Job.objects.exclude(status__in=[s for s in JobStatus if s.is_final]).exists()


# What it runs


def test_burst_runs_what_is_due_and_exits() -> None:
    results = [add.enqueue(number, 1) for number in range(50)]

    burst()

    for result in results:
        result.refresh()
    assert [result.return_value for result in results] == list(range(1, 51))
    assert [result.attempts for result in results] == [1] * 50


def test_a_burst_includes_what_its_jobs_enqueue() -> None:
    enqueue_another.enqueue("child")
    burst()
    assert marks() == {"child"}
    assert all_final()


def test_async_tasks_and_context_run_on_the_jobs_thread() -> None:
    total, context = add_later.enqueue(1, 2), tell_context.enqueue()
    burst()
    total.refresh()
    context.refresh()
    assert total.return_value == 3
    assert context.return_value == [1, context.id, "RUNNING"]


def test_a_failure_is_told_with_its_traceback() -> None:
    result = fail.enqueue("bang")
    output = burst()
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert result.errors[0].exception_class is ValueError
    assert result.errors[0].traceback.endswith("ValueError: bang\n")
    assert f"Job id={result.id} task=tests.shop.tasks.fail attempt=1 failed: ValueError: bang" in output
    assert result.errors[0].traceback in output  # and no frame of dbqueue's before the task's own
    assert "dbqueue/executor.py" not in output


def test_the_start_counts_the_tasks() -> None:
    output = burst("--threads", "2", DBQUEUE_TASK_MODULES="nothing")
    assert " started: queues all, 2 threads, 0 tasks, database 'default'" in output
    assert int(burst().partition(" threads, ")[2].partition(" tasks, ")[0]) > 10


def test_max_jobs_ends_the_worker() -> None:
    for number in range(10):
        add.enqueue(number, 0)
    process = spawn("--max-jobs", "3")
    assert process.wait(30) == 0, process.output
    assert Job.objects.filter(status=JobStatus.SUCCESSFUL).count() == 3
    assert Job.objects.filter(status=JobStatus.READY).count() == 7


def test_queues_and_excluded_queues() -> None:
    for queue in ("a", "b", "c"):
        mark.using(queue_name=queue).enqueue(queue)
    burst("--queues", "a,b", "--exclude-queues", "b")
    assert marks() == {"a"}
    burst("--exclude-queues", "c")
    assert marks() == {"a", "b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "THREADS is 0; it must be a whole number from 1 to 1000"),
        (["--database", "nowhere"], "DATABASE is 'nowhere'; it must be an alias of DATABASES"),
        (["--queues", "a,,b"], "'' is not a queue's name"),
        (["--max-jobs", "x"], "'x' is not a whole number"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str) -> None:
    process = spawn(*arguments)
    output = process.finish()
    assert process.returncode != 0
    assert message in output
    assert "Traceback" not in output


# Waking


def test_an_idle_worker_is_woken_long_before_its_poll() -> None:
    with worker(DBQUEUE_POLL_INTERVAL="3600"):
        eventually(lambda: Worker.objects.alive().exists())
        time.sleep(1)
        result = add.enqueue(1, 2)
        assert result.get(timeout=10) == 3


def test_without_a_listener_polling_finds_the_work() -> None:
    with worker(DBQUEUE_LISTEN="False", DBQUEUE_POLL_INTERVAL="0.1"):
        eventually(lambda: Worker.objects.alive().exists())
        assert add.enqueue(1, 2).get(timeout=10) == 3


def test_a_job_runs_when_its_time_comes() -> None:
    with worker(DBQUEUE_POLL_INTERVAL="3600"):
        eventually(lambda: Worker.objects.alive().exists())
        result = add.using(run_after=timedelta(seconds=1.5)).enqueue(1, 2)
        assert result.get(timeout=10) == 3
    assert result.started_at is not None and result.run_after is not None
    assert result.started_at >= result.run_after


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_end_and_gives_back_the_rest(number: signal.Signals) -> None:
    for label in "abcdef":
        mark_slowly.enqueue(label, 1.5)
    process = spawn("--threads", "2")
    eventually(lambda: len(marks()) == 2)

    process.send_signal(number)

    assert process.wait(15) == 0
    states = list(Job.objects.order_by("id").values_list("status", "attempt"))
    assert states.count((JobStatus.SUCCESSFUL, 1)) == 2
    assert states.count((JobStatus.READY, 0)) == 4
    assert len([label for label in marks() if label.endswith("ended")]) == 2
    assert not Worker.objects.alive().exists()


def test_what_outlives_the_grace_is_given_back_without_using_up_an_attempt() -> None:
    result = mark_slowly.enqueue("long", 60)
    process = spawn("--grace", "0.5")
    eventually(lambda: marks())

    process.send_signal(signal.SIGTERM)

    assert process.wait(15) == 0
    result.refresh()
    assert (result.status, result.attempts, result.errors) == (JobStatus.READY, 0, [])


def test_a_second_signal_ends_now() -> None:
    result = mark_slowly.enqueue("long", 60)
    process = spawn("--grace", "60")
    eventually(lambda: marks())

    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)

    assert process.wait(15) == 0
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.READY, 0)


# Faults


def test_the_jobs_of_a_killed_worker_run_again() -> None:
    done = add.enqueue(1, 1)
    result = mark_slowly.enqueue("x", 2)
    process = spawn(DBQUEUE_HEARTBEAT_TIMEOUT="1")
    eventually(lambda: marks() and Job.objects.filter(pk=done.id, status=JobStatus.SUCCESSFUL).exists())
    process.kill()
    process.wait()

    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="1"):
        result.wait(timeout=30)

    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 2)
    assert [error.exception_class_path for error in result.errors] == ["dbqueue.exceptions.WorkerLost"]
    assert Worker.objects.filter(lost=True).count() == 1
    done.refresh()
    assert (done.status, done.attempts) == (JobStatus.SUCCESSFUL, 1)


def left_by_a_dead_worker(store: Any) -> Any:
    """A job in the hands of a worker that has been silent for an hour."""
    result = add.enqueue(1, 2)
    long_ago = store.clock() - timedelta(hours=1)
    dead = store.register(name="dead", hostname="host", pid=1, queues="", threads=1, now=long_ago)
    assert len(store.claim(dead, 1)) == 1
    return result


def test_a_burst_rescues_what_a_dead_worker_left() -> None:
    result = left_by_a_dead_worker(store_for("default"))

    burst(DBQUEUE_HEARTBEAT_TIMEOUT="1")

    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 2)


class Around:
    """A real store, of which a test changes one answer or its moment."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class BetweenTwoLooks(Around):
    """After a burst has looked for work, and before it asks for the dead, these are rescued."""

    def has_abandoned(self, timeout: float) -> bool:
        self._store.declare_lost(timeout)
        self._store.rescue(max_crashes=3)
        return self._store.has_abandoned(timeout)


def test_a_burst_runs_what_was_rescued_after_its_last_look() -> None:
    store: Any = BetweenTwoLooks(store_for("default"))
    result = left_by_a_dead_worker(store)
    dispatcher = Dispatcher(Settings(threads=1), Mode(burst=True))
    dispatcher.store = store

    assert dispatcher.run() == 0

    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 2)


class OutageAtTheLastLook(Around):
    """The database is away for the look that would end a burst, while a neighbour dies with a job in its hands."""

    _was_asked = False
    left: Any = None

    def has_abandoned(self, timeout: float) -> bool:
        self._was_asked = True
        return self._store.has_abandoned(timeout)

    def claim(self, *args: Any, **options: Any) -> Any:
        if self._was_asked and self.left is None:
            self.left = left_by_a_dead_worker(self._store)
            raise OperationalError("away")
        return self._store.claim(*args, **options)


def test_a_burst_asks_anew_for_the_dead_after_an_outage() -> None:
    dispatcher = Dispatcher(Settings(threads=1, heartbeat_timeout=1), Mode(burst=True))
    store: Any = OutageAtTheLastLook(store_for("default"))
    dispatcher.store = store

    assert dispatcher.run() == 0

    store.left.refresh()
    assert (store.left.status, store.left.attempts) == (JobStatus.SUCCESSFUL, 2)


class FrozenStore(Around):
    """It answers one question only after a long time, as after a server's freeze."""

    def __init__(self, store: Store, seconds: float) -> None:
        super().__init__(store)
        self._seconds = seconds
        self.judgements = 0

    def seconds_to_next_due(self) -> float | None:
        time.sleep(self._seconds)
        return self._store.seconds_to_next_due()

    def declare_lost(self, timeout: float, now: datetime) -> int:
        self.judgements += 1
        return self._store.declare_lost(timeout, now)


def test_after_a_freeze_of_the_server_nobody_is_judged_at_once() -> None:
    frozen: Any = FrozenStore(store_for("default"), 0)
    settings = Settings(heartbeat_timeout=1)
    maintenance = Maintenance(frozen, settings, lambda queues: None, lambda: None)
    maintenance.run_once()
    while not frozen.judgements:
        time.sleep(maintenance.run_once())
    judged = frozen.judgements
    assert judged > 0

    frozen._seconds = 2
    maintenance.run_once()
    judged = frozen.judgements
    frozen._seconds = 0
    maintenance.run_once()

    assert frozen.judgements == judged


def test_a_loss_of_the_row_before_is_not_taken_for_this_ones() -> None:
    store = store_for("default")
    heartbeat = Heartbeat(store, 30, lambda: None)
    first, second = (
        store.register(name="w", hostname="h", pid=1, queues="", threads=1),
        store.register(name="w", hostname="h", pid=1, queues="", threads=1),
    )
    heartbeat.beat_for(first)
    heartbeat.lose(first)
    assert heartbeat.lost
    heartbeat.beat_for(second)
    heartbeat.lose(first)
    assert not heartbeat.lost


def test_the_outcome_of_a_zombie_is_refused() -> None:
    result = mark_slowly.enqueue("x", 3)
    zombie = spawn(DBQUEUE_HEARTBEAT_TIMEOUT="1")
    try:
        eventually(lambda: marks())
        stop_between_transactions(zombie)
        with worker(DBQUEUE_HEARTBEAT_TIMEOUT="1"):
            eventually(lambda: Mark.objects.filter(label="x started").count() == 2, timeout=30)
            zombie.send_signal(signal.SIGCONT)
            result.wait(timeout=30)
        # The zombie slept for longer than its job, so it ends it now, under a lease that is not the job's any more.
        eventually(lambda: Mark.objects.filter(label="x ended").count() == 2)
        time.sleep(0.5)
    finally:
        zombie.send_signal(signal.SIGCONT)
        zombie.send_signal(signal.SIGTERM)
        output = zombie.finish()
    assert "was declared lost" in output
    assert "Lease lost" in output
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 2)
    job = Job.objects.get()
    assert job.worker is not None and not job.worker.lost


def test_a_live_workers_long_job_is_not_rescued() -> None:
    result = mark_slowly.enqueue("x", 4)
    with worker("--name", "one", DBQUEUE_HEARTBEAT_TIMEOUT="1"), worker("--name", "two", DBQUEUE_HEARTBEAT_TIMEOUT="1"):
        result.wait(timeout=30)
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)
    assert Mark.objects.filter(label="x started").count() == 1


@postgresql_only
def test_terminated_sessions_lose_nothing() -> None:
    results = [mark_slowly.enqueue(str(number), 0.1) for number in range(200)]
    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="5") as process:
        for _ in range(10):
            time.sleep(0.3)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        eventually(all_final, timeout=60)
        assert process.poll() is None
    for result in results:
        result.refresh()
        # A job whose own session was cut may fail, with that reason; none is lost, none waits for ever.
        assert result.attempts == 1
        assert Mark.objects.filter(label=f"{result.args[0]} started").count() <= 1
        if result.status is JobStatus.FAILED:
            assert "OperationalError" in result.errors[-1].traceback or "InterfaceError" in result.errors[-1].traceback
    assert Attempt.objects.filter(exception_class_path__endswith="WorkerLost").count() == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if connection.pool:  # type: ignore[attr-defined]
        # The other sessions of this process's pool were cut too; the tests that follow get new ones.
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sys.exit", "SystemExit: 3"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("GeneratorExit", "GeneratorExit"),
        ("unprintable", "Unprintable"),
        ("NUL", "ValueError: a\\x00b"),
        ("surrogate", "ValueError: a\\ud800b"),
        ("recursion", "RecursionError"),
        ("object", "NotStorable: Unsupported type: The return value is <class 'object'>"),
        ("NaN", "NotStorable: The return value is nan"),
        ("NUL value", "NotStorable: The return value['a'][0] holds a NUL"),
        ("large", "NotStorable: The return value has 2000002 bytes"),
    ],
)
def test_a_hostile_job_fails_alone(kind: str, reason: str) -> None:
    results = [hostile.enqueue(kind), *(add.enqueue(number, 0) for number in range(10))]

    burst("--threads", "1")

    for result in results:
        result.refresh()
    assert results[0].status == JobStatus.FAILED
    assert reason in results[0].errors[0].traceback
    assert {result.status for result in results[1:]} == {JobStatus.SUCCESSFUL}


def test_a_job_that_deletes_its_row_hurts_nobody() -> None:
    hostile.enqueue("delete itself")
    others = [add.enqueue(number, 0) for number in range(10)]
    output = burst("--threads", "1")
    assert "Lease lost" in output
    for result in others:
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL


LEAKS = {
    "open": "left a transaction open",
    "nested": "left a transaction open",
    "broken": "the transaction was broken",
    "closed inside": "closed the connection inside a transaction",
    "autocommit": "left autocommit switched off",
    "closed": "",
    "closed beneath": "",
    "aborted": "left a transaction open",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leaked_transaction_does_not_reach_the_next_job(kind: str) -> None:
    leaking = [leak.enqueue(kind)]
    bystanders = []
    for number in range(20):
        bystanders.append(mark.enqueue(f"bystander {number}"))
        if number % 5 == 0:
            leaking.append(leak.enqueue(kind))

    output = burst("--threads", "1")

    for result in bystanders:
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL, result.errors
    assert marks() == {f"bystander {number}" for number in range(20)}
    for result in leaking:
        result.refresh()
        assert result.status == (JobStatus.FAILED if kind == "aborted" else JobStatus.SUCCESSFUL)
    assert LEAKS[kind] in output


def test_a_language_and_a_time_zone_end_with_their_job() -> None:
    before = tell_language.enqueue()
    for _ in range(5):
        activate_german.enqueue()
    after = tell_language.enqueue()
    burst("--threads", "1")
    before.refresh()
    after.refresh()
    assert after.return_value == before.return_value


@postgresql_only
@pytest.mark.parametrize("spoil", [spoil_session, spoil_session_and_begin])
def test_what_a_job_sets_in_its_session_does_not_reach_the_next(spoil: Task[[], None]) -> None:
    spoil.enqueue()
    others = [mark.enqueue(str(number)) for number in range(5)]
    burst("--threads", "1")
    for result in others:
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL, result.errors
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711")
        assert cursor.fetchone() == (0,)


@postgresql_only
def test_an_outcome_that_the_database_refuses_fails_its_job_alone() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.return_value = '"too much"'::jsonb THEN
                    RAISE EXCEPTION 'limit exceeded' USING ERRCODE = '54000';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON dbqueue_job FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    try:
        refused = give_back.enqueue("too much")
        others = [add.enqueue(number, 0) for number in range(50)]
        burst()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER refuse ON dbqueue_job; DROP FUNCTION refuse()")
    refused.refresh()
    assert (refused.status, refused.attempts) == (JobStatus.FAILED, 1)
    assert "limit exceeded" in refused.errors[0].traceback
    for result in others:
        result.refresh()
        assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)


def test_what_raises_beside_the_task_fails_the_job_once() -> None:
    result = mark.enqueue("x")
    burst(DJANGO_SETTINGS_MODULE="tests.settings_broken_logging")
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.FAILED, 1)
    assert "no log for you" in result.errors[0].traceback
    assert Mark.objects.count() == 1


def test_a_worker_that_was_stopped_does_not_judge_itself() -> None:
    result = mark_slowly.enqueue("x", 6)
    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="1") as process:
        eventually(lambda: marks())
        for _ in range(2):
            process.send_signal(signal.SIGSTOP)
            time.sleep(2)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        result.wait(timeout=30)
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)
    assert Mark.objects.filter(label="x started").count() == 1


@postgresql_only
def test_a_claim_that_a_server_crash_took_back_does_not_run_twice_at_once() -> None:
    result = mark_slowly.enqueue("x", 3)
    with worker() as process:
        eventually(lambda: marks())
        # What a crash does to a claim whose commit was not on disk yet.
        Job.objects.update(status=JobStatus.READY, lease=0, attempt=0, worker=None)
        add.enqueue(1, 2).get(timeout=15)
        result.wait(timeout=30)
        assert process.poll() is None
    assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)
    assert Mark.objects.filter(label="x started").count() == 1


@postgresql_only
def test_maintenance_rests_while_a_due_row_is_locked() -> None:
    store = store_for("default")
    result = add.using(run_after=timedelta(0)).enqueue(1, 2)
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with owned_connection("default"), transaction.atomic():
            Job.objects.select_for_update().get(pk=result.id)
            locked.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    maintenance = Maintenance(
        store, Settings(poll_interval=3600, heartbeat_timeout=2), lambda queues: None, lambda: None
    )
    pause = maintenance.run_once()
    done.set()
    holder.join()
    # Not zero although a row is due, and not an hour although that is the poll: dead workers are looked for.
    assert 0 < pause <= 1


def test_a_step_makes_so_many_due_jobs_ready_and_the_next_follows_at_once() -> None:
    task = add.using(run_after=timezone.now() - timedelta(hours=1))
    enqueue_many(task.s(number, 0) for number in range(2 * BATCH + 1))
    maintenance = Maintenance(store_for("default"), Settings(), lambda queues: None, lambda: None)

    seen = []
    for _ in range(3):
        pause = maintenance.run_once()
        seen.append((pause == 0, Job.objects.filter(status=JobStatus.READY).count()))

    assert seen == [(True, BATCH), (True, 2 * BATCH), (False, 2 * BATCH + 1)]


def test_max_jobs_counts_what_ran_and_not_what_was_given_back() -> None:
    for number in range(60):
        add.enqueue(number, 0)
    for number in range(40):
        mark_slowly.enqueue(str(number), 0.3)
    process = spawn("--max-jobs", "80", "--threads", "4")
    assert process.wait(60) == 0, process.output
    assert Job.objects.filter(status=JobStatus.SUCCESSFUL).count() == 80


def test_an_unknown_task_fails_with_its_name() -> None:
    result = add.enqueue(1, 2)
    Job.objects.update(task="tests.shop.tasks.ad")
    burst()
    result.refresh()
    assert result.status == JobStatus.FAILED
    said = result.errors[0].traceback
    assert "This worker knows no task 'tests.shop.tasks.ad'. Its module 'tests.shop.tasks' declared none of" in said
    assert "if the task is new, restart the worker. Did you mean 'tests.shop.tasks.add'" in said


def test_an_unknown_task_of_no_app_fails_with_what_to_do() -> None:
    result = add.enqueue(1, 2)
    Job.objects.update(task="project.tasks.add_up")
    burst()
    result.refresh()
    assert "import its module 'project.tasks' in the tasks.py of an app: no app in INSTALLED_APPS has that" in (
        result.errors[0].traceback
    )


def test_an_unknown_task_may_wait_for_a_worker_that_knows_it() -> None:
    result = add.enqueue(1, 2)
    Job.objects.update(task="elsewhere.task")
    burst(DBQUEUE_UNKNOWN_TASK="wait")
    result.refresh()
    assert (result.status, result.attempts, result.errors) == (JobStatus.SCHEDULED, 0, [])
    assert result.run_after is not None


def test_a_function_that_is_not_a_task_never_runs() -> None:
    result = add.enqueue(1, 2)
    Job.objects.update(task="os.getpid", args=[])
    burst()
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert "This worker knows no task 'os.getpid'" in result.errors[0].traceback


def test_arguments_that_fit_no_more_fail_the_job() -> None:
    result = add.enqueue(1, 2)
    Job.objects.update(args=[1, 2, 3])
    burst()
    result.refresh()
    assert result.status == JobStatus.FAILED
    assert "TypeError" in result.errors[0].traceback


@pytest.mark.parametrize("depth", [980, 3000])
def test_a_row_that_nobody_can_decode_fails_alone(depth: int) -> None:
    result, other = add.enqueue(1, 2), add.enqueue(1, 2)
    deep = "[" * depth + "]" * depth
    with connection.cursor() as cursor:
        try:
            cursor.execute("UPDATE dbqueue_job SET args = %s WHERE id = %s", [deep, result.id])
        except DatabaseError:
            pytest.skip("this database refuses such a row itself")
    burst()
    other.refresh()
    assert other.status == JobStatus.SUCCESSFUL
    assert Job.objects.values_list("status", flat=True).get(pk=result.id) == JobStatus.FAILED


@pytest.mark.parametrize("args", ["null", "1", '"abc"', '{"x": 1, "y": 2, "z": 3}'])
def test_a_row_whose_arguments_are_no_list_fails_alone(args: str) -> None:
    result = add.enqueue(1, 2)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE dbqueue_job SET args = %s WHERE id = %s", [args, result.id])
    burst()
    assert Job.objects.values_list("status", flat=True).get(pk=result.id) == JobStatus.FAILED


# Several processes


def test_a_supervisor_runs_several_processes_and_replaces_a_dead_one() -> None:
    with worker("--processes", "2", DBQUEUE_HEARTBEAT_TIMEOUT="1") as supervisor:
        eventually(lambda: Worker.objects.alive().count() == 2)
        first = set(Worker.objects.alive().values_list("pid", flat=True))
        assert supervisor.pid not in first
        os.kill(min(first), signal.SIGKILL)
        eventually(lambda: len(set(Worker.objects.alive().values_list("pid", flat=True)) - first) == 1, timeout=30)
        assert pid.enqueue().get(timeout=10) in set(Worker.objects.values_list("pid", flat=True)) - {min(first)}
    assert not Worker.objects.alive().exclude(pid=min(first)).exists()


def test_children_end_when_their_supervisor_was_killed() -> None:
    supervisor = spawn("--processes", "2")
    try:
        eventually(lambda: Worker.objects.alive().count() == 2)
    finally:
        supervisor.kill()
        supervisor.wait()
    eventually(lambda: not Worker.objects.alive().exists(), timeout=30)
    assert not Worker.objects.filter(lost=True).exists()


def test_a_supervised_burst_ends_with_its_children() -> None:
    results = [mark_slowly.enqueue(str(number), 0.02) for number in range(100)]
    burst("--processes", "2", "--threads", "2")
    for result in results:
        result.refresh()
        assert result.status == JobStatus.SUCCESSFUL
        assert result.attempts == 1
    assert Worker.objects.count() == 2


def test_several_workers_never_run_a_job_twice() -> None:
    results = [mark.enqueue(str(number)) for number in range(600)]
    texts = [process.finish() for process in [spawn("--burst") for _ in range(3)]]
    for result in results:
        result.refresh()
        assert (result.status, result.attempts) == (JobStatus.SUCCESSFUL, 1)
    assert Mark.objects.count() == 600
    assert "locked" not in "".join(texts)
    assert len(Job.objects.values("worker").distinct()) > 1


def test_reload_starts_the_children_anew_when_the_code_changes() -> None:
    module = Path(tasks_module.__file__)
    with worker("--reload"):
        eventually(lambda: Worker.objects.alive().count() == 1)
        first = Worker.objects.alive().get().pid
        time.sleep(1)
        os.utime(module)
        eventually(lambda: Worker.objects.alive().exclude(pid=first).exists(), timeout=30)
        assert add.enqueue(1, 2).get(timeout=15) == 3


def test_a_child_that_is_ended_before_it_has_started_is_no_error(tmp_path: Path) -> None:
    beginning, holds = tmp_path / "beginning", tmp_path / "holds"
    module = tmp_path / "held_up.py"
    module.write_text(
        "import os, pathlib, time\n"
        f"with open({str(beginning)!r}, 'a') as file:\n"
        "    print(os.getpid(), file=file)\n"
        f"while pathlib.Path({str(holds)!r}).exists():\n"
        "    time.sleep(0.02)\n"
    )

    def begun() -> int:
        return len(beginning.read_text().split())

    def change(moment: int) -> None:
        before = begun()
        os.utime(module, (moment, moment))
        eventually(lambda: begun() > before)

    with worker("--reload", **settings_file(tmp_path, "import held_up")) as process:
        eventually(lambda: Worker.objects.alive().exists())
        first = Worker.objects.alive().get().pid
        holds.touch()
        for moment in range(7):
            change(moment)
        holds.unlink()
        eventually(lambda: Worker.objects.alive().exclude(pid=first).exists())
        assert process.output.count("starting anew") == 7
        assert "ERROR" not in process.output
        assert process.poll() is None


def test_under_debug_the_worker_keeps_no_list_of_its_statements() -> None:
    with override_settings(DEBUG=True), owned_connection("default") as owned:
        assert Job.objects.count() == 0
        assert connections["default"] is owned
        assert list(owned.queries_log) == []
