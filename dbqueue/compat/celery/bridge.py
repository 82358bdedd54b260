"""Where Celery's tasks become dbqueue's: how one is enqueued, run and ended. Needs Django to be ready."""

import datetime
import inspect
import json
import logging
import socket
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from ... import definition, registry, results
from ...claim import Claim
from ...conf import Settings
from ...encoding import encode_result
from ...exceptions import CancelRequested, Discard, InvalidTask, NotStorable, Replaced, Snooze, UnknownTask
from ...models import MAX_PRIORITY, MIN_PRIORITY, Job
from ...options import MOST_ATTEMPTS, Options
from ...plan import TOLD
from ...running import current
from ...schedule import Periodic
from . import app as apps
from . import signals, states
from .exceptions import Ignore, NotRegistered, Reject, Retry
from .request import HAS_ETA, Request
from .result import error_of
from .stack import pushed
from .task import OF_A_MESSAGE, EinfoLike, Task
from .values import encoded
from .warned import warn

logger = logging.getLogger("dbqueue.job")

ERRBACK = "celery_errback"
"""The header of a job that is told of another's failure, in Celery's way: how many of its arguments tell of it."""


class CoreTask(definition.Task[Any, Any]):
    """A task of Celery's, as workers and pages know it."""

    expires_between_runs = True
    tells_defaults = True  # as Celery does

    def __init__(self, task: Task) -> None:
        self.celery = task
        self._may_be_local = task.is_named
        conf = apps.settings()
        self._soft = task.soft_time_limit or conf.task_soft_time_limit
        self._hard = task.time_limit or conf.task_time_limit
        most = task.most_retries
        rate = conf.task_default_rate_limit if task.rate_limit is None else task.rate_limit
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
            timeout=_timeout(self._soft, self._hard),
            hard_timeout=self._hard or None,
            rate=_rate(rate),
            expires=_expiry(task.expires),
        )

    @cached_property
    def signature(self) -> inspect.Signature:
        """Without ``self``."""
        signature = inspect.signature(self.celery.func)
        parameters = list(signature.parameters.values())
        return signature.replace(parameters=parameters[1:]) if self.celery.bind else signature

    def _set(self, options: Options) -> None:
        super()._set(options)
        if options.run_after is not None:
            # The column of a step tells also when its turn came.
            self._common["options_json"] = json.dumps({**(options.stored() or {}), HAS_ETA: True})

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
            warn(f"apply_async() has no use for {', '.join(unknown)} here.")
        said: dict[str, Any] = {
            "external_id": None if task_id is None else str(task_id),
            "run_after": _start(countdown, eta),
            "expires": _expiry(expires),
            "queue_name": None if queue is None else _queue(getattr(queue, "name", queue)),
            "priority": None if priority is None else _priority(priority),
            "headers": headers or None,
        }
        if soft_time_limit or time_limit:
            hard = time_limit or self._hard
            said |= {"timeout": _timeout(soft_time_limit or self._soft, hard), "hard_timeout": hard}
        said = {name: value for name, value in said.items() if value is not None}
        return self.using(**said) if said else self

    # Run

    def run(self, claim: Claim, database: str) -> Any:
        request = Request.of_claim(self.celery, claim, socket.gethostname())
        args = request.args
        if number := (claim.options.get("headers") or {}).get(ERRBACK):
            args = told(args, number, database)
        # What a step returns is what the next one is given.
        is_step = claim.workflow_id is not None
        return with_hooks(self.celery, request, args, request.kwargs, lambda value: self._kept(value, is_step))

    def _kept(self, value: Any, is_step: bool) -> Any:
        """What is kept of a return value. Raises NotStorable before anybody is told of a success.

        Without a result backend nobody looks at it, so it may be anything, as with Celery.
        """
        conf, is_ignored = apps.settings(), self.celery.ignore_result
        if value is None or (not is_step and (conf.task_ignore_result if is_ignored is None else is_ignored)):
            return None
        value = encoded(value)
        try:
            encode_result(value, Settings.load().max_result_bytes)
        except NotStorable as exc:
            if is_step or conf.result_backend:
                raise
            logger.warning("What %s returned is not kept: %s", self.name, exc)
            return None
        return value


NOT_RETURNED = frozenset({states.RETRY, states.IGNORED, states.REJECTED})
"""Ends of an attempt of which after_return() is not told, as in Celery."""


class End(NamedTuple):
    """How a run has ended, by Celery's names."""

    state: str
    value: Any = None
    einfo: EinfoLike | None = None

    @classmethod
    def of(cls, exc: BaseException) -> "End":
        match exc:
            case Retry():
                return cls(states.RETRY, exc, EinfoLike(exc.exc or exc))
            case Ignore() | Snooze() | Discard() | Replaced():
                return cls(states.IGNORED)
            case Reject():
                return cls(states.REJECTED)
            case CancelRequested():
                return cls(states.REVOKED)
        return cls(states.FAILURE, exc, EinfoLike(exc))


