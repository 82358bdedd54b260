"""Tasks that take their time, and tell of themselves."""

import asyncio
import logging
import os
import time
from contextlib import suppress

from django.db import connection, transaction

from dbqueue import Context, Retry, current_context, task
from dbqueue.exceptions import DeadlineExceeded

from .models import Mark


@task
def loop(seconds: float) -> str:
    """Python that never waits."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))
    return "to the end"


@task
def slow_sql(seconds: float) -> None:
    """One statement of the database's that takes its time."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_sleep(%s)", [seconds])
        else:
            cursor.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT max(i) FROM n",
                [int(seconds * 10_000_000)],
            )


@task
def sleep_in_c(seconds: float) -> None:
    """Nothing can interrupt this."""
    time.sleep(seconds)


@task
def get_stuck() -> None:
    Mark.objects.create(label="started")
    sleep_in_c.func(60)


@task
async def sleep_async(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
def swallow(seconds: float) -> str:
    """Meet the deadline, and end well."""
    try:
        loop.func(seconds)
    except DeadlineExceeded as exc:
        return type(exc).__name__
    return "in time"


@task
def clean_up_with_sql(before: str) -> str:
    """Meet the deadline in a loop, or in one of many short statements, and use the database once more."""
    try:
        while True:
            loop.func(30) if before == "python" else slow_sql.func(0.002)
    except DeadlineExceeded:
        slow_sql.func(0.1)
        return "clean"


@task
def go_on_for_ever() -> None:
    with suppress(DeadlineExceeded):
        loop.func(3600)
    Mark.objects.create(label="started")
    loop.func(3600)


@task(takes_context=True)
def tell_deadline(context: Context) -> list[bool]:
    left = context.remaining()
    return [context.deadline is not None, left is not None and 0 < left <= 60]


@task
def tell_no_deadline() -> list[object]:
    context = current_context()
    assert context is not None
    return [context.deadline, context.remaining(), context.cancelled]


@task(takes_context=True)
def stop_when_asked(context: Context) -> None:
    Mark.objects.create(label="started")
    while True:
        context.raise_if_cancelled()
        time.sleep(0.01)


@task(takes_context=True)
def finish_when_asked(context: Context) -> str:
    Mark.objects.create(label="started")
    while not context.cancelled:
        time.sleep(0.01)
    return "finished all the same"


@task
def loop_for_ever() -> None:
    Mark.objects.create(label="started")
    loop.func(3600)


@task
def fail_slowly() -> None:
    Mark.objects.create(label="started")
    time.sleep(1)
    raise ValueError("it fails")


@task(takes_context=True)
def report(context: Context, lines: int) -> None:
    for number in range(lines):
        context.log("line %d of %d", number + 1, lines)
        context.progress(number + 1, lines, f"at {number + 1}")
    context.log("a\x00b%")


@task(takes_context=True)
def report_and_wait(context: Context) -> None:
    context.progress(3, 10, "on the way")
    context.log("begun")
    while not context.cancelled:
        time.sleep(0.01)


@task
def tell_pid() -> int:
    return os.getpid()


@task
def ask_for_more_time() -> None:
    try:
        loop.func(30)
    except DeadlineExceeded:
        raise Retry("too slow", delay=3600) from None


@task
def swallow_errors(seconds: float) -> None:
    """As a library may do it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(Exception):
            sum(range(100))


@task
def log_in_a_loop(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        logging.getLogger("tests.noise").warning("noise")


@task
def hold_the_write_lock(seconds: float) -> None:
    """What it tells can't be written before it ends."""
    context = current_context()
    assert context is not None
    with transaction.atomic():
        Mark.objects.create(label="locked")
        context.progress(1, 2)
        loop.func(seconds)
