"""When a periodic job is due: cron expressions, intervals, the slots that they name, and how a task declares them."""

import datetime
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cronsim import CronSim, CronSimError
from cronsim.explain import Expression
from django.conf import settings

Misfire = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip"]

MISFIRES = ("skip", "once", "all")
OVERLAPS = ("allow", "skip")

EXPRESSION_LENGTH = 200
OWN_NAME_LENGTH = 100
"""Characters of the name that tells a schedule from others of the same task."""

ALLOWED = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31 as far as the month has them, or L for its last day",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7, or SUN to SAT",
}
"""What the fields of a cron expression may have, by CronSim's names for them."""

LONGEST = 366 * 86_400
"""Seconds of the longest interval."""

FIRST_LOOK = datetime.timedelta(hours=1)
WIDER = 8
"""How far back a look for the latest slots goes first, and how much further each time that it did not find enough."""

SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)

_SOME_DAY = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


class _When:
    """What Cron and Every have in common. All slots are in UTC."""

    __slots__ = ()

    def next_after(self, moment: datetime.datetime) -> datetime.datetime:
        """The first slot later than ``moment``, which is aware."""
        raise NotImplementedError

    def next_few(self, moment: datetime.datetime, number: int) -> list[datetime.datetime]:
        """The first slots later than ``moment``, which is aware."""
        slots: list[datetime.datetime] = []
        while len(slots) < number:
            slots.append(self.next_after(slots[-1] if slots else moment))
        return slots

    def latest(self, first: datetime.datetime, until: datetime.datetime, most: int) -> list[datetime.datetime]:
        """The last ``most`` slots from ``first``, which is one, to ``until``: both belong to it. In their order."""
        look = FIRST_LOOK
        while True:
            is_all = until - look <= first
            slots = [first] if is_all else []
            slot = self.next_after(first if is_all else until - look)
            while slot <= until:
                slots.append(slot)
                slot = self.next_after(slot)
            if is_all or len(slots) >= most:
                return slots[-most:]
            look *= WIDER


@dataclass(frozen=True, slots=True)
class Cron(_When):
    """Five fields, as in Debian's cron: minute, hour, day of month, month, day of week; by the clock of ``timezone``.

    Where day of month and day of week are both given it comes on the days of either. With a ``+`` before the day of
    week, as in ``0 5 1-7 * +MON``, it comes on those that are of both: a sign of the Open Cron Pattern Specification.

    Where clocks go forward, a time of day that is left out stands for the first moment after the gap; where they go
    back, one that comes twice means the first. So a daily job runs once on each day. With a ``*`` at the start of
    minute or hour it is the clock that counts: what is left out is not made up for, and what comes twice runs twice.
    """

    expression: str
    timezone: str = ""
    """A name as ``Europe/Berlin``; empty: settings.TIME_ZONE."""

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise ValueError(f"cron is {self.expression!r}; it must be text, as '0 5 * * *'.")
        object.__setattr__(self, "expression", " ".join(self.expression.split()).upper())
        zone_of(self.timezone)
        self._check()

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zone_of(self.timezone or default_timezone())

    def next_after(self, moment: datetime.datetime) -> datetime.datetime:
        moment = moment.astimezone(datetime.UTC)
        minute, hour, *_ = self.expression.split()
        if minute.startswith("*") or hour.startswith("*"):
            return self._next_by_the_clock(moment)
        for local in _walk(self.expression, moment.astimezone(self.zone)):
            slot = local.astimezone(datetime.UTC)
            # In an hour that comes twice the walk begins with what the first of the two has had.
            if slot > moment:
                return slot
        raise ValueError(f"cron is {self.expression!r}, which never comes.")

    def _next_by_the_clock(self, moment: datetime.datetime) -> datetime.datetime:
        """Walks from one change of the clocks to the next: in between local time is a straight line.

        CronSim can walk past a change too, but loses its way at one of half an hour, and at one at midnight.
        """
        zone = self.zone
        offset = _offset(zone, moment)
        local = (moment + offset).replace(tzinfo=None)
        while True:
            slot = next(_walk(self.expression, local)).replace(tzinfo=datetime.UTC) - offset
            change = _first_change(zone, moment, slot)
            if change is None:
                return slot
            moment, offset = change, _offset(zone, change)
            local = (moment + offset - SECOND).replace(tzinfo=None)  # the moment of the change may be a slot itself

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone or default_timezone()}"

    def in_words(self) -> str:
        """When it comes, in English, and by whose clock."""
        plain, of_both = _without_plus(self.expression)
        words = Expression(plain.split())
        words.day_and |= of_both
        return f"{words.explain()}, {self.timezone or default_timezone()}"

    def _check(self) -> None:
        fields = len(self.expression.split())
        if fields != 5 or len(self.expression) > EXPRESSION_LENGTH:
            raise ValueError(
                f"cron is {self.expression!r}; it must be five fields (minute, hour, day of month, month, day of week) "
                f"in up to {EXPRESSION_LENGTH} characters, as '0 5 * * *'. For seconds there is every()."
            )
        try:
            comes = next(_walk(self.expression, _SOME_DAY), None)
        except CronSimError as exc:
            raise ValueError(f"cron is {self.expression!r}: {_reason(exc)}.") from None
        if comes is None:
            raise ValueError(f"cron is {self.expression!r}, which never comes.")


