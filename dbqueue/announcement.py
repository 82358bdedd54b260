"""What a signal tells, made where something happens and sent where it does no harm."""

import datetime
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from django.dispatch import Signal

from . import registry, signals
from .claim import Claim
from .exceptions import UnknownTask
from .models import GROUP, Job, JobStatus
from .outcome import Outcome
from .transactions import kept

logger = logging.getLogger("dbqueue.job")

_BY_STATUS = {
    JobStatus.SUCCESSFUL: signals.job_succeeded,
    JobStatus.FAILED: signals.job_failed,
    JobStatus.SCHEDULED: signals.job_retrying,
    JobStatus.CANCELLED: signals.job_cancelled,
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """One signal, not sent yet. Where nobody would hear it, none is made."""

    signal: Signal
    told: dict[str, Any]

    @classmethod
    def of_outcome(cls, outcome: Outcome) -> Self | None:
        signal, claim = _BY_STATUS.get(outcome.status), outcome.claim
        if signal is None or not signal.receivers:  # what was replaced has not ended
            return None
        told = _of_claim(claim)
        if signal is signals.job_cancelled:
            told = {**_without_worker(told), "reason": outcome.reason}
        elif signal is not signals.job_succeeded:
            failure = outcome.failure
            told["exception_class_path"] = failure.exception_class_path if failure else ""
            told["traceback"] = failure.traceback if failure else ""
        if signal is signals.job_retrying:
            told["delay"] = outcome.delay
        return cls(signal, told)

    @classmethod
    def of_new(cls, job_id: int, task_name: str, queue_name: str, run_after: datetime.datetime | None) -> Self | None:
        """Of a job that was just inserted."""
        if not signals.job_enqueued.receivers:
            return None
        told = {"job_id": job_id, "task_name": task_name, "queue_name": queue_name, "attempt": 0}
        return cls(signals.job_enqueued, {**told, "run_after": run_after})

    @classmethod
    def of_start(cls, claim: Claim) -> Self | None:
        return cls(signals.job_started, _of_claim(claim)) if signals.job_started.receivers else None

    @classmethod
    def of_jobs(cls, signal: Signal, jobs: Iterable[Job], **told: Any) -> list[Self]:
        """The same of many rows, but for groups, which are no jobs. None is read where nobody would hear of them."""
        if not signal.receivers:
            return []
        return [
            cls(
                signal,
                {"job_id": job.pk, "task_name": job.task, "queue_name": job.queue_name, "attempt": job.attempt, **told},
            )
            for job in jobs
            if job.task != GROUP
        ]

    @classmethod
    def of_worker(cls, signal: Signal, **told: Any) -> Self | None:
        return cls(signal, told) if signal.receivers else None

    def send(self) -> None:
        """Tell the receivers, on this thread. Nothing that they do reaches the caller."""
        name = self.told.get("task_name")
        try:
            with kept(f"A receiver of a signal for {self}"):
                self.signal.send_robust(sender=_sender(name), **self.told)
        except BaseException:
            # sys.exit() in a receiver, which send_robust() lets through.
            logger.exception("A receiver of a signal for %s wanted to end the process", self)

    def __str__(self) -> str:
        job = self.told.get("job_id")
        return f"worker {self.told.get('name')}" if job is None else f"job id={job} task={self.told['task_name']}"


def _of_claim(claim: Claim) -> dict[str, Any]:
    return {
        "job_id": claim.job_id,
        "task_name": claim.task,
        "queue_name": claim.queue_name,
        "attempt": claim.attempt,
        "worker_id": claim.worker_id,
    }


def _without_worker(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "worker_id"}


def _sender(name: str | None) -> Any:
    """The task as its module holds it: for one of ``django.tasks`` that is Django's own object."""
    if name is None:
        return None
    try:
        task = registry.find(name)
    except UnknownTask:
        return None
    return getattr(task, "declared", task)
