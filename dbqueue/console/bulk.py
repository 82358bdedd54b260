"""Something done to all jobs that a list shows: asked once more, then a row that workers carry out, and its page."""

from collections.abc import Callable, Container
from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from .. import conf
from ..models import BulkAction, BulkOperation, Job, JobStatus
from ..search import Search
from ..store import LEAVES, MOST_COUNTED
from . import display
from .base import QueueAdmin, counted, store
from .filters import FILTERS, NEWEST, ORDERS, search_of, window_of
from .operations import refusal_of_queue

if TYPE_CHECKING:
    _JobAdmin = QueueAdmin[Job]

PERMISSIONS = {
    BulkAction.RETRY: "dbqueue.retry_job",
    BulkAction.RUN_NOW: "dbqueue.change_job",
    BulkAction.CANCEL: "dbqueue.cancel_job",
    BulkAction.MOVE: "dbqueue.change_job",
    BulkAction.DELETE: "dbqueue.delete_job",
}

STARTED = {
    BulkAction.RETRY: gettext_lazy("Started. Workers will retry all jobs that match: %(search)s."),
    BulkAction.RUN_NOW: gettext_lazy("Started. Workers will make all jobs ready that match: %(search)s."),
    BulkAction.CANCEL: gettext_lazy("Started. Workers will cancel all jobs that match: %(search)s."),
    BulkAction.MOVE: gettext_lazy("Started. Workers will move to the queue %(queue)s all jobs that match: %(search)s."),
    BulkAction.DELETE: gettext_lazy("Started. Workers will delete all jobs that match: %(search)s."),
}

KNOWN = {"q", "action", *(str(one.parameter_name) for one in FILTERS)}
"""What an address may say. Anything else was meant to narrow it, and would not."""

SAMPLES = 10
"""Jobs that the page shows before anything is done."""


def allowed(user: Any) -> list[BulkAction]:
    """What this user may do to many jobs."""
    return [action for action, permission in PERMISSIONS.items() if user.has_perm(permission)]


