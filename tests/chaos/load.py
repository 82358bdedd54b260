"""The load: kinds of jobs, threads that enqueue them, and the ledger of what was enqueued."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Self

from django.db import Error, transaction

from dbqueue import JobResult, Signature, enqueue_many
from dbqueue.connections import close_all
from dbqueue.models import Job, JobStatus

from ..shop.chaos_tasks import toil

ENQUEUERS = 2

MOST_WAITING = 300
"""Jobs that may be unfinished before the load waits: a backlog would only make the end longer."""


@dataclass(frozen=True)
class Kind:
    """``weight``: how often, of about a thousand. ``seconds``: its work, from … to …. ``wait``: the longest run_after.

    ``ends``: the state that it must end in (None: it deletes its own row); ``error``: what its last error must say.
    """

    weight: int
    seconds: tuple[float, float] = (0.0, 0.0)
    wait: float = 0.0
    ends: JobStatus | None = JobStatus.SUCCESSFUL
    error: str = ""


KINDS: Mapping[str, Kind] = {
    "short": Kind(520),
    "slow": Kind(200, seconds=(0.1, 2.0)),
    "long": Kind(4, seconds=(4.0, 6.0)),  # longer than the grace
    "later": Kind(60, wait=2.0),
    "transaction": Kind(80),
    "fail": Kind(50, ends=JobStatus.FAILED, error="ValueError: meant to fail"),
    "NUL": Kind(8, ends=JobStatus.FAILED, error="ValueError: a\\x00b"),
    "unprintable": Kind(8, ends=JobStatus.FAILED, error="Unprintable"),
    "exit": Kind(8, ends=JobStatus.FAILED, error="SystemExit: meant to exit"),
    "leak open": Kind(6),
    "leak nested": Kind(6),
    "leak broken": Kind(6),
    "leak closed inside": Kind(6),
    "leak autocommit": Kind(6),
    "leak closed": Kind(4),
    "leak closed beneath": Kind(4),
    "leak aborted": Kind(4, ends=JobStatus.FAILED, error="no_such_column"),
    "deletes itself": Kind(8, ends=None),
    "killer": Kind(2),  # kills its process, once
    "poison": Kind(1, ends=JobStatus.FAILED, error="WorkerLost"),  # kills every process that takes it
}

FATAL = frozenset({"killer", "poison"})
"""Kinds that end their own process."""


@dataclass
class Ledger:
    """What was asked for. Jobs are known by a number of ours, as an enqueue whose reply was lost tells no id."""

    kinds: dict[int, str] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    """The ids of jobs whose commit was acknowledged."""
    unknown: set[int] = field(default_factory=set)
    """Numbers whose enqueue raised: it may have been committed or not."""
    taken_back: set[int] = field(default_factory=set)
    """Numbers that were enqueued in a transaction that was rolled back."""

    def counts(self) -> Counter[str]:
        """Acknowledged jobs by kind."""
        return Counter(self.kinds[number] for number in self.acknowledged)


class Load:
    """Enqueues jobs on threads of its own for as long as the block lasts, or until there are ``most`` of them."""

    def __init__(
        self, ledger: Ledger, seed: int, *, kinds: Mapping[str, Kind] = KINDS, rate: float = 50.0, most: int = 0
    ) -> None:
        self._ledger = ledger
        self._kinds = kinds
        self._pause = ENQUEUERS / rate
        self._most = most
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(Random(f"{seed} {number}"),), daemon=True)
            for number in range(ENQUEUERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def await_jobs(self, number: int) -> None:
        """Wait until so many have been enqueued."""
        while len(self._ledger.acknowledged) < number and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.02)

    def _work(self, random: Random) -> None:
        cards = shuffled([name for name, kind in self._kinds.items() for _ in range(kind.weight)], random)
        look_at = 0.0
        try:
            while not self._stopping.is_set() and not self._complete():
                if time.monotonic() > look_at:
                    self._await_room()
                    look_at = time.monotonic() + 0.5
                many = 10 if random.random() < 0.01 else 1
                self._enqueue(dict(zip(itertools.islice(self._numbers, many), cards, strict=False)), random)
                self._stopping.wait(self._pause * many * random.uniform(0.0, 2.0))
        finally:
            close_all()

    def _complete(self) -> bool:
        return bool(self._most) and len(self._ledger.acknowledged) >= self._most

    def _await_room(self) -> None:
        while not self._stopping.is_set():
            try:
                if unfinished() < MOST_WAITING:
                    return
            except Error:
                close_all()
            self._stopping.wait(0.1)

    def _enqueue(self, batch: dict[int, str], random: Random) -> None:
        self._ledger.kinds |= batch
        signatures = [self._signature(number, kind, random) for number, kind in batch.items()]
        take_back = random.random() < 0.02
        try:
            results = _insert(signatures, take_back)
        except Error:
            self._ledger.unknown |= batch.keys()
            close_all()
            self._stopping.wait(random.uniform(0.05, 0.2))
            return
        if take_back:
            self._ledger.taken_back |= batch.keys()
        else:
            self._ledger.acknowledged |= {number: int(result.id) for number, result in zip(batch, results, strict=True)}

    def _signature(self, number: int, name: str, random: Random) -> Signature[str]:
        kind = self._kinds[name]
        task = toil.using(run_after=timedelta(seconds=random.uniform(0.0, kind.wait))) if kind.wait else toil
        return task.s(number, name, round(random.uniform(*kind.seconds), 3))


def enqueue_all(ledger: Ledger, names: Iterable[str]) -> None:
    """Enqueue one job of each of these kinds, in this order, in one transaction. None of them waits or works."""
    batch = dict(enumerate(names, start=1))
    results = enqueue_many(toil.s(number, name, 0.0) for number, name in batch.items())
    ledger.kinds |= batch
    ledger.acknowledged |= {number: int(result.id) for number, result in zip(batch, results, strict=True)}


def _insert(signatures: list[Signature[str]], take_back: bool) -> list[JobResult[str]]:
    """One by itself in autocommit, many in one transaction."""
    if not take_back:
        return [signatures[0].enqueue()] if len(signatures) == 1 else enqueue_many(signatures)
    with transaction.atomic():
        results = enqueue_many(signatures)
        transaction.set_rollback(True)
    return results


def shuffled(cards: list[str], random: Random) -> Iterator[str]:
    """Draw from a shuffled deck, for ever: at random, and each card comes in its turn."""
    while True:
        yield from random.sample(cards, len(cards))


def unfinished() -> int:
    """Jobs that have not ended. State by state, so that the partial indexes answer."""
    return sum(Job.objects.filter(status=status).count() for status in JobStatus if not status.is_final)
