"""What pages and monitoring ask of the jobs and the workers as they are now: by index, and never without a bound."""

import datetime
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from django.db.models import Case, Q, QuerySet, When
from django.db.models.functions import Coalesce

from ..claim import Selection
from ..history import moment_at
from ..models import History, Job, JobStatus, Queue, Resolution, Worker
from .database import Database

MOST_QUEUES = 100
"""Queues whose lines are looked at: each costs some statements."""

OVERDUE = datetime.timedelta(minutes=1)

MOST_COUNTED = 10_000
"""Rows of one kind that are counted."""


NEAR = 10_000
"""How far the order of ids may be from that of the times at which jobs were enqueued, twice: a job gets the two one
after the other, and the thousands that one call enqueues have one time, and others' jobs between them."""


HEAD = 100
"""Jobs at the beginning of a line that are read."""

MOST_PRIORITIES = 20
"""How many priorities of one long line are looked at."""


class Line(NamedTuple):
    """The jobs of one queue that may be claimed now: how many, as far as they are counted, and since when they wait."""

    ready: int
    since: datetime.datetime | None


class Census(Database):
    """Reads only."""

    def count(self, status: JobStatus, limit: int = MOST_COUNTED) -> int:
        """How many jobs are in this state, up to one more than ``limit``."""
        return self.jobs.filter(status=status).order_by().values("pk")[: limit + 1].count()

    def id_at(self, moment: datetime.datetime) -> int:
        """From about which id on jobs were enqueued at this moment or later: to NEAR, and found by halves."""
        before, since = self.oldest_id() - 1, self.newest_id() + 1
        while since - before > NEAR // 2:
            middle = (before + since) // 2
            found = self.jobs.filter(pk__gte=middle).order_by("pk").values_list("pk", "enqueued_at").first()
            if found is None or found[1] >= moment:
                since = middle
            else:
                before = min(found[0], since - 1)
        return since

    def busy_queues(self, most: int = MOST_QUEUES) -> Iterator[str]:
        """The names of queues with READY jobs, each found by one step in an index; the first of very many."""
        return islice(self._busy_queues(), most)

    def has_seen(self, queue_name: str) -> bool:
        """Whether something was said about this queue, a job of it is READY, or has ever ended. By indexes only."""
        return (
            Queue.objects.using(self.alias).filter(pk=queue_name).exists()
            or self.jobs.filter(status=JobStatus.READY, queue_name=queue_name).exists()
            or self._ever().filter(queue_name=queue_name).exists()
        )

    def seen_queues(self, most: int = MOST_QUEUES) -> set[str]:
        """The names of such queues; some of them, where there are very many."""
        said = Queue.objects.using(self.alias).values_list("pk", flat=True)[:most]
        ended = self._ever().exclude(queue_name="").values_list("queue_name", flat=True).distinct()[:most]
        return {*said, *ended, *self.busy_queues(most)}

    def _ever(self) -> "QuerySet[History]":
        # The time is that of all of these rows: with it the index leads on to the queue.
        return History.objects.using(self.alias).filter(seconds=Resolution.EVER, begins_at=moment_at(0))

    def _busy_queues(self) -> Iterator[str]:
        ready = self.jobs.filter(status=JobStatus.READY).order_by("queue_name").values_list("queue_name", flat=True)
        name = ready.first()
        while name is not None:
            yield name
            name = ready.filter(queue_name__gt=name).first()

    def has_overdue(self, now: datetime.datetime, grace: datetime.timedelta = OVERDUE) -> bool:
        """Whether a job's time came so long ago, and nobody made it READY: only a worker does."""
        return self.jobs.due(now - grace).exists()

    def line(self, queue_name: str | None, limit: int = MOST_COUNTED) -> Line:
        """The line before one queue, or None: before all together.

        The first HEAD of each priority tell since when: what has waited for longest is not always claimed first.
        """
        ready = self.jobs.ready() if queue_name is None else self.jobs.ready().filter(queue_name=queue_name)
        # Since when one waits that was retried is not known.
        known = Case(When(Q(attempt=0) | Q(run_after__isnull=False), then=Coalesce("run_after", "enqueued_at")))
        waits = ready.annotate(since=known).values_list("priority", "since")
        found = list(waits[:HEAD])
        number = len(found) if len(found) < HEAD else ready.order_by().values("pk")[: limit + 1].count()
        first = _earliest(found, None)
        for _ in range(MOST_PRIORITIES):
            if len(found) < HEAD:
                break
            found = list(waits.filter(priority__lt=found[-1][0])[:HEAD])
            first = _earliest(found, first)
        return Line(number, first)

    def count_before(self, job: Job, limit: int = MOST_COUNTED) -> int:
        """How many READY jobs of its queue are claimed before this one, up to one more than ``limit``."""
        sooner = Q(priority__gt=job.priority) | Q(priority=job.priority, pk__lt=job.pk)
        ready = self.jobs.filter(sooner, status=JobStatus.READY, queue_name=job.queue_name)
        return ready.order_by().values("pk")[: limit + 1].count()

    def running(self) -> "Counter[tuple[str, int | None]]":
        """How many jobs run, by queue and worker. There are never more than threads, and what is taken ahead."""
        return Counter(self.jobs.filter(status=JobStatus.RUNNING).values_list("queue_name", "worker_id"))

    def living_workers(self, timeout: float, now: datetime.datetime | None = None) -> list[Worker]:
        """Workers that were heard of in the last ``timeout`` seconds."""
        heard = (now or self.clock()) - datetime.timedelta(seconds=timeout)
        return list(self._workers().alive().filter(heartbeat_at__gte=heard).order_by("name"))

    def said_of_queues(self) -> list[Queue]:
        """The queues that are paused or drained, or were."""
        return list(Queue.objects.using(self.alias).order_by("name"))


def _earliest(
    waits: Iterable[tuple[int, datetime.datetime | None]], first: datetime.datetime | None
) -> datetime.datetime | None:
    return min((since for since in (first, *(one for _, one in waits)) if since is not None), default=None)


def is_served(queue_name: str, workers: Collection[Worker]) -> bool:
    """Whether one of these workers takes jobs of this queue, and was not asked to claim nothing more."""
    return any(not worker.asked and Selection.parse(worker.queues).serves(queue_name) for worker in workers)
