"""What ``@shared_task`` and ``@app.task`` make: a function with Celery's ways to call it."""

import random
import traceback as _traceback
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from asgiref.sync import sync_to_async

from ... import registry
from ...exceptions import InvalidTask
from . import signals
from .again import called_again
from .exceptions import MaxRetriesExceededError, Retry
from .request import Request
from .stack import of_task, pushed
from .warned import warn

if TYPE_CHECKING:
    from .app import Celery
    from .bridge import CoreTask
    from .result import AsyncResult, EagerResult

WITHOUT_MEANING = frozenset(
    {
        "acks_late",
        "acks_on_failure_or_timeout",
        "compression",
        "exchange",
        "from_config",
        "reject_on_worker_lost",
        "resultrepr_maxsize",
        "routing_key",
        "send_events",
        "serializer",
        "store_errors_even_if_ignored",
        "store_eager_result",
        "trail",
        "typing",
        "backend",
        "lazy",
        "shared",
    }
)
"""Options of tasks that are accepted, and change nothing here; docs/from-celery.md says why."""

OF_A_MESSAGE = frozenset(
    {
        "add_to_parent",
        "argsrepr",
        "chord",
        "compression",
        "connection",
        "correlation_id",
        "delivery_mode",
        "exchange",
        "expiration",
        "group_id",
        "ignore_result",
        "kwargsrepr",
        "mandatory",
        "parent_id",
        "reply_to",
        "retry",
        "retry_policy",
        "root_id",
        "router",
        "routing_key",
        "serializer",
    }
)
"""Options of apply_async() that are accepted; those of a message change nothing."""


class EinfoLike:
    """What a hook is given of an error, as far as projects read it."""

    def __init__(self, exc: BaseException) -> None:
        self.exception = exc
        self.type = type(exc)
        self.tb = exc.__traceback__
        self.traceback = "".join(_traceback.format_exception(exc))

    def __str__(self) -> str:
        return self.traceback


