"""Celery's jobs."""

import os

from celery import Celery

from benchmarks.peers import count
from benchmarks.peers.stores import REDIS

app = Celery("benchmark", broker=f"redis+socket://{os.environ[REDIS]}")
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
)


@app.task(name="noop")
def noop() -> None:
    """Nothing, but that it ran."""
    count.ran()


@app.task(name="timed")
def timed(number: int) -> None:
    """Nothing, but when it began."""
    count.began(number)


def set_up() -> None:
    """A list in Redis needs nothing."""


def enqueue_many(number: int) -> None:
    with app.producer_or_acquire() as producer:
        for _ in range(number):
            noop.apply_async(producer=producer)


def enqueue_each(number: int) -> None:
    for _ in range(number):
        noop.delay()


def enqueue_timed(number: int) -> None:
    timed.delay(number)
