"""Jobs of slots: one each, whatever workers do at the same time; and rows that follow the code, but for overrides."""

import datetime
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import connection, transaction

import dbqueue
from dbqueue import registry
from dbqueue.connections import owned_connection
from dbqueue.definition import Task
from dbqueue.models import Job, JobStatus, Schedule, Source
from dbqueue.outcome import Outcome
from dbqueue.schedule import Periodic
from dbqueue.scheduling import (
    FOLLOW_EVERY,
    FORGET_AFTER,
    GRACE,
    MOST_MISFIRES,
    STALE,
    Scheduling,
    change,
    due_slots,
    follow_code,
    give_back,
    run_now,
)
from dbqueue.store import Store, store_for

from .workers import eventually, worker

pytestmark = pytest.mark.django_db(transaction=True)

START = datetime.datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
MINUTE = datetime.timedelta(minutes=1)

Declare = Callable[..., "Task[Any, Any]"]


def tick(label: str = "", *, times: int = 1) -> None: ...


@pytest.fixture
def store() -> Store:
    return store_for("default")


@pytest.fixture
def declare() -> Iterator[Declare]:
    """Have the code of this process say that ``tick`` has these schedules, until the test ends."""

    def declare(*schedules: Periodic, name: str = "tick", **options: Any) -> "Task[Any, Any]":
        task: Task[Any, Any] = Task(tick, name=name, schedule=schedules, **options)
        registry.register(task)
        return task

    before = dict(registry._tasks)
    yield declare
    registry._tasks.clear()
    registry._tasks.update(before)


def undeclare(name: str = "tick") -> None:
    del registry._tasks[name]


def steps(scheduling: Scheduling, *moments: datetime.datetime) -> None:
    for moment in moments:
        scheduling.step(moment)


def started(store: Store, now: datetime.datetime = START) -> Scheduling:
    """A worker's part in this, after its first step."""
    scheduling = Scheduling(store)
    scheduling.step(now)
    return scheduling


def slots(name: str = "tick") -> list[float]:
    """The slots that have a job, in seconds since START's full second."""
    begin = START.replace(microsecond=0)
    found = Job.objects.filter(task=name, slot__isnull=False).order_by("slot").values_list("slot", flat=True)
    return [(slot - begin).total_seconds() for slot in found if slot]


def row(name: str = "tick") -> Schedule:
    return Schedule.objects.get(name=name)


def by_admin(store: Store, **values: Any) -> Schedule:
    """A row as the admin's form makes one."""
    given = {"name": "mine", "task": "tick", "every": 10, "next_at": START + 9.5 * SECOND, **values}
    return Schedule.objects.create(**given)


# Due slots


def test_each_slot_has_a_job_with_the_arguments_and_the_tasks_options(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10, args=["a"], kwargs={"times": 2}), queue_name="mail", priority=7, max_attempts=3)
    scheduling = started(store)
    assert slots() == []

    steps(scheduling, START + 9 * SECOND, START + 9.5 * SECOND, START + 12 * SECOND, START + 20 * SECOND)

    assert slots() == [10.0, 20.0]
    job = Job.objects.latest("id")
    assert (job.args, job.kwargs, job.queue_name, job.priority) == (["a"], {"times": 2}, "mail", 7)
    assert (job.status, job.max_attempts, job.schedule_id, job.run_after) == (JobStatus.READY, 3, row().pk, None)
    assert (row().last_slot, row().last_job_id) == (job.slot, job.pk)
    assert row().next_at == START + 29.5 * SECOND


def test_a_cron_schedule_goes_by_the_clock_of_its_zone(store: Store, declare: Declare) -> None:
    declare(dbqueue.cron("30 14 * * *", timezone="Europe/Berlin"))
    scheduling = started(store)
    assert row().next_at == START.replace(minute=30, second=0, microsecond=0)

    steps(scheduling, START + 29 * MINUTE, START + 30 * MINUTE)

    assert slots() == [30 * 60.0]


def test_many_workers_make_one_job_per_slot(store: Store, declare: Declare, caplog: pytest.LogCaptureFixture) -> None:
    """Eight at the same moment, again and again; each on a connection of its own. The lock does it, not the key."""
    declare(dbqueue.every(seconds=1))
    started(store)
    barrier = threading.Barrier(8)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with owned_connection("default"):
                scheduling = started(store)
                for number in range(1, 26):
                    barrier.wait(60)
                    scheduling.step(START + number * SECOND)
        except BaseException as exc:
            errors.append(exc)
            barrier.abort()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert "made no job" not in caplog.text
    Scheduling(store).step(START + 25 * SECOND)  # what was locked at the last look of all
    assert slots() == [float(number) for number in range(1, 26)]
    assert Schedule.objects.count() == 1


