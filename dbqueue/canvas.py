"""Calls as values, and how they are put together: one after another, side by side, nested."""

import datetime
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from asgiref.sync import sync_to_async
from django.utils import timezone

from .entrance import enqueue_plan
from .exceptions import InvalidArguments, InvalidTask
from .models import NAME_LENGTH
from .options import Options
from .plan import TOLD, Callback, Plan, Step, group_draft
from .results import JobResult
from .workflow import WorkflowResult

if TYPE_CHECKING:
    from .definition import Task

R = TypeVar("R")

DEEPEST = 100
"""How deep groups and chains may be nested in each other."""

_DEFAULTS = Options()


class Node:
    """What can be a part of a workflow: a Signature, a Chain or a Group."""

    depth: int

    def __or__(self, other: "Node") -> "Chain":
        """One after the other: the second is given what the first returns, as its first argument."""
        return chain(self, other)

    def set(self, **options: Any) -> Self:
        """The same with other options for each of its calls: those of ``Task.using()``, and ``allow_failure``.

        With ``allow_failure=True`` what comes after a call goes on also if it fails, is cancelled or expires; it is
        given ``{"error": the exception's class, "message": …}`` for its result. Raises InvalidTask.
        """
        raise NotImplementedError

    def on_error(self, *callbacks: "Signature[Any]") -> Self:
        """The same, where each call that ends FAILED enqueues these, once, in the transaction that says so.

        A callback is given as much as it can take, before its own arguments: the id of the failed job (text), its
        exception's class (dotted), its traceback; a parameter with a default only if it is called ``job_id``,
        ``error`` or ``traceback``. An immutable one is given nothing. Raises InvalidTask.
        """
        raise NotImplementedError

    def inherit(self, options: Mapping[str, Any]) -> Self:
        """The same with these options where neither the task nor the call says otherwise."""
        raise NotImplementedError

    def lay(self, after: int | None, steps: list[Step]) -> int:
        """Append its steps, behind that at the place ``after``. Returns the place of the one with its result."""
        raise NotImplementedError

    def plan(self) -> Plan:
        """All of it, checked and ready to be inserted. Raises InvalidTask, InvalidArguments or NotStorable."""
        steps: list[Step] = []
        last = self.lay(None, steps)
        now = timezone.now()
        for step in steps:
            step.draft.due_from(now)  # what is counted from a step's turn is refused here, while somebody can be told
        return Plan(tuple(steps), last, _shortened(str(self)))


