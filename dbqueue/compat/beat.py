"""Rows of django-celery-beat as schedules of dbqueue."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import registry
from ..exceptions import InvalidArguments, InvalidTask, NotStorable, UnknownTask
from ..models import MAX_PRIORITY, Schedule, Source
from ..schedule import Cron, Every, When
from ..scheduling import aware, change, declarations, plan, stored
from ..store import Store
from .celery.schedules import crontab

UNITS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


WITHOUT_PLACE = ("expires", "expire_seconds", "start_time", "exchange", "routing_key")
"""What a schedule has no column for."""

BOUNDS = ("expires", "start_time")
"""Those without which it would run when it should not: with one of them it comes in switched off."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one row: ``done`` says it in a word, ``said`` why."""

    name: str
    done: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.done}{self.said and f' ({self.said})'}"


def imported(rows: Iterable[Any], store: Store, *, dry_run: bool = False) -> Iterator[Imported]:
    """Make or change the schedule of each row, by its name. What can't be one is told, and the others go on.

    ``rows`` are those of django_celery_beat's PeriodicTask.
    """
    declared = declarations()
    for row in rows:
        if row.task == "celery.backend_cleanup":
            yield Imported(row.name, "left out", "dbqueue deletes old results itself")
            continue
        if row.name in declared:
            yield _of_the_code(store, row, declared[row.name], dry_run=dry_run)
            continue
        try:
            values, said = _columns(row)
        except (ValueError, UnknownTask, InvalidArguments, InvalidTask, NotStorable) as exc:
            yield Imported(row.name, "refused", str(exc))
            continue
        yield _written(store, row.name, values, said, dry_run=dry_run)


def _of_the_code(store: Store, row: Any, values: dict[str, Any], *, dry_run: bool) -> Imported:
    """Workers make it as the code has it. A row that is off stays so, as if the admin here had said it."""
    if row.enabled:
        return Imported(row.name, "left out", "a schedule of the code has this name, and workers make it")
    with store.atomic():
        schedules = store.schedules.filter(name=row.name, source=Source.CODE)
        found = schedules.first()
        if found is not None and ("enabled" in found.overrides or not found.enabled):
            said = "a schedule of the code has this name, and it was decided here whether it is on"
            return Imported(row.name, "left out", said)
        if not dry_run:
            if found is None:
                now = stored(aware(store.clock()))
                store.add_schedule(Schedule(name=row.name, source=Source.CODE, declared_at=now, **values))
            change(store, schedules.get().pk, {"enabled": False})
    return Imported(row.name, "switched off", "a schedule of the code has this name, and the row is switched off")


def _written(store: Store, name: str, values: dict[str, Any], said: str, *, dry_run: bool) -> Imported:
    with store.atomic():
        found = store.schedules.filter(name=name).select_for_update().first()
        if found is not None and found.source == Source.CODE:
            return Imported(name, "refused", "a schedule that a worker has made of code has this name")
        schedule = found or Schedule(name=name, source=Source.ADMIN)
        changed = found is None or any(getattr(found, key) != value for key, value in values.items())
        if changed and not dry_run:
            for key, value in values.items():
                setattr(schedule, key, value)
            plan(schedule, store.clock())
            schedule.save(using=store.alias)
    return Imported(name, ("added" if found is None else "changed") if changed else "unchanged", said)


def _columns(row: Any) -> tuple[dict[str, Any], str]:
    """The columns of its schedule, and what of the row has none. Raises what the task, or the clock, refuses."""
    if row.one_off:
        raise ValueError("it runs once; enqueue that with run_after")
    when = _when(row)
    args, kwargs = _json(row.args, list, "args"), _json(row.kwargs, dict, "kwargs")
    task = registry.find(row.task)
    task.draft(tuple(args), kwargs)
    queue = row.queue or ""
    dropped = [name for name in WITHOUT_PLACE if getattr(row, name)]
    if _json(getattr(row, "headers", None), dict, "headers"):
        dropped.append("headers")
    bounded = [name for name in BOUNDS if getattr(row, name)]
    values = {
        "task": row.task,
        "args": args,
        "kwargs": kwargs,
        "cron": when.expression if isinstance(when, Cron) else "",
        "timezone": when.timezone if isinstance(when, Cron) else "",
        "every": when.seconds if isinstance(when, Every) else None,
        "enabled": bool(row.enabled) and not bounded,
        "queue_name": "default" if queue == "celery" else queue,
        "priority": None if row.priority is None else min(row.priority, MAX_PRIORITY),
    }
    said = [f"not kept: {', '.join(dropped)}"] if dropped else []
    if bounded and row.enabled:
        said.append(f"switched off, as {' and '.join(bounded)} would not be heeded: switch it on in the admin")
    return values, "; ".join(said)


def _when(row: Any) -> When:
    if row.crontab is not None:
        tab = row.crontab
        when = crontab(tab.minute, tab.hour, tab.day_of_week, tab.day_of_month, tab.month_of_year)
        return Cron(when.expression, str(tab.timezone))
    if row.interval is not None:
        if row.interval.period not in UNITS:
            raise ValueError(f"its interval is of {row.interval.period}; dbqueue's are whole seconds")
        return Every(row.interval.every * UNITS[row.interval.period])
    if row.solar is not None:
        raise ValueError("it goes by the sun, and dbqueue has no such schedule")
    raise ValueError("it is to run once at a time; enqueue that with run_after")


def _json(text: str | None, kind: type, name: str) -> Any:
    value = json.loads(text or "null") or kind()
    if not isinstance(value, kind):
        raise ValueError(f"its {name} are {text!r}")
    return value
