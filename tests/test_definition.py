"""Declaring tasks and enqueueing them from Python: what goes in, and what is refused."""

import datetime
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings as SettingsWrapper

import dbqueue
from dbqueue import Task, registry, task
from dbqueue.binding import misfits
from dbqueue.exceptions import (
    DBQueueError,
    InvalidArguments,
    InvalidSettings,
    InvalidTask,
    JobDoesNotExist,
    NotStorable,
    UnknownTask,
)
from dbqueue.models import Job, JobStatus
from dbqueue.testing import context

from .shop import tasks
from .shop.django_tasks import multiply

pytestmark = pytest.mark.django_db


@task
def optional(required: int, *more: int, flag: bool = False, **rest: str) -> None: ...


def plain(x: int) -> int:
    return x


def attributed(x: int) -> int:
    return x


attributed.priority = 99  # type: ignore[attr-defined]
attributed.name = "other"  # type: ignore[attr-defined]


# What goes in


def test_enqueue_by_task_by_delay_by_name_and_from_async_code() -> None:
    results = [
        tasks.add.enqueue(1, 2),
        tasks.add.delay(1, 2),
        dbqueue.enqueue(tasks.add, 1, 2),
        dbqueue.enqueue("tests.shop.tasks.add", 1, 2),
        async_to_sync(tasks.add.aenqueue)(1, 2),
        async_to_sync(dbqueue.aenqueue)(tasks.add, 1, 2),
    ]
    assert [(result.task_name, result.args, result.status) for result in results] == [
        ("tests.shop.tasks.add", [1, 2], JobStatus.READY)
    ] * 6
    assert Job.objects.count() == 6


def test_the_result_of_enqueue_is_what_a_later_look_finds() -> None:
    due = timezone.now() + datetime.timedelta(hours=1)
    for result in (
        tasks.add.enqueue(1, y=2),
        tasks.add.using(queue_name="mail", priority=5, run_after=due).enqueue(1, 2),
        tasks.add.using(run_after=datetime.timedelta(minutes=5)).enqueue(1, 2),
        tasks.give_back.enqueue((1, (2,), b"text")),
        *dbqueue.enqueue_many([tasks.add.s(1, 2), tasks.add.s(3, y=4)]),
    ):
        assert dbqueue.get_result(result.id) == result
        assert tasks.add.get_result(result.id) == result if result.task_name.endswith("add") else True


def test_options_of_using_and_of_the_decorator() -> None:
    named = tasks.named.enqueue()
    assert (named.task_name, named.queue_name, named.priority) == ("short.name", "mail", 7)
    other = tasks.named.using(queue_name="q", priority=-100).enqueue()
    assert (other.queue_name, other.priority) == ("q", -100)
    assert (tasks.named.queue_name, tasks.named.priority) == ("mail", 7)


def test_a_wait_is_counted_from_the_call_by_the_databases_clock() -> None:
    result = tasks.add.using(run_after=datetime.timedelta(minutes=5)).enqueue(1, 2)
    assert result.run_after is not None
    assert result.status == JobStatus.SCHEDULED
    assert abs(result.run_after - result.enqueued_at - datetime.timedelta(minutes=5)) < datetime.timedelta(seconds=5)


def test_a_plain_call_runs_inline() -> None:
    assert tasks.add(1, 2) == 3
    assert Job.objects.count() == 0
    assert tasks.add.func.__name__ == "add"
    assert tasks.add.__doc__ == "Add two numbers."


def test_a_plain_call_of_a_task_that_takes_a_context_is_told_what_to_pass() -> None:
    reported: Any = tasks.tell_context
    rest: Any = tasks.tell_rest
    for args in ((5,), ("x", 5), ([5],), ()):
        with pytest.raises(InvalidArguments, match=r"takes a context: call it .* with dbqueue\.testing\.context\(\)"):
            reported(*args)
    assert rest(context(), x=1) == {"x": 1}
    given = context(attempt=3, headers={"tenant": 7})
    assert (given.attempt, given.headers, given.deadline, given.cancelled) == (3, {"tenant": 7}, None, False)
    given.progress(1, 2)
    given.log("nothing is kept of %s", "this")
    with pytest.raises(ValueError, match="done is -1"):
        given.progress(-1)
    with pytest.raises(JobDoesNotExist):
        _ = given.task_result


