"""What the pages show of a job, field by field."""

import datetime
from collections.abc import Callable, Collection
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..forms import OPTIONS
from ..models import FINAL, GROUP, QUEUED, Job, JobStatus
from ..redaction import Call, key_of, redacted, result_of
from . import display, errors, life
from .base import store
from .calls import CallPages

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


def _also(show: Callable[[Any, Job], str], label: Any) -> Callable[[Any, Job], str]:
    """The same field under another name."""

    @admin.display(description=label)
    def shown(self: Any, job: Job) -> str:
        return show(self, job)

    return shown


class JobFields(CallPages):
    """The fields of the list and of a job's own page."""

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        if obj is None:
            arguments = list(self.get_form(request).arguments)
            options = (_("Options"), {"fields": (*OPTIONS, "unique_key")})
            return [(_("Arguments"), {"fields": arguments}), options] if arguments else [options]
        told = self.may_see_calls(request)
        rare = [name for name, column in RARE.items() if getattr(obj, column) and (told or name not in TOLD)]
        wishes = [name for name in WISHES if getattr(obj, name) and (told or name not in KEYS)]
        runs = () if obj.task == GROUP else ("attempts", "worker_name")
        call = (_("Call"), {"fields": ("positional_arguments", "keyword_arguments", "result")})
        return [
            (None, {"fields": ("state", *rare, "task_name", "queue", "priority", *runs)}),
            *([call] if told and obj.task != GROUP else []),
            (_("Times"), {"fields": _times_of(obj)}),
            *([(_("Options"), {"fields": [KEYS.get(name, name) for name in wishes]})] if wishes else []),
        ]

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
        return call_of(job).secrets.scrub(job.reason)

    @admin.display(description=gettext_lazy("Progress"))
    def how_far(self, job: Job) -> str:
        told = job.progress or {}
        message = call_of(job).secrets.scrub(str(told.get("message", "")))
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
        return display.as_json(call_of(job).args)

    @admin.display(description=gettext_lazy("Keyword arguments"))
    def keyword_arguments(self, job: Job) -> str:
        return display.as_json(call_of(job).kwargs)

    @admin.display(description=gettext_lazy("Result"))
    def result(self, job: Job) -> str:
        if job.status != JobStatus.SUCCESSFUL:
            return display.NOTHING
        return display.as_json(result_of(job, call_of(job)))

    @admin.display(description=gettext_lazy("Unique key"))
    def shown_unique_key(self, job: Job) -> str:
        return key_of(job, job.unique_key, call_of(job))

    @admin.display(description=gettext_lazy("Concurrency key"))
    def shown_concurrency_key(self, job: Job) -> str:
        return key_of(job, job.concurrency_key, call_of(job))

    @admin.display(description=gettext_lazy("Rate key"))
    def shown_rate_key(self, job: Job) -> str:
        return key_of(job, job.rate_key, call_of(job))

    @admin.display(description=gettext_lazy("Options"))
    def shown_options(self, job: Job) -> str:
        return display.as_json(call_of(job).secrets.scrub_value(job.options))

    @admin.display(description=gettext_lazy("Enqueued"))
    def enqueued(self, job: Job) -> str:
        return display.moment(job.enqueued_at)

    @admin.display(description=gettext_lazy("Run after"))
    def due(self, job: Job) -> str:
        return display.moment(job.run_after)

    last_due = _also(due, gettext_lazy("Latest attempt due"))
    next_due = _also(due, gettext_lazy("Next attempt due"))

    @admin.display(description=gettext_lazy("Started"))
    def started(self, job: Job) -> str:
        return display.moment(job.started_at)

    first_started = _also(started, gettext_lazy("First attempt started"))

    @admin.display(description=gettext_lazy("Latest attempt started"))
    def last_started(self, job: Job) -> str:
        return display.moment(job.last_attempted_at)

    @admin.display(description=gettext_lazy("Finished"))
    def finished(self, job: Job) -> str:
        return display.moment(job.finished_at)

    @admin.display(description=gettext_lazy("Waited"))
    def waited(self, job: Job) -> str:
        """From its enqueue to its first start; and how much of it after the time that it was to wait for."""
        end = job.started_at or job.finished_at or _seen_at(job)
        waited = display.span(end - job.enqueued_at)
        if job.run_after is None or not job.enqueued_at < job.run_after <= end:
            return waited
        return _("%(all)s, %(late)s of it after its time") % {"all": waited, "late": display.span(end - job.run_after)}

    first_waited = _also(waited, gettext_lazy("First attempt waited"))
    waiting_for = _also(waited, gettext_lazy("Waiting for"))

    @admin.display(description=gettext_lazy("Ran"))
    def ran(self, job: Job) -> str:
        """The latest attempt. A job's own page has read them all; lists have this column where the row tells."""
        runs: list[life.Run] | None = getattr(job, "runs", None)
        if runs is None:
            return display.span(_took(job))
        return runs[0].lasted if runs else display.NOTHING

    running_for = _also(ran, gettext_lazy("Running for"))
    last_ran = _also(ran, gettext_lazy("Latest attempt ran"))
    last_running_for = _also(ran, gettext_lazy("Latest attempt running for"))

    def _link(self, parameter: str, value: str) -> str:
        """To the list of what has this value, also one that no filter offers."""
        return format_html('<a href="{}?{}">{}</a>', self._url("changelist"), urlencode({parameter: value}), value)


def _times_of(job: Job) -> tuple[str, ...]:
    """The fields for when it was to run, began and ended, and how long it waited and ran, or does so now.

    Beside another attempt each says which of them it means.
    """
    waited = "waited" if job.started_at is not None or job.status in FINAL else "waiting_for"
    if job.task == GROUP:
        return "enqueued", "finished", waited
    runs = job.status == JobStatus.RUNNING
    if job.started_at is None or not _has_another(job, job.started_at):
        return "enqueued", "due", "started", "finished", waited, "running_for" if runs else "ran"
    return (
        *("enqueued", "first_waited", "first_started"),
        *_due_of(job, job.last_attempted_at or job.started_at),
        *("last_started", "last_running_for" if runs else "last_ran", "finished"),
    )


def _has_another(job: Job, first: datetime.datetime) -> bool:
    """Whether there was an attempt after the first, or one was to come."""
    return job.status in QUEUED or job.last_attempted_at != first or (job.run_after or first) > first


def _due_of(job: Job, latest: datetime.datetime) -> tuple[str, ...]:
    """The field for the time of the latest attempt, or of the one after it; none, where there was no wait."""
    if job.run_after is None:
        return ()
    return ("next_due" if job.run_after > latest else "last_due",)


def call_of(job: Job) -> Call:
    return redacted(job.task, job.args, job.kwargs)


def _took(job: Job) -> datetime.timedelta | None:
    if job.last_attempted_at is None:
        return None
    return (job.finished_at or _seen_at(job)) - job.last_attempted_at


def _seen_at(job: Job) -> datetime.datetime:
    """The moment that the whole page is about."""
    seen_at: datetime.datetime = getattr(job, "seen_at", None) or store().clock()
    return seen_at
