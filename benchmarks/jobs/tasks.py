"""The work that is measured."""

import time

from django.db import transaction

from benchmarks.peers import count
from dbqueue import task

from .models import Item, Visit


@task
def noop() -> None:
    """Nothing: what is left is the queue's own cost."""


@task
def give(value: object) -> object:
    """What it was given."""
    return 1


@task
def remind(user_id: int) -> None:
    """Nothing, for somebody: its jobs are looked for by what they are called with."""


@task
def visit(number: int) -> None:
    """One query and one write through the ORM."""
    price = Item.objects.values_list("price", flat=True).get(pk=number % 100 + 1)
    Visit.objects.create(number=number, price=price)


@task
def stamp(number: int) -> None:
    """Note when it began."""
    count.began(number)


@task
def nap(number: int, seconds: float) -> None:
    """Note when it began, and wait for something for so long."""
    count.began(number)
    time.sleep(seconds)


@task
def busy(seconds: float) -> None:
    """Compute for so long, without ever waiting for anything."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@task
def look_up(number: int) -> None:
    """One query through the ORM."""
    Item.objects.values_list("price", flat=True).get(pk=number % 100 + 1)


@task
def leak(number: int) -> None:
    """The same, but it enters a transaction and never leaves it. What it wrote is rolled back."""
    transaction.atomic().__enter__()
    visit(number)
