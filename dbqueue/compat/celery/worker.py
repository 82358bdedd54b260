"""dbqueue's own signals, told on by Celery's names."""

import logging
from typing import Any

from ... import signals as own
from . import signals

logger = logging.getLogger("dbqueue.worker")


def ready(sender: Any = None, name: str = "", **kwargs: Any) -> None:
    """A worker process has started: all that Celery tells of that, in its order.

    What of beat_schedule can't be a schedule is left out, and said once more: who starts a worker may skip the checks.
    """
    from .checks import schedule_problems

    for problem in schedule_problems():
        logger.error("%s", problem)
    for signal in (signals.worker_init, signals.worker_process_init, signals.worker_ready):
        signal.send(sender=name)


def stopping(sender: Any = None, name: str = "", reason: str = "", **kwargs: Any) -> None:
    signals.worker_shutting_down.send(sender=name, sig=reason, how="warm", exitcode=0)
    signals.worker_process_shutdown.send(sender=name, pid=None, exitcode=0)
    signals.worker_shutdown.send(sender=name)


def cancelled(sender: Any = None, job_id: int = 0, reason: str = "", **kwargs: Any) -> None:
    """Of a task of Celery's kind."""
    from .bridge import CoreTask
    from .request import Request
    from .result import job_rows

    if not isinstance(sender, CoreTask) or not signals.task_revoked.receivers:
        return
    if (job := job_rows().filter(pk=job_id).first()) is not None:
        request = Request.of_row(sender.celery, job)
        signals.task_revoked.send(
            sender=sender.celery, request=request, terminated=False, signum=None, expired=reason == "expired"
        )


def connect() -> None:
    """Listen where somebody might hear it. Called when Django is ready."""
    own.worker_ready.connect(ready, dispatch_uid="dbqueue.compat.celery")
    own.worker_stopping.connect(stopping, dispatch_uid="dbqueue.compat.celery")
    own.job_cancelled.connect(cancelled, dispatch_uid="dbqueue.compat.celery")
