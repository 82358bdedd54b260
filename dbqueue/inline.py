"""Run jobs on the caller's thread, connection and transaction: for tests, and for DBQUEUE['IMMEDIATE']."""

import contextvars
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from django.db import DataError, Error, IntegrityError

from .announcement import Announcement
from .claim import Claim
from .conf import Settings
from .connections import owned_connection
from .exceptions import JobDoesNotExist
from .executor import Executor
from .models import JobStatus
from .outcome import Outcome, secrets_of
from .results import JobResult
from .running import Running
from .services.base import BEATS
from .store import called_back, store_for
from .transactions import kept

logger = logging.getLogger("dbqueue.job")

BATCH = 500
"""Jobs that are claimed by one statement."""


class InlineWorker:
    """A worker of one thread, which is the caller's. Its row is there while it works: another may stand inside it."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.store = store_for(settings.database)
        self._executor = Executor(settings)
        self._name = name
        self._pause = settings.heartbeat_timeout / BEATS
        self._done = threading.Event()
        self.called_back: list[int] = []
        """The callbacks of what has failed here."""

    def __enter__(self) -> Self:
        self.id = self.store.register(
            name=self._name, hostname=socket.gethostname(), pid=os.getpid(), queues="", threads=1
        )
        if not self.store.connection.in_atomic_block:
            # Otherwise nobody else sees its row, and so nobody can take it for dead.
            threading.Thread(target=self._beat, name="dbqueue-inline-heartbeat", daemon=True).start()
        return self

    def _beat(self) -> None:
        while not self._done.wait(self._pause):
            try:
                with owned_connection(self.store.alias):
                    self.store.beat(self.id)
            except Error as exc:
                logger.warning("The heartbeat of an inline worker failed, trying again: %s", str(exc).strip())

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self.store.forget(self.id)

    def run(self, claim: Claim) -> None:
        """Run it and write its outcome. After that a KeyboardInterrupt of the job reaches the caller, and no error."""
        running = Running(claim)
        with kept(f"Job {claim}"):
            # A context of its own, as in a worker.
            outcome = contextvars.copy_context().run(self._executor.run, claim, running)
        self._write(outcome)
        if running.has_reports:
            self.store.write_reports([running])
        if claim.concurrency_key:
            self.store.unblock({claim.concurrency_key})
        if outcome.failure and outcome.failure.exception_class_path == "builtins.KeyboardInterrupt":
            raise KeyboardInterrupt  # who pressed it wants the whole process to end

    def _write(self, outcome: Outcome) -> None:
        try:
            with self.store.atomic():
                refused = self._finish(outcome)
        except Exception as exc:
            if isinstance(exc, Error) and not isinstance(exc, DataError | IntegrityError):
                raise
            why = secrets_of(outcome.claim).scrub(str(exc).strip())
            logger.error("The outcome of job %s could not be written: %s", outcome.claim, why)
            outcome = outcome.refused(exc)
            refused = self._finish(outcome)
        if refused:
            logger.warning("Lease lost: the outcome %s of job %s was refused", outcome.status, outcome.claim)
        elif announcement := Announcement.of_outcome(outcome):
            announcement.send()

    def _finish(self, outcome: Outcome) -> list[Outcome]:
        heard: list[int] = []
        token = called_back.set(heard)
        try:
            refused = self.store.finish([outcome])
        finally:
            called_back.reset(token)
        self.called_back += heard
        return refused


def run_at_once(
    insert: Callable[[], list[JobResult[Any]]], entered: Callable[[JobResult[Any]], None]
) -> list[JobResult[Any]]:
    """Run the jobs that ``insert`` makes, one after another, where they are due. The results tell how that went."""
    with InlineWorker(Settings.load(), "immediate") as worker:
        with worker.store.atomic():
            results = insert()
            # In one transaction, or a worker elsewhere might be faster.
            claims = _claimed(worker, [result for result in results if not result.duplicate])
        for result in results:
            entered(result)
        _run_all(worker, claims)
    for result in results:
        with suppress(JobDoesNotExist):  # a job may have deleted it
            result.refresh()
    return results


def _claimed(worker: InlineWorker, results: list[JobResult[Any]]) -> list[Claim]:
    if any(result.status is JobStatus.SCHEDULED for result in results):
        while worker.store.promote():
            pass
    claims: list[Claim] = []
    for start in range(0, len(results), BATCH):
        claims += worker.store.claim_these(worker.id, [int(result.id) for result in results[start : start + BATCH]])
    return claims


def _run_all(worker: InlineWorker, claims: list[Claim]) -> None:
    left = deque(claims)
    try:
        while left:
            claim = left.popleft()
            worker.run(claim)
            left.extend(_released(worker, claim))
    finally:
        if left:  # after a KeyboardInterrupt
            worker.store.release(left)


def _released(worker: InlineWorker, claim: Claim) -> list[Claim]:
    """What may begin now that this one has ended: steps of its workflow, and those who are told of a failure."""
    if (workflow_id := worker.store.workflow_of(claim)) is None:
        return []
    called, worker.called_back = worker.called_back, []
    steps = worker.store.jobs.filter(workflow_id=workflow_id, status=JobStatus.READY).order_by("id")
    return worker.store.claim_these(worker.id, [*steps.values_list("pk", flat=True), *called])
