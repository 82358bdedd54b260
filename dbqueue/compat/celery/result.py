"""``AsyncResult`` and ``GroupResult``: a job, or a group of them, by Celery's names."""

import ast
import builtins
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from . import states
from .exceptions import TaskRevokedError, TimeoutError
from .values import decoded

if TYPE_CHECKING:
    from .request import Request

UNDECIDED = frozenset({"RUNNING", "CANCELLED"})
"""Of a job in one of these update_state() may say what it is called."""


class AsyncResult:
    """A job, by its id or by the ``task_id`` with which it was enqueued. What it tells, it reads anew each time.

    A step that was cancelled because another one failed has failed with it, and has that one's error.
    """

    _uncommitted = False
    """Whether a wait in the transaction that is open now would never end."""

    def __init__(self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None):
        if id is None:
            raise ValueError("AsyncResult requires valid id, not None")
        self.id = str(id)

    @property
    def task_id(self) -> str:
        return self.id

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def __eq__(self, other: object) -> bool:
        return self.id == (other.id if isinstance(other, AsyncResult) else other)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def state(self) -> str:
        """UNKNOWN where there is no such job (any more): PENDING always means one that waits."""
        job = self._job()
        return states.UNKNOWN if job is None else _state(job)

    status = state

    @property
    def result(self) -> Any:
        """The return value; of a failure the exception; of a state of the task's own what was said with it."""
        job = self._job()
        if job is None:
            return None
        told, state = _told(job), _state(job)
        if told.get("state") == state and job.status in UNDECIDED:
            meta = decoded(told.get("meta"))
            return _rebuilt(meta) if state in states.EXCEPTION_STATES else meta
        if state == states.SUCCESS:
            return decoded(job.return_value)
        if state in (states.FAILURE, states.RETRY):
            return error_of(_blamed(job))
        if state == states.REVOKED:
            return TaskRevokedError(job.reason or "revoked")
        return _started(job) if state == states.STARTED else None

    @property
    def info(self) -> Any:
        return self.result

    @property
    def traceback(self) -> str | None:
        job = self._job()
        last = None if job is None else _blamed(job).attempt_set.order_by("id").last()
        return None if last is None else last.traceback

    @property
    def name(self) -> str | None:
        job = self._job()
        return None if job is None else job.task

    @property
    def args(self) -> Any:
        job = self._job()
        return None if job is None else decoded(job.args)

    @property
    def kwargs(self) -> Any:
        job = self._job()
        return None if job is None else decoded(job.kwargs)

    @property
    def retries(self) -> int | None:
        job = self._job()
        return None if job is None else max(0, job.attempt - job.earlier_attempts - 1 - job.crashes)

    @property
    def date_done(self) -> Any:
        job = self._job()
        return None if job is None else job.finished_at

    @property
    def queue(self) -> str | None:
        job = self._job()
        return None if job is None else job.queue_name

    @property
    def parent(self) -> "AsyncResult | GroupResult | None":
        """What stands before it in its workflow."""
        return _before(self._job())

    @property
    def children(self) -> "list[AsyncResult | GroupResult]":
        """What stands after it in its workflow: of a group the group, and not each of its members."""
        from ...models import GROUP
        from ...tree import Tree

        job = self._job()
        if job is None or job.workflow_id is None:
            return []
        after = list(job_rows().filter(after_id=job.pk, workflow_id=job.workflow_id).order_by("id"))
        inside: set[int] = set()
        if groups := [one.pk for one in after if one.task == GROUP]:
            tree = Tree.of(job.workflow_id, job._state.db)
            inside = {place.row.id for pk in groups for place in tree.walk(pk, job.pk) if place.row.id != pk}
        return [result for one in after if one.pk not in inside and (result := result_of(one)) is not None]

    def ready(self) -> bool:
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def get(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5, **kwargs: Any) -> Any:
        """Wait for its end and return its value; of a failure raise its exception, unless ``propagate=False``.

        Raises TimeoutError, TaskRevokedError; JobDoesNotExist for an id that names no job; WouldNeverFinish inside the
        transaction that enqueued it.
        """
        from ...results import get_result

        job = self._job()
        waited = get_result(self.id if job is None else job.pk)
        waited._uncommitted = self._uncommitted
        try:
            waited.wait(timeout)
        except builtins.TimeoutError as exc:
            raise TimeoutError(str(exc)) from None
        result = self.result
        if propagate and isinstance(result, BaseException):
            raise result
        return result

    wait = get

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        result = self.result
        if propagate and self.state in states.PROPAGATE_STATES:
            raise result
        return result

    maybe_reraise = maybe_throw

    def revoke(self, terminate: bool = False, signal: Any = None, wait: bool = False, timeout: Any = None) -> None:
        """Cancel it; with ``terminate`` also inside of a run, where CancelRequested is raised."""
        from ...results import get_result

        job = self._job()
        if job is not None:
            get_result(job.pk).cancel(interrupt=terminate)

    def forget(self) -> None:
        """Delete the job, if it has ended and is no step of a workflow."""
        from ...store import store_for

        job = self._job()
        if job is not None:
            store_for(job._state.db or "default").delete([job.pk])

    def as_tuple(self) -> Any:
        return (self.id, None), None

    def _job(self) -> Any:
        """The row; of several with this task_id the newest."""
        from ...models import is_id

        jobs = job_rows()
        if named := jobs.filter(external_id=self.id).order_by("-id").first():
            return named
        return jobs.filter(pk=int(self.id)).first() if is_id(self.id) else None


