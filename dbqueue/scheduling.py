"""A worker's part in periodic jobs: to make the jobs of due slots, and to keep the rows as the code has them."""

import datetime
import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django.conf import settings as django_settings
from django.db import DataError, Error, IntegrityError, transaction
from django.utils import timezone

from . import registry
from .announcement import Announcement
from .draft import Draft
from .encoding import encode, storable_text
from .exceptions import UnknownTask
from .models import REASON_LENGTH, Schedule, Source
from .schedule import Cron, Every, Periodic, When, default_timezone, zone_of
from .store import Store
from .store.schedules import Upcoming

logger = logging.getLogger("dbqueue.worker")

GRACE = datetime.timedelta(seconds=30)
"""How late a slot may be looked at without being a misfire."""

MOST_MISFIRES = 100
"""Jobs that misfire="all" makes for slots that were missed: those of the latest."""

HORIZON = datetime.timedelta(seconds=60)
"""How far a worker looks ahead for the next slot."""

LOOK_AGAIN = datetime.timedelta(seconds=1)
"""After which a due row that another worker had is looked at again: that one may have died."""

FOLLOW_EVERY = datetime.timedelta(seconds=60)
"""From one comparison of the rows with the code to the next."""

TOUCH_AFTER = datetime.timedelta(seconds=30)
"""A younger ``declared_at`` is left alone: one of many workers with the same code is enough."""

STALE = datetime.timedelta(seconds=150)
"""After two comparisons and a half without one that agrees, nobody has this version of a declaration any more."""

FORGET_AFTER = datetime.timedelta(minutes=5)
"""How long nobody has had a schedule in his code before it is deleted, by a worker that has been there for so long."""

CLOCK_FIELDS = ("cron", "every", "timezone")
"""An admin changes them together."""

FOLLOWED = (*CLOCK_FIELDS, "task", "args", "kwargs", "misfire", "overlap", "enabled", "queue_name", "priority")
"""What a row from the code takes over from there, where no admin has changed it."""

MOVED = ("next_at", "last_slot", "last_job_id", "skipped", "problem")
"""What the firing of a slot writes."""


