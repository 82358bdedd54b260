"""``crontab`` and ``schedule``: when an entry of ``beat_schedule`` is due."""

import datetime
from typing import TYPE_CHECKING, Any

from ...schedule import LONGEST

if TYPE_CHECKING:
    from ...schedule import Periodic


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
    """Cron's fields by name, each a number, text as ``*/5`` or ``mon-fri``, or several of them."""

    def __init__(
        self,
        minute: Any = "*",
        hour: Any = "*",
        day_of_week: Any = "*",
        day_of_month: Any = "*",
        month_of_year: Any = "*",
        **kwargs: Any,
    ) -> None:
        self.fields = tuple(map(_field, (minute, hour, day_of_month, month_of_year, day_of_week)))

    @property
    def expression(self) -> str:
        """The five fields in cron's order."""
        return " ".join(self.fields)

    def __repr__(self) -> str:
        return f"<crontab: {self.expression} (m/h/dM/MY/d)>"

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


def _field(value: Any) -> str:
    if isinstance(value, set | frozenset | list | tuple):
        return ",".join(map(str, sorted(value)))
    return str(value).replace(" ", "")
