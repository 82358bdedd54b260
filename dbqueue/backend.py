"""``DatabaseBackend``: jobs for ``django.tasks``."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core import checks

from . import exceptions, registry
from .database_task import DatabaseTask
from .tasks_api import BaseTaskBackend, InvalidTask, Task, TaskResult, TaskResultDoesNotExist

# Nothing here may import the models while this module is loaded: @task builds the backend, and a task may be declared
# in a module that Django imports before any model.

_early: "list[tuple[str, Task[..., Any]]]" = []
"""(alias, task) of what was declared before Django's apps were ready."""


class DatabaseBackend(BaseTaskBackend):
    """Puts tasks into dbqueue's table, from where any ``dbqueue_worker`` takes them (database: DBQUEUE['DATABASE']).

    An alias of ``TASKS`` is a label on its jobs: ``get_result`` sees those of its own alias only. Workers choose by
    queue, not by alias. Which queue names are allowed is told by ``TASKS[alias]['QUEUES']`` alone (Django's default:
    only "default"; an empty list: all); DBQUEUE['QUEUES'] speaks for tasks of ``@dbqueue.task``. There are no OPTIONS.

    From Django 6.1 on Django's ``@task`` takes the keywords of ``@dbqueue.task`` for a task of this backend: retries,
    times, limits, uniqueness. So does its ``using()``.

    A job is inserted in the caller's transaction. Arguments that don't fit the function, or that JSON or the database
    can't hold, are refused there with a TypeError.
    """

    task_class = DatabaseTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._params = params

    def validate_task(self, task: "Task[..., Any]") -> None:
        """Check a task, and make it known to the workers of this process as it is declared. Raises InvalidTask."""
        if task.run_after is not None and not hasattr(task.run_after, "utcoffset"):
            raise InvalidTask(f"run_after is {task.run_after!r}; it must be a datetime.")
        super().validate_task(task)
        if apps.apps_ready:
            _adopt(task, self.alias)
        else:
            _early.append((self.alias, task))

    def enqueue(  # type: ignore[override]  # the stubs say list where Django passes a tuple
        self, task: "Task[..., Any]", args: Iterable[Any], kwargs: dict[str, Any]
    ) -> "TaskResult[..., Any]":
        """Insert a job, in the caller's transaction. Raises InvalidTask, TypeError or ValueError."""
        from .django_task import task_result

        self.validate_task(task)
        return task_result(_adopt(task, self.alias).enqueue(*args, **kwargs), task)

    def get_result(self, result_id: str) -> "TaskResult[..., Any]":
        """Look a job of this alias up. Raises TaskResultDoesNotExist, also for an id that is no id."""
        from .django_task import task_result
        from .results import get_result

        try:
            job = get_result(result_id)
        except exceptions.JobDoesNotExist as exc:
            raise TaskResultDoesNotExist(str(exc)) from None
        if job.backend != self.alias:
            raise TaskResultDoesNotExist(f"Job {result_id} is not one of the backend {self.alias!r}.")
        return task_result(job)

    def check(self, **kwargs: Any) -> "list[checks.CheckMessage]":
        """Whether this alias can work as it is configured."""
        return [checks.Error(f"TASKS[{self.alias!r}]: {text}", id=id) for id, text in self._problems()]

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.options:
            yield (
                "dbqueue.E010",
                f"OPTIONS has {', '.join(map(repr, self.options))}; dbqueue.backend.DatabaseBackend has no options, "
                "settings of dbqueue stand in DBQUEUE.",
            )
        queues = self._params.get("QUEUES", [])
        if isinstance(queues, str) or not all(isinstance(name, str) for name in queues):
            yield "dbqueue.E011", f"QUEUES is {queues!r}; it must be a list of queue names."
        if not apps.is_installed("dbqueue"):
            yield "dbqueue.E012", "'dbqueue' must be in INSTALLED_APPS; without it there are no tables."


def ready() -> None:
    """Called when Django has started: take in what was declared too early, and know tasks of other backends."""
    from .django_task import find_declared

    registry.add_finder(find_declared)
    while _early:
        alias, task = _early.pop(0)
        _adopt(task, alias)


def _adopt(task: "Task[..., Any]", alias: str) -> Any:
    """The DjangoTask for ``task``. Raises InvalidTask, Django's one."""
    from .django_task import adopt

    try:
        return adopt(task, alias)
    except exceptions.InvalidTask as exc:
        raise InvalidTask(str(exc)) from exc
