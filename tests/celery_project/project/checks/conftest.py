"""``work()`` does what was begun; in eager mode that is nothing. How, says the runner's fixture ``worker``."""

import pytest
from orders import signals
from orders.models import Note, Order


@pytest.fixture(autouse=True)
def database(db):
    signals.heard.clear()


@pytest.fixture
def work(worker):
    return worker


@pytest.fixture
def order():
    return Order.objects.create(bread="rye", loaves=3)


@pytest.fixture
def orders():
    return [Order.objects.create(bread="rye", loaves=number).pk for number in (1, 2, 3)]


@pytest.fixture
def notes():
    return Note.texts


@pytest.fixture
def heard():
    return signals.heard
