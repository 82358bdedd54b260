"""Run one claimed job and say how it ended. No SQL here."""

import logging
import os
import sys
import traceback
from contextlib import suppress

from . import registry
from .claim import Claim
from .conf import Settings
from .definition import Task
from .encoding import encode
from .exceptions import NotStorable, UnknownTask
from .outcome import Outcome, headline

logger = logging.getLogger("dbqueue.job")

UNKNOWN_TASK_PAUSE = 30.0
"""Seconds before a job whose task this worker doesn't know is offered to the workers again, where it may wait."""


class Executor:
    """Turns a claim into an outcome. Whatever the task does, ``run()`` returns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, claim: Claim) -> Outcome:
        try:
            task = registry.find(claim.task).for_claim(claim)
        except UnknownTask as exc:
            return self._unknown(claim, exc)
        try:
            outcome = self._succeed(task, claim)
        except BaseException as exc:  # noqa: BLE001  sys.exit() in a task ends the task, not the worker
            return self._fail(task, claim, exc)
        task.ended(claim, self._settings.database, outcome)
        logger.info("Job %s succeeded", claim)
        return outcome

    def _succeed(self, task: Task[..., object], claim: Claim) -> Outcome:
        task.started(claim, self._settings.database)
        value = _called(task, claim, self._settings.database)
        return Outcome.succeeded(claim, self._encoded(value))

    def _fail(self, task: Task[..., object], claim: Claim, exc: BaseException) -> Outcome:
        outcome = Outcome.failed(claim, exc)
        task.ended(claim, self._settings.database, outcome)
        logger.error("Job %s failed: %s", claim, headline(exc), exc_info=exc)
        return outcome

    def _encoded(self, value: object) -> str | None:
        if value is None:
            return None
        text = encode(value, "The return value")
        size = len(text.encode())
        if size > self._settings.max_result_bytes:
            raise NotStorable(
                f"The return value has {size} bytes as JSON; DBQUEUE['MAX_RESULT_BYTES'] allows "
                f"{self._settings.max_result_bytes}. Store it elsewhere and return where it is."
            )
        return text

    def _unknown(self, claim: Claim, exc: UnknownTask) -> Outcome:
        if self._settings.unknown_task == "wait":
            logger.warning("Job %s waits for a worker that knows its task: %s", claim, exc)
            return Outcome.postponed(claim, UNKNOWN_TASK_PAUSE)
        logger.error("Job %s failed: %s", claim, exc)
        return Outcome.failed(claim, exc)


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