class BulkForm(forms.Form):
    """What is to be done."""

    action = forms.ChoiceField(label=gettext_lazy("Action"))
    queue_name = forms.CharField(label=gettext_lazy("Move to the queue"), required=False, max_length=conf.QUEUE_LENGTH)

    def __init__(self, user: Any, state: str | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offered = [action for action in allowed(user) if state is None or JobStatus(state) in LEAVES[action]]
        choices = [("", "---------"), *((action.value, action.label) for action in self.offered)]
        self.fields["action"] = forms.ChoiceField(label=_("Action"), choices=choices)
        if BulkAction.MOVE not in self.offered:
            del self.fields["queue_name"]
        wanted = self.data.get("action") or self.initial.get("action")
        if state and wanted in set(allowed(user)) - set(self.offered):
            self.useless = _("%(action)s leaves alone what is %(state)s: nothing would be changed.") % {
                "action": BulkAction(wanted).label,
                "state": JobStatus(state).label,
            }
        elif state and not self.offered:
            self.useless = _("Nothing that you may do changes what is %s.") % JobStatus(state).label

    useless = ""
    """Why what is asked for would do nothing."""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or {}
        if cleaned.get("action") == BulkAction.MOVE and (why := refusal_of_queue(cleaned.get("queue_name", ""))):
            raise ValidationError({"queue_name": why})
        return cleaned


def confirm(page: "_JobAdmin", request: HttpRequest) -> HttpResponse:
    """Show what would be done to which jobs; a POST has it done."""
    wanted: list[Callable[[], BulkOperation]] = []
    response = page.promptly(request, lambda: _look(page, request, wanted))
    return HttpResponseRedirect(_url_of(page, wanted[0]())) if wanted else response


def _look(page: "_JobAdmin", request: HttpRequest, wanted: list[Callable[[], BulkOperation]]) -> HttpResponse:
    """The page. What is to be begun is appended to ``wanted``: it is not to be given up with the count."""
    if not page.has_view_permission(request) or not allowed(request.user):
        raise PermissionDenied
    now = store().clock()
    try:
        if unknown := sorted(set(request.GET) - KNOWN):
            raise ValueError(_("The address has %r, which is no filter: nothing was done.") % unknown[0])
        search = search_of(request, now)
    except ValueError as exc:
        page.message_user(request, str(exc), messages.ERROR)
        return HttpResponseRedirect(page._url("changelist"))
    chosen = {"action": request.GET.get("action", "")}
    typed = request.POST if request.method == "POST" else None
    form = BulkForm(request.user, search.state, typed, initial=chosen)
    window = window_of(search, store())
    found = search.apply(store().jobs, None if window is None else window.ids)
    has_more = window is not None and window.goes_on
    number = found.order_by().values("pk")[: MOST_COUNTED + 1].count()
    if form.is_valid():
        is_exact = not has_more and number <= MOST_COUNTED
        wanted.append(partial(_start, page, request, form, search, number if is_exact else None))
        return HttpResponse()
    context = {
        **page.admin_site.each_context(request),
        "title": _("Change all jobs that match"),
        "opts": page.opts,
        "media": page.media,
        "form": form,
        "search": search.in_words(),
        "number": counted(number),
        "apply": ngettext("Apply to %s job", "Apply to %s jobs", number) % counted(number),
        "only_newest": has_more,
        "samples": _samples(page, found.order_by(*ORDERS.get(search.state or "", NEWEST))),
        "states": [(action.label, _names(LEAVES[action])) for action in form.offered],
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/dbqueue/job/bulk.html", context)


def _start(
    page: "_JobAdmin", request: HttpRequest, form: BulkForm, search: Search, expected: int | None
) -> BulkOperation:
    with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
        operation = store().start_bulk(
            BulkAction(form.cleaned_data["action"]),
            search,
            user_id=request.user.pk,
            user_name=request.user.get_username(),
            expected=expected,
            queue_name=form.cleaned_data["queue_name"] if form.cleaned_data["action"] == BulkAction.MOVE else "",
        )
        LogEntry.objects.log_actions(request.user.pk or 0, [operation], ADDITION, str(operation))
    said = STARTED[BulkAction(operation.action)] % {"search": operation.described, "queue": operation.queue_name}
    page.message_user(request, said, messages.SUCCESS)
    return operation


def _names(states: Container[JobStatus]) -> list[str]:
    return [str(state.label) for state in JobStatus if state in states]


def _samples(page: "_JobAdmin", found: "QuerySet[Job]") -> list[tuple[str, str, str]]:
    rows = found.values_list("pk", "task", "status")[:SAMPLES]
    return [(page._url("change", pk), f"{task} #{pk}", str(JobStatus(status).label)) for pk, task, status in rows]


def _url_of(page: "_JobAdmin", operation: BulkOperation) -> str:
    return page.url_of("bulkoperation", "change", operation.pk) or page._url("changelist")


@admin.register(BulkOperation)
class BulkOperationAdmin(QueueAdmin[BulkOperation]):
    class Media:
        js = ("dbqueue/live.js",)

    list_display = ("id", "action", "described", "user_name", "created", "how_far", "state")
    list_display_links = ("id", "described")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "action",
                    "described",
                    "queue_name",
                    "state",
                    "how_far",
                    "expected",
                    "changed",
                    "asked",
                    "inside",
                    "left_alone",
                )
            },
        ),
        (None, {"fields": ("user_name", "created", "cancelled", "finished", "problem")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[BulkOperation]:
        return BulkOperation.objects.using(store().alias).order_by(*self.ordering)

    def has_view_permission(self, request: HttpRequest, obj: BulkOperation | None = None) -> bool:
        """Also for who may begin one: he is to see what becomes of it."""
        return bool(allowed(request.user)) or super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: BulkOperation | None = None) -> bool:
        return False

    def has_cancel_permission(self, request: HttpRequest, obj: BulkOperation) -> bool:
        """Who may do it may end it."""
        is_under_way = obj.finished_at is None and obj.cancel_requested_at is None
        return is_under_way and request.user.has_perm(PERMISSIONS[BulkAction(obj.action)])

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self._cancel))
        name = f"{self.opts.app_label}_{self.opts.model_name}_cancel"
        return [path("<int:pk>/cancel/", view, name=name), *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: BulkOperation | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= {
                "can_cancel": self.has_cancel_permission(request, obj),
                "look_again": None if obj.finished_at else 2,
            }
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _cancel(self, request: HttpRequest, pk: int) -> HttpResponse:
        operation = self.get_object(request, str(pk))
        if operation is None:
            self.message_user(request, _("No operation has the id %d.") % pk, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        if not request.user.has_perm(PERMISSIONS[BulkAction(operation.action)]):
            raise PermissionDenied
        with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
            if store().cancel_bulk(pk):
                self.log_change(request, operation, _("Cancelled."))
                self.message_user(request, _("It stops before its next step."), messages.SUCCESS)
            else:
                self.message_user(request, _("It has ended already."), messages.WARNING)
        return HttpResponseRedirect(self._url("change", pk))

    @admin.display(description=gettext_lazy("State"))
    def state(self, operation: BulkOperation) -> str:
        if operation.problem:
            return display.badge("failed", _("Ended early"))
        if operation.cancel_requested_at:
            return display.badge("cancelled", _("Cancelled"))
        if operation.finished_at:
            return display.badge("successful", _("Done"))
        return display.badge("running", _("In progress"))

    @admin.display(description=gettext_lazy("Progress"))
    def how_far(self, operation: BulkOperation) -> str:
        """By ids: what it has looked at of all that it is to look at."""
        ended_early = operation.cancel_requested_at or operation.problem
        done = operation.last_id if operation.finished_at and not ended_early else operation.first_id
        most = max(operation.last_id, 1)
        share = min(100, 100 * done // most)
        label = _("Progress")
        return format_html(
            '<progress value="{}" max="{}" aria-label="{}"></progress> {} %', min(done, most), most, label, share
        )

    @admin.display(description=gettext_lazy("Requested"))
    def created(self, operation: BulkOperation) -> str:
        return display.moment(operation.created_at)

    @admin.display(description=gettext_lazy("Cancelled"))
    def cancelled(self, operation: BulkOperation) -> str:
        return display.moment(operation.cancel_requested_at)

    @admin.display(description=gettext_lazy("Ended"))
    def finished(self, operation: BulkOperation) -> str:
        return display.moment(operation.finished_at)
