"""dbqueue's own signals, told on by Celery's names."""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import signals as own
from ...exceptions import HARD_TIMEOUT, WorkerLost
from . import signals

if TYPE_CHECKING:
    from .app import Celery

logger = logging.getLogger("dbqueue.worker")


@dataclass(frozen=True)
class Told:
    """Who is said to have started or ended, as far as receivers ask of it."""

    hostname: str

    @property
    def app(self) -> "Celery":
        from .app import the_app

        return the_app()

    def __str__(self) -> str:
        return self.hostname


def ready(sender: Any = None, name: str = "", **kwargs: Any) -> None:
    """A worker process has started: all that Celery tells of that, in its order.

    What of beat_schedule can't be a schedule is left out, and said once more: who starts a worker may skip the checks.
    """
    from .checks import schedule_problems, troubles

    for problem in (*troubles(), *schedule_problems()):
        logger.error("%s", problem)
    signals.worker_init.send(sender=Told(name))
    signals.worker_process_init.send(sender=None)
    signals.worker_ready.send(sender=Told(name))


def stopping(sender: Any = None, name: str = "", reason: str = "", **kwargs: Any) -> None:
    signals.worker_shutting_down.send(sender=name, sig=reason, how="warm", exitcode=0)
    signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    signals.worker_shutdown.send(sender=Told(name))


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


def failed(sender: Any = None, job_id: int = 0, exception_class_path: str = "", traceback: str = "", **kw: Any) -> None:
    """Of a task whose own process could not tell: of its worker's death, and of its ``time_limit``."""
    from .bridge import CoreTask, tell_failure
    from .result import job_rows

    is_lost = exception_class_path == f"{WorkerLost.__module__}.{WorkerLost.__qualname__}"
    is_overdue = traceback.rstrip().endswith(HARD_TIMEOUT)
    if not isinstance(sender, CoreTask) or not (is_lost or is_overdue):
        return
    if (job := job_rows().filter(pk=job_id).first()) is not None:
        # As with Celery the task's own hooks are told of a limit alone.
        tell_failure(sender.celery, job, traceback, with_hooks=is_overdue)


def connect() -> None:
    """Listen where somebody might hear it. Called when Django is ready."""
    own.worker_ready.connect(ready, dispatch_uid="dbqueue.compat.celery")
    own.worker_stopping.connect(stopping, dispatch_uid="dbqueue.compat.celery")
    own.job_failed.connect(failed, dispatch_uid="dbqueue.compat.celery")
    own.job_cancelled.connect(cancelled, dispatch_uid="dbqueue.compat.celery")
