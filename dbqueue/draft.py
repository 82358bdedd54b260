"""A job that was checked and not yet inserted."""

import datetime
from dataclasses import dataclass, replace
from typing import Any


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
        """The same, with a wait that is counted from ``now`` told as a ``run_after``."""
        return self if self.wait is None else replace(self, run_after=now + self.wait, wait=None)
