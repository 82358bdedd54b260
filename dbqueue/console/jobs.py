"""Jobs: enqueue one, find them, see one with all its attempts, retry and cancel."""

import datetime
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList, ChangeListSearchForm
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from .. import conf
from ..encoding import told
from ..forms import OPTIONS
from ..models import FINAL, Attempt, Job, JobStatus, LogLine, Worker
from ..redaction import Call, key_of, known, redacted, result_of
from ..search import Search
from . import bulk, display, errors, export, life
from .base import LostRace, PromptChangeList, counted, store
from .calls import CallPages
from .filters import FILTERS, NEWEST, ORDERS, Window, search_of, window_of
from .operations import CANCEL, DELETE, INTERRUPT, RETRY, RUN_NOW, Operation, moving_to, operate, refusal_of_queue

MOST_AT_ONCE = 500
"""Jobs that one action changes, in one transaction; for more there are bulk operations."""

LOOK_AGAIN = 5
LOOK_AGAIN_LATER = 30
"""Seconds after which the page of an unfinished job loads itself anew; the second for one whose time has not come."""

RARE = {
    "why_cancelled": "reason",
    "how_far": "progress",
    "asked_to_end": "cancel_requested_at",
    "crashes": "crashes",
    "made_by": "schedule_id",
    "part_of": "workflow_id",
    "after_these": "workflow_id",
    "before_these": "workflow_id",
}
"""Fields that most jobs have nothing to show for, each with the column that tells."""

TOLD = ("why_cancelled", "how_far")
"""Those of them in which a task may tell its arguments."""

WISHES = ("external_id", "expires_at", "unique_key", "concurrency_key", "rate_key", "options")
"""What was asked for beside the ordinary."""

KEYS = {name: f"shown_{name}" for name in ("unique_key", "concurrency_key", "rate_key", "options")}
"""Those of them that may tell arguments, each with what shows it."""

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


@dataclass(frozen=True, slots=True)
class Tab:
    """A state of the list: its name, where it is, how many there are."""

    label: str
    url: str
    number: str
    is_current: bool
    meaning: "Promise | str" = ""


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


class JobActionForm(ActionForm):
    """The action, and what one of them needs."""

    to_queue = forms.CharField(label=gettext_lazy("Queue to move to:"), required=False, max_length=conf.QUEUE_LENGTH)


