"""``self.request``: what a task is told of its own call."""

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .values import decoded

if TYPE_CHECKING:
    from ...claim import Claim
    from ...models import Job
    from .exceptions import Retry
    from .task import Task

HAS_ETA = "has_eta"
"""The option of a job that was called with an ``eta`` or a ``countdown``."""


@dataclass
class Request:
    """By Celery's names. Of a direct call most is empty. ``retries`` does not count crashes of workers.

    Code may keep attributes of its own with it.
    """

    task_object: "Task"
    id: str | None = None
    # Who logs a request is not to log what may be sensitive.
    args: list[Any] = field(default_factory=list, repr=False)
    kwargs: dict[str, Any] = field(default_factory=dict, repr=False)
    retries: int = 0
    headers: dict[str, Any] | None = None
    eta: datetime.datetime | None = None
    expires: datetime.datetime | None = None
    delivery_info: dict[str, Any] = field(default_factory=dict)
    hostname: str | None = None
    is_eager: bool = False
    called_directly: bool = True
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    correlation_id: str | None = None
    job_id: int | None = None
    is_entered: bool = False
    """Whether the task's own code has begun: a call after that is a direct one."""
    state: tuple[str, Any] | None = None
    """What update_state() has said."""
    promised: "Retry | None" = None
    """By retry(throw=False): raised when the task's code has ended."""

    @property
    def task(self) -> str:
        return self.task_object.name

    @property
    def timelimit(self) -> tuple[float | None, float | None]:
        return self.task_object.time_limit, self.task_object.soft_time_limit

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict would: what travels with the job stands in it, too."""
        if name in self.__dict__ or name in ("task", "timelimit"):
            return getattr(self, name)
        return (self.headers or {}).get(name, default)

    def __getattr__(self, name: str) -> Any:
        try:
            return (object.__getattribute__(self, "headers") or {})[name]
        except KeyError:
            raise AttributeError(f"A request has no {name!r}.") from None

    @classmethod
    def of_claim(cls, task: "Task", claim: "Claim", hostname: str) -> "Request":
        options = claim.options
        id = options.get("external_id") or str(claim.job_id)
        retries = max(0, claim.failures - 1 - claim.crashes)
        has_eta = claim.workflow_id is None or retries > 0 or HAS_ETA in options
        return cls(
            task,
            id=id,
            args=decoded(claim.args),
            kwargs=decoded(claim.kwargs),
            retries=retries,
            headers=options.get("headers"),
            eta=claim.run_after if has_eta else None,
            expires=claim.expires_at,
            delivery_info=delivery(claim.queue_name, claim.priority, claim.crashes),
            hostname=hostname,
            is_eager=False,
            called_directly=False,
            root_id=id,
            correlation_id=id,
            job_id=claim.job_id,
        )

    @classmethod
    def of_row(cls, task: "Task", job: "Job") -> "Request":
        """Of a call that doesn't run here, as far as its row tells."""
        id = job.external_id or str(job.pk)
        return cls(
            task,
            id=id,
            args=decoded(job.args),
            kwargs=decoded(job.kwargs),
            headers=(job.options or {}).get("headers"),
            expires=job.expires_at,
            delivery_info=delivery(job.queue_name, job.priority, job.crashes),
            called_directly=False,
            root_id=id,
            correlation_id=id,
            job_id=job.pk,
        )


def delivery(queue_name: str, priority: int, crashes: int) -> dict[str, Any]:
    """``redelivered``: a worker has died of it, or with it."""
    return {"routing_key": queue_name, "priority": priority, "exchange": "", "redelivered": crashes > 0}