class Scheduling:
    """All workers do this. A due row is one worker's by its lock; behind that stands the unique (schedule, slot)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._declared: dict[str, dict[str, Any]] = {}
        self._followed_at: datetime.datetime | None = None
        self._there_since: datetime.datetime | None = None
        self._next_look = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the next slot that this worker knows of, or until it compares with the code again."""
        return max(0.0, self._next_look - time.monotonic())

    def step(self, now: datetime.datetime | None = None) -> None:
        """Make the jobs of all slots that are due."""
        began = time.monotonic()
        now = aware(now or self._store.clock())
        if self._followed_at is None or not now - FOLLOW_EVERY < self._followed_at <= now:
            self._follow(now)
        pause = FOLLOW_EVERY
        for upcoming in self._store.upcoming_schedules(stored(now + HORIZON)):
            if self._is_ours(upcoming):
                next_at = aware(upcoming.next_at)
                if next_at <= now:
                    # None: another worker is at it, and there is no reason to ask again without a pause.
                    next_at = self._fire(upcoming.pk, now) or now + LOOK_AGAIN
                pause = min(pause, next_at - now)
        self._next_look = began + pause.total_seconds()

    def _is_ours(self, upcoming: Upcoming) -> bool:
        if upcoming.source == Source.CODE:
            return upcoming.name in self._declared
        try:
            registry.find(upcoming.task)
        except UnknownTask:
            return False
        return True

    # Due slots

    def _fire(self, pk: int, now: datetime.datetime) -> datetime.datetime | None:
        """Make the jobs of one schedule's due slots, and move it on. Returns its next slot; None: it is another's."""
        with self._store.atomic():
            schedule = self._store.lock_due_schedule(pk, stored(now))
            if schedule is None or not self._agrees(schedule):
                return None
            schedule.problem = ""
            try:
                slots = due_slots(schedule, now)
                with self._store.atomic():
                    self._make_jobs(schedule, slots)
            except Exception as exc:
                # Whatever is wrong with one schedule is not to keep the others back.
                if isinstance(exc, Error) and not isinstance(exc, DataError | IntegrityError):
                    raise
                logger.exception("Schedule %s made no job", schedule)
                schedule.problem = storable_text(f"{type(exc).__name__}: {exc}")[:REASON_LENGTH]
            next_at = plan(schedule, now)
            schedule.save(using=self._store.alias, update_fields=MOVED)
        return next_at

    def _make_jobs(self, schedule: Schedule, slots: list[datetime.datetime]) -> None:
        """All of them or none."""
        made: list[tuple[datetime.datetime, int]] = []
        draft = draft_of(schedule)
        for slot in slots:
            if schedule.overlap == "skip" and self._store.has_unfinished(schedule.pk):
                continue
            job_id, is_new = _insert(self._store, replace(draft, schedule_id=schedule.pk, slot=stored(slot)))
            if is_new:
                made.append((stored(slot), job_id))
                if told := Announcement.of_new(job_id, draft.task, draft.queue_name, draft.run_after):
                    transaction.on_commit(told.send, using=self._store.alias)
        schedule.skipped += len(slots) - len(made)
        if made:
            schedule.last_slot, schedule.last_job_id = made[-1]

    def _agrees(self, schedule: Schedule) -> bool:
        """Whether a row from the code is as the code here has it. One of another version is left to its workers."""
        if schedule.source != Source.CODE:
            return True
        declared = self._declared.get(schedule.name)
        return declared is not None and not _differences(schedule, declared)

    # The code

    def _follow(self, now: datetime.datetime) -> None:
        """Compare the rows with the code.

        A worker that starts brings the newest code, and writes what differs. Later it only says what it agrees with:
        while workers of two versions live, they must not write in turn.
        """
        is_start = self._followed_at is None
        if self._followed_at is None or not now - STALE < self._followed_at <= now:
            self._there_since = now
        self._followed_at = now
        self._declared = declarations()
        rows = {schedule.name: schedule for schedule in self._store.schedules_of_the_code()}
        for name, values in self._declared.items():
            if (schedule := rows.get(name)) is None:
                self._add(name, values, now)
            elif not _differences(schedule, values):
                if _is_older(schedule, now - TOUCH_AFTER):
                    self._store.touch_schedule(schedule.pk, stored(now))
            elif is_start or _is_older(schedule, now - STALE):
                follow_code(self._store, schedule.pk, values, now)
                logger.info("Schedule %s follows the code", name)
        if self._there_since is not None and now - self._there_since >= FORGET_AFTER:
            for name in self._store.forget_schedules(stored(now - FORGET_AFTER)):
                logger.info("Schedule %s was deleted: no worker's code has it", name)

    def _add(self, name: str, values: dict[str, Any], now: datetime.datetime) -> None:
        schedule = Schedule(name=name, source=Source.CODE, declared_at=stored(now), **values)
        plan(schedule, now)
        if self._store.add_schedule(schedule):
            logger.info("Schedule %s was added: %s", name, schedule.when)


def due_slots(schedule: Schedule, now: datetime.datetime) -> list[datetime.datetime]:
    """The slots up to ``now`` that are to have a job, in order. Raises ValueError for a row that can't be read."""
    if schedule.next_at is None:
        return []
    most = MOST_MISFIRES + int(GRACE.total_seconds()) + 1
    slots = schedule.when.latest(aware(schedule.next_at), now, most)
    missed = [slot for slot in slots if slot < now - GRACE]
    made_up_for = {"skip": [], "once": missed[-1:], "all": missed[-MOST_MISFIRES:]}[schedule.misfire]
    if missed:
        logger.warning(
            "Schedule %s was looked at too late for its slots from %s to %s; jobs for them: %d",
            schedule,
            aware(schedule.next_at),
            missed[-1],
            len(made_up_for),
        )
    return made_up_for + slots[len(missed) :]


def plan(schedule: Schedule, now: datetime.datetime) -> datetime.datetime | None:
    """Set the next slot: the first after ``now``. None for one that is off, or whose expression can't be read."""
    next_at = None
    if schedule.enabled:
        with suppress(ValueError):
            next_at = schedule.when.next_after(now)
    schedule.next_at = None if next_at is None else stored(next_at)
    return next_at


def declarations() -> dict[str, dict[str, Any]]:
    """What the code of this process says, as columns, by the schedule's name."""
    return {
        name: _columns(task.name, periodic)
        for task in registry.registered()
        for name, periodic in task.schedules.items()
    }


def follow_code(store: Store, pk: int, values: dict[str, Any], now: datetime.datetime) -> None:
    """Write what the code says, but for what an admin changed. With another clock the next slot is another too."""
    with store.atomic():
        schedule = store.lock_schedule(pk)
        if schedule is None:
            return
        changed = _differences(schedule, values)
        for name in changed:
            setattr(schedule, name, values[name])
        schedule.declared_at = stored(now)
        if changed & {*CLOCK_FIELDS, "enabled"}:
            plan(schedule, now)
        schedule.save(using=store.alias)