@admin.register(Job)
class JobAdmin(CallPages):
    class Media:
        js = ("dbqueue/live.js",)

    list_display = COLUMNS[""]
    list_display_links = ("id", "name")
    list_filter = FILTERS
    search_fields = ("id", "task")
    search_help_text = gettext_lazy(
        "An id, or a part of a task's name, or any of: state: task: queue: worker: error: args.NAME: since:2h before:7d"
    )
    actions = (
        "retry_selected",
        "run_selected_now",
        "cancel_selected",
        "move_selected",
        "delete_selected_jobs",
        "export_selected",
    )
    action_form = JobActionForm

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return store().jobs.order_by(*self.ordering)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return JobChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        """The list reads what is typed together with its filters."""
        return queryset, False

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return COLUMNS.get(request.GET.get("state", ""), COLUMNS[""])

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """With what the list has beside Django's own; asked for here, under the list's clock."""
        found: Any = super().get_changelist_instance(request)
        found.tabs, found.bulk_url = self._tabs(request), self._bulk_url(request)
        return found  # type: ignore[no-any-return]

    def _tabs(self, request: HttpRequest) -> list[Tab]:
        """The states, with the other filters as they are.

        Only what has an index of its own is counted, and not beside other filters, to which no count would belong.
        """
        query = request.GET.copy()
        current = query.pop("state", [""])[-1]
        query.pop("p", None)
        is_counted = not any(query.get(name) for name in query)
        tabs = [Tab(str(_("All")), f"?{query.urlencode()}", "", is_current=not current)]
        for state in JobStatus:
            query["state"] = state
            number = counted(store().count(state)) if is_counted and state != JobStatus.SUCCESSFUL else ""
            url, meaning = f"?{query.urlencode()}", display.MEANINGS[state]
            tabs.append(Tab(str(state.label), url, number, is_current=state == current, meaning=meaning))
        return tabs

    def _bulk_url(self, request: HttpRequest) -> str:
        """To the page that does something to all that the list shows; empty, where this user may do nothing."""
        query = request.GET.copy()
        for name in set(query) - bulk.KNOWN:  # Django's own, as the number of the page
            del query[name]
        return f"{self._url('bulk')}?{query.urlencode()}" if bulk.allowed(request.user) else ""

    # Permissions

    def has_retry_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._allows(request, RETRY, obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._allows(request, CANCEL, obj)

    def has_run_now_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._allows(request, RUN_NOW, obj)

    def has_discard_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        return self._allows(request, DELETE, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """On a job's own page. Django's own action would load the selection whole; there is another for it."""
        return obj is not None and self._allows(request, DELETE, obj)

    def _allows(self, request: HttpRequest, operation: Operation, job: Job | None) -> bool:
        """Of a step whose turn never came, or that is to be deleted alone, the workflow's page tells."""
        may = self._may(request, operation.permission)
        if job is None or not may or job.status not in operation.leaves:
            return may and job is None
        return job.workflow_id is None or operation.meant(Job.objects.using(job._state.db).filter(pk=job.pk)).exists()

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        if obj is None:
            arguments = list(self.get_form(request).arguments)
            options = (_("Options"), {"fields": (*OPTIONS, "unique_key")})
            return [(_("Arguments"), {"fields": arguments}), options] if arguments else [options]
        told = self.may_see_calls(request)
        rare = [name for name, column in RARE.items() if getattr(obj, column) and (told or name not in TOLD)]
        wishes = [name for name in WISHES if getattr(obj, name) and (told or name not in KEYS)]
        call = (_("Call"), {"fields": ("positional_arguments", "keyword_arguments", "result")})
        return [
            (None, {"fields": ("state", *rare, "task_name", "queue", "priority", "attempts", "worker_name")}),
            *([call] if told else []),
            (_("Times"), {"fields": ("enqueued", "due", "started", "finished", *_spans_of(obj))}),
            *([(_("Options"), {"fields": [KEYS.get(name, name) for name in wishes]})] if wishes else []),
        ]

    # What is done to jobs

    def get_urls(self) -> list[URLPattern]:
        def post(operation: Operation) -> URLPattern:
            view = require_POST(lambda request, job_id: self._operate_on_one(request, operation, job_id))
            name = f"{self.opts.app_label}_{self.opts.model_name}_{operation.name}"
            return path(f"<int:job_id>/{operation.name}/", self.admin_site.admin_view(view), name=name)

        confirm = self.admin_site.admin_view(lambda request: bulk.confirm(self, request))
        name = f"{self.opts.app_label}_{self.opts.model_name}_bulk"
        return [post(RETRY), post(RUN_NOW), post(CANCEL), path("bulk/", confirm, name=name), *super().get_urls()]

    @admin.action(description=gettext_lazy("Retry selected jobs"), permissions=["retry"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._operate_on_selected(request, RETRY, queryset)

    @admin.action(description=gettext_lazy("Run selected jobs now"), permissions=["run_now"])
    def run_selected_now(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._operate_on_selected(request, RUN_NOW, queryset)

    @admin.action(description=gettext_lazy("Cancel selected jobs"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._operate_on_selected(request, CANCEL, queryset)

    @admin.action(description=gettext_lazy("Move selected jobs to a queue"), permissions=["run_now"])
    def move_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        queue_name = request.POST.get("to_queue", "")
        if not queue_name:
            self.message_user(request, _("Type the queue to move them to: nothing was done."), messages.ERROR)
            return
        if why := refusal_of_queue(queue_name):
            said = _("%r is no queue to move jobs to: nothing was done.") % queue_name
            self.message_user(request, f"{said} {why}", messages.ERROR)
            return
        self._operate_on_selected(request, moving_to(queue_name), queryset)

    @admin.action(description=gettext_lazy("Delete selected jobs"), permissions=["discard"])
    def delete_selected_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        if "confirmed" in request.POST:
            self._operate_on_selected(request, DELETE, queryset)
            return None
        jobs = list(queryset.only("pk", "task", "status")[: MOST_AT_ONCE + 1])
        if len(jobs) > MOST_AT_ONCE:
            self._too_many(request)
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Delete selected jobs"),
            "opts": self.opts,
            "media": self.media,
            "jobs": jobs,
            "back": request.get_full_path(),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/dbqueue/job/delete_selected.html", context)

    @admin.action(description=gettext_lazy("Download selected jobs as CSV"), permissions=["view"])
    @sensitive_variables()
    def export_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        try:
            jobs = list(queryset.defer(None).prefetch_related("attempt_set")[: MOST_AT_ONCE + 1])
        except ValueError as exc:  # somebody else has written what Python's json doesn't read
            self.message_user(request, _("One of these jobs can't be read: %s") % exc, messages.ERROR)
            return None
        if len(jobs) > MOST_AT_ONCE:
            self._too_many(request)
            return None
        return export.as_csv(jobs, with_calls=self.may_see_calls(request))

    def _operate_on_selected(self, request: HttpRequest, operation: Operation, queryset: QuerySet[Job]) -> None:
        ids = list(queryset.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            self._too_many(request)
        else:
            self._operate(request, operation, ids)

    def _too_many(self, request: HttpRequest) -> None:
        said = _("More than %d jobs are selected: nothing was done. Use “Change all that match”.") % MOST_AT_ONCE
        self.message_user(request, said, messages.ERROR)

    def _operate_on_one(self, request: HttpRequest, operation: Operation, job_id: int) -> HttpResponse:
        if not self._may(request, operation.permission):
            raise PermissionDenied
        if self.get_object(request, str(job_id)) is None:
            self.message_user(request, _("No job has the id %d.") % job_id, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        chosen = INTERRUPT if operation is CANCEL and "interrupt" in request.POST else operation
        self._operate(request, chosen, [job_id])
        return HttpResponseRedirect(self._url("change", job_id))

    def _operate(self, request: HttpRequest, operation: Operation, ids: Collection[int]) -> None:
        try:
            tally = operate(store(), operation, ids, request.user.pk)
        except IntegrityError as exc:
            self._refused(request, exc)
            return
        self.message_user(request, str(tally), messages.SUCCESS if tally.changed or tally.asked else messages.WARNING)

    def _refused(self, request: HttpRequest, exc: IntegrityError) -> None:
        said = _("Nothing was done, as something refers to it: %s") % told(exc)
        self.message_user(request, said, messages.ERROR)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method != "POST":
            return super().delete_view(request, object_id, extra_context)
        try:
            with store().atomic():
                response = super().delete_view(request, object_id, extra_context)
                store().refuse_early()
            return response
        except IntegrityError as exc:
            self._refused(request, exc)
            return HttpResponseRedirect(self._url("change", object_id))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Attempts and lines of the log are told as numbers: a job may have tens of thousands."""
        ids = [one.pk for one in objs]
        counts: dict[Any, int] = {
            model._meta.verbose_name_plural: model._default_manager.using(store().alias).filter(job_id__in=ids).count()
            for model in (Attempt, LogLine)
        }
        return [str(one) for one in objs], {key: number for key, number in counts.items() if number}, set(), []

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        if not store().delete([obj.pk]):
            raise LostRace(_("Nothing was deleted: the job has been retried meanwhile."))

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
            context |= self._told_of(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _told_of(self, request: HttpRequest, job: Job) -> dict[str, Any]:
        """What a job's page tells beside its fields."""
        whole = request.GET.get("traceback", "")
        attempts = life.attempts_of(job, int(whole) if len(whole) < 19 and whole.isdecimal() else None)
        now, call, told = store().clock(), _call_of(job), self.may_see_calls(request)
        job.seen_at = now  # type: ignore[attr-defined]
        runs = life.runs_of(job, attempts, call, now)
        runs = runs if told else life.without_tracebacks(runs)
        is_early = job.status == JobStatus.SCHEDULED and job.run_after is not None and job.run_after > now
        return {
            "look_again": None if job.status in FINAL else LOOK_AGAIN_LATER if is_early else LOOK_AGAIN,
            "why": life.why_it_waits(store(), job, now),
            "title": job.task,
            "subtitle": f"#{job.pk}",
            "can_retry": self.has_retry_permission(request, job),
            "can_run_now": self.has_run_now_permission(request, job),
            "can_cancel": self.has_cancel_permission(request, job),
            "can_interrupt": job.status == JobStatus.RUNNING,
            "can_edit": self.may_edit(request, job),
            "can_clone": self.may_clone(request, job),
            "clone_query": urlencode({"task": job.task, "from": str(job.pk)}),
            "timeline": life.timeline(job, runs, call.secrets.scrub(job.reason) if told else "", now),
            "runs": runs,
            "older_runs": job.attempt - len(runs),
            "log": life.log_of(job, call) if told else [],
            "is_told": told,
            "is_known": known(job.task) is not None,
        }

    @admin.display(description=gettext_lazy("State"))
    def state(self, job: Job) -> str:
        return display.badge(job.status, JobStatus(job.status).label)

    @admin.display(description=gettext_lazy("Error"))
    def last_error(self, job: Job) -> str:
        return errors.last_line(job) or display.NOTHING

    @admin.display(description=gettext_lazy("Worker"))
    def runner(self, job: Job) -> str:
        return getattr(job, "runner_name", None) or f"#{job.worker_id}"

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
    def attempts(self, job: Job) -> str:
        used = job.attempt - job.earlier_attempts
        return f"{job.attempt}" if job.max_attempts == 1 else _("%d of %d") % (used, job.max_attempts)

    @admin.display(description=gettext_lazy("Reason"))
    def why_cancelled(self, job: Job) -> str:
        return _call_of(job).secrets.scrub(job.reason)

    @admin.display(description=gettext_lazy("Progress"))
    def how_far(self, job: Job) -> str:
        told = job.progress or {}
        message = _call_of(job).secrets.scrub(str(told.get("message", "")))
        return display.progress({**told, "message": message})

    @admin.display(description=gettext_lazy("Asked to stop"))
    def asked_to_end(self, job: Job) -> str:
        return display.moment(job.cancel_requested_at)

    @admin.display(description=gettext_lazy("Made by the schedule"))
    def made_by(self, job: Job) -> str:
        name = store().schedules.filter(pk=job.schedule_id or 0).values_list("name", flat=True).first()
        url = self.url_of("schedule", "change", job.schedule_id)
        if name is None or not url:
            return name or f"#{job.schedule_id}"
        return format_html('<a href="{}">{}</a>, {}', url, name, display.moment(job.slot))

    @admin.display(description=gettext_lazy("Step of the workflow"))
    def part_of(self, job: Job) -> str:
        url = self.url_of("workflow", "change", job.workflow_id)
        return format_html('<a href="{}">#{}</a>', url, job.workflow_id) if url else f"#{job.workflow_id}"

    @admin.display(description=gettext_lazy("Comes after"))
    def after_these(self, job: Job) -> str:
        return self._steps(life.steps_before(store(), job))

    @admin.display(description=gettext_lazy("Followed by"))
    def before_these(self, job: Job) -> str:
        return self._steps(life.steps_after(store(), job))

    def _steps(self, steps: Collection[Job]) -> str:
        shown = [(self._url("change", step.pk), step, self.state(step)) for step in list(steps)[: life.MOST_NEIGHBOURS]]
        lines = format_html_join(mark_safe("<br>"), '<a href="{}">{}</a> {}', shown)
        if len(steps) > life.MOST_NEIGHBOURS:
            return format_html("{}<br>{}", lines, _("and more"))
        return lines or display.NOTHING

    @admin.display(description=gettext_lazy("Worker"))
    def worker_name(self, job: Job) -> str:
        return life.worker_names(job, [job.worker_id]).get(job.worker_id or 0, display.NOTHING)

    @admin.display(description=gettext_lazy("Arguments"))
    def positional_arguments(self, job: Job) -> str:
        return display.as_json(_call_of(job).args)

    @admin.display(description=gettext_lazy("Keyword arguments"))
    def keyword_arguments(self, job: Job) -> str:
        return display.as_json(_call_of(job).kwargs)

    @admin.display(description=gettext_lazy("Result"))
    def result(self, job: Job) -> str:
        if job.status != JobStatus.SUCCESSFUL:
            return display.NOTHING
        return display.as_json(result_of(job, _call_of(job)))

    @admin.display(description=gettext_lazy("Unique key"))
    def shown_unique_key(self, job: Job) -> str:
        return key_of(job, job.unique_key, _call_of(job))

    @admin.display(description=gettext_lazy("Concurrency key"))
    def shown_concurrency_key(self, job: Job) -> str:
        return key_of(job, job.concurrency_key, _call_of(job))

    @admin.display(description=gettext_lazy("Rate key"))
    def shown_rate_key(self, job: Job) -> str:
        return key_of(job, job.rate_key, _call_of(job))

    @admin.display(description=gettext_lazy("Options"))
    def shown_options(self, job: Job) -> str:
        return display.as_json(_call_of(job).secrets.scrub_value(job.options))

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
        return display.span((job.started_at or job.finished_at or _seen_at(job)) - could_start)

    @admin.display(description=gettext_lazy("Waiting for"))
    def waiting_for(self, job: Job) -> str:
        return self.waited(job)

    @admin.display(description=gettext_lazy("Running for"))
    def running_for(self, job: Job) -> str:
        return self.ran(job)

    @admin.display(description=gettext_lazy("Ran"))
    def ran(self, job: Job) -> str:
        """The last attempt."""
        if job.unrecorded_worker_id() is None and job.status != JobStatus.FAILED:
            return display.NOTHING
        return display.span(_took(job))

    def _link(self, parameter: str, value: str) -> str:
        """To the list of what has this value, also one that no filter offers."""
        return format_html('<a href="{}?{}">{}</a>', self._url("changelist"), urlencode({parameter: value}), value)


def _spans_of(job: Job) -> tuple[str, str]:
    """The fields for how long it waited and ran, or does so now."""
    has_waited = job.started_at is not None or job.status in FINAL
    return "waited" if has_waited else "waiting_for", "running_for" if job.status == JobStatus.RUNNING else "ran"


def _call_of(job: Job) -> Call:
    return redacted(job.task, job.args, job.kwargs)


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


def _took(job: Job) -> datetime.timedelta | None:
    if job.last_attempted_at is None:
        return None
    return (job.finished_at or _seen_at(job)) - job.last_attempted_at


def _seen_at(job: Job) -> datetime.datetime:
    """The moment that the whole page is about."""
    seen_at: datetime.datetime = getattr(job, "seen_at", None) or store().clock()
    return seen_at