@dataclass(frozen=True, slots=True)
class Signature(Node, Generic[R]):
    """A call that has not been made: a task with its options, args and kwargs.

    ``chosen`` names the options that were said of this call; ``immutable`` (``task.si()``): it is not given the result
    of what comes before it.
    """

    task: "Task[Any, R]"
    # Who logs a signature is not to log what may be sensitive.
    args: tuple[Any, ...] = field(repr=False)
    kwargs: dict[str, Any] = field(repr=False)
    immutable: bool = False
    allow_failure: bool = False
    callbacks: "tuple[Signature[Any], ...]" = ()
    links: "tuple[Signature[Any], ...]" = ()
    chosen: frozenset[str] = frozenset()

    @property
    def depth(self) -> int:  # type: ignore[override]
        return 0

    def __str__(self) -> str:
        return self.task.name.rpartition(".")[2]

    def enqueue(self) -> JobResult[R]:
        """Insert a job, in the caller's transaction; see ``Task.enqueue()``."""
        if not self.callbacks and not self.links:
            return self.task.enqueue(*self.args, **self.kwargs)
        return _enqueue(self).last_result()

    def delay(self) -> JobResult[R]:
        """The same as enqueue(), by Celery's name."""
        return self.enqueue()

    async def aenqueue(self) -> JobResult[R]:
        """The same as enqueue(), from async code."""
        return await sync_to_async(self.enqueue)()

    def set(self, **options: Any) -> "Signature[R]":
        """The same call with other options: those of ``Task.using()``, and ``allow_failure``. Raises InvalidTask."""
        changed = replace(self, chosen=self.chosen | options.keys())
        if "allow_failure" in options:
            changed = replace(changed, allow_failure=_flag("allow_failure", options.pop("allow_failure")))
        return replace(changed, task=changed.task.using(**options)) if options else changed

    def on_error(self, *callbacks: "Signature[Any]") -> "Signature[R]":
        for callback in callbacks:
            if not isinstance(callback, Signature):
                raise InvalidTask(f"A callback is {callback!r}; it must be a signature: make one with task.s(…).")
        return replace(self, callbacks=(*self.callbacks, *callbacks))

    def link(self, *calls: "Signature[Any]") -> "Signature[R]":
        """The same, after whose success these come too, each given its result, beside what stands after it in a chain.

        Nothing waits for them. Raises InvalidTask.
        """
        for call in calls:
            if not isinstance(call, Signature):
                raise InvalidTask(f"A link is {call!r}; it must be a signature: make one with task.s(…).")
        return replace(self, links=(*self.links, *calls))

    def inherit(self, options: Mapping[str, Any]) -> "Signature[R]":
        free = {name: value for name, value in options.items() if name not in self.chosen and self._leaves_open(name)}
        return self.set(**free) if free else self

    def _leaves_open(self, name: str) -> bool:
        return name == "allow_failure" or getattr(self.task.options, name, None) == getattr(_DEFAULTS, name, None)

    def _handed_on(self) -> dict[str, Any]:
        """What holds for its links and callbacks, too."""
        said = {name: getattr(self.task.options, name) for name in ("queue_name", "priority", "headers")}
        return {name: value for name, value in said.items() if value != getattr(_DEFAULTS, name)}

    def lay(self, after: int | None, steps: list[Step]) -> int:
        if self.task.options.unique:  # before the draft: of what is given later no key can be made
            raise InvalidTask(
                f"{self.task.name} is unique, and a step of a workflow can't be: another job might stand in its place. "
                "Use .set(unique=False)."
            )
        given = int(after is not None and not self.immutable)
        draft = self.task.draft(self.args, self.kwargs, given=given)
        beside = self._handed_on()
        callbacks = tuple(_callback(one.inherit(beside)) for one in self.callbacks)
        step = Step(draft, after, immutable=self.immutable, allow_failure=self.allow_failure, callbacks=callbacks)
        place = len(steps)
        steps.append(step)
        for number, link in enumerate(self.links):
            linked = link.inherit(beside).lay(place, steps)
            steps[linked] = replace(steps[linked], position=number)
        return place


class _Composed(Node):
    """What is made of other nodes."""

    nodes: tuple[Node, ...]
    said: dict[str, Any]
    """What set() has said of all of them."""
    plain: tuple[Node, ...] | None
    """The nodes as they were before that; None where nothing was said."""

    def _of(self, change: Callable[[Node], Node]) -> Self:
        plain = self.plain if self.plain is None else tuple(map(change, self.plain))
        return replace(self, nodes=tuple(map(change, self.nodes)), plain=plain)  # type: ignore[type-var]

    def set(self, **options: Any) -> Self:
        if "allow_failure" in options:
            _flag("allow_failure", options["allow_failure"])
        _DEFAULTS.changed({name: value for name, value in options.items() if name != "allow_failure"})
        plain, said = self.nodes if self.plain is None else self.plain, {**self.said, **options}
        nodes = tuple(node.inherit(said) for node in plain)
        return replace(self, nodes=nodes, said=said, plain=plain)  # type: ignore[type-var]

    def on_error(self, *callbacks: Signature[Any]) -> Self:
        return self._of(lambda node: node.on_error(*callbacks))

    def inherit(self, options: Mapping[str, Any]) -> Self:
        return self._of(lambda node: node.inherit(options))

    @property
    def depth(self) -> int:  # type: ignore[override]
        return 1 + max((node.depth for node in self.nodes), default=0)

    def enqueue(self) -> WorkflowResult:
        """Insert all of its jobs, in the caller's transaction. Raises what ``Task.enqueue()`` does."""
        return _enqueue(self)

    def delay(self) -> WorkflowResult:
        """The same as enqueue(), by Celery's name."""
        return self.enqueue()

    async def aenqueue(self) -> WorkflowResult:
        """The same as enqueue(), from async code."""
        return await sync_to_async(self.enqueue)()


@dataclass(frozen=True, slots=True)
class Chain(_Composed):
    """One after another; its result is that of the last."""

    nodes: tuple[Node, ...]
    said: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    plain: tuple[Node, ...] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return " | ".join(map(str, self.nodes[:20]))

    def lay(self, after: int | None, steps: list[Step]) -> int:
        for node in self.nodes:
            after = node.lay(after, steps)
        if after is None:
            raise InvalidTask("A chain is empty; it must have at least one step.")
        return after


