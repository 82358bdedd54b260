"""Workflows: the tree of each, how far it is, and trying again or ending a branch of it."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from ..exceptions import JobDoesNotExist
from ..models import CANCELLABLE, RETRYABLE, Job, JobStatus, Workflow
from ..results import get_result
from ..tree import Place, Tree, failed_step
from ..workflow import Progress, WorkflowResult
from . import display
from .base import LostRace, QueueAdmin, store

MOST_ROWS = 1000
"""Steps that the list shows."""

MOST_DRAWN = 200
"""Steps of a workflow that is drawn."""

WHOLE = "all"
"""Sent by the buttons for all of a workflow, where others send the id of a step."""

MOST_LABELLED = 50
"""Steps of a workflow whose drawing has their names, which take room."""


class Scale(NamedTuple):
    """Pixels from one step to the next, and around them; ``letters`` of a step's name have room below it."""

    across: int
    down: int
    margin: int
    letters: int


LABELLED, BARE = Scale(124, 52, 64, 18), Scale(48, 28, 20, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A step as the list shows it. Where ``url`` is empty there is no page for it."""

    id: int
    name: str
    url: str
    state: str
    label: str
    depth: int
    may_retry: bool
    may_cancel: bool


@dataclass(frozen=True, slots=True)
class Dot:
    """A step as it is drawn."""

    x: int
    y: int
    name: str
    state: str
    url: str
    is_group: bool
    label: str = ""

    @property
    def below(self) -> int:
        """Where its label stands."""
        return self.y + 24


@dataclass(slots=True)
class Drawing:
    """Left before right is first before then; what stands above each other is side by side."""

    scale: Scale
    dots: list[Dot] = field(default_factory=list)
    lines: list[tuple[int, int, int, int]] = field(default_factory=list)
    width: int = 0
    height: int = 0


@admin.register(Workflow)
class WorkflowAdmin(QueueAdmin[Workflow]):
    class Media:
        js = ("dbqueue/live.js",)

    list_display = ("id", "name", "state", "created", "finished")
    list_display_links = ("id", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workflow]:
        last = Job.objects.using(store().alias).filter(pk=OuterRef("last_id"))
        rows = Workflow.objects.using(store().alias).order_by(*self.ordering)
        return rows.annotate(last_status=Subquery(last.values("status")), last_reason=Subquery(last.values("reason")))

    def get_fieldsets(self, request: HttpRequest, obj: Workflow | None = None) -> Any:
        """With the state of the last step, which is that of a WorkflowResult, where it is another one."""
        differs = obj is not None and _state_of(obj) != getattr(obj, "last_status", None)
        last = ("last_state",) if differs else ()
        return [(None, {"fields": ("state", *last, "how_far", "created", "finished")})]

    def has_view_permission(self, request: HttpRequest, obj: Workflow | None = None) -> bool:
        """Also for who may see jobs: it tells nothing else of them."""
        return request.user.has_perm("dbqueue.view_job") or super().has_view_permission(request, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Workflow | None = None) -> bool:
        """With all of its jobs, when the last has ended."""
        return obj is not None and obj.finished_at is not None and request.user.has_perm("dbqueue.delete_job")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The jobs are no related objects, and are told as a number."""
        jobs = store().jobs.filter(workflow_id__in=[one.pk for one in objs]).count()
        return [str(one) for one in objs], {Job._meta.verbose_name_plural: jobs}, set(), []

    def delete_model(self, request: HttpRequest, obj: Workflow) -> None:
        if store().delete_workflow(obj.pk) is None:
            raise LostRace(_("Nothing was deleted: the workflow has been retried meanwhile."))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self._change_branch))
        name = f"{self.opts.app_label}_{self.opts.model_name}_branch"
        return [path("<int:pk>/branch/", view, name=name), *super().get_urls()]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Workflow | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= self._told_of(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _told_of(self, request: HttpRequest, workflow: Workflow) -> dict[str, Any]:
        tree = _tree_of(workflow)
        if workflow.last_id not in tree.rows:
            return {"rows": [], "title": workflow.name, "subtitle": f"#{workflow.pk}"}
        places = tree.walk(workflow.last_id, None)
        rows = [self._row(request, place, tree) for place in islice(places, MOST_ROWS)]
        return {
            "look_again": None if workflow.finished_at else 2,
            "title": workflow.name,
            "subtitle": f"#{workflow.pk}",
            "rows": rows,
            "more": max(0, len(tree.rows) - len(rows)),
            "drawing": draw(tree, workflow.last_id, self._job_url) if len(tree.rows) <= MOST_DRAWN else None,
            "whole": WHOLE,
            "may_change": self._may_retry(request) or self._may_cancel(request),
            "may_retry": self._may_retry(request) and any(row.status in RETRYABLE for row in tree.rows.values()),
            "may_cancel": self._may_cancel(request) and workflow.finished_at is None,
        }

    def _row(self, request: HttpRequest, place: Place, tree: Tree) -> Row:
        step = place.row
        is_open = step.status in CANCELLABLE or step.status == JobStatus.RUNNING
        return Row(
            step.id,
            _("group of %d") % len(tree.members(step.id)) if step.is_group else step.task,
            "" if step.is_group else self._job_url(step.id),
            step.status.lower(),
            str(JobStatus(step.status).label),
            place.depth,
            # A step whose turn never came comes with what failed before it.
            self._may_retry(request) and step.status in RETRYABLE and (not step.held or bool(tree.members(step.id))),
            self._may_cancel(request) and is_open,
        )

    def _job_url(self, pk: int) -> str:
        return self.url_of("job", "change", pk)

    def _may_retry(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dbqueue.retry_job")

    def _may_cancel(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dbqueue.cancel_job")

    # A branch

    def _change_branch(self, request: HttpRequest, pk: int) -> HttpResponse:
        workflow = self.get_object(request, str(pk))
        if workflow is None:
            self.message_user(request, _("No workflow has the id %d.") % pk, messages.WARNING)
            return HttpResponseRedirect(self._url("changelist"))
        is_retry = "retry" in request.POST
        if not (self._may_retry(request) if is_retry else self._may_cancel(request)):
            raise PermissionDenied
        typed = request.POST.get("retry" if is_retry else "cancel", "")
        try:
            branch = self._branch(workflow, typed)
        except JobDoesNotExist:
            self.message_user(request, _("The workflow has no step %r.") % typed[:20], messages.WARNING)
            return HttpResponseRedirect(self._url("change", pk))
        with store().atomic(), transaction.atomic(using=router.db_for_write(LogEntry)):
            if is_retry:
                number = branch.retry_failed()
                said = ngettext("%d job retried.", "%d jobs retried.", number) % number
                did = number > 0
            else:
                did = branch.cancel()
                said = _("It was asked to stop.") if did else _("It has ended already.")
            if did:
                self.log_change(request, workflow, said if typed == WHOLE else f"{said} (#{typed})")
        self.message_user(request, said, messages.SUCCESS if did else messages.WARNING)
        return HttpResponseRedirect(self._url("change", pk))

    def _branch(self, workflow: Workflow, typed: str) -> WorkflowResult:
        """All of it, or the step of that id with what is inside of it. Raises JobDoesNotExist."""
        if typed == WHOLE and workflow.last_id is not None:
            return WorkflowResult(workflow.pk, workflow.last_id, store().alias)
        step = get_result(typed, database=store().alias)
        place = store().jobs.filter(workflow_id=workflow.pk, pk=int(step.id)).values_list("pk", "after_id").first()
        if place is None:
            raise JobDoesNotExist(f"Workflow {workflow.pk} has no step {step.id}.")
        return WorkflowResult(workflow.pk, place[0], store().alias, place[1])

    # Fields

    @admin.display(description=gettext_lazy("State"))
    def state(self, workflow: Workflow) -> str:
        """All of it in a word."""
        state = _state_of(workflow)
        if state is None:
            return display.NOTHING
        return display.badge(state, _("In progress") if state == JobStatus.RUNNING else JobStatus(state).label)

    @admin.display(description=gettext_lazy("State of its last step"))
    def last_state(self, workflow: Workflow) -> str:
        status = JobStatus(workflow.last_status)  # type: ignore[attr-defined]
        return display.badge(status, status.label)

    @admin.display(description=gettext_lazy("Progress"))
    def how_far(self, workflow: Workflow) -> str:
        tree = _tree_of(workflow)
        told = Progress.of(tree.states(tree.rows))
        parts = [_("%(done)d of %(total)d ended") % {"done": told.done, "total": told.total}]
        parts += [_("%d failed") % told.failed] if told.failed else []
        parts += [_("%d cancelled") % told.cancelled] if told.cancelled else []
        bar = '<progress value="{}" max="{}" aria-label="{}"></progress> {}'
        return format_html(bar, told.done, max(1, told.total), _("Progress"), ", ".join(parts))

    @admin.display(description=gettext_lazy("Enqueued"))
    def created(self, workflow: Workflow) -> str:
        return display.moment(workflow.created_at)

    @admin.display(description=gettext_lazy("Ended"))
    def finished(self, workflow: Workflow) -> str:
        return display.moment(workflow.finished_at)


def _state_of(workflow: Workflow) -> str | None:
    """The last job's state, but RUNNING while others are to come, and FAILED where the failure of another ended it."""
    status: str | None = getattr(workflow, "last_status", None)
    if workflow.finished_at is None and status in CANCELLABLE:
        return JobStatus.RUNNING
    if status == JobStatus.CANCELLED and failed_step(getattr(workflow, "last_reason", "")) is not None:
        return JobStatus.FAILED  # of the last job: it never ran
    return status


def _tree_of(workflow: Workflow) -> Tree:
    """Read once for a page: it may have ten thousands of steps."""
    tree: Tree | None = getattr(workflow, "tree", None)
    if tree is None:
        tree = workflow.tree = Tree.of(workflow.pk, store().alias)  # type: ignore[attr-defined]
    return tree


def draw(tree: Tree, last: int, url_of: Any) -> Drawing:
    """At most MOST_DRAWN steps, so nothing here is nested deeper than that."""
    drawing = Drawing(LABELLED if len(tree.rows) <= MOST_LABELLED else BARE)
    width, height, _ends = _draw_chain(tree, last, None, url_of, 0, 0, [], drawing)
    across, down, margin, _letters = drawing.scale
    drawing.width, drawing.height = (width - 1) * across + 2 * margin, (height - 1) * down + 2 * min(margin, down)
    return drawing


Point = tuple[int, int]


def _draw_chain(
    tree: Tree, last: int, stop: int | None, url_of: Any, x: int, y: int, before: list[Point], drawing: Drawing
) -> tuple[int, int, list[Point]]:
    """Returns how many places it takes across and down, and where lines to what follows begin."""
    begin, height = x, 1
    for pk in tree.path(last, stop):
        across, down, before = _draw_step(tree, pk, url_of, x, y, before, drawing)
        x, height = x + across, max(height, down)
    return x - begin, height, before


def _draw_step(
    tree: Tree, pk: int, url_of: Any, x: int, y: int, before: list[Point], drawing: Drawing
) -> tuple[int, int, list[Point]]:
    """A job is a dot with its replacement to the right; a group is its members and a dot where they come together."""
    row = tree.rows[pk]
    ends, across, down = before, 0, 0
    if not row.is_group:
        ends, across = [_dot(row, url_of, x, y, before, drawing)], 1
    inner: list[Point] = []
    wide = 0
    for member in tree.members(pk):
        taken, high, out = _draw_chain(tree, member, tree.stop_of(pk), url_of, x + across, y + down, ends, drawing)
        wide, down, inner = max(wide, taken), down + high, inner + out
    if row.is_group:
        return wide + 1, max(1, down), [_dot(row, url_of, x + wide, y, inner or before, drawing)]
    return across + wide, max(1, down), inner or ends


def _dot(row: Any, url_of: Any, x: int, y: int, before: list[Point], drawing: Drawing) -> Point:
    across, down, margin, letters = drawing.scale
    at = margin + x * across, min(margin, down) + y * down
    drawing.lines += [(*point, *at) for point in before]
    name = _("group") if row.is_group else row.task
    said = f"{name} #{row.id}: {JobStatus(row.status).label}"
    own_name = "" if row.is_group or not letters else row.task.rpartition(".")[2]
    label = own_name if len(own_name) <= letters else f"{own_name[: letters - 1]}…"
    url = "" if row.is_group else url_of(row.id)
    drawing.dots.append(Dot(*at, said, row.status.lower(), url, row.is_group, label))
    return at
