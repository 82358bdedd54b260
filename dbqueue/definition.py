"""The definition of a task, and the ways to enqueue it from Python."""

import datetime
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction

from . import registry
from .binding import misfits
from .canvas import Node, Signature, chain
from .claim import Claim
from .conf import Settings
from .draft import Draft
from .encoding import encode
from .entrance import enter, insert, insert_apart, is_apart
from .exceptions import InvalidArguments, InvalidTask, JobDoesNotExist, NotStorable
from .models import NAME_LENGTH
from .options import Call, JobOptions, Moment, Options
from .redaction import UNREADABLE, redacted, shown_signature
from .results import Context, JobResult, get_result
from .running import current
from .schedule import Periodic, named

P = ParamSpec("P")
R = TypeVar("R")


class _GivenLater:
    """Stands for an argument that nobody knows before its turn comes. A key can't be made of it."""

    def _refuse(self, *args: object) -> str:
        raise InvalidArguments("it is made of the result of the step before, which is not known yet")

    __str__ = __format__ = __getitem__ = _refuse

    def __getattr__(self, name: str) -> Any:
        return self._refuse()


GIVEN_LATER = _GivenLater()

FROM_BEFORE = " The first argument is the result of the step before; .si(…) leaves it out."
"""What who sees more arguments than he wrote has to know."""

CHUNK = 1000
"""Signatures that enqueue_many() checks and inserts at a time."""


