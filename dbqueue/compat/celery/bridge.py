"""Where Celery's tasks become dbqueue's: how one is enqueued, run and ended. Needs Django to be ready."""

import datetime
import inspect
import socket
import warnings
from functools import cached_property
from typing import Any

from ... import definition, registry, results
from ...claim import Claim
from ...exceptions import CancelRequested, Discard, InvalidTask, Replaced, Snooze
from ...models import MAX_PRIORITY, MIN_PRIORITY, Job
from ...options import MOST_ATTEMPTS
from ...plan import TOLD
from ...running import current
from ...schedule import Periodic
from . import app as apps
from . import signals, states
from .exceptions import Ignore, Reject, Retry
from .request import Request
from .result import error_of
from .stack import pushed
from .task import OF_A_MESSAGE, EinfoLike, Task
from .values import encoded

ERRBACK = "celery_errback"
"""The header of a job that is told of another's failure, in Celery's way: how many of its arguments tell of it."""


class CoreTask(definition.Task[Any, Any]):
    """A task of Celery's, as workers and pages know it."""

    tells_defaults = True  # as Celery does

    def __init__(self, task: Task) -> None:
        self.celery = task
        conf = apps.settings()
        soft = task.soft_time_limit or conf.task_soft_time_limit
        hard = task.time_limit or conf.task_time_limit
        most = task.most_retries
        rate = task.rate_limit or conf.task_default_rate_limit
        route = apps.route_of(task.name)
        priority = next(
            (one for one in (task.priority, route.get("priority"), conf.task_default_priority) if one is not None), None
        )
        super().__init__(
            task.func,
            name=task.name,
            queue_name=_queue(task.queue or route.get("queue") or conf.task_default_queue),
            priority=_priority(priority),
            max_attempts=MOST_ATTEMPTS if most is None else min(most + 1, MOST_ATTEMPTS),
            retry_on=(Retry,),
            timeout=soft or hard,
            hard_timeout=hard,
            rate=f"{rate}/s" if isinstance(rate, int | float) and rate else rate or None,
            expires=_expiry(task.expires),
        )

    @cached_property
    def signature(self) -> inspect.Signature:
        """Without ``self``."""
        signature = inspect.signature(self.celery.func)
        parameters = list(signature.parameters.values())
        return signature.replace(parameters=parameters[1:]) if self.celery.bind else signature

    # Its schedules are entries of beat_schedule.

    @property
    def schedules(self) -> dict[str, Periodic]:
        return scheduled(self)

    @schedules.setter
    def schedules(self, value: dict[str, Periodic]) -> None:
        assert not value

    # Enqueue

    def with_options(
        self,
        *,
        task_id: Any = None,
        countdown: float | None = None,
        eta: datetime.datetime | str | None = None,
        expires: Any = None,
        queue: Any = None,
        priority: int | None = None,
        headers: dict[str, Any] | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        **others: Any,
    ) -> "definition.Task[Any, Any]":
        """What apply_async() says, as dbqueue says it. Unknown names are named in a warning."""
        if unknown := sorted(others.keys() - OF_A_MESSAGE):
            warnings.warn(f"apply_async() has no use for {', '.join(unknown)} here.", stacklevel=4)
        said: dict[str, Any] = {
            "external_id": None if task_id is None else str(task_id),
            "run_after": _start(countdown, eta),
            "expires": _expiry(expires),
            "queue_name": None if queue is None else _queue(getattr(queue, "name", queue)),
            "priority": None if priority is None else _priority(priority),
            "headers": headers or None,
            "timeout": soft_time_limit or time_limit,
            "hard_timeout": time_limit,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return self.using(**said) if said else self

    # Run

    def run(self, claim: Claim, database: str) -> Any:
        request = Request.of_claim(self.celery, claim, socket.gethostname())
        args = request.args
        if number := (claim.options.get("headers") or {}).get(ERRBACK):
            args = told(args, number, database)
        value = encoded(traced(self.celery, request, args, request.kwargs))
        # What a step returns is what the next one is given.
        is_ignored = self.celery.ignore_result
        if is_ignored is None:
            is_ignored = apps.settings().task_ignore_result
        return None if is_ignored and claim.workflow_id is None else value


NOT_RETURNED = frozenset({states.RETRY, states.IGNORED, states.REJECTED})
"""Ends of an attempt of which after_return() is not told, as in Celery."""


def traced(task: Task, request: Request, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run it with all that Celery does around a task. Raises what dbqueue understands, or the task's own error."""
    with pushed(request):
        said = {"task_id": request.id, "task": task, "args": args, "kwargs": kwargs}
        signals.task_prerun.send(sender=task, **said)
        state, value, einfo = states.FAILURE, None, None
        try:
            task.before_start(str(request.id), args, kwargs)
            value = _with_retries(task, request, args, kwargs)
            state = states.SUCCESS
            task.on_success(value, str(request.id), args, kwargs)
            signals.task_success.send(sender=task, result=value)
            return value
        except Retry as exc:
            state, value, einfo = states.RETRY, exc, EinfoLike(exc.exc or exc)
            task.on_retry(exc.exc or exc, str(request.id), args, kwargs, einfo)
            signals.task_retry.send(sender=task, request=request, reason=exc, einfo=einfo)
            raise
        except Ignore as exc:
            state = states.IGNORED
            raise Discard(str(exc) or "ignored") from exc
        except Reject as exc:
            state = states.REJECTED
            raise (Snooze(0) if exc.requeue else Discard(str(exc))) from exc
        except (Snooze, Discard, Replaced):
            state = states.IGNORED
            raise
        except CancelRequested:
            state = states.REVOKED
            raise
        except BaseException as exc:
            value, einfo = exc, EinfoLike(exc)
            task.on_failure(exc, str(request.id), args, kwargs, einfo)
            signals.task_failure.send(
                sender=task,
                task_id=request.id,
                exception=exc,
                args=args,
                kwargs=kwargs,
                traceback=exc.__traceback__,
                einfo=einfo,
            )
            raise
        finally:
            if state not in NOT_RETURNED:
                task.after_return(state, value, str(request.id), args, kwargs, einfo)
            signals.task_postrun.send(sender=task, retval=value, state=state, **said)


def _with_retries(task: Task, request: Request, args: Any, kwargs: dict[str, Any]) -> Any:
    """A retry that was promised by ``retry(throw=False)`` comes, however the task's code ends."""
    try:
        value = _with_automatic_retries(task, request, args, kwargs)
    except Exception as exc:
        if request.promised is None or exc is request.promised:
            raise
        raise request.promised from exc
    if request.promised is not None:
        raise request.promised
    return value


def _with_automatic_retries(task: Task, request: Request, args: Any, kwargs: dict[str, Any]) -> Any:
    """``dont_autoretry_for`` beats ``autoretry_for``."""
    decided: tuple[type[BaseException], ...] = (Retry, Ignore, Reject, Snooze, Discard, *task.dont_autoretry_for)
    try:
        return task(*args, **kwargs)
    except decided:
        raise
    except task.autoretry_for as exc:
        most = task.most_retries
        if most is not None and request.retries >= most:
            raise
        raise Retry(exc=exc, when=task.countdown(request.retries)) from exc


def told(args: list[Any], number: int, database: str) -> list[Any]:
    """What a failure's callback is given: Celery's (request, exception, traceback), or the id where it takes less."""
    failed = Job.objects.using(database).get(pk=args[0])
    request = Request.of_row(Task.known.get(failed.task) or Task(), failed)
    if number < len(TOLD):
        return [request.id, *args[1:]]
    return [request, error_of(failed), *args[2:]]


def by_name(name: str) -> Task:
    """Raises NotRegistered, with the nearest names."""
    found = registry.find(name)
    if not isinstance(found, CoreTask):
        raise InvalidTask(f"{name!r} is a task of dbqueue's own: enqueue it with dbqueue.enqueue({name!r}, …).")
    return found.celery


def current_context() -> results.Context:
    context = results.current_context()
    if context is None:
        raise InvalidTask("replace() and add_to_chord() are for a task that a worker runs.")
    return context


def tell_state(state: str, meta: Any) -> None:
    """Keep it with the job that runs here."""
    if (running := current.get()) is not None:
        running.tell_progress(0, None, state, {"state": state, "meta": encoded(meta)})


def scheduled(task: CoreTask) -> dict[str, Periodic]:
    """Those entries of ``beat_schedule`` that name this task."""
    from .schedules import crontab, maybe_schedule

    found: dict[str, Periodic] = {}
    for app in apps.all_apps():
        app.finalize()
        zone = str(app.conf.timezone or "")
        for name, entry in app.conf.beat_schedule.items():
            if entry["task"] == task.name:
                when = maybe_schedule(entry["schedule"])
                options = entry.get("options") or {}
                said = {
                    "args": encoded(list(entry.get("args") or ())),
                    "kwargs": encoded(dict(entry.get("kwargs") or {})),
                    "name": name,
                    "queue_name": _queue(options["queue"]) if options.get("queue") else "",
                    "priority": _priority(options["priority"]) if options.get("priority") is not None else None,
                }
                found[name] = when.periodic(zone, **said) if isinstance(when, crontab) else when.periodic(**said)
    return found


def _queue(name: Any) -> str:
    return "default" if name in (None, "celery") else str(name)


def _priority(value: Any) -> int:
    """Celery's 0 to 255; here higher is sooner, up to 100."""
    return 0 if value is None else max(MIN_PRIORITY, min(MAX_PRIORITY, int(value)))


def _start(countdown: float | None, eta: datetime.datetime | str | None) -> Any:
    if countdown is not None and (not isinstance(countdown, int | float) or isinstance(countdown, bool)):
        raise InvalidTask(f"countdown is {countdown!r}; it must be a number of seconds.")
    if countdown:
        return datetime.timedelta(seconds=countdown) if countdown > 0 else None
    return None if eta is None else _moment("eta", eta)


def _expiry(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.timedelta(seconds=value)
    return _moment("expires", value) if isinstance(value, datetime.datetime | str) else value


def _moment(name: str, value: Any) -> datetime.datetime:
    """A time, or the ISO text of one. A naive one is of UTC, as in Celery."""
    try:
        found = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, datetime.datetime):
        raise InvalidTask(f"{name} is {value!r}; it must be a datetime, or the ISO text of one.")
    return found.replace(tzinfo=found.tzinfo or datetime.UTC)


def inherited_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a chain or group that hold for each of its calls."""
    said: dict[str, Any] = {}
    if options.get("queue") is not None:
        said["queue_name"] = _queue(options["queue"])
    if options.get("priority") is not None:
        said["priority"] = _priority(options["priority"])
    return said