@dataclass(frozen=True, slots=True)
class Every(_When):
    """Each ``seconds``, counted from 1970 in UTC, so that all workers agree on the slots."""

    seconds: int

    def __post_init__(self) -> None:
        if type(self.seconds) is not int or not 1 <= self.seconds <= LONGEST:
            raise ValueError(f"every is {self.seconds!r} seconds; it must be a whole number from 1 to {LONGEST}.")

    def next_after(self, moment: datetime.datetime) -> datetime.datetime:
        return self._slot(self._number(moment) + 1)

    def latest(self, first: datetime.datetime, until: datetime.datetime, most: int) -> list[datetime.datetime]:
        last = self._number(until)
        # Only the first may be no multiple: the row was changed since.
        between = range(max(self._number(first) + 1, last - most + 1), last + 1)
        return [first, *map(self._slot, between)][-most:]

    def __str__(self) -> str:
        for name, length in (("d", 86_400), ("h", 3600), ("min", 60)):
            if self.seconds % length == 0:
                return f"every {self.seconds // length} {name}"
        return f"every {self.seconds} s"

    def in_words(self) -> str:
        """When it comes, in English."""
        return str(self).capitalize()

    def _number(self, moment: datetime.datetime) -> int:
        return (moment - _EPOCH) // datetime.timedelta(seconds=self.seconds)

    def _slot(self, number: int) -> datetime.datetime:
        return _EPOCH + number * datetime.timedelta(seconds=self.seconds)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

When = Cron | Every


@dataclass(frozen=True, slots=True)
class Periodic:
    """What ``@task(schedule=…)`` takes: when, with which arguments, and what happens to slots at a bad moment.

    Made by ``cron()`` and ``every()``. ``misfire`` is about slots at which no worker was there: ``"skip"`` drops them,
    ``"once"`` makes one job for all of them, ``"all"`` one for each, a hundred at most. With ``overlap="skip"`` there
    is no job for a slot while one of the schedule has not ended. ``name`` tells it from others of its task.
    """

    when: When
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    misfire: Misfire = "once"
    overlap: Overlap = "allow"
    enabled: bool = True
    queue_name: str = ""
    """Empty: the task's own."""
    priority: int | None = None
    """None: the task's own."""

    def __post_init__(self) -> None:
        if not isinstance(self.args, list | tuple):
            raise ValueError(f"args is {self.args!r}; it must be a list or a tuple.")
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(key, str) for key in self.kwargs):
            raise ValueError(f"kwargs is {self.kwargs!r}; it must be a dict with text as its keys.")
        if not isinstance(self.name, str) or not self.name.isprintable() or len(self.name) > OWN_NAME_LENGTH:
            raise ValueError(f"name is {self.name!r}; it must be printable text of up to {OWN_NAME_LENGTH} characters.")
        if self.misfire not in MISFIRES:
            raise ValueError(f"misfire is {self.misfire!r}; it must be one of {', '.join(map(repr, MISFIRES))}.")
        if self.overlap not in OVERLAPS:
            raise ValueError(f"overlap is {self.overlap!r}; it must be one of {', '.join(map(repr, OVERLAPS))}.")
        if type(self.enabled) is not bool:
            raise ValueError(f"enabled is {self.enabled!r}; it must be True or False.")


