"""Claims on their way to the threads: each arrives once, and no thread sleeps while one waits."""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from dbqueue.handover import Handover

from .test_pool import claim
from .workers import eventually


def test_each_claim_reaches_one_thread() -> None:
    handover, each, takers = Handover(), 5_000, 8
    taken: list[int] = []

    def take() -> None:
        while (found := handover.take()) is not None:
            taken.append(found.job_id)

    def put(first: int) -> None:
        for number in range(first, first + each):
            handover.put(claim(number))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(takers)]
    makers = [threading.Thread(target=put, daemon=True, args=(number * each,)) for number in range(3)]
    for thread in (*threads, *makers):
        thread.start()
    for maker in makers:
        maker.join()
    eventually(lambda: len(taken) == 3 * each)
    for _ in threads:
        handover.put(None)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()

    assert Counter(taken) == Counter(range(3 * each))


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_who_sleeps_hears_of_each_claim() -> None:
    handover, ended = Handover(), SimpleQueue[int]()

    def work() -> None:
        while (found := handover.take()) is not None:
            ended.put(found.job_id)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5_000):
        handover.put(claim(number))
        assert ended.get(timeout=10) == number  # raises Empty where everybody sleeps on
    for _ in threads:
        handover.put(None)


def test_while_claims_wait_every_thread_is_woken() -> None:
    handover, gate = Handover(), threading.Event()
    started: list[int] = []

    def work() -> None:
        while (found := handover.take()) is not None:
            started.append(found.job_id)
            gate.wait(10)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(8):
        handover.put(claim(number))

    eventually(lambda: len(started) == 6)
    assert [left.job_id for left in handover.take_back()] == [6, 7]
    gate.set()
    for _ in threads:
        handover.put(None)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_taken_back_is_not_taken() -> None:
    handover = Handover()
    handover.put(claim(1))
    handover.put(None)
    assert [back.job_id for back in handover.take_back()] == [1]
    assert len(handover) == 0