def test_tasks_that_are_put_together_without_being_called() -> None:
    add: Any = tasks.add
    makes: list[Callable[[], Any]] = [lambda: add | add, lambda: add | add.s(1), lambda: add.s(1, 2) | add]
    for make in makes:
        with pytest.raises(InvalidTask, match=r"holds <Task tests\.shop\.tasks\.add>; .*make one with task\.s\(…\)"):
            make()


def test_without_the_app_it_says_so() -> None:
    ready = "import django; from django.conf import settings; settings.configure(); django.setup()"
    code = f"{ready}; from dbqueue import task"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith(
        "ImproperlyConfigured: 'dbqueue' is not in INSTALLED_APPS: add it there, and run migrate."
    )


def test_many_are_all_or_none() -> None:
    def signatures() -> Any:
        for number in range(1500):
            yield tasks.add.s(number, 0)
        yield tasks.add.s(1, 2, 3)

    with pytest.raises(InvalidArguments):
        dbqueue.enqueue_many(signatures())
    assert Job.objects.count() == 0
    assert dbqueue.enqueue_many([]) == []


def test_many_keep_their_order_and_options() -> None:
    results = dbqueue.enqueue_many(tasks.add.s(number, 0).set(priority=number % 3) for number in range(2500))
    assert [result.args for result in results] == [[number, 0] for number in range(2500)]
    assert [result.priority for result in results[:3]] == [0, 1, 2]
    assert Job.objects.filter(priority=2).count() == 833


@pytest.mark.django_db(transaction=True)
def test_a_job_belongs_to_the_callers_transaction() -> None:
    class Rolled(Exception):
        pass

    with pytest.raises(Rolled), transaction.atomic():
        tasks.add.enqueue(1, 2)
        dbqueue.enqueue_many([tasks.add.s(1, 2)])
        assert Job.objects.count() == 2
        raise Rolled
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_one_enqueue_is_one_statement(django_assert_num_queries: Callable[[int], Any]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("counted where it matters: each statement there is a round trip")
    tasks.add.enqueue(0, 0)
    with django_assert_num_queries(1):
        tasks.add.enqueue(1, 2)


# What is refused


def refused(kind: type[Exception], part: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, DBQueueError)
    assert part in str(caught.value)
    assert Job.objects.count() == 0


@pytest.mark.parametrize(
    ("args", "kwargs", "part"),
    [
        ((), {}, "int can't be called with these arguments: 'x' and 'y' are missing."),
        ((1,), {}, "arguments: 'y' is missing."),
        ((1,), {"z": "value"}, "arguments: there is no argument 'z'; 'y' is missing."),
        ((1, 2, 3), {}, "arguments: it takes 2 arguments by position, and has 3."),
        ((1, 2), {"z": 3}, "arguments: there is no argument 'z'."),
        ((1, 2), {"z": 3, "a": 4}, "arguments: there is no argument 'z' or 'a'."),
        ((1, 2), {"x": 3}, "arguments: 'x' is given by position and by name."),
    ],
)
def test_arguments_that_do_not_bind(args: tuple[Any, ...], kwargs: dict[str, Any], part: str) -> None:
    refused(InvalidArguments, part, lambda: dbqueue.enqueue("tests.shop.tasks.add", *args, **kwargs))
    refused(InvalidArguments, "tests.shop.tasks.add(x: int, y: int)", lambda: tasks.add.enqueue(*args, **kwargs))


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "part"),
    [
        (lambda a, /, b, *, c: None, (), {"a": 1}, "'a' can be given by position only; 'a', 'b' and 'c' are missing."),
        (lambda a, b, /, **rest: None, (1,), {"c": 1}, "'b' is missing."),
        (lambda *rest, c: None, (1, 2), {"d": 3}, "there is no argument 'd'; 'c' is missing."),
        (lambda: None, (1,), {}, "it takes no arguments by position, and has 1."),
        (lambda a: None, (1, 2), {"a": 3}, "by position, and has 2; 'a' is given by position and by name."),
    ],
)
def test_all_that_does_not_bind_is_told(function: Any, args: Any, kwargs: Any, part: str) -> None:
    signature = inspect.signature(function)
    with pytest.raises(TypeError):
        signature.bind(*args, **kwargs)
    assert f"{misfits(signature, args, kwargs)}.".endswith(part)


