"""What an operator does to jobs: through the store, in one transaction with a log entry for each job changed."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db import router, transaction
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import signals
from ..announcement import Announcement
from ..models import CANCELLABLE, RETRYABLE, Job, JobStatus
from ..store import Store

CHUNK = 500
"""Jobs that one statement changes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A transition that a person may ask for: the states that it leaves, and the store's operation."""

    name: str
    leaves: frozenset[JobStatus]
    apply: Callable[[Store, Collection[int]], int]
    logged: "Promise | str"


def _ask_to_end(store: Store, ids: Collection[int]) -> int:
    return sum(store.request_cancel(ids))


RETRY = Operation("retry", RETRYABLE, Store.retry, gettext_lazy("Retried."))
CANCEL = Operation("cancel", CANCELLABLE | {JobStatus.RUNNING}, _ask_to_end, gettext_lazy("Asked to end."))


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of it: how many jobs were changed or asked to end, and the states of those that were left alone."""

    operation: Operation
    changed: int
    asked: int
    left: "Counter[str]"

    def __str__(self) -> str:
        said = {
            RETRY.name: ngettext("%d job retried.", "%d jobs retried.", self.changed),
            CANCEL.name: ngettext("%d job cancelled.", "%d jobs cancelled.", self.changed),
        }[self.operation.name] % self.changed
        if self.asked:
            asked = ngettext("%d running job asked to end.", "%d running jobs asked to end.", self.asked)
            said = f"{said} {asked % self.asked}"
        if not self.left:
            return said
        reasons = ", ".join(f"{number} {label}" for label, number in sorted(self.left.items()))
        return f"{said} {_('Left alone: %s.') % reasons}"


def operate(store: Store, operation: Operation, ids: Collection[int], user_id: Any) -> Tally:
    """Apply ``operation`` to those of the jobs that are in a state for it."""
    changed, asked, left = 0, 0, Counter[str]()
    announcements: list[Announcement] = []
    ordered = sorted(ids)
    with store.atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            jobs = _locked(store, operation, chunk)
            waiting = [job for job in jobs if job.status in CANCELLABLE]
            moved = {job.pk for job in jobs}
            operation.apply(store, moved)
            LogEntry.objects.log_actions(user_id, jobs, CHANGE, str(operation.logged))
            running = sum(job.status == JobStatus.RUNNING for job in jobs)
            asked += running
            changed += len(jobs) - running
            left += _states(store, set(chunk) - moved)
            if operation is CANCEL:
                announcements += Announcement.of_jobs(signals.job_cancelled, waiting, reason="")
    for announcement in announcements:
        announcement.send()
    return Tally(operation, changed, asked, left)


def _locked(store: Store, operation: Operation, ids: Collection[int]) -> list[Job]:
    """The jobs that the operation will change: locked, so that it changes these and no others."""
    rows = (
        store.jobs.leaving(operation.leaves, ids).only("id", "task", "queue_name", "attempt", "status").order_by("id")
    )
    return list(rows.select_for_update())


def _states(store: Store, ids: Collection[int]) -> "Counter[str]":
    """How many of these jobs are in which state, by its name on the pages."""
    found = store.jobs.filter(pk__in=ids).values_list("status", flat=True)
    counts = Counter(str(JobStatus(status).label) for status in found)
    if gone := len(ids) - counts.total():
        counts[_("deleted")] = gone
    return counts