def change(
    store: Store,
    pk: int,
    values: Mapping[str, Any],
    now: datetime.datetime | None = None,
    *,
    before: Mapping[str, Any] | None = None,
) -> Schedule | None:
    """Write what an admin has chosen, with the row's lock; of a row from the code it is an override from now on.

    Returns the row; None where it has gone, or is not as it was ``before``.
    """
    with store.atomic():
        schedule = store.lock_schedule(pk)
        if schedule is None or any(getattr(schedule, name) != value for name, value in (before or {}).items()):
            return None
        changed = {name for name, value in values.items() if getattr(schedule, name) != value}
        for name in changed:
            setattr(schedule, name, values[name])
        if changed & {*CLOCK_FIELDS}:
            changed |= {*CLOCK_FIELDS}
        if schedule.source == Source.CODE:
            schedule.overrides = sorted({*schedule.overrides, *changed})
        if changed & {*CLOCK_FIELDS, "enabled"}:
            plan(schedule, aware(now or store.clock()))
        schedule.save(using=store.alias)
    return schedule


def give_back(store: Store, pk: int, now: datetime.datetime | None = None) -> None:
    """Drop an admin's overrides: the code's values hold again, at once, or soon where they are not known here."""
    now = aware(now or store.clock())
    with store.atomic():
        schedule = store.lock_schedule(pk)
        if schedule is None or not schedule.overrides:
            return
        schedule.overrides = []
        schedule.declared_at = stored(now - STALE - TOUCH_AFTER)
        schedule.save(using=store.alias, update_fields=["overrides", "declared_at"])
        if (values := declarations().get(schedule.name)) is not None:
            follow_code(store, pk, values, now)


def draft_of(schedule: Schedule) -> Draft:
    """The job of one slot, by the task's own options. Raises UnknownTask, InvalidArguments, InvalidTask."""
    # In the transaction that moves the schedule on, so never on a connection of its own.
    options: dict[str, Any] = {"run_after": None, "durable": False}
    if schedule.queue_name:
        options["queue_name"] = schedule.queue_name
    if schedule.priority is not None:
        options["priority"] = schedule.priority
    task = registry.find(schedule.task).using(**options)
    return task.draft(tuple(schedule.args), schedule.kwargs)


def run_now(store: Store, schedule: Schedule) -> tuple[int, bool]:
    """Enqueue what a slot would, without a slot, in the caller's transaction. Its next slot stays where it is.

    Returns the job's id, and whether it is new: a unique task may have one already. Raises what draft_of() raises.
    """
    return _insert(store, replace(draft_of(schedule), schedule_id=schedule.pk))


def aware(moment: datetime.datetime) -> datetime.datetime:
    """A time as the database gives it, in UTC: without USE_TZ it is local and naive."""
    if timezone.is_naive(moment):
        moment = moment.replace(tzinfo=zone_of(default_timezone()))
    return moment.astimezone(datetime.UTC)


def stored(moment: datetime.datetime) -> datetime.datetime:
    """A time as the database takes it."""
    return moment if django_settings.USE_TZ else timezone.make_naive(moment, zone_of(default_timezone()))


def _insert(store: Store, draft: Draft) -> tuple[int, bool]:
    if draft.counts_from_now:
        draft = draft.due_from(store.clock())
    if draft.unique_key:
        [(pk, _, exists)] = store.enqueue_unique([draft])
        return pk, not exists
    [(pk, _)] = store.enqueue([draft])
    return pk, True


def _columns(task: str, periodic: Periodic) -> dict[str, Any]:
    return {
        **_clock_columns(periodic.when),
        "task": task,
        "args": json.loads(encode(periodic.args, "args")),
        "kwargs": json.loads(encode(periodic.kwargs, "kwargs")),
        "misfire": periodic.misfire,
        "overlap": periodic.overlap,
        "enabled": periodic.enabled,
        "queue_name": periodic.queue_name,
        "priority": periodic.priority,
    }


def _clock_columns(when: When) -> dict[str, Any]:
    match when:
        case Every(seconds):
            return {"cron": "", "every": seconds, "timezone": ""}
        case Cron(expression, zone):
            return {"cron": expression, "every": None, "timezone": zone or default_timezone()}


def _differences(schedule: Schedule, values: dict[str, Any]) -> set[str]:
    """The columns that the code has otherwise, and that no admin has changed."""
    return {name for name in FOLLOWED if name not in schedule.overrides and getattr(schedule, name) != values[name]}


def _is_older(schedule: Schedule, moment: datetime.datetime) -> bool:
    return schedule.declared_at is None or aware(schedule.declared_at) < moment
