"""The threads, and how many jobs may wait for them."""

import datetime
import threading
from collections.abc import Iterator

import pytest

from dbqueue.claim import Claim
from dbqueue.pool import AHEAD, MOST_AHEAD, Pool

from .workers import eventually

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def claim(number: int) -> Claim:
    nothing = (None,) * 5
    return Claim(number, 1, 1, 1, "task", "[]", "{}", "default", 0, "", None, NOW, 0, 1, 0, *nothing, NOW, NOW)


class Gate:
    """Jobs that end when they are let go."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.open = threading.Event()

    def run(self, claim: Claim) -> None:
        self.started.append(claim.job_id)
        self.open.wait(30)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def test_at_first_it_takes_one_job_a_thread(gate: Gate) -> None:
    pool = Pool(3, gate.run, lambda: None)
    assert (pool.capacity, pool.room, pool.idle) == (3, 3, True)


def test_what_no_thread_has_started_can_be_taken_back(gate: Gate) -> None:
    pool = Pool(2, gate.run, lambda: None)
    pool.start()
    for number in range(5):
        pool.submit(claim(number))
    eventually(lambda: len(gate.started) == 2)

    assert [taken.job_id for taken in pool.take_back()] == [2, 3, 4]

    assert {job_id for job_id, _ in pool.held()} == {0, 1}
    assert pool.room == 0
    gate.open.set()
    eventually(lambda: pool.idle)
    assert len(gate.started) == 2
    pool.stop()


def test_short_jobs_are_taken_ahead_and_long_ones_are_not() -> None:
    pool = Pool(4, lambda claim: None, lambda: None)
    pool._learn(AHEAD / 1000)
    assert pool.capacity == 4 + MOST_AHEAD
    for _ in range(200):
        pool._learn(1.0)
    assert pool.capacity == 4


def test_after_taking_back_nothing_is_taken_ahead_until_jobs_are_short_again() -> None:
    pool = Pool(4, lambda claim: None, lambda: None)
    pool._learn(AHEAD / 1000)
    pool.take_back()
    assert pool.capacity == 4


def test_a_job_waits_from_when_it_came(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.pool.PATIENCE", 60.0)
    pool = Pool(1, gate.run, lambda: None)
    pool.submit(claim(1))  # to a thread that has started nothing for longer than that
    assert pool.waits and not pool.waiting_too_long

    monkeypatch.setattr("dbqueue.pool.PATIENCE", 0.01)
    eventually(lambda: pool.waiting_too_long)


def test_a_run_that_raises_is_told() -> None:
    told = threading.Event()

    def broken(claim: Claim) -> None:
        raise SystemExit

    pool = Pool(1, broken, told.set)
    pool.start()
    pool.submit(claim(1))
    assert told.wait(10)
    assert isinstance(pool.crashed, SystemExit)


def test_what_was_taken_ahead_and_runs_is_told_once(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.pool.TELL_AFTER", 0.0)
    pool = Pool(2, gate.run, lambda: None)
    pool.start()
    assert pool.free == 2
    pool.submit(claim(1))
    pool.submit(claim(2)._replace(ahead=True))
    pool.submit(claim(3)._replace(ahead=True))
    eventually(lambda: len(gate.started) == 2)
    assert pool.free == 0
    [begun] = eventually(pool.begun)
    assert begun.job_id == 2  # the first was no guess, and the third has not begun
    assert pool.has_untold
    pool.told([begun])
    assert pool.begun() == []
    gate.open.set()
    eventually(lambda: pool.idle and not pool.has_untold)
    pool.stop()
