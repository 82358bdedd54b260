"""Workers: who is there, what each is doing, and how long ago it was heard of; quieting and stopping one."""

import datetime
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from .. import conf
from ..claim import Selection
from ..models import JobStatus, Worker, WorkerRequest
from . import display
from .base import PromptChangeList, QueueAdmin, store

MOST_JOBS = 100
"""Running jobs that a worker's page names, the longest first."""


LOOK_AGAIN = 5
"""Seconds after which the page of a worker looks again."""


class Request(NamedTuple):
    """What an operator may ask of a worker: the button, what it means, and what is said when it is done."""

    name: str
    wanted: WorkerRequest | None
    label: "Promise | str"
    meaning: "Promise | str"
    done: "Promise | str"


QUIET = Request(
    "quiet",
    WorkerRequest.QUIET,
    gettext_lazy("Quiet"),
    gettext_lazy("Claim nothing more"),
    gettext_lazy("Asked to claim nothing more."),
)
STOP = Request(
    "stop",
    WorkerRequest.STOP,
    gettext_lazy("Stop"),
    gettext_lazy("Finish what runs, and end"),
    gettext_lazy("Asked to stop."),
)
CLAIM_AGAIN = Request(
    "claim_again",
    None,
    gettext_lazy("Claim again"),
    gettext_lazy("Go on as before"),
    gettext_lazy("Asked to claim again."),
)
REQUESTS = (QUIET, STOP, CLAIM_AGAIN)


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
    class Media:
        js = ("dbqueue/live.js",)

    # The name has the host's and the process's id, unless somebody gave it another.
    list_display = ("name", "state", "heard", "served", "busy", "started")
    list_filter = (LifeFilter,)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "name",
                    "state",
                    "heard",
                    "hostname",
                    "pid",
                    "served",
                    "busy",
                    "current_jobs",
                    "started",
                    "stopped",
                    "refused",
                )
            },
        ),
    )
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
        self._ask(request, queryset, QUIET.wanted, str(QUIET.done))

    @admin.action(description=gettext_lazy("Stop: finish what runs, and end"), permissions=["control"])
    def stop_selected(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        self._ask(request, queryset, STOP.wanted, str(STOP.done))

    @admin.action(description=gettext_lazy("Claim again"), permissions=["control"])
    def claim_again_selected(self, request: HttpRequest, queryset: QuerySet[Worker]) -> None:
        self._ask(request, queryset, CLAIM_AGAIN.wanted, str(CLAIM_AGAIN.done))

    def get_urls(self) -> list[URLPattern]:
        def post(wanted: Request) -> URLPattern:
            view = require_POST(lambda request, pk: self._ask_one(request, wanted, pk))
            name = f"{self.opts.app_label}_{self.opts.model_name}_{wanted.name}"
            return path(f"<int:pk>/{wanted.name}/", self.admin_site.admin_view(view), name=name)

        return [*map(post, REQUESTS), *super().get_urls()]

    def _ask_one(self, request: HttpRequest, wanted: "Request", pk: int) -> HttpResponse:
        if not self.has_control_permission(request):
            raise PermissionDenied
        workers = self.get_queryset(request).filter(pk=pk)
        if not workers:
            self.message_user(request, _("No worker has the id %d.") % pk, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        self._ask(request, workers, wanted.wanted, str(wanted.done))
        return HttpResponseRedirect(self._url("change", pk))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Worker | None = None,
    ) -> HttpResponse:
        if obj is not None and obj.stopped_at is None:
            context |= {"look_again": LOOK_AGAIN, "requests": self._offered(request, obj)}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _offered(self, request: HttpRequest, worker: Worker) -> list[tuple[str, "Promise | str", "Promise | str"]]:
        """What this user may ask of this worker, and has not been asked of it already."""
        if not self.has_control_permission(request):
            return []
        return [(one.name, one.label, one.meaning) for one in REQUESTS if (one.wanted or "") != worker.asked]

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
        selection = Selection.parse(worker.queues)
        served = ", ".join(selection.include) or _("all")
        if not selection.exclude:
            return served
        return _("%(served)s but %(others)s") % {"served": served, "others": ", ".join(selection.exclude)}

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

    @admin.display(description=gettext_lazy("Outcomes refused"))
    def refused(self, worker: Worker) -> str:
        """Of jobs that had been taken from it."""
        return number_format(worker.leases_lost, force_grouping=True)

    @admin.display(description=gettext_lazy("Stopped"))
    def stopped(self, worker: Worker) -> str:
        return display.moment(worker.stopped_at)


def _looked_at(worker: Worker, now: datetime.datetime) -> Worker:
    worker.now = now  # type: ignore[attr-defined]
    return worker


def _silence(worker: Worker) -> datetime.timedelta:
    now: datetime.datetime = worker.now  # type: ignore[attr-defined]
    return now - worker.heartbeat_at