class GroupResult:
    """The results of a group, in its order. The group is a row, so that it can be restored without being saved."""

    def __init__(self, id: str | None = None, results: Any = None, parent: Any = None) -> None:
        self.id = id
        self.results: list[Any] = list(results or [])

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> "GroupResult | None":
        """The group of this id; None where there is no such group (any more)."""
        found = result_of(AsyncResult(id)._job())
        return found if isinstance(found, cls) else None

    def save(self, backend: Any = None) -> None: ...

    def delete(self, backend: Any = None) -> None: ...

    @property
    def parent(self) -> "AsyncResult | GroupResult | None":
        """What stands before it in its workflow; nothing, where that ran eagerly."""
        is_eager = any(isinstance(result, EagerResult) for result in self.results)
        return None if self.id is None or is_eager else _before(AsyncResult(self.id)._job())

    @property
    def children(self) -> list[Any]:
        return self.results

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def ready(self) -> bool:
        return all(result.ready() for result in self.results)

    def successful(self) -> bool:
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        return any(not result.ready() for result in self.results)

    def completed_count(self) -> int:
        return sum(result.successful() for result in self.results)

    def get(self, timeout: float | None = None, propagate: bool = True, **kwargs: Any) -> list[Any]:
        """All of them, in at most ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        return [
            result.get(timeout=None if end is None else max(0.0, end - time.monotonic()), propagate=propagate)
            for result in self.results
        ]

    join = join_native = get

    def revoke(self, terminate: bool = False, **kwargs: Any) -> None:
        for result in self.results:
            result.revoke(terminate=terminate)

    def forget(self) -> None:
        for result in self.results:
            result.forget()


ResultSet = GroupResult


class EagerResult:
    """What ``apply()`` has come to."""

    def __init__(self, request: "Request", value: Any, state: str, traceback: str | None = None) -> None:
        self.id = self.task_id = str(request.id)
        self.name, self.args, self.kwargs = request.task, request.args, request.kwargs
        self.retries = request.retries
        self.date_done = timezone.now()
        self.result = self.info = value
        self.state = self.status = state
        self.traceback = traceback
        self.children: list[Any] = []
        self.parent = None

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        return self.state == states.FAILURE

    def get(self, timeout: float | None = None, propagate: bool = True, **kwargs: Any) -> Any:
        if propagate and isinstance(self.result, BaseException):
            raise self.result
        return self.result

    wait = maybe_throw = maybe_reraise = get

    def revoke(self, *args: Any, **kwargs: Any) -> None: ...

    def forget(self) -> None: ...


def job_rows() -> Any:
    from ...conf import Settings
    from ...models import Job

    return Job.objects.using(Settings.load().database)


def _before(job: Any) -> AsyncResult | GroupResult | None:
    """What stands before this job in its workflow."""
    return None if job is None or job.after_id is None else result_of(job_rows().filter(pk=job.after_id).first())


def result_of(job: Any) -> AsyncResult | GroupResult | None:
    """By the ``task_id`` that it was given, if it was given one."""
    from ...models import GROUP

    if job is None:
        return None
    if job.task != GROUP:
        return AsyncResult(job.external_id or str(job.pk))
    members = job_rows().filter(group_id=job.pk).order_by("position", "id").values_list("pk", "external_id")
    return GroupResult(str(job.pk), [AsyncResult(external_id or str(pk)) for pk, external_id in members])


def _state(job: Any) -> str:
    from ...models import JobStatus

    state = _told(job).get("state")
    if state and job.status in UNDECIDED:
        return str(state)
    match job.status:
        case JobStatus.SUCCESSFUL:
            return states.SUCCESS
        case JobStatus.FAILED:
            return states.FAILURE
        case JobStatus.CANCELLED:
            return states.REVOKED if _blamed(job) is job else states.FAILURE
        case JobStatus.RUNNING if _is_tracked(job):
            return states.STARTED
        case JobStatus.WAITING:  # for others, which may have replaced it
            return states.PENDING
    # What runs once more is RETRY still, and what runs for the first time PENDING, as with Celery.
    failed = job.attempt - job.earlier_attempts - job.crashes - (job.status == JobStatus.RUNNING)
    return states.RETRY if failed > 0 else states.PENDING


def _is_tracked(job: Any) -> bool:
    """Whether it is told that it runs: ``track_started`` of its task, or else of the settings."""
    from .app import settings
    from .task import Task

    said = Task.known[job.task].track_started if job.task in Task.known else None
    return bool(settings().task_track_started if said is None else said)


def _started(job: Any) -> dict[str, Any]:
    """What Celery keeps of a task that runs."""
    from ...models import Worker

    worker = Worker.objects.using(job._state.db).filter(pk=job.worker_id).first()
    return {"pid": worker and worker.pid, "hostname": worker and worker.name}


def _blamed(job: Any) -> Any:
    """The job whose failure has ended this one; itself where no other's has."""
    from ...tree import failed_step

    pk = failed_step(job.reason) if job.workflow_id is not None else None
    return job if pk is None else job_rows().filter(pk=pk, workflow_id=job.workflow_id).first() or job


