"""Jobs that are to be inserted together, and what each of them waits for: values, no database."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .draft import Draft
from .models import DEFAULT_QUEUE, GROUP

TOLD = ("job_id", "error", "traceback")
"""What a callback may be told, as its first arguments: the failed job's id, its exception's class, its traceback."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A call that is to be enqueued when a step fails. ``takes`` (0 to 3): how much of the failure it wants to know."""

    draft: Draft
    takes: int

    def as_json(self) -> dict[str, Any]:
        """For a row; ``draft_of`` reads it."""
        draft = self.draft
        return {
            "task": draft.task,
            "args": draft.args,
            "kwargs": draft.kwargs,
            "queue_name": draft.queue_name,
            "priority": draft.priority,
            "backend": draft.backend,
            "max_attempts": draft.max_attempts,
            "options": draft.options,
            "concurrency_key": draft.concurrency_key,
            "rate_key": draft.rate_key,
            "external_id": draft.external_id,
            "wait": _seconds(draft.wait),
            "expires_in": _seconds(draft.expires_in),
            "takes": self.takes,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a plan.

    ``after`` and ``group`` are places in the plan: for whose result it waits, and of whose its own is a part, at
    ``position``. With a position and no group it is a link: nothing waits for it.

    A step with ``is_group`` runs nothing: its result is that of its members. An ``immutable`` one is not given the
    result for which it waits. With ``allow_failure`` what comes after goes on without its success.
    """

    draft: Draft
    after: int | None = None
    group: int | None = None
    position: int | None = None
    is_group: bool = False
    immutable: bool = False
    allow_failure: bool = False
    callbacks: tuple[Callback, ...] = ()

    @property
    def waits(self) -> bool:
        return self.is_group or self.after is not None

    def kept(self, more: Sequence[dict[str, Any]] = ()) -> dict[str, Any] | None:
        """What its row keeps of it beside its columns; ``more`` callbacks, as JSON, are those that it inherits."""
        said: dict[str, Any] = {}
        if self.immutable:
            said["immutable"] = True
        callbacks = [*(callback.as_json() for callback in self.callbacks), *more]
        if callbacks and not self.is_group:
            said["on_error"] = callbacks
        # What is counted from now is counted from when its turn comes.
        if self.waits and self.draft.wait is not None:
            said["wait"] = self.draft.wait.total_seconds()
        if self.waits and self.draft.expires_in is not None:
            said["expires_in"] = self.draft.expires_in.total_seconds()
        return said or None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which each stands behind those that it names. ``last`` is the place of the one whose result
    is that of all; ``name`` is for a reader."""

    steps: tuple[Step, ...]
    last: int
    name: str

    @property
    def is_durable(self) -> bool:
        return any(step.draft.durable for step in self.steps)


def group_draft() -> Draft:
    """The row of a group: never claimed."""
    return Draft(
        task=GROUP,
        args=[],
        kwargs={},
        args_json="[]",
        kwargs_json="{}",
        queue_name=DEFAULT_QUEUE,
        priority=0,
        run_after=None,
        wait=None,
        backend="",
    )


def draft_of(callback: dict[str, Any], told: Sequence[Any]) -> tuple[str, list[Any], dict[str, Any], dict[str, Any]]:
    """(task, args, kwargs, columns) of a callback as a row holds it, called with as much of ``told`` as it takes."""
    args = [*told[: callback["takes"]], *callback["args"]]
    names = ("queue_name", "priority", "backend", "max_attempts", "concurrency_key", "rate_key")
    columns = {name: callback[name] for name in names}
    # Rows that an older version wrote have none of these.
    columns |= {"external_id": callback.get("external_id")}
    columns |= {name: _timedelta(callback.get(name)) for name in ("wait", "expires_in")}
    return callback["task"], args, callback["kwargs"], columns


def _seconds(length: datetime.timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _timedelta(seconds: float | None) -> datetime.timedelta | None:
    return None if seconds is None else datetime.timedelta(seconds=seconds)
