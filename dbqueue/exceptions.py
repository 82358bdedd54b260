"""Every error that dbqueue raises."""

from django.core.exceptions import ImproperlyConfigured


class DBQueueError(Exception):
    """The base of all of them."""


class InvalidSettings(DBQueueError, ImproperlyConfigured):
    """A key of ``DBQUEUE``, or its environment variable, that can't be used."""


class InvalidTask(DBQueueError, ValueError):
    """A task that can't be declared so, or an option of ``using()`` that is not allowed."""


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


class WorkerLost(DBQueueError):
    """Recorded as the error of an attempt whose worker process died."""
