"""The work that is measured."""

from django.db import transaction

from dbqueue import task

from .models import Item, Visit


@task
def noop() -> None:
    """Nothing: what is left is the queue's own cost."""


@task
def visit(number: int) -> None:
    """One query and one write through the ORM."""
    price = Item.objects.values_list("price", flat=True).get(pk=number % 100 + 1)
    Visit.objects.create(number=number, price=price)


@task
def look_up(number: int) -> None:
    """One query through the ORM."""
    Item.objects.values_list("price", flat=True).get(pk=number % 100 + 1)


@task
def leak(number: int) -> None:
    """The same, but it enters a transaction and never leaves it. What it wrote is rolled back."""
    transaction.atomic().__enter__()
    visit(number)
