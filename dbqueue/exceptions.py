"""Every error that dbqueue raises, and those that a task raises to say how its attempt is to end."""

import datetime

from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation


class DBQueueError(Exception):
    """The base of all of them."""


class InvalidSettings(DBQueueError, ImproperlyConfigured):
    """A key of ``DBQUEUE``, or its environment variable, that can't be used."""


class InvalidTask(DBQueueError, ValueError):
    """A task that can't be declared so, or an option of ``using()`` that is not allowed."""


class InvalidQueue(DBQueueError, ValueError):
    """What is no queue's name, or a reason that can't be kept."""


class UnknownTask(DBQueueError, LookupError):
    """A name under which no task is registered in this process."""


class InvalidArguments(DBQueueError, TypeError):
    """Arguments that don't bind to the task's signature."""


class NotStorable(DBQueueError, TypeError, ValueError):
    """A value that JSON, or the database's JSON, can't hold."""


class JobDoesNotExist(DBQueueError, LookupError):
    """No job has this id."""


class ResultNotReady(DBQueueError, ValueError):
    """The job's return value was asked for before it succeeded."""


class JobFailed(DBQueueError):
    """Waiting for a job that ended FAILED; the text holds its last traceback."""


class JobCancelled(DBQueueError):
    """Waiting for a job that ended CANCELLED."""


class WouldNeverFinish(DBQueueError):
    """Waiting, inside an open transaction, for a job that only this transaction's commit makes visible."""


class NotDurable(DBQueueError):
    """A job that was to survive the rollback of the caller's transaction can't be written beside it."""


class TookTooLong(DBQueueError):
    """A statement that somebody waits for took longer than it may, and was given up."""


class WorkerLost(DBQueueError):
    """Recorded as the error of an attempt whose worker process died."""


class Interrupt(BaseException):
    """Raised inside a running task from outside.

    No Exception, as asyncio's CancelledError is none: an ``except Exception`` somewhere below is not to swallow it.
    """


class CancelRequested(Interrupt):
    """Raised inside a running task that somebody wants to end."""

    def __init__(self, text: str = "Somebody wants this job to end.") -> None:
        super().__init__(text)


class DeadlineExceeded(Interrupt):
    """Raised inside a running task whose ``timeout`` is over, and recorded as the error of its attempt."""

    def __init__(self, text: str = "The task's timeout is over.") -> None:
        super().__init__(text)


HARD_TIMEOUT = "The task's hard_timeout is over."
"""What a DeadlineExceeded says whose task never heard of it: the process was ended."""


class Retry(DBQueueError):
    """Raised by a task: this attempt has failed, try again. With no attempt left the job ends FAILED.

    ``delay`` is in seconds or a timedelta; None leaves it to the task's ``backoff``. Raises ValueError.
    """

    is_decided = False
    """Whether it is tried again whatever ``max_attempts`` says: who raised it has counted."""

    call: "tuple[str, str] | None" = None
    """The args and kwargs of the next attempt as JSON, checked by who raised it; None: those of this one."""

    def __init__(self, reason: str = "", *, delay: "float | datetime.timedelta | None" = None) -> None:
        super().__init__(reason or "The task asked to be tried again.")
        self.delay = None if delay is None else seconds(delay, "delay")


class Replaced(BaseException):
    """Raised by ``context.replace()`` to end a run; nothing is to swallow it."""


class NotInGroup(DBQueueError):
    """Members were to be added to a group by a job that stands in none."""


class Snooze(DBQueueError):
    """Raised by a task: run me again in ``delay`` seconds (or a timedelta). No attempt is used. Raises ValueError."""

    def __init__(self, delay: "float | datetime.timedelta") -> None:
        self.delay = seconds(delay, "delay")
        super().__init__(f"The task asked to be run in {self.delay:g} s.")


class Discard(DBQueueError):
    """Raised by a task: there is nothing to be done any more. The job ends CANCELLED, with this ``reason``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def refused_in_async_code(what: str, instead: str) -> SynchronousOnlyOperation:
    """Django's own error, in words that name the way there is."""
    return SynchronousOnlyOperation(f"{what} from async code, where Django's database can't be used: {instead}.")


LONGEST = 3_155_760_000.0
"""Seconds (a hundred years) of the longest delay."""


def seconds(value: object, name: str, *, may_be_zero: bool = True) -> float:
    """A duration in seconds. Raises ValueError for what is none, is negative or longer than a hundred years."""
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    is_none = isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST
    if is_none or (value == 0 and not may_be_zero):
        allowed = "from 0 to a hundred years" if may_be_zero else "longer than 0 and at most a hundred years"
        raise ValueError(f"{name} is {value!r}; it must be seconds or a timedelta, {allowed}.")
    return float(value)  # type: ignore[arg-type]
