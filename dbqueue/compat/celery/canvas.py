"""Signatures, chains, groups and chords by Celery's names, made into dbqueue's own when they are enqueued."""

import contextvars
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from ...exceptions import InvalidTask, refused_in_async_code
from . import eager, signals
from .result import AsyncResult, GroupResult, job_rows, result_of
from .task import OF_A_MESSAGE, Task, checked_arguments
from .utils import uuid
from .values import decoded, encoded
from .warned import warn

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

    def passed(self, errbacks: "tuple[Signature, ...]", headers: dict[str, Any] | None) -> Self:
        """The same with what was said of all of which it is a part."""
        raise NotImplementedError

    def run_eagerly(self, before: Any, throw: bool | None = None) -> Any:
        """Here and now. ``before`` is empty, or holds the result of what stands before.

        ``throw``: whether an error is raised (None: as task_eager_propagates says).
        """
        raise NotImplementedError

    def enqueue(self) -> Any:
        raise NotImplementedError

    def __json__(self) -> dict[str, Any]:
        """As an argument of a task, which makes it a signature again by ``signature()``: the dict of Celery's."""
        raise NotImplementedError

    def as_links(self) -> "list[core.Signature[Any]]":
        """What comes after another, beside the rest. Raises InvalidTask where dbqueue has no such thing."""
        raise InvalidTask(f"{self!r} can't be linked to a task; let it come after it in a chain.")

    def as_errback(self, headers: dict[str, Any] | None = None) -> "core.Signature[Any]":
        """What a failure is told to. ``headers`` are those of the call. Raises InvalidTask."""
        raise InvalidTask(f"{self!r} can't be told of a failure; a signature of a single task can.")

    def __or__(self, other: "Part") -> "chain":
        return chain(self, other) if isinstance(other, Part) else NotImplemented

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Enqueue it, in the caller's transaction."""
        return self.clone(*checked_arguments(args, kwargs), **options).send()

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """As delay(), from async code."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(self, *args: Any, **kwargs: Any) -> Any:
        """As apply_async(), from async code."""
        return await sync_to_async(self.apply_async)(*args, **kwargs)

    def send(self) -> Any:
        """Enqueue it as it is, or run it where everything runs eagerly."""
        if eager.is_eager():
            return self.run_eagerly(())
        try:
            return self.enqueue()
        except SynchronousOnlyOperation:
            raise refused_in_async_code(
                f"{self!r} is enqueued", "await adelay() or aapply_async() instead of delay() or apply_async()"
            ) from None

    def apply(self, args: Any = None, kwargs: Any = None, throw: bool | None = None, **options: Any) -> Any:
        """Run all of it here and now, without the database. ``throw``: whether its error is raised."""
        return self.clone(*checked_arguments(args, kwargs), **options).run_eagerly((), throw)


class _Asked:
    """A step of a workflow about which the ``apply_async()`` of its task's class is asked: what it would enqueue."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.call: Signature | None = None


