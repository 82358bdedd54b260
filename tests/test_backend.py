"""``django.tasks`` on dbqueue's table: what its contract says, and what breaks other database backends."""

import datetime
import pickle
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.db import transaction
from django.dispatch import receiver
from django.test import override_settings
from django.utils import timezone

import dbqueue
from dbqueue import exceptions, registry
from dbqueue.backend import DatabaseBackend
from dbqueue.database_task import OPTIONS
from dbqueue.django_task import DjangoTask
from dbqueue.models import LARGEST_ID, Attempt, Job, JobStatus
from dbqueue.options import JobOptions
from dbqueue.store import store_for
from dbqueue.tasks_api import (
    InvalidTask,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from dbqueue.testing import run_jobs

from .settings import TASKS
from .shop import django_tasks as shop
from .shop.models import Mark
from .workers import ROOT, burst, environment, worker

in_a_worker = pytest.mark.django_db(transaction=True)
inline = pytest.mark.django_db


def only_in_this_process() -> None: ...


def needs_context(context: object) -> None: ...


multiply: Any = shop.multiply
later_task: Any = shop.multiply_later
"""The same without their types: for calls that are wrong on purpose, and since the stubs have a coroutine returned."""


def told(result: "TaskResult[..., Any]") -> list[str]:
    """What the receivers in the worker wrote of this job."""
    marks = Mark.objects.filter(label__startswith=f"{result.id} ").order_by("id")
    return [label.partition(" ")[2] for label in marks.values_list("label", flat=True)]


# What breaks other backends: in a real worker


@in_a_worker
def test_a_worker_runs_tasks_and_their_results_are_seen() -> None:
    result, later = shop.multiply.enqueue(6, 7), later_task.enqueue(2, 3)
    burst()
    result.refresh()
    later.refresh()
    assert (result.status, result.return_value, result.attempts, result.errors) == ("SUCCESSFUL", 42, 1, [])
    assert later.return_value == 6
    assert result.enqueued_at and result.started_at and result.last_attempted_at and result.finished_at
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert result == shop.multiply.get_result(result.id)


@in_a_worker
@pytest.mark.parametrize(("message", "shown"), [("a\x00b", "a\\x00b"), ("a\ud800b", "a\\ud800b")])
def test_text_that_no_column_holds_is_shown_escaped_in_a_traceback(message: str, shown: str) -> None:
    results = [shop.fail_with_bad_text.enqueue(message.encode("utf-8", "surrogatepass").hex()) for _ in range(3)]
    after = shop.multiply.enqueue(1, 1)
    burst("--threads", "1")
    for result in results:
        result.refresh()
        assert result.status == TaskResultStatus.FAILED
        assert result.errors[0].exception_class is ValueError
        assert result.errors[0].traceback.endswith(f"ValueError: {shown}\n")
    after.refresh()
    assert after.status == TaskResultStatus.SUCCESSFUL


@in_a_worker
@pytest.mark.parametrize(
    ("kind", "error"),
    [("NUL", "NotStorable"), ("surrogate", "NotStorable"), ("NaN", "NotStorable"), ("object", "TypeError")],
)
def test_a_return_value_that_can_t_be_stored_fails_that_job_alone(kind: str, error: str) -> None:
    result, after = shop.give_back.enqueue(kind), shop.multiply.enqueue(1, 1)
    burst("--threads", "1")
    result.refresh()
    after.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert issubclass(result.errors[0].exception_class, TypeError)
    assert result.errors[0].exception_class.__name__ == error
    assert after.status == TaskResultStatus.SUCCESSFUL


@in_a_worker
def test_a_queue_that_is_not_allowed_any_more_does_not_stop_its_jobs() -> None:
    result = shop.multiply.using(queue_name="removed", backend="default").enqueue(2, 2)
    Job.objects.update(backend="mail")  # whose QUEUES don't have it
    burst()
    seen = task_backends["mail"].get_result(result.id)
    assert (seen.status, seen.return_value, seen.task.queue_name) == (TaskResultStatus.SUCCESSFUL, 4, "removed")


@in_a_worker
@pytest.mark.parametrize("kind", ["open", "broken"])
def test_an_outcome_is_written_although_the_task_left_a_transaction_open(kind: str) -> None:
    result, after = shop.leave_a_transaction_open.enqueue(kind), shop.multiply.enqueue(1, 1)
    burst("--threads", "1")
    result.refresh()
    after.refresh()
    assert result.return_value == kind
    assert after.return_value == 1
    assert not Mark.objects.filter(label="never committed").exists()


@in_a_worker
@pytest.mark.parametrize("kind", ["raise", "exit"])
def test_a_receiver_that_raises_changes_no_outcome(kind: str) -> None:
    result, after = shop.with_bad_receivers.enqueue(kind), shop.multiply.enqueue(1, 1)
    output = burst("--threads", "1")
    result.refresh()
    after.refresh()
    assert result.return_value == kind
    assert after.return_value == 1
    assert len(told(result)) == 2  # another receiver was told all the same
    assert ("SystemExit: 1" in output) == (kind == "exit")


@in_a_worker
def test_long_names() -> None:
    result = shop.a_name_that_is_longer_than_thirty_two_characters_by_far.enqueue()
    burst()
    result.refresh()
    assert result.return_value == "long"
    assert shop.a_name_that_is_longer_than_thirty_two_characters_by_far.get_result(result.id) == result


@in_a_worker
def test_a_function_that_the_worker_does_not_have_fails_its_job_alone() -> None:
    gone, after = shop.multiply.enqueue(1, 1), shop.multiply.enqueue(2, 2)
    Job.objects.filter(pk=gone.id).update(task="tests.shop.django_tasks.removed")
    burst()
    seen = task_backends["default"].get_result(gone.id)
    after.refresh()
    assert seen.status == TaskResultStatus.FAILED
    assert seen.errors[0].exception_class is exceptions.UnknownTask
    assert "tests.shop.django_tasks.removed" in seen.errors[0].traceback
    assert after.status == TaskResultStatus.SUCCESSFUL


@in_a_worker
def test_aliases_share_the_workers_and_not_the_results() -> None:
    here, there = shop.multiply.enqueue(2, 2), shop.letter.enqueue("Ada")
    moved = shop.multiply.using(backend="mail").enqueue(3, 3)
    burst()
    for result in (here, there, moved):
        result.refresh()
    assert (here.backend, there.backend, moved.backend) == ("default", "mail", "mail")
    assert (here.return_value, there.return_value, moved.return_value) == (4, "Dear Ada", 9)
    assert told(here)[0].startswith("started DatabaseBackend default ")
    assert told(moved)[0].startswith("started DatabaseBackend mail ")
    for alias, result in (("mail", here), ("default", there), ("default", moved)):
        with pytest.raises(TaskResultDoesNotExist, match=result.id):
            task_backends[alias].get_result(result.id)


@in_a_worker
def test_a_backend_that_the_worker_does_not_have_fails_the_job_or_lets_it_wait() -> None:
    with override_settings(TASKS={**TASKS, "new": TASKS["default"]}):
        result = shop.multiply.using(backend="new").enqueue(2, 2)
        after = shop.multiply.enqueue(2, 2)

        burst(DBQUEUE_UNKNOWN_TASK="wait")
        result.refresh()
        after.refresh()
        assert (result.status, result.attempts) == (TaskResultStatus.READY, 0)
        assert after.status == TaskResultStatus.SUCCESSFUL

        Job.objects.filter(pk=result.id).update(status=JobStatus.READY)
        burst()
        result.refresh()
        assert result.status == TaskResultStatus.FAILED
        assert "The connection 'new' doesn't exist." in result.errors[0].traceback


@in_a_worker
def test_a_task_that_is_declared_on_another_backend_runs_in_a_worker() -> None:
    result = shop.declared_elsewhere.using(backend="default").enqueue(1)
    burst()
    result.refresh()
    assert result.return_value == 2
    assert result.task == shop.declared_elsewhere.using(backend="default")


@in_a_worker
def test_takes_context() -> None:
    first, second = shop.tell_context.enqueue(), shop.tell_context.enqueue(fail_first=True)
    burst()
    second.refresh()
    assert (second.status, second.attempts) == (TaskResultStatus.FAILED, 1)
    store_for("default").retry([int(second.id)])
    second.refresh()
    assert (second.status, second.attempts, second.finished_at) == (TaskResultStatus.READY, 1, None)

    burst()

    for result, attempt in ((first, 1), (second, 2)):
        result.refresh()
        assert result.attempts == attempt
        assert result.return_value == [attempt, result.id, "RUNNING", attempt - 1, result.worker_ids, "default"]
    assert len(set(second.worker_ids)) == 2
    assert second.started_at and second.last_attempted_at and second.started_at < second.last_attempted_at


@in_a_worker
def test_signals_are_sent_on_the_worker() -> None:
    good, bad = shop.multiply.enqueue(1, 2), shop.fail.enqueue("bang")
    burst()
    store_for("default").retry([int(bad.id)])
    burst()
    # name, sender, alias, status, attempts, errors, the exception being handled
    assert told(good) == [
        "started DatabaseBackend default RUNNING 1 0 -",
        "finished DatabaseBackend default SUCCESSFUL 1 0 -",
    ]
    assert told(bad) == [
        "started DatabaseBackend default RUNNING 1 0 -",
        "finished DatabaseBackend default FAILED 1 1 ValueError",
        "started DatabaseBackend default RUNNING 2 1 -",
        "finished DatabaseBackend default FAILED 2 2 ValueError",
    ]


@in_a_worker
def test_enqueue_is_part_of_the_callers_transaction() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        rolled_back = shop.multiply.enqueue(1, 1)
        assert shop.multiply.get_result(rolled_back.id) == rolled_back
        raise ZeroDivisionError
    with pytest.raises(TaskResultDoesNotExist):
        rolled_back.refresh()
    with transaction.atomic():
        committed = shop.multiply.enqueue(2, 2)
    burst()
    committed.refresh()
    assert committed.return_value == 4


@in_a_worker
def test_the_jobs_of_a_killed_worker_are_not_running_for_ever() -> None:
    result = shop.multiply.enqueue(2, 2)
    store = store_for("default")
    dead = store.register(name="dead", hostname="gone", pid=1, queues="", threads=1)
    assert len(store.claim(dead, 1)) == 1
    store.unregister(dead)
    result.refresh()
    assert result.status == TaskResultStatus.RUNNING

    with worker(DBQUEUE_HEARTBEAT_TIMEOUT="1"):
        dbqueue.get_result(result.id).wait(timeout=30)

    result.refresh()
    assert (result.return_value, result.attempts) == (4, 2)
    assert [error.exception_class for error in result.errors] == [exceptions.WorkerLost]


# Results


@inline
def test_the_result_of_enqueue_is_the_one_in_the_table() -> None:
    run_after = timezone.now() + datetime.timedelta(days=1, microseconds=123)
    variant = shop.multiply.using(queue_name="other", priority=-3, run_after=run_after)
    results: tuple[TaskResult[..., Any], ...] = (
        variant.enqueue(1, y=2),
        shop.with_options.enqueue(),
        multiply.using(backend="mail").enqueue(1.5, y="ü"),
        multiply.using(priority=3.0).enqueue(1, (2, [3])),
        shop.declared_elsewhere.using(backend="default", priority=1).enqueue(1),
        # through another alias than the task's own
        task_backends["mail"].enqueue(multiply, (1, 2), {}),  # type: ignore[arg-type]  # Django passes a tuple
    )
    for enqueued in results:
        seen = task_backends[enqueued.backend].get_result(enqueued.id)
        assert seen == enqueued
        assert seen.task.get_backend() is task_backends[enqueued.backend]
        enqueued.refresh()
        assert seen == enqueued
    assert Job.objects.get(task=shop.with_options.module_path).priority == 7
    assert Job.objects.filter(status=JobStatus.SCHEDULED).count() == 1


@inline
@pytest.mark.parametrize(
    "bad_id",
    ["", "x", "-1", "1.0", " 1", "0", str(LARGEST_ID), str(LARGEST_ID + 1), "9" * 5000, "٣", "\x00", None, 1.5, b"1"],
)
def test_an_id_that_is_no_id(bad_id: Any) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        shop.multiply.get_result(bad_id)


@inline
def test_the_result_of_a_task_that_has_gone_is_readable_and_its_function_is_not_to_be_called() -> None:
    enqueued = shop.multiply.enqueue(2, 3)
    run_jobs()
    Job.objects.update(task="shop.elsewhere.renamed")
    backend = task_backends["default"]
    seen = backend.get_result(enqueued.id)
    assert (seen.return_value, seen.task.module_path, seen.task.name) == (6, "shop.elsewhere.renamed", "renamed")
    assert seen == backend.get_result(enqueued.id)
    seen.refresh()
    with pytest.raises(exceptions.UnknownTask, match=r"shop\.elsewhere\.renamed"):
        seen.task.call(2, 3)


@inline
@pytest.mark.parametrize("status", JobStatus)
def test_each_state_is_one_of_the_four(status: JobStatus) -> None:
    result = shop.multiply.enqueue(2, 3)
    Job.objects.update(status=status)
    result.refresh()
    assert result.is_finished == status.is_final
    assert result.status in TaskResultStatus.values


@inline
def test_a_cancelled_job_says_so() -> None:
    result = shop.multiply.enqueue(2, 3)
    store_for("default").cancel([int(result.id)])
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is exceptions.JobCancelled
    assert (result.attempts, result.started_at) == (0, None)
    assert result.finished_at is not None


@in_a_worker
def test_from_async_code() -> None:
    async def use() -> None:
        result = await shop.multiply.aenqueue(2, 3)
        assert await shop.multiply.aget_result(result.id) == result
        await result.arefresh()

    async_to_sync(use)()
    assert Job.objects.count() == 1


# What is refused


@inline
@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        (object(), TypeError, "Unsupported type"),
        (datetime.datetime(2020, 1, 1), TypeError, "Unsupported type"),
        ({1: 2}, TypeError, "Unsupported type: a key"),
        (b"\xff", ValueError, "Unsupported value"),
        (float("nan"), ValueError, "nan"),
        (float("inf"), ValueError, "inf"),
        ("a\x00", ValueError, "NUL"),
        (["\ud800"], ValueError, "lone surrogate"),
    ],
)
def test_an_argument_that_can_t_be_stored(argument: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shop.multiply.enqueue(argument, 1)
    with pytest.raises(error, match=message):
        shop.multiply.enqueue(1, y=argument)
    assert not Job.objects.exists()


@inline
def test_arguments_that_do_not_fit_the_function() -> None:
    for args, kwargs in (((1,), {}), ((1, 2, 3), {}), ((1,), {"z": 2})):
        with pytest.raises(TypeError, match="can't be called with"):
            multiply.enqueue(*args, **kwargs)
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_name": "not among them", "backend": "mail"}, "is not valid for backend"),
        ({"queue_name": "q" * 101}, "queue_name is 'qqq"),
        ({"queue_name": "a,b"}, "queue_name is 'a,b'"),
        ({"priority": 101}, "whole number"),
        ({"priority": 1.5}, "whole number"),
        ({"run_after": datetime.datetime(2020, 1, 1)}, "must be an aware datetime"),
        ({"run_after": datetime.timedelta(1)}, "must be a datetime"),
        ({"run_after": "now"}, "must be a datetime"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        shop.multiply.using(**options)


def test_functions_that_can_t_be_tasks() -> None:
    def local() -> None: ...

    for func in (local, len, lambda: None, print):
        with pytest.raises(InvalidTask):
            task(func)
    with pytest.raises(InvalidTask, match="does not have a first argument of 'context'"):
        task(takes_context=True)(only_in_this_process)  # type: ignore[arg-type]


@pytest.mark.parametrize("run_after", [timezone.now(), timezone.make_naive(timezone.now())])
def test_run_after_without_time_zones_is_naive(run_after: datetime.datetime) -> None:
    with override_settings(USE_TZ=False):
        if timezone.is_naive(run_after):
            shop.multiply.using(run_after=run_after)
        else:
            with pytest.raises(InvalidTask, match="must be a naive datetime"):
                shop.multiply.using(run_after=run_after)


def test_a_name_that_is_too_long_for_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(only_in_this_process, "__qualname__", "f" * 256)
    with pytest.raises(InvalidTask, match="1 to 255 characters"):
        task(only_in_this_process)


@inline
def test_a_queue_removed_from_the_settings_is_refused_at_enqueue() -> None:
    variant = shop.multiply.using(queue_name="removed")
    with override_settings(TASKS={"default": {**TASKS["default"], "QUEUES": ["default"]}}):
        with pytest.raises(InvalidTask, match="'removed' is not valid"):
            variant.enqueue(1, 2)
        with pytest.raises(exceptions.InvalidTask, match=r"TASKS\['default'\]\['QUEUES'\]: 'default'"):
            dbqueue.enqueue(shop.with_options.module_path)
    assert not Job.objects.exists()


@inline
def test_the_queues_of_dbqueue_s_own_tasks_are_another_matter() -> None:
    with override_settings(DBQUEUE={"QUEUES": ["own"]}):
        shop.multiply.enqueue(1, 2)
    assert Job.objects.get().queue_name == "default"


# Which tasks are known


@inline
def test_what_is_registered_is_the_task_as_declared() -> None:
    shop.with_options.using(priority=-50, queue_name="variant", run_after=timezone.now()).enqueue()
    job = dbqueue.enqueue(shop.with_options.module_path)
    assert (job.priority, job.queue_name, job.run_after, job.backend) == (7, "urgent", None, "default")


def test_a_task_that_only_another_backend_has_validated_is_found_and_not_enqueued_by_name() -> None:
    name = shop.declared_elsewhere.module_path
    assert registry.registered_as(name) is None
    shop.declared_elsewhere.using(backend="default", priority=3)
    found = registry.find(name)
    assert isinstance(found, DjangoTask)
    assert (found.func, found.priority, found.backend) == (shop.declared_elsewhere.func, 0, "")
    assert registry.registered_as(name) is None
    with pytest.raises(exceptions.InvalidTask, match=r"using\(backend=…\)"):
        dbqueue.enqueue(name, 1)


@pytest.mark.parametrize(
    "name",
    [
        "tests.shop.django_tasks",
        "tests.shop.django_tasks.Mark",
        "tests.shop.django_tasks.sys.exit",
        "tests.shop.django_tasks.multiply.func",
        "tests.test_backend.shop.declared_elsewhere",
        "tests.test_backend.only_in_this_process",
        "os.system",
        "antigravity.fly",
        "",
        ".",
        "..",
    ],
)
def test_what_is_no_declared_task_is_not_found_and_nothing_is_imported(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(exceptions.UnknownTask):
        registry.find(name)
    assert set(sys.modules) - before == set()


def test_one_function_is_not_a_task_of_both_kinds() -> None:
    from .shop.tasks import add

    with pytest.raises(InvalidTask, match=r"Two tasks are named 'tests\.shop\.tasks\.add'"):
        task(add.func)
    with pytest.raises(exceptions.InvalidTask, match="Two tasks are named"):
        dbqueue.task(shop.multiply.func)
    assert registry.find(add.name) is add


def test_a_task_may_be_declared_before_django_has_loaded_any_model() -> None:
    program = """
        import sys, types
        from django.conf import settings
        settings.configure(
            INSTALLED_APPS=["early", "dbqueue"],
            TASKS={"default": {"BACKEND": "dbqueue.backend.DatabaseBackend"}},
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        )
        early = types.ModuleType("early")
        early.__path__ = ["."]
        sys.modules["early"] = early
        exec("from dbqueue.tasks_api import task\\n@task\\ndef f(): ...", vars(early))
        assert "dbqueue.models" not in sys.modules
        import django
        django.setup()
        from dbqueue import registry
        print(registry.registered_as("early.f"))
    """
    lines = [line[8:] for line in program.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert (done.stdout, done.stderr) == ("<Task early.f>\n", "")


# Signals in this process


@inline
def test_task_enqueued_is_sent_by_every_entrance_with_the_class_as_sender() -> None:
    seen = []

    @receiver(task_enqueued)
    def note(sender: type, task_result: "TaskResult[..., Any]", **kwargs: Any) -> None:
        seen.append((sender, task_result))
        raise RuntimeError("a receiver's own error")

    result = shop.multiply.enqueue(1, 2)
    job = dbqueue.enqueue(shop.multiply.module_path, 1, 2)
    task_enqueued.disconnect(note)
    assert seen == [(DatabaseBackend, result), (DatabaseBackend, task_backends["default"].get_result(job.id))]


@inline
def test_the_results_that_signals_and_contexts_carry_are_those_of_the_table() -> None:
    seen: list[Any] = []

    @receiver([task_started, task_finished])
    def note(task_result: "TaskResult[..., Any]", **kwargs: Any) -> None:
        seen.append((task_result, task_backends["default"].get_result(task_result.id)))

    for enqueue in (lambda: shop.multiply.enqueue(2, 3), lambda: shop.fail.enqueue("bang")):
        seen.clear()
        run_id = enqueue().id
        run_jobs()
        store_for("default").retry([int(run_id)])
        run_jobs()
        final: Any = task_backends["default"].get_result(run_id)
        for told_of_start, in_table in seen[::2]:
            assert told_of_start == in_table
        # The table learns of an end after the receivers.
        assert replace(seen[-1][0], finished_at=None) == replace(final, finished_at=None)
        assert seen[-1][0]._return_value == final._return_value
    task_started.disconnect(note)
    task_finished.disconnect(note)
    assert Attempt.objects.count() == 2


@inline
def test_a_job_does_not_fail_for_a_history_that_can_t_be_read() -> None:
    enqueued = shop.tell_context.enqueue(fail_first=True)
    run_jobs()
    store = store_for("default")
    store.retry([int(enqueued.id)])
    (claim,) = store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=1), 1)
    attempt = registry.find(claim.task).for_claim(claim)
    with transaction.atomic():
        transaction.set_rollback(True)  # Django refuses every query from here on
        attempt.started(claim, "default")
    context = attempt.context(claim, "default")
    assert (context.attempt, context.task_result.errors) == (2, [])
    assert context.task_result.worker_ids == ["", str(claim.worker_id)]


@inline
@pytest.mark.parametrize(
    "change", [{"args": 5}, {"args": "ab"}, {"args": {"a": 1}}, {"kwargs": [1]}, {"kwargs": "ab"}, {"priority": 3000}]
)
def test_a_row_that_somebody_wrote_by_hand_ends_and_is_readable(change: dict[str, Any]) -> None:
    enqueued = shop.multiply.enqueue(1, 1)
    Job.objects.update(**change)
    run_jobs()
    enqueued.refresh()
    assert enqueued.is_finished
    assert task_backends["default"].get_result(enqueued.id).task.module_path == shop.multiply.module_path


# Checks


@inline
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"OPTIONS": {}}, None),
        ({"OPTIONS": {"THREADS": 3}}, "OPTIONS has 'THREADS'"),
        ({"QUEUES": "mail"}, "QUEUES is 'mail'"),
        ({"QUEUES": ["mail", 3]}, "QUEUES is ['mail', 3]"),
    ],
)
def test_a_misconfigured_backend_is_a_check_s_error(change: dict[str, Any], message: str | None) -> None:
    with override_settings(TASKS={"default": {"BACKEND": TASKS["default"]["BACKEND"], **change}}):
        found = [error.msg for error in run_checks() if str(error.id).startswith("dbqueue.E01")]
    assert len(found) == (0 if message is None else 1)
    assert message is None or message in found[0]