class Task:
    """Also the base of class-based tasks, whose ``run()`` does the work and whose hooks are told of it."""

    known: ClassVar[dict[str, "Task"]] = {}

    name: str = ""
    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: dict[str, Any] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: int = 600
    retry_jitter: bool = True
    ignore_result: bool | None = None
    track_started: bool | None = None
    queue: str | None = None
    priority: int | None = None
    rate_limit: str | int | None = None
    soft_time_limit: float | None = None
    time_limit: float | None = None
    expires: Any = None
    throws: tuple[type[BaseException], ...] = ()
    abstract = True
    bind = False
    MaxRetriesExceededError = MaxRetriesExceededError
    is_named = False
    """Whether somebody has said its name: then its function may stand in another one, from which several are made."""

    waits_for_app = False
    """Whether a base of the app's is to be its base as soon as there is an app."""

    @property
    def app(self) -> "Celery":
        """Its own, or the current one."""
        from .app import the_app

        return self._app or the_app()

    @app.setter
    def app(self, value: "Celery | None") -> None:
        self._app = value

    _app: "Celery | None" = None

    @property
    def __name__(self) -> str:
        return type(self).__name__  # type: ignore[return-value]  # the class's own, not this one

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The work. A class-based task has its own."""
        raise NotImplementedError("A class-based task must have a method run().")

    @classmethod
    def from_function(cls, func: Callable[..., Any], **options: Any) -> Self:
        """A task whose work is ``func``; with ``bind`` its first parameter is the task."""
        is_bound = bool(options.pop("bind", False))
        body: dict[str, Any] = {
            "run": func if is_bound else staticmethod(func),
            "bind": is_bound,
            "abstract": False,
            "__doc__": func.__doc__,
            "__module__": func.__module__,
            "__wrapped__": staticmethod(func),
        }
        made: Self = type(func.__name__, (cls,), body | options_of(options, cls))()
        made.name = made.name or f"{func.__module__}.{func.__name__}"
        made.func = func
        return made

    func: Callable[..., Any]

    def registered(self, app: "Celery | None") -> Self:
        """Known by its name, here at once, and to dbqueue when Django is ready."""
        self.name = self.name or f"{type(self).__module__}.{type(self).__name__}"
        if not hasattr(self, "func"):
            self.func, self.bind = type(self).run, True
        self.app = app
        for name in _KINDS_OF_ERRORS:
            if not isinstance(kinds := getattr(self, name), tuple):
                setattr(self, name, _exceptions(name, kinds))
        Task.known[self.name] = self
        registry.when_ready(self._core_of)
        return self

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> Any:
        return _by_name, (self.name,)

    # Calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Here and now, without a job. A worker calls it too, so that a class may have one of its own."""
        request = of_task(self.name)
        if request is not None and not request.called_directly and not request.is_entered:
            request.is_entered = True
            return self.run(*args, **kwargs)
        with pushed(Request(self, args=list(args), kwargs=kwargs)):
            return self.run(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> "AsyncResult":
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: Any = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> "AsyncResult":
        """Enqueue it, in the caller's transaction. Raises what dbqueue's ``enqueue()`` does."""
        call = self.signature(*checked_arguments(args, kwargs))
        found: AsyncResult = call.clone(task_id=task_id, link=link, link_error=link_error, **options).send()
        return found

    @property
    def enqueues_otherwise(self) -> bool:
        """Whether its class has an apply_async() of its own."""
        return type(self).apply_async is not Task.apply_async

    async def adelay(self, *args: Any, **kwargs: Any) -> "AsyncResult":
        """As delay(), from async code."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(self, *args: Any, **kwargs: Any) -> "AsyncResult":
        """As apply_async(), from async code."""
        return await sync_to_async(self.apply_async)(*args, **kwargs)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """As delay(): a job that is enqueued in a transaction is there when that is committed."""
        self.apply_async(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """As apply_async(), for the same reason."""
        self.apply_async(*args, **kwargs)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> "EagerResult":
        """Run it here and now, through its retries, without the database. What it raises stands in the result."""
        found: EagerResult = self.signature(*checked_arguments(args, kwargs)).apply(**options)
        return found

    def AsyncResult(self, task_id: str, **kwargs: Any) -> "AsyncResult":
        from .result import AsyncResult

        return AsyncResult(task_id)

    def s(self, *args: Any, **kwargs: Any) -> Any:
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        return self.signature(args, kwargs, immutable=True)

    def signature(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        from .canvas import Signature

        return Signature(self, tuple(args or ()), dict(kwargs or {}), **options)

    subtask = signature

    def chunks(self, iterable: Any, n: int) -> Any:
        from .canvas import chunks

        return chunks(self.s(), iterable, n)

    def starmap(self, iterable: Any) -> Any:
        from .canvas import starmap

        return starmap(self, iterable)

    def map(self, iterable: Any) -> Any:
        from .canvas import xmap

        return xmap(self, iterable)

    # While it runs

    @property
    def request(self) -> Request:
        """Of the call that runs on this thread; elsewhere an empty one."""
        return of_task(self.name) or Request(self)

    @property
    def request_stack(self) -> Any:
        return types.SimpleNamespace(top=of_task(self.name))

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Raise Retry, after which the job runs again with its id, headers and priority.

        With ``throw=False`` it is raised when the task's code has ended, and what that returns is not kept.
        ``args`` and ``kwargs`` are those of the next run, checked as at a call; what is not said stays as it is.
        Where no retry is left: ``exc``, or MaxRetriesExceededError. Called directly: ``exc``, or Retry.
        """
        request = self.request
        if options:
            warn(f"retry() of {self.name} has no use for {', '.join(sorted(options))} here.")
        most = self.max_retries if max_retries is None else max_retries
        if request.called_directly or (most is not None and request.retries >= most):
            self._give_up(exc, request)
        when = eta if eta is not None else countdown
        again = called_again(self, request, args, kwargs)
        ret = Retry(exc=exc, when=self.default_retry_delay if when is None else when, again=again)
        if throw:
            raise ret from exc
        request.promised = ret
        return ret

    def _give_up(self, exc: BaseException | None, request: Request) -> NoReturn:
        if exc is not None:
            raise exc
        if request.called_directly:
            raise Retry("Task can be retried, but only where a worker runs it.")
        raise MaxRetriesExceededError(
            f"No retry is left for {self.name}[{request.id}].", task_args=request.args, task_kwargs=request.kwargs
        )

    def replace(self, sig: Any) -> Any:
        """End this run, and do ``sig`` in its place; see ``context.replace()``. Run eagerly it returns its value."""
        from .bridge import current_context

        if self.request.is_eager:
            return sig.apply().get()
        return current_context().replace(sig.node())

    def add_to_chord(self, sig: Any, lazy: bool = False) -> None:
        """Add a member to the group in which this task stands; see ``context.add()``."""
        from .bridge import current_context

        current_context().add(sig.node())

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Tell a state of one's own, and what else is to be known: ``AsyncResult.state`` and ``.info``.

        Of the job that runs here: another's ``task_id`` is named in a warning.
        """
        from .bridge import tell_state

        request = self.request
        if task_id is not None and str(task_id) != request.id:
            warn(f"update_state() of {self.name} has no use for the task_id of another job.")
            return
        request.state = (state or "PROGRESS", meta)
        if request.job_id is not None:
            tell_state(state or "PROGRESS", meta)

    # Hooks

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None: ...

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None: ...

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None: ...

    # dbqueue's side

    @property
    def core(self) -> "CoreTask":
        """The task as dbqueue has it. Raises AppRegistryNotReady before Django is ready."""
        if self._core is None:
            self._core_of()
        assert self._core is not None
        return self._core

    _core: "CoreTask | None" = None

    def _core_of(self) -> None:
        if self._core is None:
            from .app import all_apps
            from .bridge import CoreTask

            if self.waits_for_app and (apps := all_apps()):
                type(self).__bases__ = (apps[-1].Task,)
            self._core = CoreTask(self)
            registry.register(self._core)

    def countdown(self, retries: int) -> float:
        """Seconds before an automatic retry: ``min(retry_backoff_max, retry_backoff * 2 ** retries)``.

        With retry_jitter a random part of that; without retry_backoff the countdown of retry_kwargs, or the
        default_retry_delay. A retry_backoff is at least 1, and rounded down, as in Celery.
        """
        if not self.retry_backoff:
            return float(self.retry_kwargs.get("countdown", self.default_retry_delay))
        most = min(float(self.retry_backoff_max), int(max(1.0, self.retry_backoff)) * 2.0**retries)
        return random.uniform(0, most) if self.retry_jitter else most

    @property
    def most_retries(self) -> int | None:
        most: int | None = self.retry_kwargs.get("max_retries", self.max_retries)
        return most


def options_of(options: dict[str, Any], kind: type[Task] = Task) -> dict[str, Any]:
    """As attributes of the task, as in Celery; those that its class has not are named in a warning."""
    unknown = sorted(name for name in options if not hasattr(kind, name) and name not in WITHOUT_MEANING)
    if unknown:
        warn(f"A task has no use for {', '.join(unknown)} here.")
    found = dict(options)
    for name in _KINDS_OF_ERRORS:
        if name in found:
            found[name] = _exceptions(name, found[name])
    most = found.get("max_retries")
    if most is not None and (not isinstance(most, int) or most < 0):
        raise InvalidTask(f"max_retries is {most!r}; it must be a whole number from 0, or None for no end.")
    return found


_KINDS_OF_ERRORS = ("autoretry_for", "dont_autoretry_for", "throws")


def checked_arguments(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of apply_async(). Raises TypeError, as Celery does."""
    if args is not None and not isinstance(args, list | tuple):
        raise TypeError(f"task args must be a list or tuple, not {args!r}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"task keyword arguments must be a mapping, not {kwargs!r}")
    return tuple(args or ()), dict(kwargs or {})


def _exceptions(name: str, value: Any) -> tuple[type[BaseException], ...]:
    kinds = (value,) if isinstance(value, type) else tuple(value)
    for kind in kinds:
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise InvalidTask(f"{name} has {kind!r}; it must be of classes of exceptions.")
    return kinds


def _by_name(name: str) -> Task:
    return Task.known[name]


__all__ = ["EinfoLike", "Task", "checked_arguments", "options_of", "signals"]
