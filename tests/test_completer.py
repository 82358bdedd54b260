"""The completer, one step at a time, on the tests' own thread."""

import pytest

from dbqueue.claim import Claim
from dbqueue.models import Job, JobStatus
from dbqueue.outcome import Outcome
from dbqueue.services import completer as completer_module
from dbqueue.services.completer import Completer
from dbqueue.store import Store, store_for

from .shop.tasks import add

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Store:
    return store_for("default")


def claims(store: Store, number: int) -> list[Claim]:
    for _ in range(number):
        add.enqueue(1, 2)
    return store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=1), number)


def test_who_waits_for_room_is_told_when_half_of_it_is_free(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completer_module, "MOST_UNWRITTEN", 4)
    told: list[int] = []
    completer = Completer(store, lambda: told.append(completer.room))
    for claim in claims(store, 4):
        completer.put(Outcome.succeeded(claim, "3"))
    assert completer.room == 0

    completer.run_once()

    assert told == [4]
    assert Job.objects.filter(status=JobStatus.SUCCESSFUL).count() == 4


def test_at_rest_nobody_is_told_of_what_was_written(store: Store) -> None:
    told: list[bool] = []
    completer = Completer(store, lambda: told.append(True))
    [claim] = claims(store, 1)
    completer.put(Outcome.succeeded(claim, "3"))

    completer.run_once()

    assert told == []