def test_the_context_can_not_be_enqueued() -> None:
    refused(InvalidArguments, "the context is given by the worker", lambda: tasks.tell_rest.enqueue(context=1))


def test_arguments_that_bind_in_other_ways() -> None:
    optional.enqueue(1)
    optional.enqueue(1, 2, 3, flag=True, other="x")
    tasks.tell_context.enqueue()
    assert Job.objects.count() == 3


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (float("nan"), "args[0] is nan"),
        (float("inf"), "args[0] is inf"),
        ({"a": [float("-inf")]}, "args[0]['a'][0] is -inf"),
        ("a\x00b", "args[0] holds a NUL"),
        ({"a\x00": 1}, "a key of args[0] holds a NUL"),
        ("a\ud800", "args[0] holds a lone surrogate"),
        ({1: 2}, "a key of args[0] is 1"),
        ({"a": {None: 1}}, "a key of args[0]['a'] is None"),
        (object, "Unsupported type: args[0] is <class 'type'>"),
        ({1, 2}, "Unsupported type: args[0] is <class 'set'>"),
        (datetime.date(2026, 1, 1), "args[0] is <class 'datetime.date'>"),
        (b"\xff", "args[0] is bytes that are not UTF-8"),
        pytest.param(10**5000, "args can't be stored as JSON", id="5001 digits"),
    ],
)
def test_values_that_json_can_not_hold(value: Any, part: str) -> None:
    refused(NotStorable, part, lambda: tasks.give_back.enqueue(value))
    refused(NotStorable, part, lambda: dbqueue.enqueue_many([tasks.add.s(1, 2), tasks.give_back.s(value)]))


def test_a_value_that_holds_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    refused(NotStorable, "is nested deeper than 100 levels, or holds itself", lambda: tasks.give_back.enqueue(loop))


@pytest.mark.parametrize("depth", [100, 500, 990, 1090, 100_000])
def test_values_that_are_nested_too_deeply(depth: int) -> None:
    value: Any = None
    for _ in range(depth):
        value = [value] if depth % 20 else {"a": value}
    refused(NotStorable, "is nested deeper than 100 levels", lambda: tasks.give_back.enqueue(value))


def test_a_value_as_deep_as_is_allowed() -> None:
    value: Any = None
    for _ in range(99):
        value = [value]
    assert dbqueue.get_result(tasks.give_back.enqueue(value).id).args == [value]


def test_a_functions_own_attributes_do_not_change_the_task() -> None:
    declared: Task[[int], int] = Task(attributed)
    assert (declared.priority, declared.name) == (0, "tests.test_definition.attributed")


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True, "ü🎈", "\\u0000"]}, [], {}, "", 0, -(2**63), 1e-300, "\u2028", "\x7f\x01"]
)
def test_values_that_come_back_as_they_were(value: Any) -> None:
    assert dbqueue.get_result(tasks.give_back.enqueue(value).id).args == [value]


@pytest.mark.parametrize("priority", [-101, 101, 1.0, "1", True])
def test_priorities_that_are_not_allowed(priority: Any) -> None:
    part = f"priority is {priority!r}; it must be a whole number from -100 to 100"
    refused(InvalidTask, part, lambda: tasks.add.using(priority=priority))
    refused(InvalidTask, part, lambda: task(priority=priority)(plain))


@pytest.mark.parametrize("queue", ["", "a,b", "x" * 101, "a\x00", "a\nb", 5])
def test_queue_names_that_are_not_allowed(queue: Any) -> None:
    refused(InvalidTask, f"queue_name is {queue!r}", lambda: tasks.add.using(queue_name=queue))


def test_a_queue_outside_the_restriction(settings: SettingsWrapper) -> None:
    settings.DBQUEUE = {"QUEUES": ["default", "mail"]}
    tasks.add.using(queue_name="mail").enqueue(1, 2)
    Job.objects.all().delete()
    refused(
        InvalidTask,
        "The queue 'slow' is not among DBQUEUE['QUEUES']: 'default', 'mail'",
        lambda: tasks.add.using(queue_name="slow").enqueue(1, 2),
    )


