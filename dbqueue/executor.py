"""Run one claimed job and say how it ended. No SQL here."""

import logging
import os
import sys
import traceback
from contextlib import suppress

from . import registry
from .announcement import Announcement
from .claim import Claim
from .conf import Settings
from .definition import Task
from .encoding import encode_result
from .exceptions import CancelRequested, DeadlineExceeded, Discard, Replaced, Retry, Snooze, UnknownTask
from .models import JobStatus
from .outcome import REQUESTED, Failure, Outcome, beyond_dbqueue, headline, secrets_of
from .retry import DEFAULT_BACKOFF, delay_after, from_json, is_one_of
from .running import Running, current

logger = logging.getLogger("dbqueue.job")

UNKNOWN_TASK_PAUSE = 30.0
"""Seconds before a job whose task this worker doesn't know is offered to the workers again, where it may wait."""


class Executor:
    """Turns a claim into an outcome. Whatever the task does, ``run()`` returns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, claim: Claim, running: Running | None = None) -> Outcome:
        running = running or Running(claim)
        token = current.set(running)
        try:
            return self._run(claim, running)
        finally:
            current.reset(token)

    def give_up(self, claim: Claim, exc: BaseException) -> Outcome:
        """How an attempt ends whose thread will not come back."""
        try:
            task = registry.find_to_run(claim.task).for_claim(claim)
        except UnknownTask as unknown:
            return Outcome.failed(claim, unknown)
        outcome = _failing(task, claim, exc)
        _log(outcome, exc)
        return outcome

    def _run(self, claim: Claim, running: Running) -> Outcome:
        if claim.is_expired:
            return self._expired(claim)
        try:
            task = registry.find_to_run(claim.task).for_claim(claim)
        except UnknownTask as exc:
            return self._unknown(claim, exc)
        if claim.is_late and task.expires_between_runs:
            return self._expired(claim)
        try:
            outcome = self._succeed(task, claim, running)
        except Replaced:
            return self._replaced(claim, running)
        except BaseException as exc:  # noqa: BLE001  sys.exit() in a task ends the task, not the worker
            outcome = Outcome.cancelled(claim, exc, REQUESTED) if running.cancelled else _failing(task, claim, exc)
            outcome = outcome._replace(ran=running.seconds)
            _log(outcome, exc)
            if outcome.status.is_final:
                task.ended(claim, self._settings.database, outcome)
            return outcome
        task.ended(claim, self._settings.database, outcome)
        logger.info("Job %s succeeded", claim)
        return outcome

    def _succeed(self, task: Task[..., object], claim: Claim, running: Running) -> Outcome:
        if announcement := Announcement.of_start(claim):
            announcement.send()
        task.started(claim, self._settings.database)
        value = running.call(lambda: _called(task, claim, self._settings.database))
        outcome = Outcome.succeeded(claim, self._encoded(value), running.seconds)
        return outcome._replace(added=running.added) if running.added else outcome

    def _replaced(self, claim: Claim, running: Running) -> Outcome:
        """How an attempt ends that has called for others in its place."""
        if running.cancelled or running.replacement is None:
            return Outcome.cancelled(claim, CancelRequested(), REQUESTED)
        logger.info("Job %s is replaced by %s", claim, running.replacement.name)
        outcome = Outcome.replaced(claim, running.replacement)
        return outcome._replace(added=running.added, ran=running.seconds)

    def _encoded(self, value: object) -> str | None:
        return None if value is None else encode_result(value, self._settings.max_result_bytes)

    def _expired(self, claim: Claim) -> Outcome:
        logger.warning("Job %s was not started in time, and is cancelled", claim)
        return Outcome.expired(claim)

    def _unknown(self, claim: Claim, exc: UnknownTask) -> Outcome:
        if self._settings.unknown_task == "wait":
            logger.warning("Job %s waits for a worker that knows its task: %s", claim, exc)
            return Outcome.postponed(claim, UNKNOWN_TASK_PAUSE)
        logger.error("Job %s failed: %s", claim, exc)
        return Outcome.failed(claim, exc)


def _failing(task: Task[..., object], claim: Claim, exc: BaseException) -> Outcome:
    """How an attempt ends that raised this."""
    match exc:
        case Snooze():
            return Outcome.postponed(claim, exc.delay)
        case Discard():
            return Outcome.cancelled(claim, exc, exc.reason)
    is_decided = isinstance(exc, Retry) and exc.is_decided
    if not is_decided and (claim.failures >= claim.max_attempts or not _may_retry(claim, exc)):
        return Outcome.failed(claim, exc)
    try:
        delay = _delay(task, claim, exc)
    except Exception as broken:  # noqa: BLE001  it is somebody's function; what it raised is in the log
        why = Failure.of(broken, secrets_of(claim)).traceback
        logger.error("The backoff of job %s could not be told: it fails\n%s", claim, why)
        return Outcome.failed(claim, exc)
    return Outcome.retried(claim, exc, delay, exc.call if isinstance(exc, Retry) else None)


def _may_retry(claim: Claim, exc: BaseException) -> bool:
    if isinstance(exc, Retry):
        return True
    options = claim.options
    if is_one_of(exc, options.get("give_up_on", [])):
        return False
    wanted = options.get("retry_on")
    return isinstance(exc, Exception | DeadlineExceeded) if wanted is None else is_one_of(exc, wanted)


def _delay(task: Task[..., object], claim: Claim, exc: BaseException) -> float:
    if isinstance(exc, Retry) and exc.delay is not None:
        return exc.delay
    stored = claim.options.get("backoff")
    # The row can't hold a function: it is asked of the task.
    backoff = task.options.backoff if stored is None else from_json(stored)
    return delay_after(DEFAULT_BACKOFF if backoff is None else backoff, claim.failures, exc)


def _log(outcome: Outcome, exc: BaseException) -> None:
    """Inside the ``except``, so that who logs the exception finds it."""
    claim, failure = outcome.claim, outcome.failure
    match outcome.status:
        case JobStatus.FAILED if failure and failure.is_scrubbed:
            logger.error("Job %s failed: %s\n%s", claim, failure.headline, failure.traceback)
        case JobStatus.FAILED:
            cut = (type(exc), exc, beyond_dbqueue(exc.__traceback__))
            logger.error("Job %s failed: %s", claim, headline(exc), exc_info=cut)
        case JobStatus.CANCELLED:
            logger.warning("Job %s is cancelled: %s", claim, outcome.reason)
        case _ if outcome.counted:
            logger.warning(
                "Job %s failed, %d of %d attempts%s, tried again in %.1f s: %s",
                claim,
                claim.failures,
                claim.max_attempts,
                " since an operator's retry" if claim.earlier_attempts else "",
                outcome.delay,
                failure.headline if failure else headline(exc),
            )
        case _:
            logger.info("Job %s asked to be run again in %.1f s", claim, outcome.delay)


def _called(task: Task[..., object], claim: Claim, database: str) -> object:
    """Call the task.

    If it forks, and the child comes back here, the child ends. It would go on as a second worker, on the same
    connections, whose threads and locks stayed behind in the parent.
    """
    pid = os.getpid()
    try:
        value = task.run(claim, database)
    except BaseException as exc:
        if os.getpid() != pid:
            _end_child(exc)
        raise
    if os.getpid() != pid:
        _end_child(SystemExit())
    return value


def _end_child(exc: BaseException) -> None:
    """End this process as Python would after ``exc``, but for what the parent has registered for its own end."""
    code = exc.code if isinstance(exc, SystemExit) else 1
    with suppress(Exception):
        if not isinstance(exc, SystemExit):
            traceback.print_exception(exc)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