def test_a_row_that_another_worker_holds_is_left_to_it(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10))
    scheduling = started(store)
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer, and no row locks")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with owned_connection("default"), transaction.atomic():
            assert store.lock_due_schedule(row().pk, START + 10 * SECOND)
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    scheduling.step(START + 10 * SECOND)
    assert slots() == []
    assert 0 < scheduling.pause <= 1
    done.set()
    thread.join()

    scheduling.step(START + 11 * SECOND)  # the other has died before its commit
    assert slots() == [10.0]


def test_the_unique_key_refuses_a_second_job_of_a_slot(
    store: Store, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    declare(dbqueue.every(seconds=10))
    scheduling = started(store)
    scheduling.step(START + 10 * SECOND)
    Schedule.objects.update(next_at=START + 9.5 * SECOND)  # as if nobody had moved it on

    steps(scheduling, START + 11 * SECOND, START + 20 * SECOND)

    assert slots() == [10.0, 20.0]
    assert "made no job" in caplog.text


def test_a_schedule_that_fails_keeps_no_other_back(
    store: Store, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    declare(dbqueue.every(seconds=10))
    scheduling = started(store)
    first = {"next_at": START - 0.5 * SECOND}
    bad_call = by_admin(store, name="bad call", kwargs={"nothing": "so"}, **first)
    bad_queue = by_admin(store, name="bad queue", queue_name="a,b", **first)
    unreadable = by_admin(store, name="unreadable", every=None, cron="soon", **first)

    steps(scheduling, START + 10 * SECOND, START + 11 * SECOND)

    assert slots() == [10.0]
    for schedule, words in (
        (bad_call, "InvalidArguments: tick"),
        (bad_queue, "InvalidTask: queue_name is 'a,b'"),
        (unreadable, "ValueError: cron is 'SOON'"),
    ):
        schedule.refresh_from_db()
        assert schedule.problem.startswith(words)
        assert caplog.text.count(f"Schedule {schedule} made no job") == 1
    bad_call.refresh_from_db()
    assert bad_call.next_at == START + 19.5 * SECOND
    assert unreadable.next_at is None

    Schedule.objects.filter(pk=bad_call.pk).update(kwargs={})
    scheduling.step(START + 20 * SECOND)
    bad_call.refresh_from_db()
    assert (bad_call.problem, bad_call.last_slot) == ("", START + 19.5 * SECOND)


def test_a_row_of_the_admin_whose_task_is_unknown_here_is_left_to_others(store: Store, declare: Declare) -> None:
    by_admin(store)
    without, scheduling = started(store), started(store)
    without.step(START + 10 * SECOND)
    assert Job.objects.count() == 0

    declare()
    scheduling.step(START + 11 * SECOND)

    assert slots() == [10.0]


def test_the_pause_ends_with_the_next_slot(store: Store, declare: Declare) -> None:
    scheduling = started(store)
    assert scheduling.pause > 50
    declare(dbqueue.every(seconds=10))
    scheduling = started(store)
    assert 0 < scheduling.pause <= 9.5
    scheduling.step(START + 10 * SECOND)
    assert 0 < scheduling.pause <= 9.5


# Slots at a bad moment


@pytest.mark.parametrize(
    ("misfire", "made_up_for"), [("skip", []), ("once", [270.0]), ("all", [10.0 * number for number in range(1, 28)])]
)
def test_slots_at_which_no_worker_was_there(
    store: Store, declare: Declare, misfire: Any, made_up_for: Sequence[float]
) -> None:
    """Five minutes of every ten seconds. Those of the last half minute are only late, and all have a job."""
    declare(dbqueue.every(seconds=10, misfire=misfire))
    started(store)

    Scheduling(store).step(START + 5 * MINUTE)

    assert slots() == [*made_up_for, 280.0, 290.0, 300.0]
    assert row().next_at == START + 309.5 * SECOND


def test_a_hundred_are_made_up_for_at_most(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=1, misfire="all"))
    started(store)

    Scheduling(store).step(START + 10 * MINUTE)

    late = int(GRACE.total_seconds())
    assert slots() == [float(number) for number in range(601 - late - MOST_MISFIRES, 601)]


def test_a_slot_is_skipped_while_a_job_of_the_schedule_has_not_ended(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10, overlap="skip"))
    scheduling = started(store)
    steps(scheduling, START + 10 * SECOND, START + 20 * SECOND)
    assert slots() == [10.0]

    worker_id = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [claim] = store.claim(worker_id, 1)
    scheduling.step(START + 30 * SECOND)
    assert slots() == [10.0]
    assert row().skipped == 2

    store.finish([Outcome.succeeded(claim, "null")])
    scheduling.step(START + 60 * SECOND)  # three slots at once: the first has a job, and the others see it
    assert slots() == [10.0, 40.0]
    assert (row().skipped, row().problem) == (4, "")


