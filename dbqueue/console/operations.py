"""What an operator does to jobs: through the store, in one transaction with a log entry for each job changed."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import router, transaction
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import conf, signals
from ..announcement import Announcement
from ..models import BulkAction, Job, JobQuerySet, JobStatus
from ..store import LEAVES, Asked, Store


@dataclass(frozen=True, slots=True)
class Operation:
    """A transition that a person may ask for.

    ``permission`` names the action that it takes; ``leaves`` the states; ``said`` tells how many jobs were changed.
    """

    name: str
    permission: str
    leaves: frozenset[JobStatus]
    apply: Callable[[Store, Collection[int]], object]
    logged: "Promise | str"
    said: Callable[[int], str]
    flag: int = CHANGE
    meant: Callable[[JobQuerySet], JobQuerySet] = lambda jobs: jobs
    """Of the jobs in these states those that it changes."""


def _cancelled(number: int) -> str:
    return ngettext("%d job cancelled.", "%d jobs cancelled.", number) % number


RETRY = Operation(
    "retry",
    "retry",
    LEAVES[BulkAction.RETRY],
    Store.retry,
    gettext_lazy("Retried."),
    lambda number: ngettext("%d job retried.", "%d jobs retried.", number) % number,
    # A step whose turn never came has nothing to begin with.
    meant=lambda jobs: jobs.filter(held=False),
)
RUN_NOW = Operation(
    "run_now",
    "change",
    LEAVES[BulkAction.RUN_NOW],
    Store.run_now,
    gettext_lazy("Made ready before its time."),
    lambda number: ngettext("%d job made ready.", "%d jobs made ready.", number) % number,
)
CANCEL = Operation(
    "cancel",
    "cancel",
    LEAVES[BulkAction.CANCEL],
    Store.request_cancel,
    gettext_lazy("Asked to stop."),
    _cancelled,
)
INTERRUPT = replace(
    CANCEL, apply=partial(Store.request_cancel, interrupt=True), logged=gettext_lazy("Asked to stop, and interrupted.")
)
DELETE = Operation(
    "delete",
    "delete",
    LEAVES[BulkAction.DELETE],
    Store.delete,
    "",
    lambda number: ngettext("%d job deleted.", "%d jobs deleted.", number) % number,
    DELETION,
    JobQuerySet.deletable,
)


def refusal_of_queue(name: str) -> str:
    """Why nothing is moved to a queue of this name; empty, where it may be."""
    allowed = conf.read()[0].queues
    if not conf.is_queue_name(name):
        return _("A queue's name is printable text of 1 to 100 characters without commas.")
    if allowed and name not in allowed:
        return _("It must be one of %s.") % ", ".join(allowed)
    return ""


def moving_to(queue_name: str) -> Operation:
    """Put jobs that wait into this queue."""

    def said(number: int) -> str:
        moved = ngettext("%(number)d job moved to %(queue)s.", "%(number)d jobs moved to %(queue)s.", number)
        return moved % {"number": number, "queue": queue_name}

    move = partial(Store.move, queue_name=queue_name)
    logged = _("Moved to the queue %s.") % queue_name
    return Operation("move", "change", LEAVES[BulkAction.MOVE], move, logged, said)


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of it: how many jobs were changed or asked to stop, and the states of those that were left alone."""

    operation: Operation
    changed: int
    asked: int
    left: "Counter[str]"

    def __str__(self) -> str:
        said = self.operation.said(self.changed) if self.changed or not self.asked else ""
        if self.asked:
            asked = ngettext("%d running job was asked to stop.", "%d running jobs were asked to stop.", self.asked)
            said = f"{said} {asked % self.asked}".strip()
        if not self.left:
            return said
        reasons = ", ".join(f"{number} {label}" for label, number in sorted(self.left.items()))
        return f"{said} {_('Left alone: %s.') % reasons}"


def operate(store: Store, operation: Operation, ids: Collection[int], user_id: Any) -> Tally:
    """Apply ``operation`` to those of the jobs that are in a state for it.

    Raises IntegrityError, and has done nothing, where a table of the project refers to a job that is to go.
    """
    with store.atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
        store.lock_workflows_of(ids)
        jobs = _locked(store, operation, ids)
        moved = {job.pk for job in jobs}
        LogEntry.objects.log_actions(user_id, jobs, operation.flag, str(operation.logged))
        done = operation.apply(store, moved)
        left = _states(store, set(ids) - moved)
        store.refuse_early()
    if not isinstance(done, Asked):
        return Tally(operation, len(jobs), 0, left)
    # Also what is inside of a group, which nobody has chosen.
    cancelled = store.jobs.filter(pk__in=store.among(done.cancelled)).only("id", "task", "queue_name", "attempt")
    for announcement in Announcement.of_jobs(signals.job_cancelled, cancelled, reason=""):
        announcement.send()
    return Tally(operation, len(done.cancelled), len(done.asked), left)


def _locked(store: Store, operation: Operation, ids: Collection[int]) -> list[Job]:
    """The jobs that the operation will change: locked, so that it changes these and no others."""
    rows = operation.meant(store.jobs.leaving(operation.leaves, ids)).order_by("id")
    return list(rows.only("id", "task", "queue_name", "attempt", "status").select_for_update())


def _states(store: Store, ids: Collection[int]) -> "Counter[str]":
    """How many of these jobs are in which state, by its name on the pages."""
    found = store.jobs.filter(pk__in=ids).values_list("status", flat=True)
    counts = Counter(str(JobStatus(status).label) for status in found)
    if gone := len(ids) - counts.total():
        counts[_("deleted")] = gone
    return counts
