"""The tasks of this process, by name. Only what stands here is ever run.

A name comes from a row or from a form: it is looked up, never imported.
"""

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .exceptions import InvalidTask, UnknownTask

if TYPE_CHECKING:
    from .definition import Task

_tasks: "dict[str, Task[Any, Any]]" = {}


def register(task: "Task[Any, Any]") -> None:
    """Make ``task`` known under its name.

    A module that is loaded anew may declare its tasks again.

    Raises InvalidTask where another function has that name already.
    """
    known = _tasks.get(task.name)
    if known is not None and _home(known) != _home(task):
        raise InvalidTask(
            f"Two tasks are named {task.name!r}: {_home(known)} and {_home(task)}. Give one of them @task(name=…)."
        )
    _tasks[task.name] = task


def find(name: str) -> "Task[Any, Any]":
    """Return the task registered as ``name``. Raises UnknownTask, with the nearest names."""
    try:
        return _tasks[name]
    except KeyError:
        near = difflib.get_close_matches(name, _tasks, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UnknownTask(
            f"No task is registered as {name!r}. A task is registered when the module that declares it is imported; "
            f"each app's tasks.py is imported at start.{hint}"
        ) from None


def registered() -> "Iterator[Task[Any, Any]]":
    """All tasks of this process, by name."""
    return (_tasks[name] for name in sorted(_tasks))


def _home(task: "Task[Any, Any]") -> str:
    return f"{task.func.__module__}.{task.func.__qualname__}"