def test_without_the_app_there_are_no_tables() -> None:
    from django.conf import settings

    with override_settings(INSTALLED_APPS=[name for name in settings.INSTALLED_APPS if name != "dbqueue"]):
        assert [error.id for error in task_backends["default"].check()] == ["dbqueue.E012"]


# The options of dbqueue on Django's own decorator

takes_options = pytest.mark.skipif(not shop.TAKES_OPTIONS, reason="before Django 6.1 its @task takes no such keywords")


def row(result: "TaskResult[..., Any]") -> Job:
    return Job.objects.get(pk=result.id)


@inline
@takes_options
def test_options_are_carried_into_the_rows() -> None:
    job = row(shop.fail_three_times.enqueue("bang"))
    assert (job.max_attempts, job.concurrency_key) == (3, shop.fail_three_times.module_path)
    options = {"backoff": 0, "retry_on": ["builtins.ValueError"], "timeout": 60, "concurrency": 2}
    assert job.options == options
    changed = row(
        shop.fail_three_times.using(max_attempts=5, timeout=None, concurrency=None, priority=3).enqueue("bang")
    )
    assert (changed.max_attempts, changed.concurrency_key, changed.priority) == (5, None, 3)
    assert changed.options == {"backoff": 0, "retry_on": ["builtins.ValueError"]}
    assert row(shop.fail_three_times.using(priority=None).enqueue("bang")).options == options