def _rebuilt(meta: Any) -> Any:
    """An exception that update_state() told as a dict; with ``exc_type`` and ``exc_message``, as Celery keeps one."""
    from ...exceptions import JobFailed
    from ...results import JobError

    if not isinstance(meta, dict) or "exc_type" not in meta:
        return meta
    said = meta.get("exc_message", "")
    args = said if isinstance(said, list) else [said]
    try:
        return JobError(f"{meta.get('exc_module') or 'builtins'}.{meta['exc_type']}", "").exception_class(*args)
    except Exception:  # noqa: BLE001  its class is not imported, or can't be made of these
        return JobFailed(f"{meta['exc_type']}: {', '.join(map(str, args))}")


def _told(job: Any) -> dict[str, Any]:
    told = (job.progress or {}).get("told")
    return told if isinstance(told, dict) else {}


def error_of(job: Any) -> BaseException:
    """The last attempt's exception, as far as it can be made again: of its class, where that is imported here."""
    from ...exceptions import JobFailed
    from ...results import JobError

    last = job.attempt_set.order_by("id").last()
    if last is None:
        return JobFailed(f"Job {job.pk} failed.")
    message = _message(last.exception_class_path, last.traceback)
    try:
        kind = JobError(last.exception_class_path, last.traceback).exception_class
        # A KeyError tells the repr of what it was made of.
        made = kind(ast.literal_eval(message) if issubclass(kind, KeyError) else message)
    except Exception:  # noqa: BLE001  its class is not imported, or can't be made of a text
        return JobFailed(last.traceback)
    return made


def _message(class_path: str, traceback: str) -> str:
    """What the exception said, maybe in several lines: all that stands behind the last line that names its class."""
    name = class_path.removeprefix("builtins.").removeprefix("__main__.")
    lines = traceback.strip().splitlines()
    said = [number for number, line in enumerate(lines) if line == name or line.startswith(f"{name}: ")]
    return "\n".join(lines[said[-1] if said else -1 :]).partition(": ")[2]


__all__ = ["AsyncResult", "EagerResult", "GroupResult", "ResultSet", "states"]
