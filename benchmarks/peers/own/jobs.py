"""dbqueue's jobs."""

from django.core.management import call_command

import dbqueue
from benchmarks.peers import count


@dbqueue.task
def noop() -> None:
    """Nothing, but that it ran."""
    count.ran()


@dbqueue.task
def timed(number: int) -> None:
    """Nothing, but when it began."""
    count.began(number)


def set_up() -> None:
    call_command("migrate", verbosity=0)


def enqueue_many(number: int) -> None:
    dbqueue.enqueue_many(noop.s() for _ in range(number))


def enqueue_each(number: int) -> None:
    for _ in range(number):
        noop.enqueue()


def enqueue_timed(number: int) -> None:
    timed.enqueue(number)
