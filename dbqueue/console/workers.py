"""Workers: who is there, what each is doing, and how long ago it was heard of; quieting and stopping one."""

import datetime
from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.main import ChangeList
from django.db import router, transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..models import JobStatus, Worker, WorkerRequest
from . import display
from .base import PromptChangeList, QueueAdmin, store

MOST_JOBS = 100
"""Running jobs that a worker's page names, the longest first."""


class LifeFilter(admin.SimpleListFilter):
    """Shows the living unless asked: every start of a process leaves a row."""

    title = gettext_lazy("state")
    parameter_name = "state"

    CHOICES = {
        None: gettext_lazy("Alive"),
        "stopped": gettext_lazy("Stopped"),
        "lost": gettext_lazy("Lost"),
        "all": gettext_lazy("All"),
    }

    def lookups(self, request: HttpRequest, model_admin: "admin.ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(value, label) for value, label in self.CHOICES.items() if value]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for value, label in self.CHOICES.items():
            change = {"new_params": {self.parameter_name: value}} if value else {"remove": [self.parameter_name]}
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string(**change),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "all":
                return queryset
            case "stopped":
                return queryset.filter(stopped_at__isnull=False, lost=False)
            case "lost":
                return queryset.filter(lost=True)
            case _:
                return queryset.filter(stopped_at=None)


class WorkerChangeList(PromptChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """With the time by the clock that wrote the heartbeats, once for all rows."""
        super().get_results(request)
        now = store().clock()
        self.result_list = [_looked_at(worker, now) for worker in self.result_list]


@admin.register(Worker)
class WorkerAdmin(QueueAdmin[Worker]):
    list_display = ("name", "state", "heard", "hostname", "pid", "served", "busy", "started")
    list_filter = (LifeFilter,)
    fieldsets = ((None, {"fields": (*list_display, "stopped", "leases_lost", "current_jobs")}),)
    actions = ("quiet_selected", "stop_selected", "claim_again_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        held = store().jobs.filter(status=JobStatus.RUNNING, worker_id=OuterRef("pk"), ahead=False).order_by()
        used = Subquery(held.values("worker_id").annotate(number=Count("pk")).values("number"))
        workers = Worker.objects.using(store().alias).annotate(used=Coalesce(used, 0))
        return workers.order_by(*self.ordering)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return WorkerChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Worker | None:
        worker = super().get_object(request, object_id, from_field)
        return _looked_at(worker, store().clock()) if worker else None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Worker | None = None) -> bool:
        return False

    # What a worker may be asked

    def has_control_permission(self, request: HttpRequest) -> bool:
        return self._may(request, "control")

    @admin.action(description=gettext_lazy("Quiet: claim nothing more"), permissions=["control"])
    def quiet_selected(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        self._ask(request, queryset, WorkerRequest.QUIET, _("Asked to claim nothing more."))

    @admin.action(description=gettext_lazy("Stop: finish what runs, and end"), permissions=["control"])
    def stop_selected(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        self._ask(request, queryset, WorkerRequest.STOP, _("Asked to stop."))

    @admin.action(description=gettext_lazy("Claim again"), permissions=["control"])
    def claim_again_selected(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        self._ask(request, queryset, None, _("Asked to claim again."))

    def _ask(self, request: HttpRequest, queryset: QuerySet[Worker], wanted: WorkerRequest | None, said: str) -> None:
        with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
            for worker in queryset.order_by("pk"):
                if store().ask_worker(worker.pk, wanted):
                    self.log_change(request, worker, said)
                    self.message_user(request, f"{worker}: {said}", messages.SUCCESS)
                else:
                    self.message_user(request, _("%s has ended already.") % worker, messages.WARNING)

    @admin.display(description=gettext_lazy("State"))
    def state(self, worker: Worker) -> str:
        if worker.lost:
            return display.badge("lost", _("Lost"))
        if worker.stopped_at:
            return display.badge("stopped", _("Stopped"))
        if _silence(worker).total_seconds() > conf.read()[0].heartbeat_timeout:
            return display.badge("silent", _("Silent"))
        if worker.asked:
            return display.badge(worker.asked, _("Quiet") if worker.asked == WorkerRequest.QUIET else _("Stopping"))
        return display.badge("alive", _("Alive"))

    @admin.display(description=gettext_lazy("Last heard"))
    def heard(self, worker: Worker) -> str:
        if worker.stopped_at:
            return display.moment(worker.heartbeat_at)
        return _("%s ago") % display.span(_silence(worker))

    @admin.display(description=gettext_lazy("Queues"))
    def served(self, worker: Worker) -> str:
        return worker.queues or _("all")

    @admin.display(description=gettext_lazy("Threads in use"))
    def busy(self, worker: Worker) -> str:
        used: int = worker.used  # type: ignore[attr-defined]
        return _("%(used)d of %(all)d") % {"used": used, "all": worker.threads}

    @admin.display(description=gettext_lazy("Current jobs"))
    def current_jobs(self, worker: Worker) -> str:
        held = store().jobs.filter(status=JobStatus.RUNNING, worker_id=worker.pk, ahead=False)
        jobs = held.order_by("last_attempted_at").values_list("pk", "task", "last_attempted_at")[:MOST_JOBS]
        now: datetime.datetime = worker.now  # type: ignore[attr-defined]
        lines = ((self._link_to_job(pk), task, display.span(now - since)) for pk, task, since in jobs if since)
        return format_html_join(mark_safe("<br>"), "{} {} {}", lines) or display.NOTHING

    def _link_to_job(self, pk: int) -> str:
        url = self.url_of("job", "change", pk)
        return format_html('<a href="{}">#{}</a>', url, pk) if url else f"#{pk}"

    @admin.display(description=gettext_lazy("Started"))
    def started(self, worker: Worker) -> str:
        return display.moment(worker.started_at)

    @admin.display(description=gettext_lazy("Stopped"))
    def stopped(self, worker: Worker) -> str:
        return display.moment(worker.stopped_at)


def _looked_at(worker: Worker, now: datetime.datetime) -> Worker:
    worker.now = now  # type: ignore[attr-defined]
    return worker


def _silence(worker: Worker) -> datetime.timedelta:
    now: datetime.datetime = worker.now  # type: ignore[attr-defined]
    return now - worker.heartbeat_at
