"""Jobs: enqueue one, find them, see one with all its attempts, retry and cancel."""

import datetime
import inspect
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from .. import conf, registry
from ..forms import ChooseTaskForm, EnqueueForm, enqueue_form, readable_signature
from ..models import CANCELLABLE, DEFAULT_QUEUE, FINAL, RETRYABLE, Attempt, Job, JobStatus, Worker
from ..results import MAX_ID
from . import display
from .base import ExactFilter, LeanChangeList, QueueAdmin, store
from .operations import CANCEL, RETRY, Operation, operate

MOST_AT_ONCE = 10_000
"""Jobs that one action changes."""

LOOK_AGAIN = 5
LOOK_AGAIN_LATER = 30
"""Seconds after which the page of an unfinished job loads itself anew; the second for one whose time has not come."""

MOST_ATTEMPTS = 50
"""Attempts that a job's page shows, each with up to 100,000 characters of traceback; the latest."""


class StateFilter(ExactFilter):
    title = gettext_lazy("state")
    parameter_name = "state"
    column = "status"

    def known(self) -> Iterable[tuple[str, Any]]:
        return JobStatus.choices


class QueueFilter(ExactFilter):
    """The queues that this process knows of. The list links to any other."""

    title = gettext_lazy("queue")
    parameter_name = "queue"
    column = "queue_name"

    def known(self) -> Iterable[tuple[str, Any]]:
        names = {DEFAULT_QUEUE, *conf.read()[0].queues, *(task.queue_name for task in registry.registered())}
        return [(name, name) for name in sorted(names)]