_asked: "contextvars.ContextVar[_Asked | None]" = contextvars.ContextVar("dbqueue_celery_asked", default=None)


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
        self.links: tuple[Part, ...] = ()
        self.errbacks: tuple[Part, ...] = ()
        self.linked(link, link_error)
        self.linked(self.options.pop("link", None), self.options.pop("link_error", None))

    _is_asked = False
    """Whether the apply_async() of the task's class has had its say."""

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._said() == other._said()

    __hash__ = None  # type: ignore[assignment]

    def _said(self) -> Any:
        return self.task, self.args, self.kwargs, self.options, self.immutable, self.links, self.errbacks

    def __json__(self) -> dict[str, Any]:
        linked = {"link": list(self.links), "link_error": list(self.errbacks)}
        return {
            "task": self.task,
            "args": list(self.args),
            "kwargs": self.kwargs,
            "options": {**self.options, **{name: parts for name, parts in linked.items() if parts}},
            "subtask_type": None,
            "immutable": self.immutable,
            "chord_size": None,
        }

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
        found._is_asked = self._is_asked
        return found

    def linked(self, link: Any, link_error: Any) -> "Signature":
        self.links = _with(self.links, _several(link))
        self.errbacks = _with(self.errbacks, _several(link_error))
        return self

    def passed(self, errbacks: Any, headers: dict[str, Any] | None) -> "Signature":
        return self.clone(headers=_merged(headers, self.options.get("headers"))).linked(None, errbacks)

    def set(self, immutable: bool | None = None, **options: Any) -> "Signature":
        """Change its options; it is the same signature, as in Celery."""
        if immutable is not None:
            self.immutable = immutable
        if "link" in options:
            self.links = tuple(_several(options.pop("link")))
        if "link_error" in options:
            self.errbacks = tuple(_several(options.pop("link_error")))
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    def link(self, callback: Part) -> Part:
        self.linked(callback, None)
        return callback

    def link_error(self, errback: Part) -> Part:
        self.linked(None, errback)
        return errback

    def on_error(self, errback: Part) -> "Signature":
        return self.linked(None, errback)

    def call(self) -> "core.Signature[Any]":
        """The call without what is linked to it; before_task_publish is told of it, and may add headers."""
        from ...canvas import Signature as CoreSignature

        task_id, kwargs = str(self.options.get("task_id") or uuid()), dict(self.kwargs)
        headers = {"task": self.task, "id": task_id, **(self.options.get("headers") or {})}
        _tell(signals.before_task_publish, self.type.core, headers, (self.args, kwargs), declare=[], retry_policy={})
        headers = {name: value for name, value in headers.items() if name not in ("task", "id")}

        task = self.type.core.with_options(**{**self.options, "task_id": task_id, "headers": headers})
        chosen = frozenset(_CHOSEN[name] for name in self.options if name in _CHOSEN)
        made: core.Signature[Any] = CoreSignature(
            task, tuple(encoded(self.args)), encoded(kwargs), self.immutable, chosen=chosen
        )
        return made.on_error(*(errback.as_errback(headers) for errback in self.errbacks))

    def as_errback(self, headers: dict[str, Any] | None = None) -> "core.Signature[Any]":
        from ...canvas import Signature as CoreSignature
        from ...canvas import takes
        from .bridge import ERRBACK

        args, kwargs = tuple(encoded(self.args)), encoded(self.kwargs)
        told = 0 if self.immutable else takes(CoreSignature(self.type.core, args, kwargs))
        headers = {**(headers or {}), **(self.options.get("headers") or {}), ERRBACK: told}
        # One id would be that of several jobs, where several calls fail.
        options = {**self.options, "task_id": None, "headers": headers}
        if self.links or self.errbacks:
            raise InvalidTask(
                f"{self!r} is told of a failure, and has links or errbacks of its own: nobody follows them."
            )
        task = self.type.core.with_options(**options)
        return CoreSignature(task, args, kwargs, self.immutable, chosen=_ITS_OWN)

    def node(self) -> "core.Signature[Any]":
        asked = self._as_its_task_says()
        return asked.call().link(*(one for link in asked.links for one in link.as_links()))

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Enqueue it, in the caller's transaction, as the class of its task does that."""
        found = self.clone(*checked_arguments(args, kwargs), **options)
        return found._by_its_task() if found.type.enqueues_otherwise else found.send()

    def send(self) -> Any:
        """What Task.apply_async() comes to, after all that the class of the task has done before."""
        self._is_asked = True
        if eager.is_eager():
            self.type.core.signature.bind(*self.args, **self.kwargs)
        asked = _asked.get()
        if asked is None or asked.call is not None or asked.task is not self.type:
            return super().send()
        asked.call = self
        return AsyncResult(self.options.setdefault("task_id", uuid()))

    def _by_its_task(self, **more: Any) -> Any:
        linked = {"link": list(self.links), "link_error": list(self.errbacks)}
        said = {**self.options, **{name: several for name, several in linked.items() if several}, **more}
        return self.type.apply_async(self.args, dict(self.kwargs), **said)

    def _as_its_task_says(self) -> "Signature":
        """Steps are inserted together: a class that adds to each call is asked what, and to enqueue none."""
        if self._is_asked or not self.type.enqueues_otherwise:
            return self
        asked = _Asked(self.type)
        token = _asked.set(asked)
        try:
            self._by_its_task(task_id=self.options.get("task_id") or uuid())
        finally:
            _asked.reset(token)
        if asked.call is None:
            raise InvalidTask(f"The apply_async() of {self.task} lets this call out, and no step can be left out.")
        return asked.call.set(immutable=self.immutable)

    def as_links(self) -> "list[core.Signature[Any]]":
        """What comes after another, beside the rest."""
        node = self.node()
        return [replace(node, chosen=node.chosen | _ITS_OWN)]

    def enqueue(self) -> AsyncResult:
        node = self.node()
        job = node.enqueue()
        _published(node)
        return _unseen(AsyncResult(node.task.options.external_id or job.id), job)

    def run_eagerly(self, before: Any, throw: bool | None = None) -> Any:
        args = self.args if self.immutable else (*before, *self.args)
        said = {"links": self.links, "errbacks": self.errbacks, "throw": throw, **self.options}
        return eager.applied(self.type, args, self.kwargs, **said)

    def freeze(self, _id: str | None = None, **kwargs: Any) -> AsyncResult:
        """Give it its id now."""
        self.options.setdefault("task_id", _id or uuid())
        return AsyncResult(self.options["task_id"])