def cron(
    expression: str,
    timezone: str = "",
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    misfire: Misfire = "once",
    overlap: Overlap = "allow",
    enabled: bool = True,
    queue_name: str = "",
    priority: int | None = None,
) -> Periodic:
    """A schedule by a cron expression, as ``cron("0 5 * * *", timezone="Europe/Berlin")``. Raises ValueError.

    Cron and Periodic tell what it means. Without ``timezone`` it is settings.TIME_ZONE.
    """
    return Periodic(
        Cron(expression, timezone), args, kwargs or {}, name, misfire, overlap, enabled, queue_name, priority
    )


def every(
    bare: None = None,
    /,
    *,
    seconds: int = 0,
    minutes: int = 0,
    hours: int = 0,
    days: int = 0,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    name: str = "",
    misfire: Misfire = "once",
    overlap: Overlap = "allow",
    enabled: bool = True,
    queue_name: str = "",
    priority: int | None = None,
) -> Periodic:
    """A schedule by an interval, as ``every(minutes=5)``, in whole seconds from 1 to 366 days. Raises ValueError.

    Slots are its multiples since 1970 in UTC: ``every(days=1)`` is midnight in UTC.
    """
    if bare is not None:
        raise ValueError(f"every({bare!r}) has no unit: say every(seconds={bare!r}), or minutes, hours or days.")
    parts = {"seconds": seconds, "minutes": minutes, "hours": hours, "days": days}
    for unit, number in parts.items():
        if type(number) is not int:
            raise ValueError(f"{unit} is {number!r}; it must be a whole number.")
    length = seconds + 60 * minutes + 3600 * hours + 86_400 * days
    return Periodic(Every(length), args, kwargs or {}, name, misfire, overlap, enabled, queue_name, priority)


def named(task: str, schedules: Sequence[Periodic]) -> dict[str, Periodic]:
    """The schedules of one task by their names: the task's own, with what tells it from the others behind a colon.

    Raises ValueError where two have one name.
    """
    found: dict[str, Periodic] = {}
    for number, periodic in enumerate(schedules, start=1):
        own = periodic.name or ("" if number == 1 else str(number))
        name = f"{task}:{own}" if own else task
        if name in found:
            raise ValueError(f"Two schedules of {task} are named {own!r}.")
        found[name] = periodic
    return found


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of this name; UTC for an empty one. Raises ValueError for what is none."""
    try:
        return zoneinfo.ZoneInfo(name or "UTC")
    except (ValueError, TypeError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError(f"timezone is {name!r}; it must be the name of a time zone, as 'Europe/Berlin'.") from None


def default_timezone() -> str:
    return settings.TIME_ZONE or "UTC"


def _walk(expression: str, moment: datetime.datetime) -> CronSim:
    """The times after ``moment``, one after another. Raises CronSimError."""
    plain, of_both = _without_plus(expression)
    walk = CronSim(plain, moment)
    walk.day_and |= of_both
    return walk


def _without_plus(expression: str) -> tuple[str, bool]:
    """The expression as CronSim knows it, and whether a day has to be of both fields."""
    *others, weekday = expression.split()
    return " ".join([*others, weekday.removeprefix("+") or weekday]), weekday.startswith("+")


def _offset(zone: zoneinfo.ZoneInfo, moment: datetime.datetime) -> datetime.timedelta:
    return moment.astimezone(zone).utcoffset() or datetime.timedelta()


def _first_change(
    zone: zoneinfo.ZoneInfo, begin: datetime.datetime, end: datetime.datetime
) -> datetime.datetime | None:
    """The first moment after ``begin``, and not after ``end``, from which on clocks of the zone show another time."""
    offset = _offset(zone, begin)
    before = begin.replace(microsecond=0)
    while before < end:
        after = min(before + DAY, end)
        if _offset(zone, after) == offset:
            before = after
            continue
        while after - before > SECOND:
            middle = before + (after - before) // SECOND // 2 * SECOND
            before, after = (middle, after) if _offset(zone, middle) == offset else (before, middle)
        return after
    return None


def _reason(error: CronSimError) -> str:
    """What is wrong, as part of a sentence."""
    said = str(error)
    allowed = ALLOWED.get(said.removeprefix("Bad "))
    return f"{said[:1].lower()}{said[1:]}{(allowed and f' ({allowed})') or ''}"
