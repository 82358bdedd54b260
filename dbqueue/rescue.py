"""Returns the jobs of dead workers, and says so."""

import logging
from collections.abc import Callable, Iterable, Iterator

from . import signals
from .announcement import Announcement
from .history import Tally
from .models import Attempt, Job, JobStatus
from .store import Rescue, Store

logger = logging.getLogger("dbqueue.worker")
job_logger = logging.getLogger("dbqueue.job")


def rescue_all(
    store: Store,
    max_crashes: int,
    announce: Callable[[Announcement], None] = Announcement.send,
    tally: Tally | None = None,
) -> None:
    """Rescue until nothing is left, a batch at a time. The attempts that were lost are counted by ``tally``."""
    while any(rescue := store.rescue(max_crashes)):
        if rescue.again or rescue.unbegun:
            logger.warning("Jobs of dead workers rescued: %s", _listed([*rescue.again, *rescue.unbegun]))
        for pk, task in store.jobs.filter(pk__in=rescue.failed).values_list("pk", "task"):
            job_logger.error(
                "Job id=%d task=%s failed: worker lost, DBQUEUE['MAX_CRASHES'] is %d", pk, task, max_crashes
            )
        for announcement in _announcements(store, rescue):
            announce(announcement)
        if tally is not None:
            tally.note_lost(_lost(store, rescue))


def _lost(store: Store, rescue: Rescue) -> Iterator[tuple[str, str, JobStatus]]:
    """Queue, task and what became of it, for each attempt."""
    lost = store.jobs.filter(pk__in=[*rescue.again, *rescue.failed]).values_list("pk", "queue_name", "task")
    for pk, queue_name, task in lost:
        yield queue_name, task, JobStatus.SCHEDULED if pk in rescue.again else JobStatus.FAILED


def _announcements(store: Store, rescue: Rescue) -> Iterator[Announcement]:
    yield from Announcement.of_jobs(signals.job_rescued, _as_rescued(store, rescue))
    if rescue.failed and signals.job_failed.receivers:
        lost = Attempt.objects.using(store.alias).filter(job__in=rescue.failed).select_related("job").order_by("id")
        for attempt in {attempt.job_id: attempt for attempt in lost}.values():
            yield from Announcement.of_jobs(
                signals.job_failed,
                [attempt.job],
                worker_id=attempt.worker_id,
                exception_class_path=attempt.exception_class_path,
                traceback=attempt.traceback,
            )


def _as_rescued(store: Store, rescue: Rescue) -> Iterator[Job]:
    attempts = rescue.again | rescue.unbegun
    for job in store.jobs.filter(pk__in=attempts):
        job.attempt = attempts[job.pk]  # the row's may be of a claim since
        yield job


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
