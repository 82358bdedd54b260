"""Workers: who is there, since when, and how long ago each was heard of. Read only."""

import datetime
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import DateTimeField, QuerySet, Value
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..models import Worker
from . import display
from .base import QueueAdmin, store


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


@admin.register(Worker)
class WorkerAdmin(QueueAdmin[Worker]):
    list_display = ("name", "state", "heard", "hostname", "pid", "served", "threads", "started")
    list_filter = (LifeFilter,)
    fieldsets = ((None, {"fields": (*list_display, "stopped", "leases_lost")}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        # The time by the clock that wrote the heartbeats, once for all rows.
        now = Value(store().clock(), output_field=DateTimeField())
        return Worker.objects.using(store().alias).annotate(now=now).order_by(*self.ordering)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Worker | None = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("State"))
    def state(self, worker: Worker) -> str:
        if worker.lost:
            return display.badge("lost", _("Lost"))
        if worker.stopped_at:
            return display.badge("stopped", _("Stopped"))
        if _silence(worker).total_seconds() > conf.read()[0].heartbeat_timeout:
            return display.badge("silent", _("Silent"))
        return display.badge("alive", _("Alive"))

    @admin.display(description=gettext_lazy("Last heard"))
    def heard(self, worker: Worker) -> str:
        if worker.stopped_at:
            return display.moment(worker.heartbeat_at)
        return _("%s ago") % display.span(_silence(worker))

    @admin.display(description=gettext_lazy("Queues"))
    def served(self, worker: Worker) -> str:
        return worker.queues or _("all")

    @admin.display(description=gettext_lazy("Started"))
    def started(self, worker: Worker) -> str:
        return display.moment(worker.started_at)

    @admin.display(description=gettext_lazy("Stopped"))
    def stopped(self, worker: Worker) -> str:
        return display.moment(worker.stopped_at)


def _silence(worker: Worker) -> datetime.timedelta:
    now: datetime.datetime = worker.now  # type: ignore[attr-defined]
    return now - worker.heartbeat_at
