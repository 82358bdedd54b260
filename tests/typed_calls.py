"""What the types promise, held by ``make lint``: mypy fails on a wrong ``assert_type`` and on an unused ``ignore``."""

from typing import Any, assert_type

import dbqueue
from dbqueue import Context, JobResult, task


@task
def add(x: int, y: int) -> int:
    return x + y


@task(queue_name="mail", priority=10)
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@task(takes_context=True)
def attempt(context: Context, label: str) -> int:
    return context.attempt


@task
async def fetch(url: str) -> bytes:
    return url.encode()


def calls() -> None:
    assert_type(add(1, 2), int)
    assert_type(add.enqueue(1, 2), JobResult[int])
    assert_type(add.enqueue(1, 2).return_value, int | None)
    assert_type(add.enqueue(1, 2).get(timeout=1), int)
    assert_type(add.delay(1, y=2), JobResult[int])
    assert_type(add.using(priority=5).enqueue(1, 2), JobResult[int])
    assert_type(dbqueue.enqueue(add, 1, 2), JobResult[int])
    assert_type(dbqueue.enqueue("shop.tasks.add", 1, 2), JobResult[Any])
    assert_type(dbqueue.enqueue_many(add.s(i, i) for i in range(3)), list[JobResult[int]])
    assert_type(greet.enqueue("Ada", loud=True).return_value, str | None)
    assert_type(attempt.enqueue("label").return_value, int | None)
    assert_type(fetch.enqueue("url").return_value, bytes | None)


async def async_calls() -> None:
    assert_type(await add.aenqueue(1, 2), JobResult[int])
    assert_type(await fetch("url"), bytes)


def refused() -> None:
    add.enqueue("a")  # type: ignore[call-arg, arg-type]
    add.enqueue(1, "b")  # type: ignore[arg-type]
    add(1)  # type: ignore[call-arg]
    add.si(1, z=2)  # type: ignore[call-arg]
    greet.delay(1)  # type: ignore[arg-type]
    attempt.enqueue(1)  # type: ignore[arg-type]
    fetch.enqueue(b"url")  # type: ignore[arg-type]
    dbqueue.enqueue(add, "a", 2)  # type: ignore[call-overload]
