"""Celery's exceptions, by what dbqueue raises and understands."""

import builtins
import datetime
from typing import TYPE_CHECKING, Any

from ...exceptions import CancelRequested, DBQueueError, DeadlineExceeded, UnknownTask
from ...exceptions import Retry as _Retry

if TYPE_CHECKING:
    from .again import Again


class CeleryError(DBQueueError):
    """What all of these are, but for those that dbqueue raises inside of a running task."""


class ImproperlyConfigured(CeleryError):
    """A setting that can't be."""


class TaskPredicate(CeleryError):
    """What a task raises to say how it ends."""


class Retry(_Retry, TaskPredicate):
    """Raised by ``self.retry()``: the task is tried again.

    ``exc`` is why, ``when`` the countdown in seconds or the time, ``again`` the call, where it is to be another one.
    Whoever raised it has counted how often.
    """

    is_decided = True

    def __init__(
        self,
        message: str | None = None,
        exc: Any = None,
        when: Any = None,
        is_eager: bool = False,
        again: "Again | None" = None,
        **kwargs: Any,
    ) -> None:
        self.exc = exc
        self.when = when
        self.is_eager = is_eager
        self.again = again
        self.call = None if again is None else again.as_json
        self.message = message
        super().__init__(message or (f"Retry: {exc!r}" if exc is not None else "Retry"), delay=_seconds(when))

    def humanize(self) -> str:
        return f"in {self.when}s" if isinstance(self.when, int | float) else f"at {self.when}"


RetryTaskError = Retry


class Ignore(TaskPredicate):
    """The task ends, and there is no result: its job is CANCELLED, with this reason."""


class Reject(TaskPredicate):
    """The task gives its job back (``requeue=True``), or ends as with Ignore."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(str(reason or "rejected"))


class TaskError(CeleryError):
    """What tasks raise, and what waiting for them does."""


class MaxRetriesExceededError(TaskError):
    """``self.retry()`` without an ``exc``, and no retry is left."""

    def __init__(self, *args: Any, task_args: Any = (), task_kwargs: Any = None) -> None:
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}
        super().__init__(*args)


class TaskRevokedError(TaskError):
    """Waiting for a task that was revoked, or has expired."""


class ChordError(TaskError):
    """Waiting for a body whose header has failed."""


class InvalidTaskError(TaskError):
    """A message that is no task."""


class TimeoutError(TaskError, builtins.TimeoutError):
    """``get(timeout=…)`` has waited for so long."""


class NotRegistered(UnknownTask, KeyError):
    """A name under which no task is registered here."""

    __str__ = Exception.__str__  # a KeyError's would be in quotes


SoftTimeLimitExceeded = DeadlineExceeded
"""Raised inside of a task whose soft_time_limit is over. No ``Exception``: ``except Exception`` doesn't see it."""

TimeLimitExceeded = DeadlineExceeded
Terminated = CancelRequested
"""Raised inside of a task that was revoked with ``terminate=True``."""


def _seconds(when: Any) -> float | None:
    if isinstance(when, datetime.datetime):
        # A naive time is one of UTC, as in Celery.
        when = when.replace(tzinfo=when.tzinfo or datetime.UTC)
        delay: datetime.timedelta = when - datetime.datetime.now(datetime.UTC)
        return max(0.0, delay.total_seconds())
    return None if when is None else max(0.0, float(when))
