"""Looks in vain, and what they cost."""

import pytest

from dbqueue import restraint as restraint_module
from dbqueue.conf import Settings
from dbqueue.dispatcher import Dispatcher, Mode
from dbqueue.restraint import AT_ONCE, VAIN_LOOKS, Restraint

from .test_pool import claim


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(restraint_module, "time", clock)
    return clock


@pytest.mark.parametrize("workers", [1, 100])
def test_all_workers_together_look_in_vain_so_often_and_not_more(clock: Clock, workers: int) -> None:
    restraint, looks, end = Restraint(), 0, clock.now + 10
    restraint.workers = workers
    while clock.now < end:
        restraint.looked_in_vain()
        looks += 1
        clock.now += restraint.delay() + 1e-6
    share = 10 * VAIN_LOOKS / workers
    # The wait is drawn by lot, from half of the debt to all of it.
    assert share <= looks <= 1.1 * share + 2 * AT_ONCE


def test_some_looks_are_free(clock: Clock) -> None:
    restraint = Restraint()
    restraint.workers = 50
    for _ in range(AT_ONCE):
        assert restraint.delay() == 0
        restraint.looked_in_vain()
    assert restraint.delay() == 0
    restraint.looked_in_vain()
    assert restraint.delay() > 0


def test_a_debt_is_forgotten(clock: Clock) -> None:
    restraint = Restraint()
    restraint.workers = 100
    for _ in range(3 * AT_ONCE):
        restraint.looked_in_vain()
    assert restraint.delay() > 0
    clock.now += 5
    assert restraint.delay() == 0


def test_however_deep_in_debt_nobody_waits_for_long(clock: Clock) -> None:
    restraint = Restraint()
    restraint.workers = 100
    for _ in range(1000):
        restraint.looked_in_vain()
    assert 0 < restraint.delay() <= 2 * restraint.workers / VAIN_LOOKS


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_full", [True, False])
def test_who_has_no_room_does_not_look(clock: Clock, is_full: bool) -> None:
    worker = Dispatcher(Settings(threads=1), Mode())
    worker._register()
    if is_full:
        worker.pool.submit(claim(1))
    for _ in range(2 * AT_ONCE):
        worker._work_arrived(("default",))
        assert worker._take() == []
    assert (worker.notifier.restraint.delay() == 0) is is_full
