"""System checks of what Celery's settings and signals say here."""

from typing import Any

from django.core import checks

from . import signals
from .app import all_apps


@checks.register
def check_settings(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Settings that were accepted and mean nothing are named once."""
    ignored = sorted({name for app in all_apps() for name in app.read() and app.conf.ignored()})
    if not ignored:
        return []
    names = ", ".join(name.upper() for name in ignored)
    return [checks.Info(f"These settings of Celery mean nothing to dbqueue: {names}.", id="dbqueue.I001")]


@checks.register
def check_schedules(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Every entry of beat_schedule is of a task that this process knows, and can be read."""
    from .schedules import maybe_schedule
    from .task import Task

    found: list[checks.CheckMessage] = []
    for app in all_apps():
        for name, entry in app.read().beat_schedule.items():
            try:
                maybe_schedule(entry["schedule"]).periodic()
                problem = "" if entry["task"] in Task.known else f"no task is registered as {entry['task']!r}"
            except (KeyError, ValueError) as exc:
                problem = str(exc)
            if problem:
                found.append(checks.Error(f"beat_schedule[{name!r}]: {problem}", id="dbqueue.E002"))
    return found


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
