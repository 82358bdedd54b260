"""How the queue is doing, on one page: tiles, charts, and what fails most."""

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf
from ..models import BulkAction, JobStatus, Overview, Resolution, Worker
from ..store import MOST_QUEUES, Line, Store, is_served
from . import charts, display, errors
from .base import QueueAdmin, counted, store

DAY = datetime.timedelta(days=1)

MOST_GROUPS = 10
"""Kinds of failures that the page names."""

DEFAULT_RANGE = "1h"


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure, what it counts, and the list that it links to."""

    name: str
    label: str
    figure: str
    url: str
    more: str = ""
    meaning: "Promise | str" = ""


class Failures(NamedTuple):
    """Attempts that failed for good in the same way."""

    task: str
    error: str
    times: int
    url: str
    retry_url: str

    @property
    def name(self) -> str:
        return errors.name_of(self.error)


@admin.register(Overview)
class OverviewAdmin(QueueAdmin[Overview]):
    class Media:
        js = ("dbqueue/live.js",)

    # Who may see jobs may see how they are doing, and nobody does anything here.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.view_job")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        fragment = self.admin_site.admin_view(self._fragment)
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        page = self.admin_site.admin_view(self.changelist_view)
        return [path("", page, name=f"{name}_changelist"), path("live/", fragment, name=f"{name}_live")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return self._respond(request, "admin/dbqueue/overview/page.html", extra_context or {})

    def _fragment(self, request: HttpRequest) -> HttpResponse:
        """What the page's script fetches again and again."""
        return self._respond(request, "admin/dbqueue/overview/live.html", {})

    def _respond(self, request: HttpRequest, template: str, extra_context: dict[str, Any]) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.promptly(request, lambda: self._page(request, template, extra_context))

    def _page(self, request: HttpRequest, template: str, extra_context: dict[str, Any]) -> HttpResponse:
        chosen = charts.RANGES.get(request.GET.get("range", ""), charts.RANGES[DEFAULT_RANGE])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Overview"),
            "opts": self.opts,
            "media": self.media,
            "ranges": [(one.name, one.label, one is chosen) for one in charts.RANGES.values()],
            "live_url": f"{self._url('live')}?{urlencode({'range': chosen.name})}",
            **self._figures(request, chosen),
            **extra_context,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, template, context)

    def _figures(self, request: HttpRequest, chosen: charts.Range) -> dict[str, Any]:
        now = store().clock()
        workers = store().living_workers(conf.read()[0].heartbeat_timeout, now)
        line, busy = store().line(None), list(store().busy_queues(MOST_QUEUES + 1))
        closed = store().closed_queues()
        rows = store().history(chosen.resolution, now - chosen.length).filter(queue_name="", task="")
        all_points = charts.points(rows, chosen, now)
        return {
            "now": now,
            "tiles": self._tiles(line, workers, now),
            "warnings": list(warnings(busy, workers, closed, has_overdue=store().has_overdue(now))),
            "charts": [charts.ended(all_points), charts.waited(all_points), charts.ran(all_points)],
            "points": all_points[::-1],
            "failures": self._failures(request, now),
        }

    def _tiles(self, line: Line, workers: list[Worker], now: datetime.datetime) -> list[Tile]:
        def of(status: JobStatus, label: Promise | str, number: int) -> Tile:
            url, meaning = self._list("job", state=status), display.MEANINGS[status]
            return Tile(status.lower(), str(label), counted(number), url, meaning=meaning)

        numbers = {
            status: store().count(status)
            for status in (JobStatus.RUNNING, JobStatus.SCHEDULED, JobStatus.BLOCKED, JobStatus.WAITING)
        }
        threads = sum(worker.threads for worker in workers)
        return [
            of(JobStatus.READY, JobStatus.READY.label, line.ready),
            *(of(status, status.label, number) for status, number in numbers.items()),
            Tile(
                "failed",
                _("Failures in 24 hours"),
                number_format(_failed_since(store(), now - DAY), force_grouping=True),
                self._list("job", state=JobStatus.FAILED),
            ),
            Tile(
                "oldest",
                _("Longest wait"),
                display.span(now - line.since if line.since else None),
                self._list("job", state=JobStatus.READY),
            ),
            Tile(
                "workers",
                _("Live workers"),
                number_format(len(workers)),
                self._list("worker"),
                ngettext("%d thread", "%d threads", threads) % threads,
            ),
        ]

    def _failures(self, request: HttpRequest, now: datetime.datetime) -> list[Failures]:
        failed = store().history(Resolution.MINUTE, now - DAY).filter(outcome=JobStatus.FAILED)
        rows = failed.filter(task__gt="")  # which an index is asked for, unlike "not empty"
        groups = rows.values_list("task", "error").annotate(failed=Sum("count")).order_by("-failed")[:MOST_GROUPS]
        return [
            Failures(
                task,
                error,
                count,
                self._list("job", state=JobStatus.FAILED, task=task, error=error),
                self._retry(request, state=JobStatus.FAILED, task=task, error=error),
            )
            for task, error, count in groups
        ]

    def _retry(self, request: HttpRequest, **parameters: str) -> str:
        """To the page that asks whether all these are to be retried; nowhere, for who may not."""
        if not request.user.has_perm("dbqueue.retry_job"):
            return ""
        return self._list("job", "bulk", action=BulkAction.RETRY, **parameters)

    def _list(self, model: str, page: str = "changelist", **parameters: str) -> str:
        """A filtered list; nowhere, where this site has none."""
        url = self.url_of(model, page)
        return f"{url}?{urlencode(parameters)}" if url and parameters else url


def warnings(
    busy: Collection[str], workers: Collection[Worker], closed: Mapping[str, int], *, has_overdue: bool
) -> "list[str]":
    """What an operator has to know at once, in words."""
    if (busy or has_overdue) and not workers:
        return [_("Jobs wait, and no worker is alive: start one with manage.py dbqueue_worker.")]
    unserved = [name for name in busy if not is_served(name, workers)]
    said = [_("Jobs wait in the queue %s, and no worker serves it.") % name for name in unserved]
    if len(busy) > MOST_QUEUES:
        said.append(
            _("Jobs wait in more than %d queues: only the first of them, by name, are looked at.") % MOST_QUEUES
        )
    words = {True: _("Jobs wait in the queue %s: it is paused."), False: _("Jobs wait in the queue %s: it is drained.")}
    return said + [words[closed[name] == 0] % name for name in busy if name in closed]


def _failed_since(of: Store, since: datetime.datetime) -> int:
    rows = of.history(Resolution.MINUTE, since).filter(queue_name="", task="", outcome=JobStatus.FAILED)
    return int(rows.aggregate(failed=Sum("count"))["failed"] or 0)
