"""The list of jobs: its columns, how it is searched, and how far back it looks."""

import re
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import SEARCH_VAR, ChangeListSearchForm
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.translation import gettext as _

from ..models import JobStatus, Worker
from ..redaction import known
from ..search import Search
from . import errors
from .base import PromptChangeList, store
from .filters import NEWEST, ORDERS, Window, search_of, window_of

UNREAD = ("args", "kwargs", "return_value")
"""What a list leaves in the database."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "": ("id", "name", "state", "queue", "attempts", "enqueued", "finished"),
    JobStatus.SCHEDULED: ("id", "name", "queue", "priority", "attempts", "due"),
    JobStatus.READY: ("id", "name", "queue", "priority", "attempts", "enqueued"),
    JobStatus.BLOCKED: ("id", "name", "queue", "priority", "enqueued"),
    JobStatus.WAITING: ("id", "name", "queue", "priority", "enqueued"),
    JobStatus.RUNNING: ("id", "name", "queue", "attempts", "runner", "ran"),
    JobStatus.SUCCESSFUL: ("id", "name", "queue", "attempts", "finished", "ran"),
    JobStatus.FAILED: ("id", "name", "last_error", "queue", "attempts", "finished"),
    JobStatus.CANCELLED: ("id", "name", "queue", "attempts", "finished"),
}
"""What tells most of each state."""


class SearchForm(ChangeListSearchForm):
    """Leaves it to Search to say what it can't read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEARCH_VAR].validators = []


class JobChangeList(PromptChangeList):
    """A list that looks no further back than it can at once."""

    search_form_class = SearchForm

    older: str | None = None
    """Where the list goes on."""

    looked_through = 0
    """Ids."""

    _read: tuple[Search | None] | None = None

    def _search(self, request: HttpRequest) -> Search | None:
        """Read once for a request, by one clock; None, and said once, where it can't be."""
        if self._read is None:
            try:
                self._read = (search_of(request, store().clock()),)
            except ValueError as exc:
                self.model_admin.message_user(request, str(exc), messages.ERROR)
                self._read = (None,)
        return self._read[0]

    @property
    def hints(self) -> list[str]:
        """Why there may be less than somebody looked for."""
        search = self._read[0] if self._read else None
        said = []
        if search and search.arguments and search.task is None:
            said.append(_("Arguments that were given by position are found only together with task:NAME."))
        if search and search.task is not None and not self.result_count and known(search.task) is None:
            unknown = _("No task %(name)s is registered here: task: wants the whole name, %(name)s alone finds a part.")
            said.append(unknown % {"name": search.task})
        return said

    def get_results(self, request: HttpRequest) -> None:
        """With one time for all rows."""
        super().get_results(request)
        now = store().clock()
        for job in self.result_list:
            job.seen_at = now

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        search = self._search(request)
        return list(ORDERS.get(search.state or "", NEWEST) if search else NEWEST)

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        found = super().get_queryset(request, *args, **kwargs).defer(*UNREAD)
        search = self._search(request)
        if search is None:
            return found.none()
        told = request.user.has_perm("dbqueue.view_job_arguments")
        queryset: QuerySet[Any] = _with_what_a_column_shows(search.apply(found), search.state, told=told)
        window = window_of(search, store())
        if window is None:
            return queryset
        if window.goes_on:
            self.older, self.looked_through = _further_back(request, window), len(window.ids)
        return queryset.filter(pk__gte=window.ids.start, pk__lt=window.ids.stop)


def _further_back(request: HttpRequest, window: Window) -> str:
    query = request.GET.copy()
    query.pop("p", None)
    # Only an id gives way to the next one: a time is what somebody asked for.
    typed = re.sub(r"(^|\s)before:\d+(?=\s|$)", " ", query.pop("q", [""])[-1])
    query["q"] = f"{typed} before:{window.ids.start}".strip()
    return f"?{query.urlencode()}"


def _with_what_a_column_shows(jobs: Any, state: str | None, *, told: bool) -> Any:
    """For the rows of one page: what stands in other tables."""
    if state == JobStatus.FAILED:
        return errors.with_last_error(jobs, with_line=told)
    if state == JobStatus.RUNNING:
        workers = Worker.objects.using(jobs.db).filter(pk=OuterRef("worker_id"))
        return jobs.annotate(runner_name=Subquery(workers.values("name")))
    return jobs
