"""``crontab`` and ``schedule``: when an entry of ``beat_schedule`` is due."""

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...schedule import LONGEST

if TYPE_CHECKING:
    from ...schedule import Periodic

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?")


class schedule:
    """Every so many seconds, from 1; a ``timedelta``, or a number."""

    def __init__(self, run_every: Any = None, relative: bool = False, nowfun: Any = None, app: Any = None) -> None:
        self.run_every = _interval(run_every)

    def __repr__(self) -> str:
        return f"<freq: {self.run_every}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, schedule) and self.run_every == other.run_every

    def __hash__(self) -> int:
        return hash(self.run_every)

    def periodic(self, **options: Any) -> "Periodic":
        """As dbqueue has it."""
        from ...schedule import every

        return every(seconds=int(self.run_every.total_seconds()), **options)


class crontab:
    """Cron's fields by name, each a number, text as ``*/5`` or ``mon-fri``, or several of them.

    As with Celery a day has to be of ``day_of_month`` and of ``day_of_week``, names may be long, and a range may go
    past the end, as ``sat-mon`` does.
    """

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        nowfun: Any = None,
        app: Any = None,
    ) -> None:
        self.minute = _field(minute, range(60))
        self.hour = _field(hour, range(24))
        self.day_of_month = _field(day_of_month, range(1, 32))
        self.month_of_year = _field(month_of_year, range(1, 13), MONTHS)
        self.day_of_week = _field(day_of_week, range(7), WEEKDAYS)

    @classmethod
    def from_string(cls, crontab: str) -> "crontab":
        """From cron's five fields in its order. Raises ValueError where they are not five."""
        fields = crontab.split()
        if len(fields) != 5:
            raise ValueError(f"A crontab is {crontab!r}; it must be five fields, as '0 5 * * *'.")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    @property
    def fields(self) -> tuple[str, ...]:
        """In cron's order."""
        return (self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week)

    @property
    def expression(self) -> str:
        """As dbqueue's ``cron()`` takes it, where a day of either field would do without the plus."""
        of_both = not self.day_of_month.startswith("*") and not self.day_of_week.startswith("*")
        return " ".join([*self.fields[:4], f"+{self.day_of_week}" if of_both else self.day_of_week])

    def __repr__(self) -> str:
        return f"<crontab: {' '.join(self.fields)} (m/h/dM/MY/d)>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, crontab) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def periodic(self, timezone: str = "", **options: Any) -> "Periodic":
        """As dbqueue has it. Raises ValueError for what cron does not know."""
        from ...schedule import cron

        return cron(self.expression, timezone, **options)


def maybe_schedule(value: Any) -> "schedule | crontab":
    """What an entry says, as a schedule. Raises ValueError."""
    if isinstance(value, schedule | crontab):
        return value
    return schedule(value)


def _interval(value: Any) -> datetime.timedelta:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    found = datetime.timedelta(seconds=value) if is_number else value
    if not isinstance(found, datetime.timedelta) or not 1 <= found.total_seconds() <= LONGEST or found.microseconds:
        raise ValueError(f"A schedule is {value!r}; it must be a crontab, or whole seconds from 1 to 366 days.")
    return found


def _field(value: Any, numbers: range, names: Sequence[str] = ()) -> str:
    several = isinstance(value, Iterable) and not isinstance(value, str)
    text = ",".join(map(str, sorted(value))) if several else str(value)
    return ",".join(_part(part, numbers, names) for part in text.replace(" ", "").lower().split(","))


def _part(part: str, numbers: range, names: Sequence[str]) -> str:
    """One number, name or range as cron has it. What is none is left as it is, and refused by ``cron()``."""
    short = re.sub("[a-z]+", lambda name: name[0][:3], part)
    found = _RANGE.fullmatch(short)
    if found is None:
        return short
    begin, end = (numbers[names.index(each)] if each in names else _number(each) for each in found.group(1, 2))
    step = int(found[3] or 1)
    if begin not in numbers or end not in numbers or begin < end or step == 0:
        return short
    if begin == end:
        return str(begin)
    over = (begin - numbers.stop) % step  # by so much the steps go on after the last number
    spans = [(begin, numbers.stop - 1), (numbers.start + over, end)]
    return ",".join(_span(first, last, step) for first, last in spans if first <= last)


def _span(first: int, last: int, step: int) -> str:
    if first + step > last:
        return str(first)
    return f"{first}-{last}" if step == 1 else f"{first}-{last}/{step}"


def _number(text: str) -> int:
    """-1 for what is none."""
    return int(text) if text.isdecimal() else -1