def test_a_unique_task_that_waits_already_gets_no_second_job(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10), unique=True)
    scheduling = started(store)
    steps(scheduling, START + 10 * SECOND, START + 20 * SECOND)
    assert (slots(), row().skipped, row().problem) == ([10.0], 1, "")
    assert run_now(store, row()) == (Job.objects.get().pk, False)


def test_jobs_may_overlap_otherwise(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10))
    steps(started(store), START + 10 * SECOND, START + 20 * SECOND)
    assert slots() == [10.0, 20.0]
    assert row().skipped == 0


def test_one_that_is_off_makes_no_jobs_and_makes_up_for_none(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10, enabled=False))
    scheduling = started(store)
    scheduling.step(START + MINUTE)
    assert row().next_at is None

    change(store, row().pk, {"enabled": True}, START + MINUTE)
    steps(scheduling, START + MINUTE, START + 70 * SECOND)
    assert slots() == [70.0]

    change(store, row().pk, {"enabled": False}, START + 70 * SECOND)
    scheduling.step(START + 80 * SECOND)
    assert slots() == [70.0]


def test_the_database_clock_is_asked_where_none_is_given(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=1, misfire="all"))
    scheduling = Scheduling(store)
    began = store.clock()
    scheduling.step()
    assert began < row().next_at <= store.clock() + SECOND  # type: ignore[operator]


# Run now


def test_run_now_makes_a_job_and_does_not_move_the_schedule(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10, args=["now"], overlap="skip"))
    scheduling = started(store)
    before = row().next_at

    job_id, is_new = run_now(store, row())

    job = Job.objects.get(pk=job_id)
    assert is_new
    assert (job.args, job.schedule_id, job.slot) == (["now"], row().pk, None)
    assert row().next_at == before
    scheduling.step(START + 10 * SECOND)
    assert (slots(), row().skipped) == ([], 1)  # the operator's job is one of the schedule


# The code


def test_a_row_follows_its_code(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10))
    started(store)
    pk = row().pk

    declare(dbqueue.cron("0 13 * * *", timezone="UTC", args=["b"], misfire="all", overlap="skip"))
    started(store, START + 5 * SECOND)

    schedule = row()
    assert (schedule.pk, schedule.source, schedule.every) == (pk, Source.CODE, None)
    assert (schedule.cron, schedule.timezone) == ("0 13 * * *", "UTC")
    assert (schedule.args, schedule.misfire, schedule.overlap) == (["b"], "all", "skip")
    assert schedule.next_at == START.replace(hour=13, microsecond=0)


def test_a_slot_that_was_missed_outlives_a_deploy(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(hours=1))
    started(store)
    declare(dbqueue.every(hours=1, args=["new"]))
    started(store, START + 61 * MINUTE)
    assert slots() == [3600.0]
    assert Job.objects.get().args == ["new"]


def test_the_settings_zone_is_followed_too(store: Store, declare: Declare, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    declare(dbqueue.cron("0 5 * * *"))
    started(store)
    assert row().timezone == "Asia/Tokyo"
    settings.TIME_ZONE = "Europe/Berlin"
    started(store)
    assert row().next_at == START.replace(day=2, hour=3, minute=0, microsecond=0)


def test_while_two_versions_live_the_newer_holds_and_fires(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10, args=["old"]))
    old = started(store)
    declare(dbqueue.every(seconds=10, args=["new"]))
    new = started(store, START + SECOND)
    declare(dbqueue.every(seconds=10, args=["old"]))

    # The old worker lives on: it compares again and again, neither writes nor fires, and loses no slot of the new.
    for minute in range(1, 8):
        new._followed_at = START + minute * MINUTE  # the registry of this process is the old worker's now
        store.touch_schedule(row().pk, START + minute * MINUTE)
        old.step(START + minute * MINUTE)
    assert row().args == ["new"]
    assert slots() == []
    new.step(START + 7 * MINUTE)
    assert set(Job.objects.values_list("args__0", flat=True)) == {"new"}

    # The new ones were taken back: nobody agrees with the row any more.
    end = START + 7 * MINUTE
    while end <= START + 7 * MINUTE + STALE + FOLLOW_EVERY:
        end += MINUTE
        old.step(end)
    assert row().args == ["old"]


