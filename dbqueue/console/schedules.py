"""Periodic jobs: see them, make them, change them, switch them off, and run one now."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from .. import scheduling
from ..definition import Task
from ..exceptions import DBQueueError
from ..forms import ChooseTaskForm, ScheduleForm, plan_form
from ..models import JobStatus, Schedule, Source
from ..redaction import known, redacted
from ..schedule import Cron
from ..store import ANY_QUEUE
from . import display
from .base import LostRace, store
from .calls import ChooseTask, told_of

CODE_ONLY = ("name", "task")
"""What a schedule of the code has from there alone."""

TOLD = ("origin", "in_words", "next_few", "last", "skipped", "problem")
"""What a schedule's page tells and nobody types."""

NEXT_FEW = 5
"""Runs to come that a schedule's page names."""


@admin.register(Schedule)
class ScheduleAdmin(ChooseTask[Schedule]):
    form = ScheduleForm
    choose_title = gettext_lazy("Add a schedule")
    choose_help = gettext_lazy("Only tasks that are registered in this process can be scheduled.")
    list_display = ("named", "in_words", "next", "last", "enabled", "origin")
    list_filter = ("enabled", "source")
    list_display_links = ("named",)
    ordering = ("name",)
    search_fields = ("name", "task")
    actions = ("run_selected", "enable_selected", "disable_selected", "give_back_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        last = store().jobs.filter(pk=OuterRef("last_job_id")).values("status")
        return store().schedules.annotate(last_status=Subquery(last)).order_by(*self.ordering)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in {f"{name}__exact" for name in self.list_filter}

    # Permissions

    def has_change_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return self._may(request, "change")

    def has_run_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return self._may(request, "run")

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        """One of the code would come back: it is switched off instead."""
        return (obj is None or obj.source != Source.CODE) and super().has_delete_permission(request, obj)

    # The form

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        choice = self._choice(request)
        if request.method == "GET" and not choice.is_valid():
            return self._choose(request, choice)
        return super().add_view(request, form_url, extra_context)

    def _task_of(self, request: HttpRequest) -> "Task[Any, Any] | None":
        """The task for whose arguments the form has fields; None where they are typed as JSON."""
        choice = ChooseTaskForm({"task": request.GET.get("task", "")})
        return choice.cleaned_data["task"] if choice.is_valid() else None

    def get_readonly_fields(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        only_read = (*TOLD, "shown_name", "shown_args", "shown_kwargs")
        return (*only_read, *CODE_ONLY) if obj is not None and obj.source == Source.CODE else only_read

    def get_fieldsets(self, request: HttpRequest, obj: Schedule | None = None) -> Any:
        if obj is None and (task := self._task_of(request)) is not None:
            arguments = list(plan_form(task).arguments)
            return [
                *([(_("Arguments"), {"fields": arguments})] if arguments else []),
                (_("When"), {"fields": ("enabled", "cron", "timezone", "every", "misfire", "overlap")}),
                (_("Options"), {"fields": ("name", "queue_name", "priority")}),
            ]
        told = [] if obj is None else [(None, {"fields": TOLD})]
        # Django shows what can't be changed as it stands in the row.
        may_change = self.has_change_permission(request) if obj else True
        name = "name" if may_change and (obj is None or obj.source != Source.CODE) else "shown_name"
        call: tuple[str, ...] = ("args", "kwargs") if may_change else ("shown_args", "shown_kwargs")
        if obj is not None and not self._may_see_calls(request):
            call = ()
        seal = ("seen",) if obj is not None and may_change else ()
        return [
            *told,
            (_("Call"), {"fields": (name, "task", *call, "queue_name", "priority")}),
            (_("When"), {"fields": (*seal, "enabled", "cron", "timezone", "every", "misfire", "overlap")}),
        ]

    def get_form(
        self, request: HttpRequest, obj: Schedule | None = None, change: bool = False, **kwargs: Any
    ) -> type[Any]:
        if obj is None and (task := self._task_of(request)) is not None:
            kwargs["form"] = plan_form(task)
        form: type[Any] = super().get_form(request, obj, change, **kwargs)
        if obj is None or self._may_see_calls(request):
            return form
        # What is not on the page must not be taken for empty.
        made: type[Any] = type(form)(form.__name__, (form,), {"args": None, "kwargs": None})  # type: ignore[misc]
        return made

    def _may_see_calls(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dbqueue.view_job_arguments")

    def save_model(self, request: HttpRequest, obj: Schedule, form: ScheduleForm, change: bool) -> None:
        if change:
            values = {name: form.cleaned_data[name] for name in form.fields if name != "seen"}
            if scheduling.change(store(), obj.pk, values, before=form.before) is None:
                raise LostRace(_("Nothing was saved: the schedule has been deleted or changed meanwhile."))
        else:
            scheduling.plan(obj, scheduling.aware(store().clock()))
            obj.save(using=store().alias, force_insert=True)
        store().call_workers({ANY_QUEUE})

    # Operations

    def get_urls(self) -> list[URLPattern]:
        def post(name: str, operate: Callable[[HttpRequest, Schedule], None], permission: str) -> URLPattern:
            view = require_POST(lambda request, pk: self._operate_on_one(request, pk, operate, permission))
            shown = f"{self.opts.app_label}_{self.opts.model_name}_{name}"
            return path(f"<int:pk>/{name}/", self.admin_site.admin_view(view), name=shown)

        run, back = post("run", self._run, "run"), post("give_back", self._give_back, "change")
        return [run, back, *super().get_urls()]

    def _operate_on_one(
        self, request: HttpRequest, pk: int, operate: Callable[[HttpRequest, Schedule], None], permission: str
    ) -> HttpResponse:
        if not self._may(request, permission):
            raise PermissionDenied
        schedule = self.get_object(request, str(pk))
        if schedule is None:
            self.message_user(request, _("No schedule has the id %d.") % pk, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        operate(request, schedule)
        return HttpResponseRedirect(self._url("change", pk))

    @admin.action(description=gettext_lazy("Run selected schedules now"), permissions=["run"])
    def run_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        for schedule in queryset:
            self._run(request, schedule)

    @admin.action(description=gettext_lazy("Enable selected schedules"), permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        self._switch(request, queryset, enabled=True)

    @admin.action(description=gettext_lazy("Disable selected schedules"), permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        self._switch(request, queryset, enabled=False)

    @admin.action(description=gettext_lazy("Give selected schedules back to the code"), permissions=["change"])
    def give_back_selected(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        for schedule in queryset:
            self._give_back(request, schedule)

    def _run(self, request: HttpRequest, schedule: Schedule) -> None:
        try:
            with store().atomic(), _log_of_the_admin():
                job_id, is_new = scheduling.run_now(store(), schedule)
                self.log_change(request, schedule, f"Run now: job #{job_id}.")
        except DBQueueError as exc:
            self.message_user(request, f"{schedule}: {exc}", messages.ERROR)
        else:
            said = _("Enqueued: {}.") if is_new else _("There is such a job already: {}.")
            level = messages.SUCCESS if is_new else messages.WARNING
            self.message_user(request, format_html(said, _job_link(self, job_id)), level)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Schedule], *, enabled: bool) -> None:
        with store().atomic(), _log_of_the_admin():
            for schedule in queryset.filter(enabled=not enabled).order_by("pk"):
                scheduling.change(store(), schedule.pk, {"enabled": enabled})
                self.log_change(request, schedule, "Enabled." if enabled else "Disabled.")
                self.message_user(request, f"{schedule}: {_('enabled') if enabled else _('disabled')}")
            store().call_workers({ANY_QUEUE})

    def _give_back(self, request: HttpRequest, schedule: Schedule) -> None:
        if not schedule.overrides:
            self.message_user(request, _("%s has no overrides.") % schedule, messages.WARNING)
            return
        with store().atomic(), _log_of_the_admin():
            scheduling.give_back(store(), schedule.pk)
            self.log_change(request, schedule, f"Given back to the code: {', '.join(schedule.overrides)}.")
            store().call_workers({ANY_QUEUE})
        self.message_user(request, _("%s follows the code again.") % schedule)

    # One schedule

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Schedule | None = None,
    ) -> HttpResponse:
        task = self._task_of(request) if obj is None else known(obj.task)
        context |= {} if task is None else told_of(task)
        if obj is None and task is not None:
            context["title"] = _("Add a schedule of %s") % task.name
        if obj is not None:
            context |= {
                "can_run": self.has_run_permission(request),
                "can_give_back": bool(obj.overrides) and self.has_change_permission(request),
            }
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description=gettext_lazy("Name"))
    def named(self, schedule: Schedule) -> str:
        """With its task below, where the name doesn't begin with it."""
        name = display.dotted(schedule.name)
        if schedule.name.startswith(schedule.task):
            return name
        return format_html('{}<br><span class="dbqueue-quiet">{}</span>', name, display.dotted(schedule.task))

    @admin.display(description=gettext_lazy("Name"))
    def shown_name(self, schedule: Schedule) -> str:
        """Without the help for who types one."""
        return schedule.name

    @admin.display(description=gettext_lazy("Arguments"))
    def shown_args(self, schedule: Schedule) -> str:
        return display.as_json(redacted(schedule.task, schedule.args, schedule.kwargs).args)

    @admin.display(description=gettext_lazy("Keyword arguments"))
    def shown_kwargs(self, schedule: Schedule) -> str:
        return display.as_json(redacted(schedule.task, schedule.args, schedule.kwargs).kwargs)

    @admin.display(description=gettext_lazy("When"))
    def in_words(self, schedule: Schedule) -> str:
        try:
            return schedule.when.in_words()
        except ValueError as exc:
            return f"{schedule.cron} {schedule.timezone}: {exc}"

    @admin.display(description=gettext_lazy("Next runs"))
    def next_few(self, schedule: Schedule) -> str:
        """By the clock of the schedule, and by that of these pages where it is another."""
        if not schedule.enabled or schedule.next_at is None:
            return display.NOTHING
        try:
            when = schedule.when
        except ValueError:
            return display.NOTHING
        first = scheduling.aware(schedule.next_at)
        slots = [first, *when.next_few(first, NEXT_FEW - 1)]
        zone = when.zone if isinstance(when, Cron) else timezone.get_current_timezone()
        return format_html_join(mark_safe("<br>"), "{} {}", ((display.moment(slot, zone), zone) for slot in slots))

    @admin.display(description=gettext_lazy("Next"))
    def next(self, schedule: Schedule) -> str:
        return display.moment(schedule.next_at)

    @admin.display(description=gettext_lazy("Last"))
    def last(self, schedule: Schedule) -> str:
        if schedule.last_job_id is None:
            return display.NOTHING
        status = getattr(schedule, "last_status", None)
        state = display.badge(status, JobStatus(status).label) if status else _("(deleted)")
        job = _job_link(self, schedule.last_job_id)
        return format_html("{} {} {}", display.moment(schedule.last_slot), job, state)

    @admin.display(description=gettext_lazy("Source"))
    def origin(self, schedule: Schedule) -> str:
        label = str(Source(schedule.source).label)
        if not schedule.overrides:
            return label
        return _("%(source)s, changed here: %(fields)s") % {"source": label, "fields": ", ".join(schedule.overrides)}


def _log_of_the_admin() -> AbstractContextManager[None]:
    return transaction.atomic(using=router.db_for_write(LogEntry))


def _job_link(page: ScheduleAdmin, job_id: int) -> str:
    url = page.url_of("job", "change", job_id)
    return format_html('<a href="{}">#{}</a>', url, job_id) if url else f"#{job_id}"