def test_times_that_are_not_allowed(settings: SettingsWrapper) -> None:
    naive = datetime.datetime(2026, 1, 1)
    refused(InvalidTask, f"run_after is {naive!r}", lambda: tasks.add.using(run_after=naive))
    refused(InvalidTask, "run_after is 'soon'", lambda: tasks.add.using(run_after="soon"))  # type: ignore[arg-type]
    settings.USE_TZ = False
    aware = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    refused(InvalidTask, "it must be a naive datetime", lambda: tasks.add.using(run_after=aware))


@pytest.mark.parametrize(
    "due",
    [
        datetime.datetime(9999, 12, 31, 23, 59, tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
        datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        datetime.timedelta.max,
        datetime.timedelta.min,
        datetime.timedelta(days=3_000_000),
    ],
)
def test_times_that_no_database_gives_back(due: Any) -> None:
    refused(InvalidTask, "in the years 1970 to 9000", lambda: tasks.add.using(run_after=due).enqueue(1, 2))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "enqueue",
    [
        lambda: tasks.add.enqueue(1, 2),
        lambda: tasks.add.s(1, 2).enqueue(),
        lambda: (tasks.add.s(1, 2) | tasks.add.s(3)).delay(),
        lambda: dbqueue.enqueue_many([tasks.add.s(1, 2)]),
        lambda: tasks.add.using(unique=True, run_after=datetime.timedelta(hours=1)).enqueue(1, 2),
        lambda: tasks.add.using(durable=True).enqueue(1, 2),
        lambda: multiply.enqueue(1, 2),
    ],
)
def test_async_code_is_told_its_own_way(enqueue: Callable[[], Any], settings: SettingsWrapper) -> None:
    async def enqueue_there() -> None:
        with pytest.raises(
            SynchronousOnlyOperation, match=r"async code, .*: await aenqueue\(\) instead of enqueue\(\)"
        ):
            enqueue()

    async_to_sync(enqueue_there)()
    settings.DBQUEUE = {**getattr(settings, "DBQUEUE", {}), "IMMEDIATE": True}
    async_to_sync(enqueue_there)()
    assert Job.objects.count() == 0


def test_what_is_not_a_task() -> None:
    refused(UnknownTask, "'tests.shop.tasks.ad'", lambda: dbqueue.enqueue("tests.shop.tasks.ad", 1))
    refused(UnknownTask, "'os.system'", lambda: dbqueue.enqueue("os.system", "true"))
    refused(InvalidTask, "is not a task", lambda: dbqueue.enqueue(plain, 1))  # type: ignore[call-overload]
    call = tasks.add.s(1, 2)
    refused(InvalidTask, "add is a signature: it is enqueued by", lambda: dbqueue.enqueue(call))  # type: ignore[call-overload]
    refused(InvalidTask, "add | add is a chain: it is", lambda: dbqueue.enqueue(call | call))  # type: ignore[call-overload]
    refused(InvalidTask, "is not a signature", lambda: dbqueue.enqueue_many([plain]))  # type: ignore[list-item]
    refused(
        InvalidTask,
        "tests.shop.django_tasks.multiply is a task of django.tasks: call its own enqueue(), or give its name",
        lambda: dbqueue.enqueue(multiply, 1, 2),  # type: ignore[call-overload]
    )
    refused(UnknownTask, "'tests.test_definition.plain'", lambda: Task[[int], int](plain).enqueue(1))


def test_a_job_is_no_signature() -> None:
    job: Any = tasks.add.enqueue(1, 2)
    said = rf"Job {job.id} is not a signature: write add\.s\(…\), not add\.enqueue\(…\), which has enqueued it"
    with pytest.raises(InvalidTask, match=said):
        dbqueue.enqueue_many([job])


class SomeClass:
    def method(self) -> None: ...


def test_functions_that_can_not_be_tasks() -> None:
    def local() -> None: ...

    for function in (local, lambda: None, plain.__get__(object()), SomeClass.method, SomeClass().method):
        refused(InvalidTask, "", lambda function=function: task(function))  # type: ignore[misc]
    refused(InvalidTask, "must be named 'context'", lambda: task(takes_context=True)(plain))  # type: ignore[arg-type]
    refused(InvalidTask, "A task's name is ''", lambda: task(name="")(plain))
    refused(InvalidTask, "1 to 255 characters", lambda: task(name="x" * 256)(plain))
    refused(InvalidTask, "Two tasks are named 'short.name'", lambda: task(name="short.name")(plain))


