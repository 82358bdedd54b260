"""dbqueue: a task queue whose broker is the Django database that a project already has."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Concurrency",
    "Context",
    "Discard",
    "Exponential",
    "JobResult",
    "Rate",
    "Retry",
    "Signature",
    "Snooze",
    "Task",
    "Unique",
    "WorkflowResult",
    "aenqueue",
    "chain",
    "chord",
    "cron",
    "current_context",
    "drain",
    "enqueue",
    "enqueue_many",
    "every",
    "get_result",
    "get_workflow",
    "group",
    "pause",
    "resume",
    "task",
]

if TYPE_CHECKING:
    from .canvas import Signature, chain, chord, group
    from .definition import Task, aenqueue, enqueue, enqueue_many, task
    from .exceptions import Discard, Retry, Snooze
    from .limits import Concurrency, Rate
    from .options import Unique
    from .queues import drain, pause, resume
    from .results import Context, JobResult, current_context, get_result
    from .retry import Exponential
    from .schedule import cron, every
    from .workflow import WorkflowResult, get_workflow

_HOME = {
    "Concurrency": "limits",
    "Context": "results",
    "Discard": "exceptions",
    "Exponential": "retry",
    "Rate": "limits",
    "Retry": "exceptions",
    "Snooze": "exceptions",
    "Unique": "options",
    "WorkflowResult": "workflow",
    "JobResult": "results",
    "Signature": "canvas",
    "Task": "definition",
    "aenqueue": "definition",
    "chain": "canvas",
    "chord": "canvas",
    "current_context": "results",
    "cron": "schedule",
    "drain": "queues",
    "enqueue": "definition",
    "enqueue_many": "definition",
    "every": "schedule",
    "get_result": "results",
    "get_workflow": "workflow",
    "group": "canvas",
    "pause": "queues",
    "resume": "queues",
    "task": "definition",
}


def __getattr__(name: str) -> Any:
    # Late, because Django imports this package before its models may be imported.
    if name not in _HOME:
        raise AttributeError(f"module 'dbqueue' has no attribute {name!r}")
    try:
        home = import_module(f".{_HOME[name]}", __name__)
    except RuntimeError as exc:
        _refuse_without_the_app(exc)
        raise
    return getattr(home, name)


def _refuse_without_the_app(exc: RuntimeError) -> None:
    """Django says only of a model that it has no app_label. Raises ImproperlyConfigured where the app is not there."""
    from django.apps import apps
    from django.core.exceptions import ImproperlyConfigured

    if apps.apps_ready and not apps.is_installed(__name__):
        raise ImproperlyConfigured("'dbqueue' is not in INSTALLED_APPS: add it there, and run migrate.") from exc


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