class Task(Generic[P, R]):
    """A function that workers may run, with its name and its defaults.

    Made by the decorator ``@task``. Calling it runs the function here and now.
    """

    _may_be_local = False
    """Whether its function may stand in another one; for adapters, who know that each process makes it."""

    expires_between_runs = False
    """Whether ``expires`` holds for each attempt, and not for the first alone; for adapters."""

    tells_defaults = False
    """Whether a callback is told of a failure by parameters with defaults too, whatever they are called."""

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        takes_context: bool = False,
        admin_enqueue: bool = True,
        backend: str = "",
        schedule: Periodic | Sequence[Periodic] = (),
        sensitive: Sequence[str] = (),
        **options: Unpack[JobOptions],
    ) -> None:
        if not inspect.isfunction(func) or ("<locals>" in func.__qualname__ and not self._may_be_local):
            raise _not_at_the_top(func)
        # First, because it takes over the function's own attributes, and one may be called like an option.
        update_wrapper(self, func)
        self.func: Callable[..., Any] = func
        self._is_async = inspect.iscoroutinefunction(func)
        self.name = f"{func.__module__}.{func.__qualname__}" if name is None else name
        self.takes_context = _checked_flag("takes_context", takes_context)
        self.admin_enqueue = _checked_flag("admin_enqueue", admin_enqueue)
        self.backend = backend
        self._check()
        self.sensitive = self._checked_names(sensitive)
        self._set(_declared(options))
        self.schedules: dict[str, Periodic] = self._scheduled(schedule)

    @property
    def queue_name(self) -> str:
        return self.options.queue_name

    @property
    def priority(self) -> int:
        return self.options.priority

    @property
    def run_after(self) -> Moment | None:
        return self.options.run_after

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function inline. A task that takes a context must be given one here; dbqueue.testing makes some."""
        self._check_plain_call(args, kwargs)
        return self.func(*args, **kwargs)  # type: ignore[no-any-return]

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __or__(self, other: object) -> Any:
            return chain(self, other)  # which says what it must hold

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobResult[R]:
        """Insert a job, in the caller's transaction. Raises an error of dbqueue.exceptions for what can't be run."""
        draft = self.draft(args, kwargs)

        def insert_it() -> list[JobResult[R]]:
            return insert_apart([draft]) if draft.durable and is_apart() else insert([draft])

        return enter(insert_it, self.entered)[0]

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> JobResult[R]:
        """The same as enqueue(), by Celery's name."""
        return self.enqueue(*args, **kwargs)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobResult[R]:
        """The same as enqueue(), from async code."""
        return await sync_to_async(self.enqueue)(*args, **kwargs)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """This call as a value: the task with its options, and the arguments.

        In a workflow it is given the result of what comes before it, as its first argument.
        """
        return Signature(self, args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """The same, immutable: it is given nobody's result."""
        return Signature(self, args, kwargs, immutable=True)

    def using(self, **options: Unpack[JobOptions]) -> "Task[P, R]":
        """The same task with other options: those of ``Options``, where each is explained. Raises InvalidTask."""
        other = self._copy()
        other._set(self.options.changed(options))
        return other

    def get_result(self, result_id: str) -> JobResult[R]:
        """Look a job of this task up. Raises JobDoesNotExist, also if the job is one of another task."""
        result = get_result(result_id)
        if result.task_name != self.name:
            raise JobDoesNotExist(f"Job {result_id} is one of {result.task_name!r}, not of {self.name!r}.")
        return result

    @cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature as its callers see it: without the context."""
        signature = _signature_of(self.func)
        if not self.takes_context:
            return signature
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def draft(self, args: tuple[Any, ...], kwargs: dict[str, Any], given: int = 0) -> Draft:
        """Check a call of this task and make it ready to be inserted. Raises InvalidArguments or NotStorable.

        So many arguments as are ``given`` later will stand before these.
        """
        registry.find(self.name)
        self._check_queue()
        bound = self.bind((*[GIVEN_LATER] * given, *args), kwargs)
        try:
            args_json = encode(args, "args") if args else "[]"
            kwargs_json = encode(kwargs, "kwargs") if kwargs else "{}"
        except NotStorable as exc:
            raise self._refusal(exc, args, kwargs) from None
        try:
            keys = self._keys(bound) if self._has_keys else {}
        except InvalidArguments as exc:
            secrets = redacted(self.name, list(args), kwargs).secrets
            raise InvalidArguments(secrets.scrub(str(exc))) from None
        return Draft(
            args=json.loads(args_json) if args else [],
            kwargs=json.loads(kwargs_json) if kwargs else {},
            args_json=args_json,
            kwargs_json=kwargs_json,
            **self._common,
            **keys,
        )

    def _refusal(self, exc: NotStorable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NotStorable:
        """What is wrong with a call, in words that don't tell what is sensitive in it."""
        shown = redacted(self.name, list(args), kwargs)
        if shown is UNREADABLE:
            return exc  # which is about the depth, and tells no value
        try:
            encode(shown.args, "args")
            encode(shown.kwargs, "kwargs")
        except NotStorable as other:
            return other
        return NotStorable("A sensitive argument can't be stored as JSON; its value is not shown.")

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """The arguments by name, without the context. Raises InvalidArguments, which says all that is wrong."""
        try:
            if self.takes_context and "context" in kwargs:
                raise TypeError("the context is given by the worker")
            return self.signature.bind(*args, **kwargs)
        except TypeError as exc:
            why = misfits(self.signature, args, kwargs) or exc
            more = FROM_BEFORE if any(arg is GIVEN_LATER for arg in args) else ""
            raise InvalidArguments(
                f"{self.name}{shown_signature(self)} can't be called with these arguments: {why}.{more}"
            ) from None

    def _keys(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        call = Call.of(bound)
        concurrency, rate = self.options.limit_keys(self.name, call)
        return {
            "unique_key": self.options.unique_key(self.name, call),
            "concurrency_key": concurrency,
            "rate_key": rate,
        }

    def entered(self, job: JobResult[R]) -> None:
        """Called after the INSERT of one call of this task; a hook for adapters."""

    def for_claim(self, claim: Claim) -> "Task[P, R]":
        """The task as it runs this attempt; a hook for adapters.

        Raises UnknownTask where this process can't run the claim.
        """
        return self

    def run(self, claim: Claim, database: str) -> Any:
        """Run one attempt on this thread and return what the function returns. Coroutines are run to their end."""
        args = (self.context(claim, database), *claim.args) if self.takes_context else claim.args
        if self._is_async:
            # Not asyncio.run(): that would send the ORM to another thread, past this one's clean-up.
            return async_to_sync(run_async)(self.func(*args, **claim.kwargs))
        return self.func(*args, **claim.kwargs)

    def context(self, claim: Claim, database: str) -> Any:
        return Context(claim, database, current.get())

    def started(self, claim: Claim, database: str) -> None:
        """Called on the job's thread before it runs; a hook for adapters."""

    def ended(self, claim: Claim, database: str, outcome: Any) -> None:
        """Called on the job's thread after a run that is final; inside the ``except`` of one that failed."""

    def _copy(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def _set(self, options: Options) -> None:
        """Take these options, and work out what the rows of all its jobs have in common. Raises InvalidTask."""
        options.check_against(self.name, self.signature)
        stored, unique = options.stored(), options.unique
        self.options = options
        self._has_keys = bool(unique or options.concurrency or options.rate or options.serial is not None)
        self._common: dict[str, Any] = {
            "task": self.name,
            "queue_name": options.queue_name,
            "priority": options.priority,
            "backend": self.backend,
            "max_attempts": options.max_attempts,
            "durable": options.durable,
            "external_id": options.external_id,
            "options_json": None if stored is None else json.dumps(stored),
            **_split("run_after", "wait", options.run_after),
            **_split("expires_at", "expires_in", options.expires),
        }
        if unique:
            self._common |= {
                "unique_scope": unique.scope.value,
                "unique_for": unique.until if isinstance(unique.until, datetime.timedelta) else None,
                "replaces": unique.replace,
            }

    def _scheduled(self, schedule: Periodic | Sequence[Periodic]) -> dict[str, Periodic]:
        """The schedules by name, each with arguments that were checked. Raises InvalidTask."""
        given = (schedule,) if isinstance(schedule, Periodic) else schedule
        if not isinstance(given, list | tuple) or not all(isinstance(one, Periodic) for one in given):
            raise InvalidTask(
                f"schedule of {self.name} is {schedule!r}; it must be what dbqueue.cron() or dbqueue.every() makes, or "
                "a list of it."
            )
        try:
            for one in given:
                self.bind(one.args, one.kwargs)
                if one.queue_name or one.priority is not None:
                    Options(queue_name=one.queue_name or self.queue_name, priority=one.priority or 0)
                encode(one.args, "args")
                encode(one.kwargs, "kwargs")
            return named(self.name, given)
        except (InvalidArguments, NotStorable, ValueError) as exc:
            raise InvalidTask(f"schedule of {self.name}: {exc}") from None

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name.isprintable() or not 0 < len(self.name) <= NAME_LENGTH:
            raise InvalidTask(
                f"A task's name is {self.name!r}; it must be printable text of 1 to {NAME_LENGTH} characters."
            )
        self._check_context()

    def _checked_names(self, sensitive: Any) -> frozenset[str]:
        """The names of parameters that are sensitive. Raises InvalidTask."""
        names = self.signature.parameters
        if not isinstance(sensitive, list | tuple | set | frozenset) or not all(name in names for name in sensitive):
            raise InvalidTask(
                f"sensitive of {self.name} is {sensitive!r}; it must be a list of names among the function's "
                f"parameters: {', '.join(map(repr, names)) or 'it has none'}."
            )
        return frozenset(sensitive)

    def _check_plain_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An argument in the context's place would end in an AttributeError somewhere below."""
        if not self.takes_context:
            return
        first = args[0] if args else kwargs.get("context", ())
        if isinstance(first, str | int | float | list | tuple | dict):
            raise InvalidArguments(
                f"{self.name} takes a context: call it here with one before the other arguments, in a test with "
                "dbqueue.testing.context(), or enqueue it."
            )

    def _check_context(self) -> None:
        if self.takes_context and next(iter(_signature_of(self.func).parameters), None) != "context":
            raise InvalidTask(f"{self.name} takes a context, so its first parameter must be named 'context'.")

    def _check_queue(self) -> None:
        allowed = Settings.load().queues
        if allowed and self.queue_name not in allowed:
            raise InvalidTask(
                f"The queue {self.queue_name!r} is not among DBQUEUE['QUEUES']: {', '.join(map(repr, allowed))}."
            )


class AsyncTask(Task[P, R]):
    """A task whose function is ``async def``: called directly, it gives the coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        self._check_plain_call(args, kwargs)
        return self.func(*args, **kwargs)  # type: ignore[no-any-return]


class _Decorator(Protocol):
    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> Task[P, R]: ...


class _ContextDecorator(Protocol):
    @overload
    def __call__(self, func: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...


@overload
def task(func: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def task(func: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    takes_context: Literal[True],
    name: str | None = None,
    admin_enqueue: bool = True,
    schedule: Periodic | Sequence[Periodic] = (),
    sensitive: Sequence[str] = (),
    **options: Unpack[JobOptions],
) -> _ContextDecorator: ...
@overload
def task(
    *,
    takes_context: Literal[False] = False,
    name: str | None = None,
    admin_enqueue: bool = True,
    schedule: Periodic | Sequence[Periodic] = (),
    sensitive: Sequence[str] = (),
    **options: Unpack[JobOptions],
) -> _Decorator: ...
def task(func: Any = None, /, **options: Any) -> Any:
    """Make a function a task: ``@task``, or ``@task(queue_name="mail", max_attempts=5)``.

    ``name`` is what rows hold (default: module and function, dotted). With ``takes_context`` the function's first
    parameter, ``context``, receives a Context. ``admin_enqueue=False`` keeps it out of the admin's form. ``schedule``
    is one, or a list, of what ``cron()`` and ``every()`` make: workers enqueue it then. ``sensitive`` names parameters
    whose values no page, file or log line of dbqueue shows. All other keywords are those of ``Options``: defaults that
    ``using()`` overrides. Raises InvalidTask.
    """

    def declare(func: Callable[..., Any]) -> Task[Any, Any]:
        if "." in getattr(func, "__qualname__", ""):  # of a class, or local
            raise _not_at_the_top(func)
        kind: type[Task[Any, Any]] = AsyncTask if inspect.iscoroutinefunction(func) else Task
        made = kind(func, **options)
        registry.register(made)
        return made

    return declare if func is None else declare(func)


@overload
def enqueue(task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobResult[R]: ...
@overload
def enqueue(task: str, /, *args: Any, **kwargs: Any) -> JobResult[Any]: ...
def enqueue(task: Any, /, *args: Any, **kwargs: Any) -> JobResult[Any]:
    """Enqueue a call of ``task``: a task, or the name of one. Raises UnknownTask, and what Task.enqueue raises."""
    found = registry.find(task) if isinstance(task, str) else _own_task(task)
    return found.enqueue(*args, **kwargs)


async def aenqueue(task: "Task[Any, R] | str", /, *args: Any, **kwargs: Any) -> JobResult[Any]:
    """The same as enqueue(), from async code."""
    return await sync_to_async(enqueue)(task, *args, **kwargs)  # type: ignore[arg-type]


def enqueue_many(signatures: Iterable[Signature[R]]) -> list[JobResult[R]]:
    """Insert a job for each signature, in order; all or none, in some statements per thousand.

    Those with ``durable`` are the last to be written where they have a transaction of their own.
    """
    drafts = (_own_signature(item).task.draft(item.args, item.kwargs) for item in signatures)

    def insert_all() -> list[JobResult[R]]:
        has_apart = is_apart()
        made: dict[int, JobResult[R]] = {}
        durable: dict[int, Draft] = {}
        remaining = enumerate(drafts)
        with transaction.atomic(using=Settings.load().database):
            while chunk := dict(itertools.islice(remaining, CHUNK)):
                if has_apart:
                    durable |= {place: draft for place, draft in chunk.items() if draft.durable}
                plain = {place: draft for place, draft in chunk.items() if place not in durable}
                made |= zip(plain, insert(list(plain.values())), strict=True)
            if durable:
                made |= zip(durable, insert_apart(list(durable.values())), strict=True)
        return [made[place] for place in range(len(made))]

    return enter(insert_all)


async def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await what a task's function has given, where a deadline can reach it."""
    running = current.get()
    return await (coroutine if running is None else running.call_async(coroutine))


def _declared(options: JobOptions) -> Options:
    """Raises InvalidTask, also for a name that is no option."""
    backoff = options.get("backoff")
    if callable(backoff):
        # Only a task may have a function there, which using() refuses.
        return replace(Options().changed({**options, "backoff": None}), backoff=backoff)
    return Options().changed(options)


def _checked_flag(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise InvalidTask(f"{name} is {value!r}; it must be True or False.")
    return value


def _split(moment: str, wait: str, value: Moment | None) -> dict[str, Any]:
    """A Moment as what a Draft has for it."""
    is_wait = isinstance(value, datetime.timedelta)
    return {moment: None if is_wait else value, wait: value if is_wait else None}


def _signature_of(func: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # There annotations are evaluated when they are asked for, also names that only a type checker imports.
        from annotationlib import Format

        return inspect.signature(func, annotation_format=Format.FORWARDREF)
    return inspect.signature(func)


def _not_at_the_top(func: object) -> InvalidTask:
    return InvalidTask(f"{func!r} can't be a task: it must be a function at the top level of a module.")


def _own_task(task: object) -> Task[Any, Any]:
    if isinstance(name := getattr(task, "module_path", None), str):
        raise InvalidTask(f"{name} is a task of django.tasks: call its own enqueue(), or give its name: {name!r}.")
    if isinstance(task, Node):
        raise InvalidTask(f"{task} is a {type(task).__name__.lower()}: it is enqueued by its own enqueue().")
    if not isinstance(task, Task):
        raise InvalidTask(f"{task!r} is not a task: decorate it with @dbqueue.task.")
    return task


def _own_signature(signature: object) -> Signature[Any]:
    if isinstance(signature, JobResult):
        last = signature.task_name.rpartition(".")[2]
        raise InvalidTask(
            f"Job {signature.id} is not a signature: write {last}.s(…), not {last}.enqueue(…), which has enqueued it."
        )
    if not isinstance(signature, Signature):
        raise InvalidTask(f"{signature!r} is not a signature: make one with task.s(…).")
    if signature.callbacks or signature.links:
        raise InvalidTask(f"{signature!r} has callbacks or links, which enqueue_many() would lose: call its enqueue().")
    return signature