def test_a_schedule_that_no_code_has_is_deleted_by_who_was_there_long_enough(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(hours=1))
    by_admin(store, next_at=START + 60 * MINUTE)
    started(store)
    undeclare()
    # Nobody was there for an hour: who comes first may not be the one that has it.
    late = START + 60 * MINUTE
    scheduling = started(store, late)
    moments = [late + number * MINUTE for number in range(1, 5)]
    steps(scheduling, *moments)
    assert Schedule.objects.filter(source=Source.CODE).exists()

    scheduling.step(late + FORGET_AFTER)

    assert [schedule.name for schedule in Schedule.objects.all()] == ["mine"]


def test_one_worker_that_has_it_keeps_it(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(hours=1))
    having = started(store)
    undeclare()
    lacking = started(store)
    for minute in range(1, 20):
        lacking.step(START + minute * MINUTE)
        declare(dbqueue.every(hours=1))
        having.step(START + minute * MINUTE)
        undeclare()
    assert row()


def test_a_worker_that_was_away_begins_to_wait_anew(store: Store, declare: Declare) -> None:
    """As on a host that slept: all rows look old, and the others have not yet said what they have."""
    declare(dbqueue.every(hours=1))
    started(store)
    undeclare()
    scheduling = started(store)
    scheduling.step(START + 60 * MINUTE)
    assert row()


def test_several_schedules_of_one_task(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(hours=1), dbqueue.every(hours=2), dbqueue.every(hours=3, name="rare"))
    started(store)
    assert sorted(Schedule.objects.values_list("name", "every")) == [
        ("tick", 3600),
        ("tick:2", 7200),
        ("tick:rare", 10800),
    ]


# Overrides


def test_what_an_admin_changed_the_code_does_not(store: Store, declare: Declare) -> None:
    declare(dbqueue.cron("0 13 * * *", timezone="UTC", args=["a"]))
    started(store)
    change(store, row().pk, {"cron": "0 14 * * *", "priority": 5, "overlap": "allow"}, START)
    assert row().overrides == ["cron", "every", "priority", "timezone"]
    assert row().next_at == START.replace(hour=14, microsecond=0)

    declare(dbqueue.every(hours=5, args=["b"]))
    scheduling = started(store)
    assert (row().cron, row().every, row().args) == ("0 14 * * *", None, ["b"])
    scheduling.step(START + 120 * MINUTE)
    assert slots() == [7200.0]
    assert Job.objects.get().priority == 5

    give_back(store, row().pk, START + 121 * MINUTE)
    assert (row().cron, row().every, row().priority, row().overrides) == ("", 5 * 3600, None, [])
    assert row().next_at == START.replace(hour=15, microsecond=0)


def test_what_is_given_back_where_the_code_is_not_known_a_worker_takes(store: Store, declare: Declare) -> None:
    declare(dbqueue.every(seconds=10))
    scheduling = started(store)
    change(store, row().pk, {"every": 20}, START)
    undeclare()
    give_back(store, row().pk, START)
    assert row().every == 20

    declare(dbqueue.every(seconds=10))
    scheduling.step(START + FOLLOW_EVERY)
    assert row().every == 10


def test_a_change_of_an_admins_own_row_is_no_override(store: Store, declare: Declare) -> None:
    declare()
    schedule = by_admin(store)
    change(store, schedule.pk, {"every": 20}, START)
    schedule.refresh_from_db()
    assert (schedule.every, schedule.overrides, schedule.next_at) == (20, [], START + 19.5 * SECOND)


def test_operations_on_a_row_that_has_gone_do_nothing(store: Store) -> None:
    assert change(store, 1, {"every": 5}) is None
    give_back(store, 1)
    follow_code(store, 1, {}, START)
    assert due_slots(Schedule(every=5), START) == []


# A real worker


def test_a_worker_makes_and_runs_the_jobs_of_a_row(store: Store) -> None:
    schedule = Schedule.objects.create(
        name="mine", task="tests.shop.tasks.add", every=1, args=[1, 2], next_at=store.clock()
    )
    with worker():
        eventually(lambda: Job.objects.filter(schedule_id=schedule.pk, status=JobStatus.SUCCESSFUL).count() >= 3)
    found = list(Job.objects.filter(schedule_id=schedule.pk).order_by("slot").values_list("slot", flat=True))
    assert len(found) == len(set(found))
