"""The tasks of this process, by name. Only what stands here is ever run.

A name comes from a row or from a form: it is looked up, never imported.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .exceptions import InvalidTask, UnknownTask

if TYPE_CHECKING:
    from .definition import Task

_tasks: "dict[str, Task[Any, Any]]" = {}
_waiting: "list[Callable[[], object]] | None" = []
"""What is to be done when models may be imported; None since then."""

_finders: "list[Callable[[str], Task[Any, Any] | None]]" = []


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
    if (task := _tasks.get(name)) is not None:
        return task
    for finder in _finders:
        if (task := finder(name)) is not None:
            return task
    near = [known for known in _tasks if known.rpartition(".")[2] == name][:3]
    near = near or difflib.get_close_matches(name, _tasks, n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UnknownTask(
        f"No task is registered as {name!r}. A task is registered when the module that declares it is imported; at "
        f"start these are the modules named in DBQUEUE['TASK_MODULES'] (default: each app's tasks.py).{hint}"
    )


def when_ready(call: "Callable[[], object]") -> None:
    """Call it when Django's models may be imported: at once, where they may."""
    if _waiting is None:
        call()
    else:
        _waiting.append(call)


def ready() -> None:
    """They may be imported now."""
    global _waiting
    calls, _waiting = _waiting or [], None
    for call in calls:
        call()


def registered_as(name: str) -> "Task[Any, Any] | None":
    """The task that was registered under ``name``, without asking the finders."""
    return _tasks.get(name)


def add_finder(finder: "Callable[[str], Task[Any, Any] | None]") -> None:
    """Have ``find()`` ask ``finder`` about names that nobody registered.

    It answers with a task that was declared elsewhere, or None. It must import nothing and raise nothing: the name may
    come from a row.
    """
    if finder not in _finders:
        _finders.append(finder)


def registered() -> "Iterator[Task[Any, Any]]":
    """All tasks of this process, by name."""
    return (_tasks[name] for name in sorted(_tasks))


def _home(task: "Task[Any, Any]") -> str:
    # One function under both decorators would be two tasks of one name.
    kind = " of django.tasks" if task.backend else ""
    return f"{task.func.__module__}.{task.func.__qualname__}{kind}"