_ITS_OWN = frozenset({"queue_name", "priority", "headers"})
"""What links and errbacks have by themselves, and not from what they are linked to, in Celery."""

_CHOSEN = {"queue": "queue_name", "priority": "priority"}
"""Options of a chain, group or chord that hold for each of its calls that says nothing else."""


_STARTING = ("countdown", "eta", "expires", "soft_time_limit", "time_limit")
"""Options of those calls with which a chain, group or chord begins."""


class _Composed(Part):
    known_options: ClassVar = frozenset({*_CHOSEN, *_STARTING, "headers", "task_id", *OF_A_MESSAGE})

    def __init__(self, *tasks: Any, **options: Any) -> None:
        if len(tasks) == 1 and not isinstance(tasks[0], Part) and isinstance(tasks[0], Iterable):
            tasks = tuple(tasks[0])
        self.tasks: list[Any] = list(tasks)
        self.options = options
        self.errbacks: tuple[Part, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tasks!r})"

    def __len__(self) -> int:
        return len(self.tasks)

    def __json__(self) -> dict[str, Any]:
        kind = next(kind.__name__ for kind in (chord, chain, group) if isinstance(self, kind))
        inside = {"header": self.tasks, "body": self.body} if isinstance(self, chord) else {"tasks": self.tasks}
        options = {**self.options, **({"link_error": list(self.errbacks)} if self.errbacks else {})}
        return {
            "task": f"celery.{kind}",
            "args": [],
            "kwargs": inside,
            "options": options,
            "subtask_type": kind,
            "immutable": False,
            "chord_size": None,
        }

    def set(self, **options: Any) -> Self:
        self.options.update(options)
        return self

    def link(self, callback: Part) -> Part:
        """What comes after the last of it."""
        self.tasks = [*self.tasks[:-1], self.tasks[-1].clone()]
        self.tasks[-1].link(callback)
        return callback

    def link_error(self, errback: Part) -> Part:
        self.errbacks = _with(self.errbacks, [errback])
        return errback

    def on_error(self, errback: Part) -> Self:
        self.link_error(errback)
        return self

    def passed(self, errbacks: Any, headers: dict[str, Any] | None) -> Self:
        found = self._copy(self.tasks, {"headers": _merged(headers, self.options.get("headers"))})
        found.errbacks = _with(found.errbacks, errbacks)
        return found

    def _parts(self, tasks: Iterable[Any]) -> list[Any]:
        """These, with what was said of all of it."""
        errbacks, headers = self.errbacks, self.options.get("headers")
        return [task.passed(errbacks, headers) if errbacks or headers else task for task in tasks]

    def _starting(self) -> dict[str, Any]:
        return {name: self.options[name] for name in _STARTING if self.options.get(name) is not None}

    def _made(self, node: "core.Node") -> "core.Node":
        """With what was said of all of it."""
        if unknown := sorted(self.options.keys() - self.known_options):
            warn(f"A {type(self).__name__} has no use for {', '.join(unknown)} here.")
        return node.inherit(_inherited(self.options))

    def _copy(self, tasks: Iterable[Any], options: dict[str, Any]) -> Self:
        found = type(self).__new__(type(self))
        found.__dict__.update(self.__dict__)
        found.tasks = list(tasks)
        options = {name: value for name, value in options.items() if value is not None}
        found.errbacks = _with(self.errbacks, _several(options.pop("link_error", None)))
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
        steps = self._parts(self.tasks)
        for place, (header, body) in enumerate(itertools.pairwise(steps)):
            if isinstance(header, group):
                steps[place] = header.passed(body.errbacks, None)
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
        found: AsyncResult | GroupResult = _enqueued(self.node())
        return found

    def run_eagerly(self, before: Any, throw: bool | None = None) -> Any:
        result: Any = None
        for task in self._steps():
            if result is not None:
                before = (result.get(),)  # as with Celery the error of a step is raised, unless it is the last one
            result = task.run_eagerly(before, throw)
            if not (result.successful() or result.failed()):
                return result
        return result


