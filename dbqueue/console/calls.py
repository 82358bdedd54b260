"""Calling a task from the pages: enqueue a job, clone one, change the arguments of one that has not run well."""

import inspect
import json
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ..definition import Task
from ..forms import ChooseTaskForm, EditForm, EnqueueForm, edit_form, enqueue_form, readable_signature, tasks_like
from ..models import EDITABLE, Job
from ..redaction import known
from ..store import SeenCall
from .base import QueueAdmin, hide_what_is_typed, store

M = TypeVar("M", bound=Model)


class ChooseTask(QueueAdmin[M]):
    """A task is chosen first, and then a form is made from its signature."""

    choose_title: "Promise | str" = ""
    choose_help: "Promise | str" = ""

    def _choice(self, request: HttpRequest) -> ChooseTaskForm:
        """The task that the address or the form names, if any."""
        name = request.GET.get("task", request.POST.get("task"))
        return ChooseTaskForm(None if name is None else {"task": name})

    def _choose(self, request: HttpRequest, form: ChooseTaskForm) -> HttpResponse:
        typed = form.data.get("task", "") if form.is_bound else ""
        groups = tasks_like(typed)
        context = {
            **self.admin_site.each_context(request),
            "title": self.choose_title,
            "help": self.choose_help,
            "opts": self.opts,
            "add": True,
            "has_view_permission": self.has_view_permission(request),
            "media": self.media,
            "form": form,
            # Where the list answers, there is nothing wrong with what was typed.
            "says_error": not groups,
            "groups": groups or tasks_like(""),
            "names": [offer.name for _module, offers in tasks_like("") for offer in offers],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/dbqueue/job/choose_task.html", context)


class CallPages(ChooseTask[Job]):
    """The forms that are made from a task's signature."""

    choose_title = gettext_lazy("Enqueue a job")
    choose_help = gettext_lazy("Only tasks that are registered in this process can be enqueued.")

    def get_urls(self) -> list[URLPattern]:
        edit = self.admin_site.admin_view(self._edit)
        name = f"{self.opts.app_label}_{self.opts.model_name}_edit"
        return [path("<int:job_id>/edit/", edit, name=name), *super().get_urls()]

    # Permissions

    def may_see_calls(self, request: HttpRequest) -> bool:
        """Whether this user may see what jobs are called with, return and tell."""
        return request.user.has_perm("dbqueue.view_job_arguments")

    def may_clone(self, request: HttpRequest, job: Job) -> bool:
        task = known(job.task)
        return self.has_add_permission(request) and self.may_see_calls(request) and bool(task and task.admin_enqueue)

    def may_edit(self, request: HttpRequest, job: Job) -> bool:
        may, task = self._may(request, "change") and self.may_see_calls(request), known(job.task)
        return may and job.status in EDITABLE and bool(task and task.admin_enqueue)

    # Enqueue

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
            **told_of(task),
            "show_save_and_continue": False,
        }
        return super().add_view(request, form_url, {**context, **(extra_context or {})})

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """What the address says; and of a job that is cloned, what anybody may read of it."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        source = initial.pop("from", None)
        if source is None or not (self.may_see_calls(request) and self.has_view_permission(request)):
            return initial
        job = self.get_object(request, source)
        form = self.get_form(request)
        if job is None or job.task != form.task.name:
            return initial
        return {**form.shown(job), **initial}

    def get_form(self, request: HttpRequest, obj: Job | None = None, change: bool = False, **kwargs: Any) -> type[Any]:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        choice = self._choice(request)
        if not choice.is_valid():
            raise PermissionDenied(str(choice.errors["task"]))
        return enqueue_form(choice.cleaned_data["task"])

    def save_model(self, request: HttpRequest, obj: Job, form: EnqueueForm, change: bool) -> None:
        result = form.enqueue()
        obj.pk = int(result.id)
        obj.refresh_from_db(using=result.database)
        obj.was_there = result.duplicate  # type: ignore[attr-defined]

    def log_addition(self, request: HttpRequest, obj: Job, message: Any) -> Any:
        """Of what was there already, nothing was added."""
        return None if obj.was_there else super().log_addition(request, obj, message)  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Job, post_url_continue: str | None = None) -> HttpResponse:
        visible = self.has_view_permission(request, obj)
        url = self._url("change", obj.pk)
        shown = format_html('<a href="{}">{}</a>', url, obj) if visible else str(obj)
        if obj.was_there:  # type: ignore[attr-defined]
            said = format_html(_("Nothing was enqueued: the task is unique, and {} is there already."), shown)
            self.message_user(request, said, messages.WARNING)
        else:
            self.message_user(request, format_html(_("Enqueued: {}."), shown), messages.SUCCESS)
        if "_addanother" in request.POST:
            return HttpResponseRedirect(f"{request.path}?{urlencode({'task': obj.task})}")
        return HttpResponseRedirect(url) if visible else self.response_post_save_add(request, obj)

    # Other arguments

    @sensitive_variables()
    def _edit(self, request: HttpRequest, job_id: int) -> HttpResponse:
        hide_what_is_typed(request)
        if request.method == "POST":
            return self._edit_now(request, job_id)
        return self.promptly(request, lambda: self._edit_now(request, job_id))

    def _edit_now(self, request: HttpRequest, job_id: int) -> HttpResponse:
        job = self.get_object(request, str(job_id))
        if job is None:
            self.message_user(request, _("No job has the id %d.") % job_id, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        if not self._may(request, "change") or not self.may_see_calls(request):
            raise PermissionDenied
        if not self.may_edit(request, job):
            said = _("What runs, or has succeeded, or is of a task that the form does not offer, is not edited.")
            self.message_user(request, said, messages.WARNING)
            return HttpResponseRedirect(self._url("change", job_id))
        task, seen = known(job.task), _seal(job)
        assert task is not None
        kind = edit_form(task)
        if request.method != "POST":
            return self._edit_page(request, job, kind(initial=kind.shown(job), job=job), seen)
        # First, because a form that comes back with an error is sent again with the seal of what was seen by then.
        if not constant_time_compare(request.POST.get("seen", ""), seen):
            return self._not_edited(request, job)
        form = kind(request.POST, job=job)
        return self._save_edit(request, job, form) if form.is_valid() else self._edit_page(request, job, form, seen)

    def _save_edit(self, request: HttpRequest, job: Job, form: EditForm) -> HttpResponse:
        with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
            if store().edit(job.pk, SeenCall(job.args, job.kwargs), *form.call()):
                self.log_change(request, job, _("Other arguments: %s.") % (", ".join(form.differing()) or _("none")))
                self.message_user(request, _("The arguments are changed."), messages.SUCCESS)
                return HttpResponseRedirect(self._url("change", job.pk))
        return self._not_edited(request, job)

    def _not_edited(self, request: HttpRequest, job: Job) -> HttpResponse:
        said = _("Nothing was changed: the job has started, or its arguments are others by now.")
        self.message_user(request, said, messages.ERROR)
        return HttpResponseRedirect(self._url("change", job.pk))

    def _edit_page(self, request: HttpRequest, job: Job, form: EditForm, seen: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Arguments of %s") % job,
            "opts": self.opts,
            "original": job,
            "media": self.media,
            **told_of(form.task),
            "adminform": AdminForm(cast(Any, form), [(_("Arguments"), {"fields": list(form.arguments)})], {}),
            "form": form,
            "seen": seen,
            "has_keys": any((job.unique_key, job.concurrency_key, job.rate_key)),
            "back": self._url("change", job.pk),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/dbqueue/job/edit.html", context)


def told_of(task: Task[Any, Any]) -> dict[str, str]:
    """What a form says of its task."""
    signature = f"{task.name}{readable_signature(task)}"
    return {"signature": signature, "documentation": inspect.getdoc(task.func) or ""}


def _seal(job: Job) -> str:
    """What tells whether a job's arguments are still the same, and to nobody else what they are."""
    call = json.dumps([job.pk, job.args, job.kwargs], sort_keys=True)
    return salted_hmac("dbqueue.edit", call, algorithm="sha256").hexdigest()