@inline
@takes_options
def test_an_enqueued_result_is_the_one_that_is_found() -> None:
    for variant in (shop.fail_three_times, shop.fail_three_times.using(max_attempts=5, expires=timedelta(hours=1))):
        result = variant.enqueue("bang")
        assert result == task_backends["default"].get_result(result.id) == variant.get_result(result.id)
        assert result.task == variant and result.task.max_attempts == variant.max_attempts
        if django.VERSION >= (6, 1):
            assert pickle.loads(pickle.dumps(result)) == result


@takes_options
@pytest.mark.skipif(django.VERSION < (6, 1), reason="before Django 6.1 no task can be pickled")
def test_tasks_with_options_are_pickled_and_compared() -> None:
    variant = shop.fail_three_times.using(priority=3, max_attempts=5)
    again = pickle.loads(pickle.dumps(variant))
    assert again == variant and hash(again) == hash(variant) and type(again) is type(variant)
    assert (again.max_attempts, again.timeout, again.retry_on) == (5, 60, ValueError)
    assert shop.fail_three_times != variant


@in_a_worker
@takes_options
def test_a_retry_in_a_worker() -> None:
    result = shop.fail_three_times.enqueue("bang")
    burst()
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (TaskResultStatus.FAILED, 3, 3)


@inline
@takes_options
def test_a_function_as_backoff_is_the_declared_task_s() -> None:
    result = shop.fail_with_function.enqueue("bang")
    run_jobs()
    job = row(result)
    assert job.status == JobStatus.SCHEDULED and job.run_after and job.run_after > timezone.now() + timedelta(hours=1)
    assert row(shop.fail_with_function.using(max_attempts=3).enqueue("bang")).max_attempts == 3
    with pytest.raises(InvalidTask, match="using\\(\\) takes seconds or an Exponential"):
        shop.fail_with_function.using(backoff=lambda failures, error: 1)


