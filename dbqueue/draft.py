"""A job that was checked and not yet inserted."""

import datetime
import json
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
    max_attempts: int = 1
    options_json: str | None = None
    expires_at: datetime.datetime | None = None
    expires_in: datetime.timedelta | None = None
    unique_key: str | None = None
    unique_scope: str | None = None
    unique_for: datetime.timedelta | None = None
    unique_until: datetime.datetime | None = None
    replaces: bool = False
    """Whether a job with the same unique key that still waits is to become this one."""
    concurrency_key: str | None = None
    rate_key: str | None = None
    schedule_id: int | None = None
    slot: datetime.datetime | None = None
    durable: bool = False
    external_id: str | None = None

    @property
    def options(self) -> dict[str, Any] | None:
        return None if self.options_json is None else json.loads(self.options_json)

    @property
    def counts_from_now(self) -> bool:
        """Whether a time of it is a timedelta yet."""
        return self.wait is not None or self.expires_in is not None or self.unique_for is not None

    def due_from(self, now: datetime.datetime) -> "Draft":
        """The same, with what is counted from ``now`` told as times. Raises InvalidTask."""
        if not self.counts_from_now:
            return self
        return replace(
            self,
            run_after=self.run_after if self.wait is None else _after(now, self.wait, "run_after"),
            expires_at=self.expires_at if self.expires_in is None else _after(now, self.expires_in, "expires"),
            unique_until=self.unique_until if self.unique_for is None else _after(now, self.unique_for, "until"),
            wait=None,
            expires_in=None,
            unique_for=None,
        )


def _after(now: datetime.datetime, wait: datetime.timedelta, name: str) -> datetime.datetime:
    try:
        due = now + wait
    except OverflowError:
        due = None
    if due is None or not is_possible_time(due):
        raise InvalidTask(f"{name} is {wait!r} from now; it must end in the years {FIRST_YEAR} to {LAST_YEAR}.")
    return due
