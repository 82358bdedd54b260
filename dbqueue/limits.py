"""How many jobs of one key may run at once, and how many may start in a while: the values, and the arithmetic."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Key = str | Callable[..., str]
"""A template over the task's arguments, as ``"customer:{customer_id}"``, or a function of the same arguments."""

PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

MOST = 1_000_000
"""The largest number of a limit."""

SLICES = 50
"""Parts of a rate's window that are counted apart. One more than fits is counted, so the rate is kept, and up to a
fiftieth of it is given away."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``limit`` jobs with one ``key`` run at once, over all workers.

    Without a key it is the task's name. One that is given is the same for every task that names it. Raises ValueError.
    """

    limit: int
    key: Key | None = None

    def __post_init__(self) -> None:
        check_count(self.limit, "concurrency")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many jobs with one ``key`` start in a while, over all workers; the others wait.

    ``rate`` is a number per second, minute, hour or day: ``"5/s"``, ``"100/m"``. ``burst`` (default: that number) is
    how many may start at once: no more than ``burst`` start in any ``burst / rate`` of time. So 100/m with a burst of
    10 means at most 10 in any 6 seconds. Without a key it is the task's name. Raises ValueError.
    """

    rate: str
    key: Key | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        number = self._parsed()[0]
        if self.burst is not None:
            check_count(self.burst, "burst")
            if self.burst > number:
                raise ValueError(f"burst is {self.burst!r}; it must not be more than the rate's number, {number}.")

    @property
    def window(self) -> tuple[int, float]:
        """(starts, seconds): no more than so many in any time so long."""
        number, period = self._parsed()
        burst = self.burst or number
        return burst, period * burst / number

    def _parsed(self) -> tuple[int, float]:
        found = re.fullmatch(r"([1-9]\d{0,6})/([smhd])", self.rate) if isinstance(self.rate, str) else None
        if not found or int(found[1]) > MOST:
            raise ValueError(
                f"rate is {self.rate!r}; it must be a whole number from 1 to {MOST} per s, m, h or d, as in '100/m'."
            )
        return int(found[1]), PERIODS[found[2]]


def check_count(value: Any, name: str) -> None:
    if type(value) is not int or not 1 <= value <= MOST:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 to {MOST}.")


class Window:
    """The starts of one key in its window: ``limit`` in any ``seconds``.

    ``kept`` is what a row keeps: how many in each slice, a slice being named by its number since the epoch, and how
    long such a slice is. What started in a slice that lies only partly in the window counts, so there are never too
    many. Of slices of another length, from a rate that was another, the end counts.
    """

    def __init__(self, limit: int, seconds: float, kept: dict[str, Any] | None, now: float) -> None:
        self.limit = limit
        self._length = seconds / SLICES
        # A start counts until its slice has left the window whole: to that, too, a promise must be true.
        self.pace = (seconds + self._length) / limit
        self._now = now
        self._starts: dict[int, int] = {}
        for number, count in (kept or {"starts": {}})["starts"].items():
            self._take_over(int(number), count, (kept or {}).get("slice", self._length))

    @property
    def room(self) -> int:
        return max(0, self.limit - sum(self._starts.values()))

    def start(self) -> None:
        number = int(self._now // self._length)
        self._starts[number] = self._starts.get(number, 0) + 1

    @property
    def opens_at(self) -> float:
        """When the oldest start will have left the window (seconds since the epoch); now, if there is room."""
        if self.room or not self._starts:
            return self._now
        return (min(self._starts) + SLICES + 1.01) * self._length

    @property
    def kept(self) -> dict[str, Any]:
        return {"slice": self._length, "starts": {str(number): n for number, n in sorted(self._starts.items())}}

    def _take_over(self, number: int, count: int, length: float) -> None:
        newest = int(self._now // self._length)
        if length != self._length:
            number = int((number + 1) * length // self._length)
        if number >= newest - SLICES:
            number = min(number, newest)
            self._starts[number] = self._starts.get(number, 0) + count
