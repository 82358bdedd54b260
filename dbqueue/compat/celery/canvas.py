"""Signatures, chains, groups and chords by Celery's names, made into dbqueue's own when they are enqueued."""

import itertools
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...exceptions import InvalidTask
from . import eager, signals
from .result import AsyncResult, GroupResult
from .task import OF_A_MESSAGE, Task

if TYPE_CHECKING:
    from ... import canvas as core
    from ...workflow import WorkflowResult


class Part:
    """What signatures, chains and groups have in common."""

    def node(self) -> "core.Node":
        """As dbqueue has it."""
        raise NotImplementedError

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> Self:
        """The same with these arguments before its own; of a chain before those of its first, of a group of each."""
        raise NotImplementedError

    def run_eagerly(self, before: Any) -> Any:
        """Here and now. ``before`` is empty, or holds the result of what stands before."""
        raise NotImplementedError

    def enqueue(self) -> Any:
        raise NotImplementedError

    def as_links(self) -> "list[core.Signature[Any]]":
        """What comes after another, beside the rest. Raises InvalidTask where dbqueue has no such thing."""
        raise InvalidTask(f"{self!r} can't be linked to a task; let it come after it in a chain.")

    def __or__(self, other: "Part") -> "chain":
        return chain(self, other)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Enqueue it, in the caller's transaction."""
        found = self.clone(args, kwargs, **options)
        return found.run_eagerly(()) if eager.is_eager() else found.enqueue()

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run all of it here and now, without the database."""
        return self.clone(args, kwargs).run_eagerly(())


class Signature(Part):
    """A call that has not been made. ``options`` are those of ``apply_async()``."""

    def __init__(
        self,
        task: Task | str,
        args: Any = (),
        kwargs: Any = None,
        options: dict[str, Any] | None = None,
        immutable: bool = False,
        link: Any = None,
        link_error: Any = None,
        **more: Any,
    ) -> None:
        self._task = task
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})
        self.options = {**(options or {}), **more}
        self.immutable = immutable
        self.links = tuple(_several(link))
        self.errbacks = tuple(_several(link_error))

    @property
    def type(self) -> Task:
        """The task. Raises NotRegistered for a name that this process doesn't know."""
        if isinstance(self._task, Task):
            return self._task
        from .bridge import by_name

        return by_name(self._task)

    @property
    def task(self) -> str:
        return self._task if isinstance(self._task, str) else self._task.name

    name = task

    def __repr__(self) -> str:
        return f"{self.task}(…)"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task here and now."""
        found = self.clone(args, kwargs)
        return found.type(*found.args, **found.kwargs)

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "Signature":
        options = {name: value for name, value in options.items() if value is not None}
        if self.immutable:
            args, kwargs = (), {}
        found = Signature(
            self._task,
            (*(args or ()), *self.args),
            {**self.kwargs, **(kwargs or {})},
            {**self.options, **options},
            self.immutable,
            self.links,
            self.errbacks,
        )
        link, link_error = found.options.pop("link", None), found.options.pop("link_error", None)
        return found.linked(link, link_error)

    def linked(self, link: Any, link_error: Any) -> "Signature":
        self.links += tuple(_several(link))
        self.errbacks += tuple(_several(link_error))
        return self

    def set(self, immutable: bool | None = None, **options: Any) -> "Signature":
        """Change its options; it is the same signature, as in Celery."""
        if immutable is not None:
            self.immutable = immutable
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    def link(self, callback: "Signature") -> "Signature":
        self.links = (*self.links, callback)
        return callback

    def link_error(self, errback: "Signature") -> "Signature":
        self.errbacks = (*self.errbacks, errback)
        return errback

    def on_error(self, errback: "Signature") -> "Signature":
        self.errbacks = (*self.errbacks, errback)
        return self

    def call(self) -> "core.Signature[Any]":
        """The call without what is linked to it."""
        from ...canvas import Signature as CoreSignature

        task = self.type.core.with_options(**self.options)
        chosen = frozenset(_CHOSEN[name] for name in self.options if name in _CHOSEN)
        made: core.Signature[Any] = CoreSignature(task, self.args, self.kwargs, self.immutable, chosen=chosen)
        return made.on_error(*(errback.as_errback() for errback in self.errbacks))

    def as_errback(self) -> "core.Signature[Any]":
        from .bridge import ERRBACK

        headers = {**(self.options.get("headers") or {}), ERRBACK: True}
        return Signature(
            self._task, self.args, self.kwargs, {**self.options, "headers": headers}, self.immutable
        ).call()

    def node(self) -> "core.Signature[Any]":
        return self.call().link(*(one for link in self.links for one in link.as_links()))

    def as_links(self) -> "list[core.Signature[Any]]":
        """What comes after another, beside the rest."""
        return [self.node()]

    def enqueue(self) -> AsyncResult:
        task = self.type
        body = (self.args, self.kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
        headers = {"task": task.name, "id": self.options.get("task_id"), **(self.options.get("headers") or {})}
        said = {"exchange": "", "routing_key": task.core.queue_name, "headers": headers, "body": body}
        signals.before_task_publish.send(sender=task.name, properties={}, declare=[], retry_policy={}, **said)
        node = self.node()
        job = node.enqueue()
        result = _unseen(AsyncResult(self.options.get("task_id") or job.id), job)
        headers["id"] = result.id
        signals.after_task_publish.send(sender=task.name, **said)
        return result

    def run_eagerly(self, before: Any) -> Any:
        args = self.args if self.immutable else (*before, *self.args)
        return eager.applied(self.type, args, self.kwargs, links=self.links, errbacks=self.errbacks, **self.options)

    def freeze(self, _id: str | None = None, **kwargs: Any) -> AsyncResult:
        """Give it its id now."""
        from .utils import uuid

        self.options.setdefault("task_id", _id or uuid())
        return AsyncResult(self.options["task_id"])


_CHOSEN = {"queue": "queue_name", "priority": "priority", "headers": "headers"}


_STARTING = ("countdown", "eta", "expires", "soft_time_limit", "time_limit")
"""Options of those calls with which a chain, group or chord begins."""


class _Composed(Part):
    known_options: ClassVar = frozenset({*_CHOSEN, *_STARTING, "task_id", *OF_A_MESSAGE})

    def __init__(self, *tasks: Any, **options: Any) -> None:
        if len(tasks) == 1 and not isinstance(tasks[0], Part) and isinstance(tasks[0], Iterable):
            tasks = tuple(tasks[0])
        self.tasks: list[Any] = list(tasks)
        self.options = options
        self.errbacks: tuple[Signature, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tasks!r})"

    def __len__(self) -> int:
        return len(self.tasks)

    def set(self, **options: Any) -> Self:
        self.options.update(options)
        return self

    def link(self, callback: Signature) -> Signature:
        """What comes after the last of it."""
        self.tasks = [*self.tasks[:-1], self.tasks[-1].clone()]
        self.tasks[-1].link(callback)
        return callback

    def link_error(self, errback: Signature) -> Signature:
        self.errbacks = (*self.errbacks, errback)
        return errback

    def on_error(self, errback: Signature) -> Self:
        self.link_error(errback)
        return self

    def _starting(self) -> dict[str, Any]:
        return {name: self.options[name] for name in _STARTING if self.options.get(name) is not None}

    def _made(self, node: "core.Node") -> "core.Node":
        """With what was said of all of it."""
        if unknown := sorted(self.options.keys() - self.known_options):
            warnings.warn(f"A {type(self).__name__} has no use for {', '.join(unknown)} here.", stacklevel=4)
        node = node.inherit(_inherited(self.options))
        return node.on_error(*(errback.as_errback() for errback in self.errbacks)) if self.errbacks else node

    def _copy(self, tasks: Iterable[Any], options: dict[str, Any]) -> Self:
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found.tasks = list(tasks)
        options = {name: value for name, value in options.items() if value is not None}
        found.errbacks = (*self.errbacks, *_several(options.pop("link_error", None)))
        for link in _several(options.pop("link", None)):
            found = chain(found, link)  # type: ignore[assignment]
        found.options = {**self.options, **options}
        return found


class chain(_Composed):
    """One after another."""

    def node(self) -> "core.Node":
        from ...canvas import chain as core_chain

        return self._made(core_chain([task.node() for task in self._steps()]))

    def _steps(self) -> list[Any]:
        """Its tasks, the first of them with what was said of the beginning, the last with the task_id."""
        steps = list(self.tasks)
        for place, (header, body) in enumerate(itertools.pairwise(self.tasks)):
            if isinstance(header, group):
                steps[place] = _telling(header, body)
        if steps and (starting := self._starting()):
            steps[0] = steps[0].clone(**starting)
        if steps and (task_id := self.options.get("task_id")):
            steps[-1] = steps[-1].clone(task_id=task_id)
        return steps

    def as_links(self) -> "list[core.Signature[Any]]":
        first, *others = self.tasks
        return [head.link(*chain(others).as_links()) for head in first.as_links()] if others else first.as_links()

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "chain":
        first, *others = self.tasks or [None]
        tasks = [first.clone(args, kwargs), *others] if first is not None and (args or kwargs) else self.tasks
        return self._copy(tasks, options)

    def enqueue(self) -> AsyncResult | GroupResult | None:
        if not self.tasks:
            return None
        made: WorkflowResult = self.node().enqueue()  # type: ignore[attr-defined]
        return _result_of(made, self.options.get("task_id"))

    def run_eagerly(self, before: Any) -> Any:
        result: Any = None
        for task in self.tasks:
            result = task.run_eagerly(before)
            if not result.successful():
                return result
            before = (result.get(),)
        return result


class group(_Composed):
    """Side by side."""

    known_options: ClassVar = _Composed.known_options - {"task_id"}

    def node(self) -> "core.Node":
        from ...canvas import group as core_group

        starting = self._starting()
        tasks = [task.clone(**starting) for task in self.tasks] if starting else self.tasks
        return self._made(core_group([task.node() for task in tasks]))

    def as_links(self) -> "list[core.Signature[Any]]":
        return [link for task in self.tasks for link in task.as_links()]

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "group":
        tasks = [task.clone(args, kwargs) for task in self.tasks] if args or kwargs else self.tasks
        return self._copy(tasks, options)

    def enqueue(self) -> GroupResult:
        made: WorkflowResult = self.node().enqueue()  # type: ignore[attr-defined]
        found = GroupResult.restore(made.id) or GroupResult(made.id)
        for result in found:
            _unseen(result, made)
        return found

    def run_eagerly(self, before: Any) -> Any:
        return GroupResult(None, [task.run_eagerly(before) for task in self.tasks])


class chord(_Composed):
    """A body after all of a header: ``chord(header, body).delay()`` or ``chord(header)(body)``."""

    def __init__(self, header: Any, body: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.header = header if isinstance(header, group) else group(header)
        self.body = body

    @property
    def tasks(self) -> list[Any]:
        return list(self.header.tasks)

    @tasks.setter
    def tasks(self, value: list[Any]) -> None: ...

    def __call__(self, body: Any = None, **options: Any) -> Any:
        found = self._copy((), {})
        found.body = body or self.body
        return found.apply_async(**options)

    def node(self) -> "core.Node":
        from ...canvas import chain as core_chain

        if self.body is None:
            raise InvalidTask(f"{self!r} has no body; give it one, as chord(header)(body).")
        starting, task_id = self._starting(), self.options.get("task_id")
        header = _telling(self.header.clone(**starting) if starting else self.header, self.body)
        body = self.body.clone(task_id=task_id) if task_id else self.body
        return self._made(core_chain(header.node(), body.node()))

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "chord":
        found = self._copy((), options)
        found.header = self.header.clone(args, kwargs)
        return found

    def enqueue(self) -> AsyncResult | GroupResult:
        made: WorkflowResult = self.node().enqueue()  # type: ignore[attr-defined]
        return _result_of(made, self.options.get("task_id"))

    def run_eagerly(self, before: Any) -> Any:
        results = self.header.run_eagerly(before)
        for result in results:
            if not result.successful():
                return result
        return self.body.run_eagerly((results.get(),))


class chunks(_Composed):
    """Calls of one task, so many in a job: ``add.chunks(zip(a, b), 10)``."""

    def __init__(self, task: Signature, it: Iterable[Any], n: int) -> None:
        every = list(it)
        calls = [every[start : start + n] for start in range(0, len(every), n)]
        super().__init__([_many("celery.starmap", task.task, part) for part in calls])

    def group(self) -> group:
        return group(self.tasks)

    def node(self) -> "core.Node":
        return self.group().node()

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        return self.group().clone(args, kwargs, **options)


def starmap(task: Task, it: Iterable[Any]) -> Signature:
    """One job that calls the task with each of these lists of arguments, one after another."""
    return _many("celery.starmap", task.name, it)


def xmap(task: Task, it: Iterable[Any]) -> Signature:
    """The same with each of these arguments."""
    return _many("celery.map", task.name, it)


def _many(name: str, task: str, it: Iterable[Any]) -> Signature:
    return Signature(Task.known[name], (task, list(it)), immutable=True)


def signature(varies: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    """Of a task, of the name of one, or of what is one already."""
    if isinstance(varies, Part):
        return varies.clone(args, kwargs, **options)
    return Signature(varies, args, kwargs, **options)


subtask = signature


def maybe_signature(value: Any, app: Any = None, clone: bool = False) -> Any:
    return value if value is None or isinstance(value, Part) else signature(value)


def _telling(header: group, body: Any) -> group:
    """A header, of whose failures the errbacks of its body are told as well, as with Celery."""
    found = header._copy(header.tasks, {})
    found.errbacks += tuple(errback for errback in body.errbacks if errback not in found.errbacks)
    return found


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _inherited(options: dict[str, Any]) -> dict[str, Any]:
    """What holds for each call that says nothing else."""
    from .bridge import inherited_options

    return inherited_options(options)


def _result_of(made: "WorkflowResult", task_id: str | None) -> AsyncResult | GroupResult:
    """Of what ends with a group its results, as with Celery."""
    found = GroupResult.restore(made.id) or AsyncResult(task_id or made.id)
    for result in found if isinstance(found, GroupResult) else [found]:
        _unseen(result, made)
    return found


def _unseen(result: AsyncResult, made: Any) -> AsyncResult:
    """In the transaction that made it no worker sees it yet."""
    result._uncommitted = made._uncommitted
    return result


def _map(task: str, it: list[Any]) -> list[Any]:
    """What ``map`` enqueues."""
    return [Task.known[task](value) for value in it]


def _starmap(task: str, it: list[Any]) -> list[Any]:
    """What ``starmap`` and ``chunks`` enqueue."""
    return [Task.known[task](*args) for args in it]


Task.from_function(_map, name="celery.map").registered(None)
Task.from_function(_starmap, name="celery.starmap").registered(None)

__all__ = [
    "Signature",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "starmap",
    "subtask",
    "xmap",
]
