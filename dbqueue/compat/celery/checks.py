"""System checks of what Celery's settings and signals say here."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks

from ...exceptions import DBQueueError
from . import signals
from .app import Celery, all_apps, each_of, pairs_of


@checks.register
def check_settings(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Settings that were accepted and mean nothing are named once."""
    ignored = sorted({name for app in all_apps() for name in app.read() and app.conf.ignored()})
    if not ignored:
        return []
    names = ", ".join(name.upper() for name in ignored)
    return [checks.Info(f"These settings of Celery mean nothing to dbqueue: {names}.", id="dbqueue.I001")]


@checks.register
def check_app(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Settings of Celery's are read by an app, and somebody has to import the module that makes it."""
    if all_apps() or not (found := sorted(key for key in dir(settings) if key.startswith("CELERY_"))):
        return []
    message = f"{found[0]} is set, and no app of dbqueue.compat.celery is there to read it."
    hint = "proj/celery.py has to be imported, by proj/__init__.py; only the celery command did that by itself."
    return [checks.Warning(message, hint=hint, id="dbqueue.W042")]


@checks.register
def check_schedules(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Every entry of beat_schedule can be read, and is a call of a task that this process knows."""
    return [checks.Error(problem, id="dbqueue.E002") for problem in schedule_problems()]


@checks.register
def check_receivers(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Those who add periodic tasks have done so. A warning: one may read tables that ``migrate`` is yet to make."""
    return [checks.Warning(trouble, id="dbqueue.W043") for trouble in troubles()]


def troubles() -> Iterator[str]:
    """What receivers of ``on_after_configure`` and ``on_after_finalize`` have raised."""
    for app in all_apps():
        app.finalize()
        yield from app.troubles


def schedule_problems() -> Iterator[str]:
    """Of all apps, also of what those receivers have added."""
    for app in all_apps():
        app.finalize()
        for name, entry in app.conf.beat_schedule.items():
            for problem in problems(app, entry):
                yield f"beat_schedule[{name!r}]: {problem}"


ENTRY = frozenset({"task", "schedule", "args", "kwargs", "options", "relative"})
"""The keys of an entry."""


OF_CELERYS_OWN = "celery.backend_cleanup"
"""A task that settings may name for beat: dbqueue deletes old results itself, so it is left out."""


def names(entry: Any, task: str) -> bool:
    return isinstance(entry, dict) and entry.get("task") == task


def problems(app: Celery, entry: Any) -> Iterator[str]:
    """What keeps an entry from being a schedule; one thing at a time."""
    from .schedules import crontab, maybe_schedule
    from .task import Task

    if names(entry, OF_CELERYS_OWN):
        return
    if not isinstance(entry, dict) or not {"task", "schedule"} <= entry.keys():
        yield f"it is {entry!r}; it must be a dict with a 'task' and a 'schedule'"
    elif unknown := sorted(map(str, entry.keys() - ENTRY)):
        yield f"it has {', '.join(unknown)}; it may have {', '.join(sorted(ENTRY))}"
    elif entry["task"] not in Task.known:
        yield f"no task is registered as {entry['task']!r}"
    else:
        try:
            when = maybe_schedule(entry["schedule"])
            when.periodic(str(app.conf.timezone or "")) if isinstance(when, crontab) else when.periodic()
            Task.known[entry["task"]].core.draft(tuple(entry.get("args") or ()), dict(entry.get("kwargs") or {}))
        except (ValueError, TypeError, DBQueueError) as exc:
            yield str(exc)


ROUTED = frozenset({"queue", "priority"})
"""What a route may say."""


@checks.register
def check_routes(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """What of task_routes is not read is named."""
    found = [problem for app in all_apps() for entry in each_of(app.read().task_routes) for problem in _unread(entry)]
    return [checks.Warning(f"task_routes: {problem}", id="dbqueue.W041") for problem in found]


def _unread(entry: Any) -> Iterator[str]:
    if entry is not None and not isinstance(entry, dict | list | tuple):
        yield f"{entry!r} is a router that is code, which dbqueue does not ask; use queue= on the tasks."
    for pattern, route in pairs_of(entry):
        if isinstance(route, dict) and (unknown := sorted(route.keys() - ROUTED)):
            yield f"the route of {pattern!r} has {', '.join(unknown)}; only {' and '.join(sorted(ROUTED))} are read."


@checks.register
def check_signals(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Receivers of what is never sent are named."""
    unheard = [signal.name for signal in signals.NEVER_SENT if signal.receivers]
    return [
        checks.Warning(
            f"A receiver is connected to Celery's signal {name}, which dbqueue never sends.", id="dbqueue.W040"
        )
        for name in unheard
    ]
