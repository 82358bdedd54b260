"""A task that was declared with Django's ``@task``, with the options of dbqueue.

Nothing here imports the models: a task may be declared in a module that Django imports before any of them.
"""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from .tasks_api import Task

if TYPE_CHECKING:
    AnyTask = Task[..., Any]
else:
    AnyTask = Task


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTask(AnyTask):
    """What ``@django.tasks.task`` makes for a DatabaseBackend. ``dbqueue.options.Options`` explains its fields.

    All are checked as ``@dbqueue.task`` checks them, by ``DatabaseBackend.validate_task``; that raises InvalidTask. The
    decorator takes them as keywords from Django 6.1 on; Django 6.0 itself raises TypeError for them.
    """

    # None is compared, so that two tasks are equal where Django says so: the task of a result that was looked up is
    # made from a row, which keeps only part of the options.
    expires: Any = field(default=None, compare=False)
    max_attempts: Any = field(default=1, compare=False)
    backoff: Any = field(default=None, compare=False)
    retry_on: Any = field(default=(), compare=False)
    give_up_on: Any = field(default=(), compare=False)
    timeout: Any = field(default=None, compare=False)
    hard_timeout: Any = field(default=None, compare=False)
    unique: Any = field(default=None, compare=False)
    concurrency: Any = field(default=None, compare=False)
    rate: Any = field(default=None, compare=False)
    serial: Any = field(default=None, compare=False)
    durable: Any = field(default=False, compare=False)
    headers: Any = field(default=None, compare=False)
    external_id: Any = field(default=None, compare=False)

    def using(self, **changes: Any) -> "DatabaseTask":
        """The same task with other options. As in Django, None leaves ``priority`` and its like as they are."""
        if unknown := sorted(changes.keys() - _CHANGEABLE):
            raise TypeError(f"using() got an unexpected keyword argument {unknown[0]!r}")
        kept = {name for name in _DJANGOS_OWN if changes.get(name, "") is None}
        return replace(self, **{name: value for name, value in changes.items() if name not in kept})


_DJANGOS_OWN = frozenset({"priority", "queue_name", "run_after", "backend"})

OPTIONS = frozenset(each.name for each in fields(DatabaseTask)) - frozenset(each.name for each in fields(Task))
"""The fields that Django's own tasks don't have."""

_CHANGEABLE = _DJANGOS_OWN | OPTIONS


def options_of(task: AnyTask) -> dict[str, Any]:
    """Its options of dbqueue; none where another backend has made it."""
    return {name: getattr(task, name) for name in OPTIONS} if isinstance(task, DatabaseTask) else {}
