"""For a project's tests: run what was enqueued, in the test's own transaction, and say what must have been."""

import json
from typing import Any

from django.utils import timezone

from . import registry
from .claim import Claim, Selection
from .conf import Settings
from .definition import Task
from .encoding import encode
from .exceptions import InvalidArguments, InvalidTask
from .inline import InlineWorker
from .models import DEFAULT_QUEUE, JobStatus
from .results import Context, JobResult, from_row, get_result
from .store import store_for


def run_jobs(*, limit: int | None = None, scheduled: bool = False) -> list[JobResult[Any]]:
    """Run what is due, and what that enqueues, one job after another; at most ``limit`` jobs (None: to the end).

    With ``scheduled`` also what waits for a later time, such as a retry: the earliest first, when nothing else is left.
    A job that always asks to be run again then runs up to ``limit``.

    Jobs pass through the same claim, executor and finish as in a worker, so one that raises ends FAILED; nothing of it
    is raised here, but for a KeyboardInterrupt, after it was written. Returns the results in the order of the runs.

    In a transaction of the caller, as in a TestCase, each job has a savepoint, and the transaction goes on after it,
    whatever the job did: what it wrote in an ``atomic`` that it left open is rolled back; if it broke the transaction,
    all that it wrote is; closing a connection does nothing. One difference to a worker remains there: after an error of
    the database, outside an ``atomic`` of its own, a job can't go on to another query. Without a transaction of the
    caller, what a job left open is rolled back, and its connection closed.
    """
    settings = Settings.load()
    results: list[JobResult[Any]] = []
    with InlineWorker(settings, "run_jobs") as worker:
        while limit is None or len(results) < limit:
            claims = _claim(worker, settings) or (scheduled and _claim_scheduled(worker))
            if not claims:
                break
            worker.run(claims[0])
            results.append(get_result(claims[0].job_id))
    return results


def enqueued(task: Any = None) -> list[JobResult[Any]]:
    """All jobs in the table, or those of one task, in the order of their enqueue: in a TestCase, those of the test.

    ``task`` is a task of dbqueue or of django.tasks, or the name of one.
    """
    jobs = store_for(Settings.load().database).jobs.prefetch_related("attempt_set").order_by("id")
    return [from_row(job) for job in (jobs if task is None else jobs.filter(task=_task(task).name))]


def assert_enqueued(task: Any, /, *args: Any, _count: int | None = None, **kwargs: Any) -> JobResult[Any]:
    """Fail unless a job of ``task`` was enqueued with these arguments, and return the newest. It may have run by now.

    Arguments are compared as the function gets them: by position or by name, with its defaults, as JSON keeps them.
    Without any, every job of the task will do. ``_count`` says how many there must be (None: at least one). Raises
    AssertionError, and InvalidArguments for what the task can't be called with.
    """
    __tracebackhide__ = True
    if _count is not None and (type(_count) is not int or _count < 1):
        raise ValueError(f"_count is {_count!r}; it must be a whole number from 1 on, or None for at least one.")
    found = _matching(_task(task), args, kwargs)
    if not found or _count not in (None, len(found)):
        raise AssertionError(_told(_task(task), args, kwargs, "be", "" if _count is None else f", {_count} times"))
    return found[-1]


def assert_not_enqueued(task: Any, /, *args: Any, **kwargs: Any) -> None:
    """Fail if a job of ``task`` was enqueued with these arguments; without any arguments: with whichever."""
    __tracebackhide__ = True
    if _matching(_task(task), args, kwargs):
        raise AssertionError(_told(_task(task), args, kwargs, "not be"))


def context(*, attempt: int = 1, headers: dict[str, Any] | None = None) -> Context:
    """A context for a plain call of a task that takes one: ``report(context(), 5)``.

    It is that of no job: ``progress()`` and ``log()`` check what they are told and keep nothing, there is no deadline,
    nobody cancels, and ``task_result`` raises JobDoesNotExist.
    """
    now = timezone.now()
    claim = Claim(
        job_id=0,
        lease=1,
        attempt=attempt,
        worker_id=0,
        task="",
        args_json="[]",
        kwargs_json="{}",
        queue_name=DEFAULT_QUEUE,
        priority=0,
        backend="",
        run_after=None,
        enqueued_at=now,
        crashes=0,
        max_attempts=max(1, attempt),
        earlier_attempts=0,
        options_json=encode({"headers": headers or {}}, "headers"),
        expires_at=None,
        concurrency_key=None,
        rate_key=None,
        workflow_id=None,
        started_at=now,
        claimed_at=now,
    )
    return Context(claim, Settings.load().database)


class Jobs:
    """What the pytest fixture ``dbqueue_jobs`` gives: the functions of this module by one name."""

    run = staticmethod(run_jobs)
    enqueued = staticmethod(enqueued)
    assert_enqueued = staticmethod(assert_enqueued)
    assert_not_enqueued = staticmethod(assert_not_enqueued)


def _claim(worker: InlineWorker, settings: Settings) -> list[Claim]:
    store = worker.store
    while store.promote():
        pass
    return store.claim(worker.id, 1, Selection(closed=store.closed_queues(), ageing=settings.priority_ageing))


def _claim_scheduled(worker: InlineWorker) -> list[Claim]:
    """The job whose time comes first, limits or not, but none of a closed queue."""
    scheduled = worker.store.jobs.filter(status=JobStatus.SCHEDULED).exclude(
        queue_name__in=worker.store.closed_queues()
    )
    ids = list(scheduled.order_by("run_after", "id").values_list("id", flat=True)[:1])
    worker.store.promote_these(ids)
    return worker.store.claim_these(worker.id, ids)


def _task(task: Any) -> Task[Any, Any]:
    if isinstance(task, Task):
        return task
    name = task if isinstance(task, str) else getattr(task, "module_path", None)
    if not isinstance(name, str):
        raise InvalidTask(f"{task!r} is not a task, and not the name of one.")
    return registry.find(name)


def _matching(task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[JobResult[Any]]:
    jobs = enqueued(task)
    if not args and not kwargs:
        return jobs
    wanted = _bound(task, args, kwargs)
    return [job for job in jobs if _bound_as_enqueued(task, job) == wanted]


def _bound(task: Task[Any, Any], args: Any, kwargs: Any) -> Any:
    bound = task.bind(args, kwargs)
    bound.apply_defaults()
    return json.loads(encode(dict(bound.arguments), "args"))


def _bound_as_enqueued(task: Task[Any, Any], job: JobResult[Any]) -> Any:
    try:
        return _bound(task, job.args, job.kwargs)
    except InvalidArguments:
        return None  # a row that somebody wrote for another version of the function


def _told(task: Task[Any, Any], args: Any, kwargs: Any, be: str, times: str = "") -> str:
    wanted = _call(task, args, kwargs) if args or kwargs else task.name
    lines = [f"{_call(task, job.args, job.kwargs)} is {job.status}" for job in enqueued(task)] or ["nothing"]
    return "\n  ".join([f"{wanted} was to {be} enqueued{times}. Of that task there was enqueued:", *lines])


def _call(task: Task[Any, Any], args: Any, kwargs: dict[str, Any]) -> str:
    said = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"{task.name}({', '.join(said)})"
