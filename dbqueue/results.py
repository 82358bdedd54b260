"""A job's row seen from outside: its state, waiting for its end, its value or its errors."""

import datetime
import logging
import math
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.utils import timezone

from . import registry, signals
from .announcement import Announcement
from .claim import Claim
from .conf import Settings
from .encoding import storable_text
from .exceptions import (
    CancelRequested,
    InvalidTask,
    JobCancelled,
    JobDoesNotExist,
    JobFailed,
    NotInGroup,
    Replaced,
    ResultNotReady,
    WouldNeverFinish,
    refused_in_async_code,
)
from .models import Job, JobStatus, LogLine, is_id
from .running import Running, current
from .store import is_served, store_for
from .waiting import Patience

if TYPE_CHECKING:
    from .canvas import Node

logger = logging.getLogger("dbqueue.results")

R = TypeVar("R")

MESSAGE_LENGTH = 200

WARN_AFTER = 10.0
"""Seconds of a wait after which the log tells where no worker is there. Who gave no timeout would never learn it."""

CALL_LATER = "Call get() after the commit; in a test, after dbqueue.testing.run_jobs()."
"""What to do about a wait that would never end."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why one attempt failed."""

    exception_class_path: str
    traceback: str

    @property
    def exception_class(self) -> type[BaseException]:
        """The exception's class. Raises ImportError if its module isn't imported, ValueError if it is no exception."""
        module, _, name = self.exception_class_path.rpartition(".")
        found = getattr(sys.modules.get(module), name, None)
        if found is None:
            raise ImportError(f"{self.exception_class_path!r} is not imported here, and a row has nothing imported.")
        if not isinstance(found, type) or not issubclass(found, BaseException):
            raise ValueError(f"{self.exception_class_path!r} does not reference a valid exception.")
        return found


