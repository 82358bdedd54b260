"""Jobs: enqueue one, find them, see one with all its attempts, retry and cancel."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from .. import conf
from ..encoding import told
from ..models import FINAL, GROUP, Attempt, Job, JobStatus, LogLine
from ..redaction import known
from . import bulk, display, export, life
from .base import LostRace, counted, store
from .filters import FILTERS
from .job_fields import JobFields, call_of
from .job_list import COLUMNS, JobChangeList
from .operations import CANCEL, DELETE, INTERRUPT, RETRY, RUN_NOW, Operation, moving_to, operate, refusal_of_queue

MOST_AT_ONCE = 500
"""Jobs that one action changes, in one transaction; for more there are bulk operations."""

LOOK_AGAIN = 5
LOOK_AGAIN_LATER = 30
"""Seconds after which the page of an unfinished job loads itself anew; the second for one whose time has not come."""


@dataclass(frozen=True, slots=True)
class Tab:
    """A state of the list: its name, where it is, how many there are."""

    label: str
    url: str
    number: str
    is_current: bool
    meaning: "Promise | str" = ""


class JobActionForm(ActionForm):
    """The action, and what one of them needs."""

    to_queue = forms.CharField(label=gettext_lazy("Queue to move to:"), required=False, max_length=conf.QUEUE_LENGTH)


@admin.register(Job)
class JobAdmin(JobFields):
    class Media:
        js = ("dbqueue/live.js",)

    list_display = COLUMNS[""]
    list_display_links = ("id", "name")
    list_filter = FILTERS
    search_fields = ("id", "task")
    search_help_text = gettext_lazy(
        "An id, or a part of a task's name, or any of: state: task: queue: worker: error: since:2h before:7d "
        "args.NAME: (with task: also what was given by position)"
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
        now, call, told = store().clock(), call_of(job), self.may_see_calls(request)
        job.seen_at = now  # type: ignore[attr-defined]
        runs = life.runs_of(job, attempts, call, now)
        runs = runs if told else life.without_tracebacks(runs)
        job.runs = runs  # type: ignore[attr-defined]
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
            "is_group": job.task == GROUP,
            "workflow_url": self.url_of("workflow", "change", job.workflow_id),
        }
