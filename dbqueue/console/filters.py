"""The filters of the list of jobs, each by an index; and the search that they and the search box say together."""

import datetime
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf, registry
from ..models import DEFAULT_QUEUE, JobStatus
from ..search import Search
from ..store import NEAR, Store


class ExactFilter(admin.SimpleListFilter):
    """A filter on one exact value, named as in Search, with choices that no query has to find."""

    def known(self) -> Iterable[tuple[str, Any]]:
        """The choices, each with what the page shows for it."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: "admin.ModelAdmin[Any]") -> list[tuple[str, Any]]:
        choices = list(self.known())
        value = self.value()
        if value and value not in dict(choices):
            choices.append((value, value))
        return choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The list applies all filters at once, as one Search."""
        return queryset


class StateFilter(ExactFilter):
    """The tabs show it."""

    title = gettext_lazy("state")
    parameter_name = "state"
    template = "admin/dbqueue/job/no_filter.html"

    def known(self) -> Iterable[tuple[str, Any]]:
        return JobStatus.choices


class QueueFilter(ExactFilter):
    """The queues that this process knows of. The list links to any other."""

    title = gettext_lazy("queue")
    parameter_name = "queue"

    def known(self) -> Iterable[tuple[str, Any]]:
        names = {DEFAULT_QUEUE, *conf.read()[0].queues, *(task.queue_name for task in registry.registered())}
        return [(name, name) for name in sorted(names)]


class TaskFilter(ExactFilter):
    title = gettext_lazy("task")
    parameter_name = "task"
    template = "admin/dbqueue/job/task_filter.html"

    def known(self) -> Iterable[tuple[str, Any]]:
        return [(task.name, task.name) for task in registry.registered()]


class ErrorFilter(ExactFilter):
    """Nobody knows all errors: it shows the one that is asked for."""

    title = gettext_lazy("error")
    parameter_name = "error"

    def known(self) -> Iterable[tuple[str, Any]]:
        return []


FILTERS = (StateFilter, QueueFilter, TaskFilter, ErrorFilter)


NEWEST = ("-id",)

ORDERS: dict[str, tuple[str, ...]] = {
    JobStatus.READY: ("-priority", "id"),
    JobStatus.SCHEDULED: ("run_after", "id"),
    JobStatus.BLOCKED: ("concurrency_key", "-priority", "id"),
    JobStatus.RUNNING: ("last_attempted_at", "id"),
}
"""What comes next first, of each key where it is blocked, and what has been running for longest; elsewhere the newest.
Each is the order of an index, but for what runs: of that there is never much."""


WINDOW = 200_000
"""Ids that a list looks through for what has no index: it opens at once, and tells where it stopped."""


class Window(NamedTuple):
    """The ids among which a list looks; ``goes_on`` where there may be more that match, with smaller ones."""

    ids: range
    goes_on: bool


def window_of(search: Search, store: Store) -> Window | None:
    """Where a list looks for these jobs; None: among all of them.

    An index for each filter would make every job dearer that runs, for pages that are opened now and then.

    The order of ids is only about that of the times, so a time ends no list: it goes on to the oldest job.
    """
    if search.has_index:
        return None
    first, stop = store.oldest_id(), store.newest_id() + 1
    if search.below is not None:
        stop = min(stop, search.below)
    if search.until is not None and stop - first > WINDOW:
        stop = min(stop, store.id_at(search.until) + NEAR)
    start = max(first, stop - WINDOW)
    return Window(range(start, stop), goes_on=start > first)


def search_of(request: HttpRequest, now: datetime.datetime) -> Search:
    """What the address of a list says, in its filters and its search box. Raises ValueError for what can't be read."""
    given = {one.parameter_name: request.GET.get(one.parameter_name) or None for one in FILTERS}
    if any(value is not None and not value.isprintable() for value in given.values()):
        # No name has a control character, and PostgreSQL refuses to look for NUL.
        raise ValueError(f"The filters are {given!r}; they must be printable text.")
    if given["state"] not in (None, *JobStatus.values):
        raise ValueError(f"state is {given['state']!r}; it must be one of {', '.join(JobStatus.values)}.")
    search = Search.from_json(given).both(Search.parse(request.GET.get("q", ""), now))
    if search.arguments and not request.user.has_perm("dbqueue.view_job_arguments"):
        raise ValueError(_("Your account may not see what jobs are called with, nor search for it."))
    if hidden := search.hidden_arguments():
        raise ValueError(_("Nobody may search for sensitive arguments: %s.") % ", ".join(hidden))
    return search
