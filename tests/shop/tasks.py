"""Tasks that the tests enqueue."""

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

from django.db import connection, transaction
from django.utils import timezone, translation

from dbqueue import Context, task

from . import (
    admin_tasks,  # noqa: F401  those of the admin's tests are found through this module
    chaos_tasks,  # noqa: F401  those of tests.chaos are found through this module
    django_tasks,  # noqa: F401  those of django.tasks are found through this module
    retry_tasks,  # noqa: F401  those that fail are found through this module
    running_tasks,  # noqa: F401  those that take their time are found through this module
    workflow_tasks,  # noqa: F401  those of workflows are found through this module
)
from .models import Mark
from .signals import connect

connect()


@task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@task
def mark(label: str) -> None:
    """Leave a mark through the ORM."""
    Mark.objects.create(label=label, thread=threading.get_ident())


@task
def mark_slowly(label: str, seconds: float) -> None:
    """Leave a mark at the start and one at the end."""
    Mark.objects.create(label=f"{label} started")
    time.sleep(seconds)
    Mark.objects.create(label=f"{label} ended")


@task
def nap(seconds: float) -> None:
    """Take its time, and never use the database."""
    time.sleep(seconds)


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def die(seconds: float) -> None:
    """Take the whole process along."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def give_back(value: Any) -> Any:
    return value


@task
async def add_later(x: int, y: int) -> int:
    await asyncio.sleep(0)
    await Mark.objects.acreate(label="async", thread=threading.get_ident())
    return x + y


@task(takes_context=True)
def tell_context(context: Context) -> list[Any]:
    return [context.attempt, context.task_result.id, context.task_result.status]


@task(takes_context=True)  # type: ignore[arg-type]  # mypy sees that "rest" could hold a second context
def tell_rest(context: Context, **rest: Any) -> Any:
    return rest


@task
def enqueue_another(label: str) -> str:
    return mark.enqueue(label).id


@task
def hostile(kind: str) -> Any:
    """Do what no job should; each kind is one that a worker must survive."""
    match kind:
        case "sys.exit":
            sys.exit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "GeneratorExit":
            raise GeneratorExit
        case "unprintable":
            raise Unprintable
        case "NUL":
            raise ValueError("a\x00b")
        case "surrogate":
            raise ValueError("a\ud800b")
        case "recursion":
            return hostile("recursion")
        case "object":
            return object()
        case "NaN":
            return float("nan")
        case "NUL value":
            return {"a": ["b\x00"]}
        case "large":
            return "x" * 2_000_000
        case "delete itself":
            from dbqueue.models import Job

            Job.objects.filter(task=hostile.name, args=[kind]).delete()
    return None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@task
def leak(kind: str) -> None:
    """Leave the thread's connection in a state that the next job must not see."""
    Mark.objects.count()
    match kind:
        case "open":
            transaction.atomic().__enter__()
            Mark.objects.create(label="never committed")
        case "nested":
            transaction.atomic().__enter__()
            transaction.atomic().__enter__()
        case "broken":
            transaction.atomic().__enter__()
            transaction.set_rollback(True)
        case "closed inside":
            transaction.atomic().__enter__()
            connection.close()
        case "autocommit":
            transaction.set_autocommit(False)
            Mark.objects.create(label="never committed")
        case "closed":
            connection.close()
        case "closed beneath":
            assert connection.connection is not None
            connection.connection.close()
        case "aborted":
            transaction.atomic().__enter__()
            with connection.cursor() as cursor:
                cursor.execute("SELECT no_such_column")


@task
def activate_german() -> None:
    translation.activate("de")
    timezone.activate("Asia/Tokyo")


@task
def tell_language() -> list[str]:
    return [translation.get_language(), timezone.get_current_timezone_name()]


@task
def spoil_session() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO nowhere")
        cursor.execute("SELECT pg_advisory_lock(4711)")
        cursor.execute("SET ROLE pg_monitor")


@task
def spoil_session_and_begin() -> None:
    """The transaction is begun past Django, and what was set before it outlives its rollback."""
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO nowhere")
        cursor.execute("BEGIN")


@task
def pid() -> int:
    return os.getpid()


@task(name="short.name", queue_name="mail", priority=7)
def named() -> str:
    return "named"