@dataclass(slots=True, kw_only=True)
class JobResult(Generic[R]):
    """What is known of a job, as of the last look; ``refresh()`` looks again.

    The names are those of ``django.tasks.TaskResult``. ``status`` is a JobStatus; the times are those of the database.
    """

    id: str
    task_name: str
    status: JobStatus
    # Who logs a result is not to log what may be sensitive.
    args: list[Any] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    queue_name: str
    priority: int
    backend: str
    run_after: datetime.datetime | None
    enqueued_at: datetime.datetime
    started_at: datetime.datetime | None = None
    last_attempted_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    attempts: int = 0
    errors: list[JobError]
    worker_ids: list[str]
    max_attempts: int = 1
    expires_at: datetime.datetime | None = None
    reason: str = ""
    progress: dict[str, Any] | None = field(default=None, repr=False)
    database: str
    duplicate: bool = field(default=False, compare=False)
    """Whether ``unique`` has made this enqueue return a job that was there already."""
    _return_value: Any = field(default=None, repr=False)
    _uncommitted: bool = field(default=False, compare=False, repr=False)

    @property
    def task(self) -> Any:
        """The registered task. Raises UnknownTask where this process has none of that name."""
        return registry.find(self.task_name)

    @property
    def is_finished(self) -> bool:
        return self.status.is_final

    @property
    def return_value(self) -> R | None:
        """What the task returned. Raises ResultNotReady (a ValueError) unless the job has succeeded."""
        if self.status is JobStatus.SUCCESSFUL:
            return cast(R, self._return_value)
        raise ResultNotReady(
            f"Job {self.id} ended {self.status}: it has no return value; see .errors."
            if self.is_finished
            else f"Job {self.id} has not finished yet: it is {self.status}."
        )

    def refresh(self) -> None:
        """Look again. Raises JobDoesNotExist if the row has gone."""
        fresh = get_result(self.id, database=self.database)
        for name in self.__slots__:
            if name not in ("_uncommitted", "duplicate"):
                setattr(self, name, getattr(fresh, name))

    async def arefresh(self) -> None:
        """The same as refresh(), from async code."""
        await sync_to_async(self.refresh)()

    def get(self, timeout: float | None = None) -> R:
        """Wait for the job's end, at most ``timeout`` seconds (None: for ever), and return what the task returned.

        Raises JobFailed with the last traceback, JobCancelled, and what wait() raises.
        """
        self.wait(timeout)
        if self.status is JobStatus.FAILED:
            raise JobFailed(f"Job {self.id} ({self.task_name}) failed.\n\n{self.errors[-1].traceback}")
        if self.status is JobStatus.CANCELLED:
            raise JobCancelled(f"Job {self.id} ({self.task_name}) was cancelled{self.reason and f': {self.reason}'}.")
        return cast(R, self._return_value)

    async def aget(self, timeout: float | None = None) -> R:
        """The same as get(), from async code."""
        return await sync_to_async(self.get)(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the job's end, however it ends. Raises TimeoutError after ``timeout`` seconds (None: never).

        A wait that takes more than a moment has a connection of its own, on which the database tells of the end. Inside
        the transaction that enqueued the job WouldNeverFinish is raised at once: no worker gets it before the commit.
        """
        if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
            raise ValueError(f"timeout is {timeout!r}; it must be seconds, from 0, or None.")
        began = time.monotonic()
        end = math.inf if timeout is None else began + timeout
        warn_at = began + WARN_AFTER
        with Patience(self.database, int(self.id)) as patience:
            while not self._ended_by_now():
                self._refuse_endless_wait()
                now = time.monotonic()
                if now >= end:
                    raise TimeoutError(f"{self._still(f'{timeout} s')}{self._nobody_there()}")
                if now >= warn_at:
                    warn_at = math.inf
                    self._warn_of_nobody()
                patience.wait(end - now)

    def cancel(self, *, interrupt: bool = False) -> bool:
        """Ask for the job's end, in the caller's transaction. Returns whether there was anything to end.

        One that waits is CANCELLED at once. One that runs learns it from ``context.cancelled``; with ``interrupt``
        CancelRequested is raised inside it, too. It ends CANCELLED if it raises anything after that, or comes back for
        another attempt; what it returns nevertheless stands.
        """
        asked = store_for(self.database).request_cancel([int(self.id)], interrupt=interrupt)
        self.refresh()
        if asked.cancelled:
            self._announce_cancel()
        return any(asked)

    async def acancel(self, *, interrupt: bool = False) -> bool:
        """The same as cancel(), from async code."""
        return await sync_to_async(self.cancel)(interrupt=interrupt)

    def retry(self) -> bool:
        """Let it run again if it has failed or was cancelled, in the caller's transaction. Returns whether it will.

        It has a fresh count of attempts, and its history stays. One whose time has not come waits for it again. A step
        whose turn had not come does so too, or is left alone where what it waits for has not succeeded. A job that was
        replaced is tried again by what is inside of it.
        """
        retried = store_for(self.database).retry([int(self.id)])
        self.refresh()
        return bool(retried)

    async def aretry(self) -> bool:
        """The same as retry(), from async code."""
        return await sync_to_async(self.retry)()

    @property
    def log(self) -> list[str]:
        """The lines that the job has logged so far, of all its attempts, oldest first."""
        lines = LogLine.objects.using(self.database).filter(job_id=int(self.id))
        return list(lines.values_list("text", flat=True))

    def _ended_by_now(self) -> bool:
        if not self.is_finished:
            self.refresh()
        return self.is_finished

    def _still(self, waited: str) -> str:
        return f"Job {self.id} ({self.task_name}) is still {self.status} after {waited}."

    def _nobody_there(self) -> str:
        """A sentence more where no worker is there that could run it; empty where one is."""
        workers = store_for(self.database).living_workers(Settings.load().heartbeat_timeout)
        if not workers:
            return " No worker is alive: start one with manage.py dbqueue_worker."
        # Of a step whose turn has not come, or a group, the queue tells nothing.
        if self.status is JobStatus.READY and not is_served(self.queue_name, workers):
            return f" No living worker serves the queue {self.queue_name!r}."
        return ""

    def _warn_of_nobody(self) -> None:
        if nobody := self._nobody_there():
            logger.warning("%s%s", self._still(f"{WARN_AFTER:g} s"), nobody)

    def _announce_cancel(self) -> None:
        row = Job(pk=int(self.id), task=self.task_name, queue_name=self.queue_name, attempt=self.attempts)
        for told in Announcement.of_jobs(signals.job_cancelled, [row], reason=self.reason):
            transaction.on_commit(told.send, using=self.database)

    def _refuse_endless_wait(self) -> None:
        if self._uncommitted and connections[self.database].in_atomic_block:
            raise WouldNeverFinish(
                f"Job {self.id} was enqueued in a transaction that is still open, so no worker can see it: waiting "
                f"here would never end. {CALL_LATER}"
                if not self.duplicate
                else f"Job {self.id} was there already, and the enqueue that found it has locked it until the end of "
                "this transaction, so no worker can claim it or write its outcome: waiting here would never end. "
                f"{CALL_LATER}"
            )


def get_result(result_id: str | int, *, database: str | None = None) -> JobResult[Any]:
    """Look a job up by its id. ``database`` is an alias; by default the one of the settings.

    Raises JobDoesNotExist, also for an id that is no id.
    """
    alias = database or Settings.load().database
    pk = id_of(result_id, "job")
    try:
        return from_row(Job.objects.using(alias).prefetch_related("attempt_set").get(pk=pk))
    except Job.DoesNotExist:
        raise JobDoesNotExist(f"No job has the id {pk}.") from None


def id_of(given: object, kind: str) -> int:
    """What may be the id of a job or workflow. Raises JobDoesNotExist for what can be none."""
    text = str(given)
    if not is_id(text):
        raise JobDoesNotExist(f"{given!r} is not the id of a {kind}: ids are whole numbers.")
    return int(text)


def from_row(job: Job) -> JobResult[Any]:
    """The same for a row in hand; reads its attempts."""
    history = list(job.attempt_set.all())
    workers = [attempt.worker_id for attempt in history]
    if (current := job.unrecorded_worker_id()) is not None:
        workers.append(current)
    return JobResult(
        id=str(job.pk),
        task_name=job.task,
        status=JobStatus(job.status),
        args=job.args,
        kwargs=job.kwargs,
        queue_name=job.queue_name,
        priority=job.priority,
        backend=job.backend,
        run_after=job.run_after,
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        last_attempted_at=job.last_attempted_at,
        finished_at=job.finished_at,
        attempts=job.attempt,
        errors=[JobError(attempt.exception_class_path, attempt.traceback) for attempt in history],
        worker_ids=[str(worker) for worker in workers],
        max_attempts=job.max_attempts,
        expires_at=job.expires_at,
        reason=job.reason,
        progress=job.progress,
        database=job._state.db or "default",
        _return_value=job.return_value,
    )


@dataclass(frozen=True, slots=True)
class Context:
    """What a running task is told of its own job, and what it tells."""

    claim: Claim
    database: str
    _running: Running | None = field(default=None, compare=False, repr=False)

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self.claim.attempt

    @property
    def headers(self) -> dict[str, Any]:
        """What travels with the job; empty without."""
        return dict(self.claim.options.get("headers") or {})

    @property
    def task_result(self) -> JobResult[Any]:
        """The job as it stands in the database now."""
        return get_result(self.claim.job_id, database=self.database)

    @property
    def deadline(self) -> datetime.datetime | None:
        """When the task's ``timeout`` will be over, by this host's clock; None without one."""
        return None if self._running is None else self._running.deadline

    def remaining(self) -> float | None:
        """Seconds until the deadline, never below zero; None without one."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, (deadline - timezone.now()).total_seconds())

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants this job to end. Known within about a second."""
        return self._running is not None and self._running.cancelled

    def raise_if_cancelled(self) -> None:
        """Raises CancelRequested (no Exception) if somebody wants this job to end: a good place to stop."""
        if self.cancelled:
            raise CancelRequested

    def replace(self, workflow: "Node") -> NoReturn:
        """End this run, and do ``workflow`` (a signature, chain or group) in its place.

        The job keeps its id, its place and its callbacks; it WAITS, and its result will be that of ``workflow``. Queue,
        priority and headers are this job's where ``workflow`` does not say otherwise. Nothing is written before the
        attempt's own end is. Raises Replaced, which nobody is to catch, and for what can't be run what ``enqueue()``
        raises.
        """
        plan = self._inherited(workflow).plan()
        if self._running is not None:
            self._running.replacement = plan
        raise Replaced

    def add(self, *members: "Node") -> None:
        """Add members to the group in which this job stands, behind the others; what follows the group waits for them.

        They are written with this attempt's outcome, and only if it succeeds, or is replaced. An async task awaits
        ``aadd()``, because the database is asked. Raises NotInGroup, and what ``enqueue()`` raises.
        """
        group_id = self._group_id()
        if group_id is None:
            raise NotInGroup(f"Job {self.claim.job_id} ({self.claim.task}) stands in no group: nothing can be added.")
        plans = [self._inherited(member).plan() for member in members]
        if self._running is not None:
            self._running.added.setdefault(group_id, []).extend(plans)

    async def aadd(self, *members: "Node") -> None:
        """The same as add(), from async code."""
        await sync_to_async(self.add)(*members)

    def _group_id(self) -> int | None:
        if self._running is not None and self._running.added:
            return next(iter(self._running.added))  # a job stands in one group, and it was asked for before
        try:
            return store_for(self.database).enclosing_group(self.claim.job_id)
        except SynchronousOnlyOperation:
            raise refused_in_async_code("add() is called", "await context.aadd(…) instead") from None

    def _inherited(self, node: "Node") -> "Node":
        if not hasattr(node, "inherit"):
            raise InvalidTask(f"{node!r} is no signature, chain or group: make one with task.s(…).")
        return node.inherit(
            {"queue_name": self.claim.queue_name, "priority": self.claim.priority, "headers": self.headers or None}
        )

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the job is: ``done`` of ``total``, in whatever unit, and a few words (at most 200 characters).

        Cheap to call often: the row gets the latest word about twice a second, and the last one at the end. Raises
        ValueError.
        """
        for name, value in (("done", done), ("total", total)):
            if not _is_amount(value) and not (name == "total" and value is None):
                raise ValueError(f"{name} is {value!r}; it must be a finite number, not below zero.")
        if not isinstance(message, str) or len(message) > MESSAGE_LENGTH:
            raise ValueError(f"message is {message!r}; it must be text of at most {MESSAGE_LENGTH} characters.")
        if self._running is not None:
            self._running.tell_progress(done, total, storable_text(message))

    def log(self, message: str, *args: object) -> None:
        """Keep a line with the job, formatted as by ``logging``: ``context.log("Read %d rows", n)``.

        At most 1,000 lines of an attempt are kept, and 2,000 characters of a line. What can't be formatted is kept
        beside its arguments: no job fails by its log.
        """
        if self._running is None:
            return
        try:
            text = str(message) % args if args else str(message)
        except (TypeError, ValueError):
            text = f"{message} {args!r}"
        self._running.log(text)


def _is_amount(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= float(value) < math.inf
    except OverflowError:
        return False


def current_context() -> Context | None:
    """The context of the job that this code runs in; None outside of any."""
    running = current.get()
    return None if running is None else Context(running.claim, Settings.load().database, running)
