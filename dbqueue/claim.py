"""A job in the hands of a worker."""

import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    max_attempts: int
    earlier_attempts: int
    options_json: str | None
    expires_at: datetime.datetime | None
    concurrency_key: str | None
    rate_key: str | None
    workflow_id: int | None
    started_at: datetime.datetime
    claimed_at: datetime.datetime
    ahead: bool = False
    """Whether no thread was free for it when it was claimed."""

    @property
    def args(self) -> list[Any]:
        """Decoded here, on the job's thread: a row that nobody can decode fails its own job, not the claim."""
        return [] if self.args_json == "[]" else json.loads(self.args_json)

    @property
    def kwargs(self) -> dict[str, Any]:
        return {} if self.kwargs_json == "{}" else json.loads(self.kwargs_json)

    @property
    def options(self) -> dict[str, Any]:
        """Empty also where a row holds something else."""
        options = None if self.options_json is None else json.loads(self.options_json)
        return options if isinstance(options, dict) else {}

    @property
    def failures(self) -> int:
        """How many attempts count against ``max_attempts``, this one among them."""
        return self.attempt - self.earlier_attempts

    @property
    def is_expired(self) -> bool:
        """Whether it had not been started when it was to be given up."""
        return self.is_late and self.started_at == self.claimed_at

    @property
    def is_late(self) -> bool:
        """Whether that time had come when it was claimed; it may have been started before, and be tried again."""
        return self.expires_at is not None and self.claimed_at >= self.expires_at

    def __str__(self) -> str:
        return f"id={self.job_id} task={self.task} attempt={self.attempt}"

    def __repr__(self) -> str:
        """Without the arguments, some of which may be sensitive."""
        return f"<Claim {self}>"


class Bookmark:
    """Where in the order of ready jobs a worker's last claim ended: its next one may go on from there.

    While any session of the server keeps an old snapshot, the index entries of claimed jobs can't be removed, and a
    claim from the start walks over all of them. What came to stand before the mark meanwhile (a higher priority, a job
    given back, a commit that was late) is found by a look from the start. Such looks may take a tenth of the time: the
    more there is to walk over, the rarer they are. Where nothing is ready behind the mark, one follows at once.
    """

    SHARE = 10
    """A look from the start that took 1 ms is good for 10 ms."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[int, int]] = {}
        """By queue ("" where the order goes through all queues): priority and id of the last job that was claimed."""
        self.nothing_left = False
        """Whether the last look was one from the start and found less than was asked for."""
        self.put_aside = False
        """Whether limits put aside what the last claim found: then there may be more behind it."""
        self._good_until = 0.0

    def is_good(self) -> bool:
        return bool(self.places) and time.monotonic() < self._good_until

    def looked_from_the_start(self, began: float, nothing_left: bool) -> None:
        """A look from the start that had begun then (time.monotonic) is over."""
        now = time.monotonic()
        self._good_until = now + self.SHARE * (now - began)
        self.nothing_left = nothing_left


@dataclass(frozen=True, slots=True)
class Selection:
    """Which queues a worker serves: those in ``include`` (empty: all) but for those in ``exclude``.

    Of a queue that is ``closed`` only jobs up to an id may start, of one that is paused none (0). ``ageing`` is the
    setting PRIORITY_AGEING, in seconds; 0: priorities stand as they are.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    closed: Mapping[str, int] = field(default_factory=dict)
    ageing: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """The queues of what ``str()`` tells, and a worker's row holds."""
        names = [name for name in text.split(",") if name]
        excluded = tuple(name[1:] for name in names if name.startswith("-"))
        return cls(tuple(name for name in names if not name.startswith("-")), excluded)

    def serves(self, queue_name: str) -> bool:
        return (not self.include or queue_name in self.include) and queue_name not in self.exclude

    def in_words(self) -> str:
        """For a reader."""
        served = ", ".join(self.include) or "all"
        return f"{served} but {', '.join(self.exclude)}" if self.exclude else served

    def __str__(self) -> str:
        return ",".join((*self.include, *(f"-{name}" for name in self.exclude)))
