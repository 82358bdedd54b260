"""Huey's jobs."""

import os

from huey import RedisHuey

from benchmarks.peers import count
from benchmarks.peers.stores import REDIS

huey = RedisHuey("benchmark", results=False, url=f"unix://{os.environ[REDIS]}")


@huey.task()
def noop() -> None:
    """Nothing, but that it ran."""
    count.ran()


@huey.task()
def timed(number: int) -> None:
    """Nothing, but when it began."""
    count.began(number)


def set_up() -> None:
    """A list in Redis needs nothing."""


def enqueue_many(number: int) -> None:
    noop.map([()] * number)


def enqueue_each(number: int) -> None:
    for _ in range(number):
        noop()


def enqueue_timed(number: int) -> None:
    timed(number)
