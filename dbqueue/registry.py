"""The tasks of this process, by name. Only what stands here is ever run.

A name comes from a row or from a form: it is looked up, never imported.
"""

import difflib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.apps import apps

from .exceptions import InvalidTask, UnknownTask

if TYPE_CHECKING:
    from .definition import Task

_tasks: "dict[str, Task[Any, Any]]" = {}
_waiting: "list[Callable[[], object]] | None" = []
"""What is to be done when models may be imported; None since then."""

_finders: "list[Callable[[str], Task[Any, Any] | None]]" = []

ALIKE = 0.75
"""From which likeness on one word may be meant by another: add and ad are, nop and on_err are not."""


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
    if (task := _tasks.get(name)) is not None or (task := _of_finders(name)) is not None:
        return task
    raise UnknownTask(
        f"No task is registered as {name!r}. A task is registered when the module that declares it is imported; at "
        f"start these are the modules named in DBQUEUE['TASK_MODULES'] (default: each app's tasks.py).{_hint(name)}"
    )


def find_to_run(name: str) -> "Task[Any, Any]":
    """The same for a worker: UnknownTask says what may have kept the task from it. Nothing is imported for that."""
    if (task := _tasks.get(name)) is not None or (task := _of_finders(name)) is not None:
        return task
    raise UnknownTask(f"This worker knows no task {name!r}. {_why_not(name.rpartition('.')[0])}{_hint(name)}")


def _of_finders(name: str) -> "Task[Any, Any] | None":
    return next((task for finder in _finders if (task := finder(name)) is not None), None)


def _why_not(module: str) -> str:
    if module in sys.modules:
        return f"Its module {module!r} declared none of that name at the start: if the task is new, restart the worker."
    if any(f"{module}.".startswith(f"{app.name}.") for app in apps.get_app_configs()):
        mend = f"name its module {module!r} in DBQUEUE['TASK_MODULES'], or import it in the app's tasks.py."
    elif module:
        mend = f"import its module {module!r} in the tasks.py of an app: no app in INSTALLED_APPS has that module."
    else:
        mend = "import its module in the tasks.py of an app."  # the task has a name of its own
    return f"If the task is new, restart the worker. If not, {mend}"


def _hint(name: str) -> str:
    """Tasks that may be meant: of the same last part, or one much like it, those before that are most like the name."""
    lasts = {known: known.rpartition(".")[2] for known in _tasks}
    wanted = name.rpartition(".")[2]
    alike = {wanted, *difflib.get_close_matches(wanted, set(lasts.values()), n=3, cutoff=ALIKE)}
    same = [known for known, last in lasts.items() if last in alike]
    near = difflib.get_close_matches(name, same, n=3, cutoff=0.0)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


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