class TaskFilter(ExactFilter):
    title = gettext_lazy("task")
    parameter_name = "task"
    template = "admin/dbqueue/job/task_filter.html"
    column = "task"

    def known(self) -> Iterable[tuple[str, Any]]:
        return [(task.name, task.name) for task in registry.registered()]


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt as the page shows it."""

    number: int
    state: str
    worker: str
    started: str
    took: str
    error: str = ""
    traceback: str = ""


@admin.register(Job)
class JobAdmin(QueueAdmin[Job]):
    list_display = ("id", "name", "state", "queue", "priority", "attempts", "enqueued", "started", "finished")
    list_display_links = ("id", "name")
    list_filter = (StateFilter, QueueFilter, TaskFilter)
    search_fields = ("id", "task")
    search_help_text = gettext_lazy("An id, or a task by the beginning of its name.")
    actions = ("retry_selected", "cancel_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return store().jobs.order_by(*self.ordering)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[LeanChangeList]:
        return LeanChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        """By id, by the beginning of a task's name, or by any part of the name of a task that is registered here."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.isascii() and term.isdigit():
            return (queryset.filter(pk=int(term)) if int(term) <= MAX_ID else queryset.none()), False
        names = [task.name for task in registry.registered() if term in task.name]
        return queryset.filter(Q(task__startswith=term) | Q(task__in=names)), False

    # Permissions

    def has_retry_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._may(request, "retry") and (obj is None or obj.status in RETRYABLE)

    def has_cancel_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._may(request, "cancel") and (obj is None or obj.status in CANCELLABLE)

    def has_delete_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """A job that has ended, on its own page; the action on a selection would load it whole."""
        return obj is not None and obj.status in FINAL and super().has_delete_permission(request, obj)

    def _may(self, request: HttpRequest, action: str) -> bool:
        codename = get_permission_codename(action, self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    # Enqueue

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method != "POST":
            return super().changeform_view(request, object_id, form_url, extra_context)
        # Django opens the default database's transaction; the job may be in another.
        with store().atomic():
            return super().changeform_view(request, object_id, form_url, extra_context)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        choice = self._choice(request)
        if not choice.is_valid():
            return self._choose(request, choice)
        task = choice.cleaned_data["task"]
        context = {
            "title": _("Enqueue %s") % task.name,
            "signature": f"{task.name}{readable_signature(task)}",
            "documentation": inspect.getdoc(task.func) or "",
            "show_save_and_continue": False,
        }
        return super().add_view(request, form_url, {**context, **(extra_context or {})})

    def _choice(self, request: HttpRequest) -> ChooseTaskForm:
        """The task that the address or the form names, if any."""
        name = request.GET.get("task", request.POST.get("task"))
        return ChooseTaskForm(None if name is None else {"task": name})

    def _choose(self, request: HttpRequest, form: ChooseTaskForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Enqueue a job"),
            "opts": self.opts,
            "add": True,
            "has_view_permission": self.has_view_permission(request),
            "media": self.media,
            "form": form,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/dbqueue/job/choose_task.html", context)

    def get_form(self, request: HttpRequest, obj: Job | None = None, change: bool = False, **kwargs: Any) -> type[Any]:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        choice = self._choice(request)
        if not choice.is_valid():
            raise PermissionDenied(str(choice.errors["task"]))
        return enqueue_form(choice.cleaned_data["task"])

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        if obj is None:
            arguments = list(self.get_form(request).arguments)
            options = (_("Options"), {"fields": ("queue_name", "priority", "run_after")})
            return [(_("Arguments"), {"fields": arguments}), options] if arguments else [options]
        crashes = ("crashes",) if obj.crashes else ()
        return [
            (None, {"fields": ("state", "task_name", "queue", "priority", "attempts", *crashes, "worker_name")}),
            (_("Call"), {"fields": ("positional_arguments", "keyword_arguments", "result")}),
            (_("Times"), {"fields": ("enqueued", "due", "started", "finished", "waited", "ran")}),
        ]

    def save_model(self, request: HttpRequest, obj: Job, form: EnqueueForm, change: bool) -> None:
        result = form.enqueue()
        obj.pk = int(result.id)
        obj.refresh_from_db(using=result.database)
        if result.duplicate:
            said = _("The task is unique: job %s was there already.") % result.id
            self.message_user(request, said, messages.WARNING)

    def response_add(self, request: HttpRequest, obj: Job, post_url_continue: str | None = None) -> HttpResponse:
        visible = self.has_view_permission(request, obj)
        url = self._url("change", obj.pk)
        shown = format_html('<a href="{}">{}</a>', url, obj) if visible else str(obj)
        self.message_user(request, format_html(_("Enqueued: {}."), shown), messages.SUCCESS)
        if "_addanother" in request.POST:
            return HttpResponseRedirect(f"{request.path}?{urlencode({'task': obj.task})}")
        return HttpResponseRedirect(url) if visible else self.response_post_save_add(request, obj)

    # Retry, cancel, delete

    def get_urls(self) -> list[URLPattern]:
        def post(operation: Operation) -> URLPattern:
            view = require_POST(lambda request, job_id: self._operate_on_one(request, operation, job_id))
            name = f"{self.opts.app_label}_{self.opts.model_name}_{operation.name}"
            return path(f"<int:job_id>/{operation.name}/", self.admin_site.admin_view(view), name=name)

        return [post(RETRY), post(CANCEL), *super().get_urls()]

    @admin.action(description=gettext_lazy("Retry selected jobs"), permissions=["retry"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._operate_on_selected(request, RETRY, queryset)

    @admin.action(description=gettext_lazy("Cancel selected jobs"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._operate_on_selected(request, CANCEL, queryset)

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        if not store().delete([obj.pk]):
            raise PermissionDenied("The job has been retried meanwhile.")

    def _operate_on_selected(self, request: HttpRequest, operation: Operation, queryset: QuerySet[Job]) -> None:
        ids = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            said = _("More than %d jobs are selected: nothing was done. Narrow the list with a filter.") % MOST_AT_ONCE
            self.message_user(request, said, messages.ERROR)
        else:
            self._operate(request, operation, ids)

    def _operate_on_one(self, request: HttpRequest, operation: Operation, job_id: int) -> HttpResponse:
        if not self._may(request, operation.name):
            raise PermissionDenied
        if self.get_object(request, str(job_id)) is None:
            self.message_user(request, _("No job has the id %d.") % job_id, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        self._operate(request, operation, [job_id])
        return HttpResponseRedirect(self._url("change", job_id))

    def _operate(self, request: HttpRequest, operation: Operation, ids: Collection[int]) -> None:
        tally = operate(store(), operation, ids, request.user.pk)
        self.message_user(request, str(tally), messages.SUCCESS if tally.changed else messages.WARNING)

    def _url(self, page: str, *args: object) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    # One job

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Job | None = None,
    ) -> HttpResponse:
        if obj is not None:
            runs, waits = _runs(obj), _waits_for_a_worker(obj)
            scheduled = obj.status == JobStatus.SCHEDULED and not waits
            context |= {
                "look_again": None if obj.status in FINAL else LOOK_AGAIN_LATER if scheduled else LOOK_AGAIN,
                "no_worker": waits and not _some_worker_lives(),
                "title": obj.task,
                "subtitle": f"#{obj.pk}",
                "can_retry": self.has_retry_permission(request, obj),
                "can_cancel": self.has_cancel_permission(request, obj),
                "runs": runs,
                "older_runs": obj.attempt - len(runs),
            }
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description=gettext_lazy("State"))
    def state(self, job: Job) -> str:
        return display.badge(job.status, JobStatus(job.status).label)

    @admin.display(description=gettext_lazy("Task"))
    def name(self, job: Job) -> str:
        return display.dotted(job.task)

    @admin.display(description=gettext_lazy("Task"))
    def task_name(self, job: Job) -> str:
        return self._link("task", job.task)

    @admin.display(description=gettext_lazy("Queue"))
    def queue(self, job: Job) -> str:
        return self._link("queue", job.queue_name)

    @admin.display(description=gettext_lazy("Attempts"))
    def attempts(self, job: Job) -> int:
        return job.attempt

    @admin.display(description=gettext_lazy("Worker"))
    def worker_name(self, job: Job) -> str:
        return _worker_names(job, [job.worker_id]).get(job.worker_id or 0, display.NOTHING)

    @admin.display(description=gettext_lazy("Arguments"))
    def positional_arguments(self, job: Job) -> str:
        return display.as_json(job.args)

    @admin.display(description=gettext_lazy("Keyword arguments"))
    def keyword_arguments(self, job: Job) -> str:
        return display.as_json(job.kwargs)

    @admin.display(description=gettext_lazy("Result"))
    def result(self, job: Job) -> str:
        return display.as_json(job.return_value) if job.status == JobStatus.SUCCESSFUL else display.NOTHING

    @admin.display(description=gettext_lazy("Enqueued"))
    def enqueued(self, job: Job) -> str:
        return display.moment(job.enqueued_at)

    @admin.display(description=gettext_lazy("Run after"))
    def due(self, job: Job) -> str:
        return display.moment(job.run_after)

    @admin.display(description=gettext_lazy("Started"))
    def started(self, job: Job) -> str:
        return display.moment(job.started_at)

    @admin.display(description=gettext_lazy("Finished"))
    def finished(self, job: Job) -> str:
        return display.moment(job.finished_at)

    @admin.display(description=gettext_lazy("Waited"))
    def waited(self, job: Job) -> str:
        """From the moment that the job could have started to its first start."""
        could_start = max(job.enqueued_at, job.run_after or job.enqueued_at)
        return display.span((job.started_at or job.finished_at or store().clock()) - could_start)

    @admin.display(description=gettext_lazy("Ran"))
    def ran(self, job: Job) -> str:
        """The last attempt."""
        if job.unrecorded_worker_id() is None and job.status != JobStatus.FAILED:
            return display.NOTHING
        return display.span(_took(job))

    def _link(self, parameter: str, value: str) -> str:
        """To the list of what has this value, also one that no filter offers."""
        return format_html('<a href="{}?{}">{}</a>', self._url("changelist"), urlencode({parameter: value}), value)


def _waits_for_a_worker(job: Job) -> bool:
    due = job.status == JobStatus.SCHEDULED and job.run_after is not None and job.run_after <= store().clock()
    return job.status == JobStatus.READY or due


def _some_worker_lives() -> bool:
    heard = store().clock() - datetime.timedelta(seconds=conf.read()[0].heartbeat_timeout)
    return Worker.objects.using(store().alias).alive().filter(heartbeat_at__gte=heard).exists()


def _took(job: Job) -> datetime.timedelta | None:
    if job.last_attempted_at is None:
        return None
    return (job.finished_at or store().clock()) - job.last_attempted_at


def _runs(job: Job) -> list[Run]:
    """Every attempt, the latest first: that of the job's own row, if it has one, and those that are recorded."""
    recorded: list[Attempt] = list(job.attempt_set.order_by("-id")[:MOST_ATTEMPTS])
    current = job.unrecorded_worker_id()
    names = _worker_names(job, [current, *(attempt.worker_id for attempt in recorded)])
    runs = [_recorded_run(attempt, names) for attempt in recorded]
    if current is not None:
        runs.insert(0, _current_run(job, names[current]))
    return runs


def _current_run(job: Job, worker: str) -> Run:
    state = display.badge(job.status, JobStatus(job.status).label)
    return Run(job.attempt, state, worker, display.moment(job.last_attempted_at), display.span(_took(job)))


def _recorded_run(attempt: Attempt, names: dict[int, str]) -> Run:
    return Run(
        attempt.number,
        display.badge(JobStatus.FAILED, JobStatus.FAILED.label),
        names[attempt.worker_id],
        display.moment(attempt.started_at),
        display.span(attempt.ended_at - attempt.started_at),
        attempt.exception_class_path,
        attempt.traceback,
    )


def _worker_names(job: Job, ids: Iterable[int | None]) -> dict[int, str]:
    """The workers' names by id; for one whose row has gone, its id."""
    wanted = {pk for pk in ids if pk is not None}
    if not wanted:
        return {}
    found = Worker.objects.using(job._state.db).filter(pk__in=wanted).values_list("pk", "name")
    return {pk: f"#{pk}" for pk in wanted} | dict(found)
