"""Queues: how long each line is, who serves it, and whether it is open; closing and opening them."""

import datetime
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from .. import conf, registry
from ..exceptions import InvalidQueue
from ..history import added, quantile
from ..models import DEFAULT_QUEUE, REASON_LENGTH, History, JobStatus, Queue, Resolution, Worker
from ..queues import drain, pause, resume
from ..store import MOST_QUEUES, Line, is_served
from . import display
from .base import QueueAdmin, counted, store

HOUR = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One queue as the page shows it. ``said`` is what an operator has to know, in words."""

    name: str
    url: str
    ready: str
    running: int
    waits: str
    most_waited: str
    ended: str
    failed: str
    workers: int
    is_closed: bool
    said: list[str]


@admin.register(Queue)
class QueuesAdmin(QueueAdmin[Queue]):
    ordering = ("name",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Queue | None = None) -> bool:
        return False

    def has_control_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "control")

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        control = self.admin_site.admin_view(require_POST(self._control))
        page = self.admin_site.admin_view(self.changelist_view)
        return [path("", page, name=f"{name}_changelist"), path("control/", control, name=f"{name}_control")]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.promptly(request, lambda: self._page(request, extra_context or {}))

    def _page(self, request: HttpRequest, extra_context: dict[str, Any]) -> HttpResponse:
        lines = {name: store().line(name) for name in store().busy_queues()}
        context = {
            **self.admin_site.each_context(request),
            "title": _("Queues"),
            "opts": self.opts,
            "media": self.media,
            "rows": self._rows(lines),
            "only_some": MOST_QUEUES if len(lines) == MOST_QUEUES else None,
            "may_control": self.has_control_permission(request),
            "control_url": self._url("control"),
            "reason_length": REASON_LENGTH,
            **extra_context,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/dbqueue/queue/page.html", context)

    # Closing and opening

    def _control(self, request: HttpRequest) -> HttpResponse:
        if not self.has_control_permission(request):
            raise PermissionDenied
        name, reason = request.POST.get("name", ""), request.POST.get("reason", "").strip()
        try:
            with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
                said = _done(request.POST.get("action", ""), name, reason)
                if said:
                    self.log_change(request, Queue(name=name), said)
        except InvalidQueue as exc:
            self.message_user(request, str(exc), messages.ERROR)
        else:
            self.message_user(
                request,
                _("Queue %(name)s: %(said)s") % {"name": name, "said": said or _("it was open already.")},
                messages.SUCCESS,
            )
        return HttpResponseRedirect(self._url("changelist"))

    # The table

    def _rows(self, lines: Mapping[str, Line]) -> list[Row]:
        now = store().clock()
        workers = store().living_workers(conf.read()[0].heartbeat_timeout, now)
        running: dict[str, int] = defaultdict(int)
        for (name, _worker), number in store().running().items():
            running[name] += number
        hour: dict[str, list[History]] = defaultdict(list)
        totals = store().history(Resolution.MINUTE, now - HOUR).filter(task="", queue_name__gt="")
        for row in totals.only("queue_name", "outcome", "count", "waits"):
            hour[row.queue_name].append(row)
        said = {queue.name: queue for queue in store().said_of_queues()}
        names = {*lines, *running, *hour, *said, *_known_names()}
        empty = Line(0, None)
        return [
            self._row(
                name, lines.get(name, empty), running.get(name, 0), hour.get(name, []), said.get(name), workers, now
            )
            for name in sorted(names)
        ]

    def _row(
        self,
        name: str,
        line: Line,
        running: int,
        hour: Sequence[History],
        queue: Queue | None,
        workers: Collection[Worker],
        now: datetime.datetime,
    ) -> Row:
        waits: list[int] = []
        for row in hour:
            waits = added(waits, row.waits)
        failed = sum(row.count for row in hour if row.outcome == JobStatus.FAILED)
        serving = [worker for worker in workers if is_served(name, [worker])]
        return Row(
            name=name,
            url=self._list(name),
            ready=counted(line.ready),
            running=running,
            waits=display.span(now - line.since if line.since else None),
            most_waited=display.seconds(quantile(waits, 0.95)),
            ended=number_format(sum(row.count for row in hour), force_grouping=True),
            failed=number_format(failed, force_grouping=True),
            workers=len(serving),
            is_closed=queue is not None and (queue.paused_at is not None or queue.last_id is not None),
            said=[*_state(queue), *([_("No worker serves it.")] if line.ready and not serving else [])],
        )

    def _list(self, queue: str) -> str:
        url = self.url_of("job", "changelist")
        return f"{url}?{urlencode({'queue': queue})}" if url else ""


def _known_names() -> set[str]:
    return {DEFAULT_QUEUE, *conf.read()[0].queues, *(task.queue_name for task in registry.registered())}


def _state(queue: Queue | None) -> list[str]:
    if queue is None or (queue.paused_at is None and queue.last_id is None):
        return []
    what = _("It is being drained: what comes now waits.") if queue.last_id is not None else _("It is paused.")
    return [f"{what} {queue.reason}".strip()]


def _done(action: str, name: str, reason: str) -> str:
    """Do it, and say what was done; nothing, if there was nothing to do. Raises InvalidQueue."""
    match action:
        case "pause":
            pause(name, reason)
            return (_("Paused. %s") % reason).strip()
        case "drain":
            drain(name, reason)
            return (_("Drained: what is in it still runs, what comes waits. %s") % reason).strip()
        case "resume":
            return _("Resumed.") if resume(name) else ""
        case _:
            raise InvalidQueue(_("The action is %r; it must be 'pause', 'drain' or 'resume'.") % action)