def with_hooks(
    task: Task, request: Request, args: Any, kwargs: dict[str, Any], keep: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Run it with all that Celery does around a task. Raises what dbqueue understands, or the task's own error.

    Returns what ``keep`` makes of the task's value, before others are told of that.
    """
    id = str(request.id)
    said = {"task_id": request.id, "task": task, "args": args, "kwargs": kwargs}
    with pushed(request):
        signals.task_prerun.send(sender=task, **said)
        end = End(states.FAILURE)
        try:
            task.before_start(id, args, kwargs)
            end = End(states.SUCCESS, _with_retries(task, request, args, kwargs))
            kept = keep(end.value)
            task.on_success(end.value, id, args, kwargs)
            signals.task_success.send(sender=task, result=end.value)
            return kept
        except BaseException as exc:
            end = End.of(exc)
            _tell(task, request, args, kwargs, end)
            if (understood := _understood(exc)) is exc:
                raise
            raise understood from exc
        finally:
            if end.state not in NOT_RETURNED:
                task.after_return(end.state, end.value, id, args, kwargs, end.einfo)
            signals.task_postrun.send(sender=task, retval=end.value, state=end.state, **said)


def _understood(exc: BaseException) -> BaseException:
    """As dbqueue says it."""
    match exc:
        case Ignore():
            return Discard(str(exc) or "ignored")
        case Reject():
            return Snooze(0) if exc.requeue else Discard(str(exc))
    return exc


def _tell(task: Task, request: Request, args: Any, kwargs: dict[str, Any], end: End) -> None:
    """Those who are told of a retry or a failure."""
    if end.state == states.RETRY:
        task.on_retry(end.value.exc or end.value, str(request.id), args, kwargs, end.einfo)
        signals.task_retry.send(sender=task, request=request, reason=end.value, einfo=end.einfo)
    elif end.state == states.FAILURE and end.einfo is not None:
        task.on_failure(end.value, str(request.id), args, kwargs, end.einfo)
        _send_failure(task, request.id, end.value, args, kwargs, end.einfo)


def _send_failure(task: Task, id: str | None, exc: BaseException, args: Any, kwargs: Any, einfo: EinfoLike) -> None:
    signals.task_failure.send(
        sender=task, task_id=id, exception=exc, args=args, kwargs=kwargs, traceback=exc.__traceback__, einfo=einfo
    )


def tell_failure(task: Task, job: Job, traceback: str, *, with_hooks: bool) -> None:
    """Of a run that could not tell of its end itself, from its row."""
    request, exc = Request.of_row(task, job), error_of(job)
    einfo = EinfoLike(exc)
    einfo.traceback = traceback
    with pushed(request):
        try:
            if with_hooks:
                task.on_failure(exc, str(request.id), request.args, request.kwargs, einfo)
                task.after_return(states.FAILURE, exc, str(request.id), request.args, request.kwargs, einfo)
        finally:
            _send_failure(task, request.id, exc, request.args, request.kwargs, einfo)


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
        most = task.most_retries if type(task).retry is Task.retry else None
        if most is not None and request.retries >= most:
            raise
        if type(task).retry is not Task.retry:
            said = {"countdown": task.countdown(request.retries)} if task.retry_backoff else {}
            raise task.retry(exc=exc, **{**task.retry_kwargs, **said}) from exc
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
    try:
        found = registry.find(name)
    except UnknownTask as exc:
        raise NotRegistered(str(exc)) from None
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
    """Those entries of ``beat_schedule`` that name this task, and can be read; of the others a check tells."""
    from .checks import names, problems
    from .schedules import crontab, maybe_schedule

    found: dict[str, Periodic] = {}
    for app in apps.all_apps():
        app.finalize()
        zone = str(app.conf.timezone or "")
        for name, entry in app.conf.beat_schedule.items():
            if names(entry, task.name) and not any(problems(app, entry)):
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


def _timeout(soft: float | None, hard: float | None) -> float | None:
    """Where a soft limit is the longer one, as where there is none, the hard one ends the task softly as well."""
    return min(soft or hard, hard) if hard else soft or None


_IN_AN_HOUR = {"s": 3600, "m": 60, "h": 1}


def _rate(value: str | float | None) -> str | None:
    """Celery's ``"100/m"``, ``"0.5/s"``, ``"10"`` or ``10`` (a second), whole as dbqueue's are; None for no limit.

    What is no such rate stays as it is, and is refused by name.
    """
    number, _, period = str(value or 0).partition("/")
    try:
        often, period = float(number), period or "s"
        hourly = often * _IN_AN_HOUR[period]
    except (ValueError, KeyError):
        return str(value)
    if hourly <= 0:
        return None
    if often == int(often):
        return f"{int(often)}/{period}"
    per_minute = hourly / 60
    return f"{int(per_minute)}/m" if per_minute == int(per_minute) else f"{max(1, round(hourly))}/h"


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
