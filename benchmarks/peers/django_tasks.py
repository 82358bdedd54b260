"""The jobs and the enqueuing of every peer that is a backend of ``django.tasks``."""

from django.core.management import call_command
from django.tasks import task

from . import count


@task
def noop() -> None:
    """Nothing, but that it ran."""
    count.ran()


@task
def timed(number: int) -> None:
    """Nothing, but when it began."""
    count.began(number)


def set_up() -> None:
    call_command("migrate", verbosity=0)


def enqueue_each(number: int) -> None:
    for _ in range(number):
        noop.enqueue()


def enqueue_timed(number: int) -> None:
    timed.enqueue(number)