def test_a_module_that_is_loaded_anew_declares_its_tasks_again() -> None:
    registry.register(Task(sys.modules["tests.shop.tasks"].add.func))
    assert registry.find("tests.shop.tasks.add").func is tasks.add.func
    registry.register(tasks.add)


def test_bad_settings_stop_an_enqueue(settings: SettingsWrapper) -> None:
    settings.DBQUEUE = {"QUEUS": []}
    refused(InvalidSettings, "unknown key 'QUEUS'; did you mean 'QUEUES'?", lambda: tasks.add.enqueue(1, 2))


def test_another_tasks_result() -> None:
    result = tasks.add.enqueue(1, 2)
    with pytest.raises(JobDoesNotExist, match=r"one of 'tests.shop.tasks.add'"):
        tasks.mark.get_result(result.id)


def test_the_context_is_for_workers_to_give() -> None:
    assert list(tasks.tell_context.signature.parameters) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retry_on": 5}, "retry_on is 5; it must be a class of exceptions, or several"),
        ({"give_up_on": "OSError"}, "give_up_on is 'OSError'; it must be a class"),
        ({"unique": 5}, "unique is 5; it must be True, False or a Unique"),
        ({"rate": 5}, "rate is 5; it must be text as '100/m' or a Rate"),
        ({"concurrency": "5"}, "a whole number or a Concurrency"),
        ({"serial": ""}, "The key of serial is ''"),
        ({"expires": datetime.timedelta(0)}, "expires is datetime.timedelta(0); it must be longer"),
        ({"expires": datetime.timedelta(-1)}, "one whose run_after is past runs at once"),
        (
            {"run_after": datetime.timedelta(hours=2), "expires": datetime.timedelta(hours=1)},
            "it must be later than run_after",
        ),
        ({"max_attempt": 3}, "Did you mean 'max_attempts'?"),
        ({"max_retries": 3}, "Did you mean 'max_attempts'? It counts all runs: 3 retries are max_attempts=4."),
        ({"colour": 3}, "unique, and on @task alone admin_enqueue, name, schedule, sensitive, takes_context."),
        ({"takes_contexts": True}, "@task, and it alone, has 'takes_context'"),
    ],
)
def test_an_option_that_is_none_is_refused_with_what_is_allowed(options: Any, said: str) -> None:
    refused(InvalidTask, said, lambda: tasks.add.using(**options))
    refused(InvalidTask, said, lambda: task(**options)(plain))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dbqueue.Exponential(first=10, max=5), "first is 10 s; it must not be longer than max, 5 s"),
        (lambda: dbqueue.Unique(replace=cast(Any, "x")), "replace is 'x'; it must be True or False"),
        (lambda: task(admin_enqueue=cast(Any, "no"))(plain), "admin_enqueue is 'no'; it must be True or False"),
    ],
)
def test_a_value_that_is_none_is_refused_where_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tests.shop.task.add", " Did you mean 'tests.shop.tasks.add'"),
        ("elsewhere.add", "'tests.shop.tasks.add'"),
        ("tests.shop.tasks.add_latre", " Did you mean 'tests.shop.tasks.add_later'?"),
        ("tests.shop.tasks.nop", ""),
        ("tests.shop.tasks.hello", ""),
        ("", ""),
    ],
)
def test_a_name_is_guessed_where_its_last_part_is_alike(name: str, meant: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        dbqueue.enqueue(name)
    assert meant in str(caught.value)
    assert ("Did you mean" in str(caught.value)) is bool(meant)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (
            "os.getpid",
            "Its module 'os' declared none of that name at the start: if the task is new, restart the worker.",
        ),
        ("tests.shop.nothing.add", "name its module 'tests.shop.nothing' in DBQUEUE['TASK_MODULES'], or import it in"),
        (
            "tests.shopping.add",
            "import its module 'tests.shopping' in the tasks.py of an app: no app in INSTALLED_APPS",
        ),
        ("short", "If not, import its module in the tasks.py of an app."),
    ],
)
def test_a_worker_says_what_may_have_kept_a_task_from_it(name: str, part: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        registry.find_to_run(name)
    assert f"This worker knows no task {name!r}. " in str(caught.value)
    assert part in str(caught.value)


def test_a_tasks_own_name_finds_it() -> None:
    refused(UnknownTask, f"Did you mean {tasks.add.name!r}", lambda: dbqueue.enqueue("add", 1, 2))