class group(_Composed):
    """Side by side."""

    known_options: ClassVar = _Composed.known_options - {"task_id"}

    def node(self) -> "core.Node":
        from ...canvas import group as core_group

        starting = self._starting()
        nodes: list[Any] = []
        for task in self._parts(self.tasks):
            node = (task.clone(**starting) if starting else task).node()
            nodes += node.nodes if isinstance(task, group) else [node]
        return self._made(core_group(nodes))

    def link(self, callback: Any) -> Any:
        """After its first, whatever the others do, and given nothing: so it is in Celery."""
        first = self.tasks[0].clone()
        first.link(callback.clone().set(immutable=True))
        self.tasks = [first, *self.tasks[1:]]
        return callback

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.apply_async(args, **options)

    def as_links(self) -> "list[core.Signature[Any]]":
        return [link for task in self.tasks for link in task.as_links()]

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "group":
        tasks = [task.clone(args, kwargs) for task in self.tasks] if args or kwargs else self.tasks
        return self._copy(tasks, options)

    def enqueue(self) -> GroupResult:
        found: GroupResult = _enqueued(self.node())
        return found

    def run_eagerly(self, before: Any, throw: bool | None = None) -> Any:
        results: list[Any] = []
        for task in self._parts(self.tasks):
            result = task.run_eagerly(before, throw)
            results += result.results if isinstance(task, group) else [result]
        return GroupResult(uuid(), results)


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

    def link(self, callback: Part) -> Part:
        """What comes after its body."""
        self.body = self._ended().clone()
        self.body.link(callback)
        return callback

    def _ended(self) -> Any:
        if self.body is None:
            raise InvalidTask(f"{self!r} has no body; give it one, as chord(header)(body).")
        return self.body

    def __call__(self, body: Any = None, **options: Any) -> Any:
        found = self._copy((), {})
        found.body = body or self.body
        return found.apply_async(**options)

    def node(self) -> "core.Node":
        from ...canvas import chain as core_chain

        header, body = self._steps()
        header, body = header.clone(**self._starting()), body.clone(task_id=self.options.get("task_id"))
        return self._made(core_chain(header.node(), body.node()))

    def _steps(self) -> list[Any]:
        """Of failures of its header the errbacks of its body are told as well, as with Celery."""
        header, body = self._parts([self.header, self._ended()])
        return [header.passed(body.errbacks, None), body]

    def clone(self, args: Any = (), kwargs: Any = None, **options: Any) -> "chord":
        found = self._copy((), options)
        found.header = self.header.clone(args, kwargs)
        return found

    def enqueue(self) -> AsyncResult | GroupResult:
        found: AsyncResult | GroupResult = _enqueued(self.node())
        return found

    def run_eagerly(self, before: Any, throw: bool | None = None) -> Any:
        header, body = self._steps()
        results = header.run_eagerly(before, throw)
        for result in results:
            if not (result.successful() or result.failed()):
                return result
        return body.run_eagerly((results.get(),), throw)


