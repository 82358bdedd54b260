"""A job that was checked and not yet inserted."""

import datetime
from dataclasses import dataclass, replace
from typing import Any

from .exceptions import InvalidTask

FIRST_YEAR, LAST_YEAR = 1970, 9000
"""Times near Python's own ends come back from another time zone as years that it can't read."""


def is_possible_time(moment: datetime.datetime) -> bool:
    return FIRST_YEAR <= moment.year <= LAST_YEAR


@dataclass(frozen=True, slots=True)
class Draft:
    """``args`` and ``kwargs`` twice: as JSON's own types, and as the text that was checked."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    args_json: str
    kwargs_json: str
    queue_name: str
    priority: int
    run_after: datetime.datetime | None
    wait: datetime.timedelta | None
    backend: str

    def due_from(self, now: datetime.datetime) -> "Draft":
        """The same, with a wait that is counted from ``now`` told as a ``run_after``. Raises InvalidTask."""
        if self.wait is None:
            return self
        try:
            due = now + self.wait
        except OverflowError:
            due = None
        if due is None or not is_possible_time(due):
            raise InvalidTask(
                f"run_after is {self.wait!r} from now; it must end in the years {FIRST_YEAR} to {LAST_YEAR}."
            )
        return replace(self, run_after=due, wait=None)