@dataclass(frozen=True, slots=True)
class Group(_Composed):
    """Side by side; its result is the list of theirs, in their order."""

    nodes: tuple[Node, ...]
    said: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    plain: tuple[Node, ...] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        more = ", …" if len(self.nodes) > 3 else ""
        return f"group({', '.join(map(str, self.nodes[:3]))}{more})"

    def lay(self, after: int | None, steps: list[Step]) -> int:
        place = len(steps)
        steps.append(Step(group_draft(), after, is_group=True))
        for position, node in enumerate(self.nodes):
            member = node.lay(after, steps)
            steps[member] = replace(steps[member], group=place, position=position)
        return place


def chain(*nodes: Node | Iterable[Node]) -> Chain:
    """These, or those of one list, one after another. Raises InvalidTask."""
    flat: list[Node] = []
    for node in _nodes("chain", nodes):
        flat += node.nodes if isinstance(node, Chain) else [node]
    return _checked(Chain(tuple(flat)))


def group(*nodes: Node | Iterable[Node]) -> Group:
    """These, or those of one list, side by side. Raises InvalidTask."""
    return _checked(Group(tuple(_nodes("group", nodes))))


def chord(header: Iterable[Node] | Group, body: Node) -> Chain:
    """``body`` after all of ``header``, given the list of their results. Raises InvalidTask."""
    return chain(header if isinstance(header, Group) else group(header), body)


C = TypeVar("C", bound=_Composed)


def _checked(node: C) -> C:
    if node.depth > DEEPEST:
        raise InvalidTask(f"A workflow is nested {node.depth} deep; at most {DEEPEST} is allowed.")
    return node


def _nodes(kind: str, given: tuple[Any, ...]) -> list[Node]:
    if len(given) == 1 and not isinstance(given[0], Node) and isinstance(given[0], Iterable):
        given = tuple(given[0])
    for node in given:
        if not isinstance(node, Node):
            raise InvalidTask(
                f"A {kind} holds {node!r}; it must hold signatures (make one with task.s(…)), chains and groups."
            )
    return list(given)


def _enqueue(node: Node) -> WorkflowResult:
    return enqueue_plan(node.plan())


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidTask(f"{name} is {value!r}; it must be True or False.")
    return value


def _callback(signature: Signature[Any]) -> Callback:
    """Checked with as much as it will be given. Raises InvalidTask and what a draft raises."""
    task = signature.task
    for name in ("run_after", "expires"):
        if isinstance(getattr(task.options, name), datetime.datetime):
            raise InvalidTask(f"The callback {task.name} has {name}, a time; nobody knows when a step fails.")
    if task.options.unique:
        raise InvalidTask(f"The callback {task.name} is unique: it might be left out. Use .set(unique=False).")
    if signature.callbacks or signature.links:
        raise InvalidTask(f"The callback {task.name} has callbacks or links of its own, which nobody would follow.")
    told = 0 if signature.immutable else takes(signature)
    draft = task.draft(signature.args, signature.kwargs, given=told)
    draft.due_from(timezone.now())  # that it can be told as a time, now and not in a worker
    return Callback(draft, told)


def takes(signature: Signature[Any]) -> int:
    """How many arguments more a callback takes by position, up to 3. Raises InvalidArguments."""
    parameters = signature.task.signature
    for number in range(len(TOLD), -1, -1):
        try:
            parameters.bind(*[None] * number, *signature.args, **signature.kwargs)
        except TypeError:
            continue
        if signature.task.tells_defaults or _are_meant(parameters, number):
            return number
    raise InvalidArguments(
        f"The callback {signature.task.name}{parameters} can be called with nothing, with a job's id, with an error's "
        "class after it, or with a traceback as the third; with these arguments none of that is possible."
    )


def _are_meant(signature: inspect.Signature, number: int) -> bool:
    """Whether the first parameters, so many, wait to be told: what has a default does so only by its name."""
    for name, parameter in zip(TOLD[:number], signature.parameters.values(), strict=False):
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        if parameter.default is not parameter.empty and parameter.name != name:
            return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 1]}…"
