"""Tasks of ``django.tasks``, and receivers of its signals that tell in a table what they were told."""

import inspect
import sys
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.dispatch import receiver

from dbqueue.tasks_api import TaskContext, TaskResult, task, task_finished, task_started

from .models import Mark


@task
def multiply(x: int, y: int) -> int:
    return x * y


TAKES_OPTIONS = "kwargs" in inspect.signature(task).parameters
"""Whether Django's @task takes the keywords of the backend: from 6.1 on, and by the package django-tasks."""

with_dbqueue: Any = task if TAKES_OPTIONS else lambda **options: task
"""@task with options of dbqueue, where it takes them."""


@with_dbqueue(max_attempts=3, backoff=0, retry_on=ValueError, concurrency=2, timeout=60, queue_name="default")  # type: ignore[untyped-decorator]
def fail_three_times(message: str) -> None:
    raise ValueError(message)


@with_dbqueue(max_attempts=2, backoff=lambda failures, error: 4000)  # type: ignore[untyped-decorator]
def fail_with_function(message: str) -> None:
    raise ValueError(message)


@with_dbqueue(unique=True)  # type: ignore[untyped-decorator]
def unique(x: int) -> int:
    return x


@task(priority=7, queue_name="urgent")
def with_options() -> None: ...


@task(backend="mail")
def letter(to: str) -> str:
    return f"Dear {to}"


@task(backend="immediate")
def declared_elsewhere(x: int) -> int:
    return x + 1


@task
async def multiply_later(x: int, y: int) -> int:
    await Mark.objects.acreate(label="async")
    return x * y


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def fail_with_bad_text(hexadecimal: str) -> None:
    raise ValueError(bytes.fromhex(hexadecimal).decode("utf-8", "surrogatepass"))


@task
def give_back(kind: str) -> Any:
    match kind:
        case "NUL":
            return "a\x00b"
        case "surrogate":
            return "a\ud800b"
        case "NaN":
            return float("nan")
        case "object":
            return object()
    return kind


@task(takes_context=True)
def tell_context(context: "TaskContext[Any, Any]", *, fail_first: bool = False) -> list[Any]:
    assert isinstance(context, TaskContext)
    result = context.task_result
    if fail_first and context.attempt == 1:
        raise RuntimeError("the first attempt")
    return [context.attempt, result.id, result.status, len(result.errors), result.worker_ids, result.backend]


@task
def a_name_that_is_longer_than_thirty_two_characters_by_far() -> str:
    return "long"


@task
def leave_a_transaction_open(kind: str) -> str:
    transaction.atomic().__enter__()
    Mark.objects.create(label="never committed")
    if kind == "broken":
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT no_such_column")
        except DatabaseError:
            transaction.set_rollback(True)
    return kind


@task
def write_and_leak() -> None:
    Mark.objects.create(label="before")
    transaction.atomic().__enter__()
    Mark.objects.create(label="never committed")


@task
def break_a_constraint() -> None:
    first = Mark.objects.create(label="its own")
    Mark.objects.create(pk=first.pk, label="the same key")


@task
def with_bad_receivers(kind: str) -> str:
    return kind


@receiver([task_started, task_finished])
def tell(sender: type, task_result: "TaskResult[..., Any]", signal: object, **kwargs: Any) -> None:
    """One mark for each signal of the tasks that are declared here."""
    if task_result.task.module_path.startswith(__name__) and task_result.task.name not in QUIET:
        name = "started" if signal is task_started else "finished"
        raised = sys.exc_info()[0]
        Mark.objects.create(
            label=f"{task_result.id} {name} {sender.__name__} {task_result.backend} {task_result.status} "
            f"{task_result.attempts} {len(task_result.errors)} {raised.__name__ if raised else '-'}"
        )


@receiver([task_started, task_finished])
def break_things(task_result: "TaskResult[..., Any]", **kwargs: Any) -> None:
    if task_result.task.name == "with_bad_receivers":
        if task_result.args == ["exit"]:
            sys.exit(1)
        raise RuntimeError("a receiver's own error")


QUIET = {"leave_a_transaction_open", "write_and_leak", "break_a_constraint"}
"""Tasks after which a receiver on the same connection can't write."""
