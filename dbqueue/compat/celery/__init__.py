"""Celery's names: change ``celery`` to ``dbqueue.compat.celery`` in a project's imports (docs/from-celery.md).

Nothing here needs a model when it is imported: ``proj/celery.py`` is imported before Django's apps are ready.
"""

from ... import registry
from . import canvas, exceptions, schedules, signals, states
from .app import Celery, current_app, current_task, shared_task
from .canvas import chain, chord, chunks, group, maybe_signature, signature, subtask
from .result import AsyncResult, GroupResult
from .task import Task


def _connect() -> None:
    from ...models import DEFAULT_QUEUE
    from ...queues import OTHER_NAMES
    from . import checks, worker  # noqa: F401  importing the checks registers them
    from .app import all_apps

    # Celery's default queue: "celery worker -Q celery" becomes "--queues celery".
    OTHER_NAMES["celery"] = DEFAULT_QUEUE
    worker.connect()
    for app in all_apps():
        app.import_named()


registry.when_ready(_connect)

__all__ = [
    "AsyncResult",
    "Celery",
    "GroupResult",
    "Task",
    "canvas",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "exceptions",
    "group",
    "maybe_signature",
    "schedules",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
]
