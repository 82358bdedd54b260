"""A task of ``django.tasks`` as workers run it, and a job's row as Django's ``TaskResult``."""

import json
import logging
import sys
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, Self

from asgiref.sync import async_to_sync
from django.db import Error, connections
from django.dispatch import Signal
from django.utils import timezone

from . import registry
from .claim import Claim
from .database_task import options_of
from .definition import Task, run_async
from .exceptions import InvalidTask, JobCancelled, UnknownTask
from .models import Attempt, JobStatus
from .outcome import Failure, Outcome
from .results import JobResult
from .tasks_api import (
    InvalidTaskBackend,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from .tasks_api import Task as DeclaredTask

logger = logging.getLogger("dbqueue.job")

STATUSES = {
    JobStatus.SCHEDULED: TaskResultStatus.READY,
    JobStatus.READY: TaskResultStatus.READY,
    JobStatus.BLOCKED: TaskResultStatus.READY,
    JobStatus.WAITING: TaskResultStatus.READY,
    JobStatus.RUNNING: TaskResultStatus.RUNNING,
    JobStatus.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
    JobStatus.FAILED: TaskResultStatus.FAILED,
    JobStatus.CANCELLED: TaskResultStatus.FAILED,
}
"""The states of a job, folded into the four that ``django.tasks`` knows."""


class DjangoTask(Task[..., Any]):
    """What dbqueue runs for a task that was declared with ``@django.tasks.task``.

    ``backend`` is the alias in TASKS; empty for a task that is declared on a backend that is not dbqueue's: it runs if
    a job names it, and can be enqueued only with its ``.using(backend=…)``. Signals are sent on the job's thread. For
    each claim there is a copy, from ``for_claim``.
    """

    sender: type
    result: "TaskResult[..., Any] | None" = None

    def __init__(self, declared: "DeclaredTask[..., Any]", backend: str) -> None:
        super().__init__(
            declared.func,
            name=declared.module_path,
            queue_name=declared.queue_name,
            priority=int(declared.priority),
            run_after=declared.run_after,
            takes_context=declared.takes_context,
            backend=backend,
            **options_of(declared),
        )
        self.declared = declared

    def like(self, task: "DeclaredTask[..., Any]", alias: str) -> Self:
        """This with the options of ``task``, a variant of the declared one. Raises InvalidTask."""
        other = self._copy()
        other.backend = alias
        changes = {"queue_name": task.queue_name, "priority": int(task.priority), "run_after": task.run_after}
        # What is as declared is left out: a function as backoff is one of the task, and no variant may bring its own.
        declared = options_of(self.declared)
        changes |= {name: value for name, value in options_of(task).items() if value != declared.get(name)}
        other._set(self.options.changed(changes))
        return other

    def entered(self, job: JobResult[Any]) -> None:
        if not job.duplicate:
            task_enqueued.send_robust(sender=type(task_backends[self.backend]), task_result=task_result(job))

    def for_claim(self, claim: Claim) -> Self:
        """A copy that belongs to one attempt. Raises UnknownTask where the job's backend is not configured here."""
        other = self._copy()
        other.backend = claim.backend or self.backend
        try:
            other.sender = type(task_backends[other.backend])
        except InvalidTaskBackend as exc:
            raise UnknownTask(
                f"The job of {self.name} is one of a backend that TASKS doesn't have here: {exc}"
            ) from exc
        return other

    def run(self, claim: Claim, database: str) -> Any:
        assert self.result is not None
        args = (self.context(claim, database), *claim.args) if self.takes_context else claim.args
        if self._is_async:
            value = async_to_sync(run_async)(self.func(*args, **claim.kwargs))
        else:
            value = self.result.task.call(*args, **claim.kwargs)
        # normalize_json, so that a value is refused with the same error as by Django's own backends.
        return normalize_json(value)

    def context(self, claim: Claim, database: str) -> Any:
        assert self.result is not None
        return TaskContext(task_result=self.result)

    def started(self, claim: Claim, database: str) -> None:
        self.result = self._running(claim, database)
        self._send(task_started, self.result)

    def ended(self, claim: Claim, database: str, outcome: Outcome) -> None:
        if self.result is None:
            return
        errors = [_error(outcome.failure)] if outcome.failure else []
        ended = replace(
            self.result,
            status=STATUSES[outcome.status],
            # By this host's clock. The row will have the database's.
            finished_at=timezone.now(),
            errors=[*self.result.errors, *errors],
        )
        _set_return_value(ended, None if outcome.value_json is None else json.loads(outcome.value_json))
        self._send(task_finished, ended)

    def _check_queue(self) -> None:
        if not self.backend:
            raise InvalidTask(
                f"{self.name} is declared for the backend {self.declared.backend!r}, which is not dbqueue's: "
                "enqueue it with its own .using(backend=…).enqueue()."
            )
        allowed = task_backends[self.backend].queues
        if allowed and self.queue_name not in allowed:
            raise InvalidTask(
                f"The queue {self.queue_name!r} is not among TASKS[{self.backend!r}]['QUEUES']: "
                f"{', '.join(map(repr, sorted(allowed)))}."
            )

    def _running(self, claim: Claim, database: str) -> "TaskResult[..., Any]":
        errors, workers = _history(claim, database)
        return TaskResult(
            task=_unvalidated(self.declared, self.backend, claim),
            id=str(claim.job_id),
            status=TaskResultStatus.RUNNING,
            enqueued_at=claim.enqueued_at,
            started_at=claim.started_at,
            last_attempted_at=claim.claimed_at,
            finished_at=None,
            args=claim.args,
            kwargs=claim.kwargs,
            backend=self.backend,
            errors=errors,
            worker_ids=[*workers, str(claim.worker_id)],
        )

    def _send(self, signal: Signal, result: "TaskResult[..., Any]") -> None:
        """Whatever a receiver does, the job's outcome is not its business; Django logs what it raises."""
        try:
            signal.send_robust(sender=self.sender, task_result=result)
        except BaseException:
            # sys.exit() in a receiver, which send_robust() lets through, would end the thread.
            logger.exception("A receiver of a signal for job id=%s wanted to end the process", result.id)


class Gone:
    """Stands in for the function of a task that this process doesn't know. Calling it raises UnknownTask."""

    def __init__(self, name: str) -> None:
        self.__module__, _, self.__name__ = name.rpartition(".")
        self.__qualname__ = self.__name__
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        registry.find(self._name)
        raise UnknownTask(f"{self._name!r} was not known when this result was read. Read it again.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Gone) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"<no task {self._name!r}>"


def adopt(task: "DeclaredTask[..., Any]", alias: str) -> DjangoTask:
    """The DjangoTask for a task, with that task's options; what it is a variant of becomes registered.

    Raises InvalidTask where it breaks a rule of dbqueue, or another task has its name.
    """
    known = registry.registered_as(task.module_path)
    if not isinstance(known, DjangoTask) or known.func is not task.func:
        declared = _imported(task.module_path)
        if declared is None or declared.func is not task.func:
            declared = task  # it is being declared now
        known = DjangoTask(declared, alias if declared.backend == alias else "")
        if known.backend:
            registry.register(known)
    return known.like(task, alias)


def find_declared(name: str) -> DjangoTask | None:
    """For the registry: a task that another backend validated, in a module that is imported already.

    One that is declared on another backend, and enqueued here with ``.using(backend=…)``, is validated by no
    DatabaseBackend of a worker.
    """
    declared = _imported(name)
    try:
        return None if declared is None else DjangoTask(declared, "")
    except InvalidTask:
        return None


def task_result(job: JobResult[Any], task: "DeclaredTask[..., Any] | None" = None) -> "TaskResult[..., Any]":
    """A row as ``django.tasks`` shows it. ``task``: what it was enqueued with, where that is at hand."""
    result = TaskResult(
        task=_unvalidated(task or _known(job.task_name), job.backend, job),
        id=job.id,
        status=STATUSES[job.status],
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        last_attempted_at=job.last_attempted_at,
        finished_at=job.finished_at,
        args=job.args,
        kwargs=job.kwargs,
        backend=job.backend,
        errors=[_error(error) for error in job.errors],
        worker_ids=job.worker_ids,
    )
    if job.status is JobStatus.SUCCESSFUL:
        _set_return_value(result, job.return_value)
    elif job.status is JobStatus.CANCELLED:
        result.errors.append(
            _error(Failure.of(JobCancelled(f"Job {job.id} was cancelled{job.reason and f': {job.reason}'}.")))
        )
    return result


def _known(name: str) -> "DeclaredTask[..., Any]":
    """The task of this name as declared, or one whose function can't be called."""
    try:
        task = registry.find(name)
    except UnknownTask:
        return _made(DeclaredTask, func=Gone(name), takes_context=False)
    if isinstance(task, DjangoTask):
        return task.declared
    return _made(DeclaredTask, func=task.func, takes_context=task.takes_context)


def _unvalidated(task: "DeclaredTask[..., Any]", alias: str, row: Claim | JobResult[Any]) -> "DeclaredTask[..., Any]":
    """``task`` as this row has it, also where its queue or its backend is not allowed any more."""
    # Options that TASKS' own tasks don't have stay as they are; a placeholder has no others.
    values = {field.name: getattr(task, field.name) for field in fields(task) if hasattr(task, field.name)}
    values |= {
        "backend": alias,
        "queue_name": row.queue_name,
        "priority": row.priority,
        "run_after": row.run_after,
    }
    return _made(type(task), **values)


def _made(kind: "type[DeclaredTask[..., Any]]", **values: Any) -> "DeclaredTask[..., Any]":
    """An instance without the validation that its construction does."""
    made: DeclaredTask[..., Any] = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _imported(name: str) -> "DeclaredTask[..., Any] | None":
    """The declared task that a dotted name leads to. Nothing is imported, and no code of a module runs."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:cut]))
        for part in parts[cut:]:
            # Only plain modules and classes: others may run code when they are asked for an attribute.
            found = vars(found).get(part) if type(found) is ModuleType or isinstance(found, type) else None
        if isinstance(found, DeclaredTask) and found.module_path == name:
            return found
    return None


def _history(claim: Claim, database: str) -> tuple[list[TaskError], list[str]]:
    """The errors and the workers of earlier attempts; the first attempt asks no database."""
    if claim.attempt == 1:
        return [], []
    rows: list[Attempt] = []
    try:
        rows.extend(Attempt.objects.using(database).filter(job_id=claim.job_id))
    except Error as exc:
        # A job must not fail for its history.
        logger.warning("The earlier attempts of job %s could not be read: %s", claim, str(exc).strip())
        connections[database].close_if_unusable_or_obsolete()
    unknown = [""] * (claim.attempt - 1 - len(rows))
    return [_error(row) for row in rows], [*unknown, *(str(row.worker_id) for row in rows)]


def _error(error: Any) -> TaskError:
    return TaskError(exception_class_path=error.exception_class_path, traceback=error.traceback)


def _set_return_value(result: "TaskResult[..., Any]", value: Any) -> None:
    object.__setattr__(result, "_return_value", value)
