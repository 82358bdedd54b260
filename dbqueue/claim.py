"""A job in the hands of a worker."""

import datetime
import json
from dataclasses import dataclass
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """What a thread needs to know to run one attempt; (job_id, lease, worker_id) is the fence of its writes.

    A tuple and not a model instance: building instances was the larger part of a claim's time.
    """

    job_id: int
    lease: int
    attempt: int
    worker_id: int
    task: str
    args_json: str
    kwargs_json: str
    queue_name: str
    priority: int
    backend: str
    run_after: datetime.datetime | None
    enqueued_at: datetime.datetime
    crashes: int
    started_at: datetime.datetime
    claimed_at: datetime.datetime
    ahead: bool = False
    """Whether no thread was free for it when it was claimed."""

    @property
    def args(self) -> list[Any]:
        """Decoded here, on the job's thread: a row that nobody can decode fails its own job, not the claim."""
        return json.loads(self.args_json)  # type: ignore[no-any-return]

    @property
    def kwargs(self) -> dict[str, Any]:
        return json.loads(self.kwargs_json)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"id={self.job_id} task={self.task} attempt={self.attempt}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which queues a worker serves: those in ``include`` (empty: all) but for those in ``exclude``."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def serves(self, queue_name: str) -> bool:
        return (not self.include or queue_name in self.include) and queue_name not in self.exclude

    def __str__(self) -> str:
        return ",".join((*self.include, *(f"-{name}" for name in self.exclude)))