class chunks(_Composed):
    """Calls of one task, so many in a job: ``add.chunks(zip(a, b), 10)``."""

    def __init__(self, task: Signature, it: Iterable[Any], n: int) -> None:
        every = list(it)
        calls = [every[start : start + n] for start in range(0, len(every), n)]
        super().__init__([_many("celery.starmap", task.task, part) for part in calls])

    def group(self) -> group:
        found = group(self.tasks, **self.options)
        found.errbacks = self.errbacks
        return found

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
    from .app import route_of

    # It goes where the task's own jobs would go.
    queue = (Task.known[task].queue if task in Task.known else None) or route_of(task).get("queue")
    return Signature(Task.known[name], (task, list(it)), immutable=True, options={"queue": queue} if queue else None)


def signature(varies: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    """Of a task, of the name of one, of what is one already, or of a dict as Celery has it."""
    if isinstance(varies, Part):
        return varies.clone(args, kwargs, **options)
    if isinstance(varies, dict) and isinstance(varies.get("task"), str):
        return _of_dict(varies).clone(args, kwargs, **options)
    if not isinstance(varies, Task | str):
        raise InvalidTask(f"A signature is made of {varies!r}; it must be of a task, or of the name of one.")
    return Signature(varies, args, kwargs, **options)


subtask = signature


def _of_dict(said: dict[str, Any]) -> Part:
    """Of the form that Celery gives a signature in a message."""
    kind, inside = said.get("subtask_type"), said.get("kwargs") or {}
    options = {
        name: list(map(maybe_signature, _several(value))) if name in ("link", "link_error") else value
        for name, value in (said.get("options") or {}).items()
    }
    if not kind:
        return Signature(said["task"], said.get("args"), inside, options, bool(said.get("immutable")))
    if kind == "chord":
        header = inside["header"]
        header = maybe_signature(header).tasks if isinstance(header, dict) else list(map(maybe_signature, header))
        return chord(header, maybe_signature(inside["body"])).clone(**options)
    if kind not in ("chain", "group"):
        raise InvalidTask(f"A signature is one of Celery's {kind}; it can be a chain, a group or a chord.")
    tasks = list(map(maybe_signature, inside["tasks"]))
    return (chain if kind == "chain" else group)(tasks).clone(**options)


def maybe_signature(value: Any, app: Any = None, clone: bool = False) -> Any:
    return value if value is None or isinstance(value, Part) else signature(value)


def _several(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _with(these: tuple[Part, ...], others: Iterable[Part]) -> tuple[Part, ...]:
    """Each once, as in Celery."""
    for other in others:
        these = these if other in these else (*these, other)
    return these


def _merged(headers: dict[str, Any] | None, own: dict[str, Any] | None) -> dict[str, Any] | None:
    return {**(headers or {}), **(own or {})} or None


def _tell(signal: signals.Signal, task: Any, headers: dict[str, Any], call: tuple[Any, Any], **more: Any) -> None:
    """A signal of publishing, in the shape that a message of Celery's would have."""
    body = (*call, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
    signal.send(
        sender=task.name, exchange="", routing_key=task.queue_name, headers=headers, body=body, properties={}, **more
    )


def _published(node: "core.Node") -> None:
    """Tell after_task_publish of each call, now that they are rows."""
    if not signals.after_task_publish.receivers:
        return
    parts = [node]
    while parts:
        part: Any = parts.pop()
        if hasattr(part, "nodes"):
            parts += reversed(part.nodes)
            continue
        options = part.task.options
        headers = {"task": part.task.name, "id": options.external_id, **(options.headers or {})}
        _tell(signals.after_task_publish, part.task, headers, (decoded(list(part.args)), decoded(part.kwargs)))
        parts += reversed(part.links)


def _inherited(options: dict[str, Any]) -> dict[str, Any]:
    """What holds for each call that says nothing else."""
    from .bridge import inherited_options

    return inherited_options(options)


def _enqueued(node: "core.Node") -> Any:
    """Enqueue it. Returns the result of its last; of what ends with a group the group's, as with Celery."""
    made: WorkflowResult = node.enqueue()  # type: ignore[attr-defined]
    _published(node)
    found: Any = result_of(job_rows().get(pk=made.last_id))
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