@inline
@takes_options
def test_a_duplicate_is_the_same_result_and_no_signal() -> None:
    told: list[Any] = []

    def receive(task_result: Any, **kwargs: Any) -> None:
        told.append(task_result)

    task_enqueued.connect(receive)
    try:
        first, second = shop.unique.enqueue(1), shop.unique.enqueue(1)
    finally:
        task_enqueued.disconnect(receive)
    assert first == second and told == [first]


@takes_options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; it must be a whole number"),
        ({"timeout": -1}, "timeout is -1; it must be seconds"),
        ({"unique": "yes"}, "unique is 'yes'; it must be True, False or a Unique"),
        ({"retry_on": "ValueError"}, "retry_on is 'ValueError'"),
        ({"serial": "{nothing}"}, "names the argument 'nothing'"),
        ({"durable": 1}, "durable is 1"),
    ],
)
def test_bad_options_are_refused_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        shop.unique.using(**options)
    declare: Any = task
    with pytest.raises(InvalidTask, match=message):
        declare(**options)(only_in_this_process)


@takes_options
def test_unknown_options_are_refused_as_django_refuses_them() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        shop.fail_three_times.using(colour="red")
    declare: Any = task
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        declare(colour="red")(only_in_this_process)


def test_the_options_are_those_of_dbqueue() -> None:
    assert OPTIONS | {"queue_name", "priority", "run_after"} == JobOptions.__annotations__.keys()


@pytest.mark.skipif(shop.TAKES_OPTIONS, reason="from Django 6.1 on its @task takes them")
def test_before_django_6_1_they_are_refused_by_django() -> None:
    declare: Any = task
    with pytest.raises(TypeError, match="max_attempts"):
        declare(max_attempts=3)(only_in_this_process)
