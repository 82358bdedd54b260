"""How attempts went, summed up: what a worker counts between two writes, and what pages read out of such sums."""

import datetime
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from django.conf import settings as django_settings
from django.utils import timezone

from .exceptions import WorkerLost
from .models import JobStatus, Resolution
from .outcome import Outcome

BUCKETS = 50
"""Of a histogram. The first is for less than 1 ms, each next reaches twice as far, the last as far as calendars go."""

TICK = 10
"""Seconds. Attempts that ended within one are counted together; a divisor of every Resolution."""


WORKER_LOST = f"{WorkerLost.__module__}.{WorkerLost.__qualname__}"


class Key(NamedTuple):
    """What is counted apart. ``outcome`` is the state that the job went to; ``error`` its exception's class, if any."""

    queue_name: str
    task: str
    outcome: str
    error: str = ""


class Place(NamedTuple):
    """One row of History."""

    seconds: int
    begins_at: datetime.datetime
    key: Key


class Sums:
    """How many there were, and how long they had waited and run."""

    __slots__ = ("count", "run_seconds", "runs", "wait_seconds", "waits")

    def __init__(self) -> None:
        self.count = 0
        self.waits = [0] * BUCKETS
        self.runs = [0] * BUCKETS
        self.wait_seconds = self.run_seconds = 0.0

    def note(self, wait: float | None, run: float | None) -> None:
        """Count one more. None: it is not known how long, or it did not run."""
        self.count += 1
        if wait is not None:
            self.waits[bucket(wait)] += 1
            self.wait_seconds += wait
        if run is not None:
            self.runs[bucket(run)] += 1
            self.run_seconds += run

    def add(
        self, count: int, waits: Sequence[int], runs: Sequence[int], wait_seconds: float, run_seconds: float
    ) -> None:
        """Add other sums."""
        self.count += count
        self.waits = added(self.waits, waits)
        self.runs = added(self.runs, runs)
        self.wait_seconds += wait_seconds
        self.run_seconds += run_seconds

    def columns(self) -> tuple[int, list[int], list[int], float, float]:
        """What ``add`` takes, and a row holds."""
        return self.count, shortened(self.waits), shortened(self.runs), self.wait_seconds, self.run_seconds


def bucket(seconds: float) -> int:
    """Where in a histogram a duration belongs. Clocks that disagree make one negative: that is none."""
    return int(max(0.0, seconds) * 1000).bit_length()


def upper_bound(index: int) -> float:
    """Seconds below which the durations of this bucket are."""
    return 0.001 * 2**index  # type: ignore[no-any-return]


def added(some: Sequence[int], more: Sequence[int]) -> list[int]:
    """Two histograms as one; either may be shortened."""
    counts = list(some) + [0] * (len(more) - len(some))
    for index, count in enumerate(more):
        counts[index] += count
    return counts


def shortened(counts: Sequence[int]) -> list[int]:
    """A histogram without its last zeros."""
    length = max((index for index, count in enumerate(counts, 1) if count), default=0)
    return list(counts[:length])


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds within which ``share`` (0 to 1) of what a histogram counts had ended; None where it counts nothing.

    Linear inside a bucket, as Prometheus's histogram_quantile() does it; so it is right to a factor of two.
    """
    wanted = share * sum(counts)
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= wanted:
            lower = upper_bound(index - 1) if index else 0.0
            return lower + (upper_bound(index) - lower) * (wanted - below) / count
        below += count
    return None


class Tally:
    """What has ended in this worker since it was last written. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[int, str, str, str, str], Sums] = {}

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Count attempts that have just ended. One that was none, as it asked for a later time, is left out.

        Every job passes here, so this spells out what ``Key`` and ``Sums.note`` would do, in half the time.
        """
        tick = int(time.time()) // TICK
        with self._lock:
            for outcome in outcomes:
                if not outcome.counted:
                    continue
                claim, failure = outcome.claim, outcome.failure
                error = failure.exception_class_path if failure else ""
                place = (tick, claim.queue_name, claim.task, outcome.status._value_, error)
                sums = self._sums.get(place)
                if sums is None:
                    sums = self._sums[place] = Sums()
                sums.count += 1
                if since := claim.run_after or (claim.enqueued_at if claim.attempt == 1 else None):
                    if (wait := (claim.claimed_at - since).total_seconds()) > 0:
                        sums.waits[int(wait * 1000).bit_length()] += 1
                        sums.wait_seconds += wait
                    else:
                        sums.waits[0] += 1
                if (ran := outcome.ran) is not None:
                    sums.runs[int(ran * 1000).bit_length()] += 1
                    sums.run_seconds += ran

    def note_lost(self, attempts: Iterable[tuple[str, str, JobStatus]]) -> None:
        """Count attempts whose workers died: each with its queue, its task and the state that its job went to."""
        tick = int(time.time()) // TICK
        with self._lock:
            for queue_name, task, status in attempts:
                place = (tick, queue_name, task, status._value_, WORKER_LOST)
                self._sums.setdefault(place, Sums()).count += 1

    def take(self) -> dict[tuple[int, Key], Sums]:
        """All that was counted, by tick of this host's clock. It is this caller's to write now."""
        with self._lock:
            taken, self._sums = self._sums, {}
        return {(tick, Key(*key)): sums for (tick, *key), sums in taken.items()}

    def put_back(self, taken: Mapping[tuple[int, Key], Sums]) -> None:
        """Keep what could not be written."""
        with self._lock:
            for (tick, key), sums in taken.items():
                self._sums.setdefault((tick, *key), Sums()).add(*sums.columns())


def places(tick: int, key: Key, ahead: float) -> Iterator[Place]:
    """The rows in which a sum belongs. ``ahead``: how many seconds the database's clock is ahead of this host's."""
    moment = tick * TICK + TICK / 2 + ahead
    total = Key("", "", key.outcome)
    # Without errors: of these rows nobody ever takes one away.
    yield Place(Resolution.EVER, moment_at(0), key._replace(error=""))
    minute = moment_at(moment - moment % Resolution.MINUTE)
    yield Place(Resolution.MINUTE, minute, key)
    yield Place(Resolution.MINUTE, minute, Key(key.queue_name, "", key.outcome))
    for seconds in (Resolution.MINUTE, Resolution.TEN_MINUTES, Resolution.HOUR):
        yield Place(seconds, moment_at(moment - moment % seconds), total)


def moment_at(timestamp: float) -> datetime.datetime:
    """As the database's columns hold it."""
    moment = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return moment if django_settings.USE_TZ else timezone.make_naive(moment)


def timestamp_of(moment: datetime.datetime) -> float:
    """The other way round."""
    return (moment if timezone.is_aware(moment) else timezone.make_aware(moment)).timestamp()
