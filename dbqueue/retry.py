"""When an attempt that failed is tried again."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .exceptions import seconds


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Delays that grow: ``d = min(max, first · factor^(n - 1))`` seconds after the n-th failure.

    ``jitter`` is the share of it that is left to chance, so that jobs that failed together don't come back together:
    the delay is drawn from ``[(1 - jitter) · d, d]``. With ``jitter=1`` that is the "full jitter" of Celery's
    ``retry_backoff``. Raises ValueError.
    """

    first: float = 10.0
    factor: float = 2.0
    max: float = 3600.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        for name in ("first", "max"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        if self.first > self.max:
            raise ValueError(f"first is {self.first:g} s; it must not be longer than max, {self.max:g} s.")
        if not _is_number(self.factor) or not 1 <= self.factor <= 100:
            raise ValueError(f"factor is {self.factor!r}; it must be a number from 1 to 100.")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter!r}; it must be a number from 0 to 1.")

    def __call__(self, failures: int) -> float:
        longest = min(self.max, self.first * self.factor ** min(failures - 1, 100))
        return random.uniform((1 - self.jitter) * longest, longest)


DEFAULT_BACKOFF = Exponential()

Backoff = float | Exponential | Callable[[int, BaseException], float]
"""A fixed delay in seconds, one that grows, or what a function says: of the number of failures, and the last error."""


def as_json(backoff: Backoff) -> Any:
    """What a job's row can hold of it: None for a function, which stays with its task."""
    if isinstance(backoff, Exponential):
        return asdict(backoff)
    return None if callable(backoff) else backoff


def from_json(stored: Any) -> Backoff:
    return Exponential(**stored) if isinstance(stored, dict) else float(stored)


def delay_after(backoff: Backoff, failures: int, error: BaseException) -> float:
    """Seconds to wait after the n-th failure. Raises ValueError where a function answers with what is no duration."""
    if isinstance(backoff, Exponential):
        return backoff(failures)
    if callable(backoff):
        return seconds(backoff(failures, error), "What backoff returned")
    return backoff


def is_one_of(error: BaseException, paths: list[str]) -> bool:
    """Whether an exception is an instance of a class with one of these dotted paths: a row holds no classes."""
    return any(path_of(cls) in paths for cls in type(error).__mro__)


def path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
