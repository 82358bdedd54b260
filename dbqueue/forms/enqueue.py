"""The two steps: choose a task, then fill in its arguments and the job's options."""

import datetime
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf, registry
from ..definition import Task
from ..exceptions import DBQueueError, InvalidTask, UnknownTask
from ..models import KEY_LENGTH, MAX_PRIORITY, MIN_PRIORITY, Job
from ..options import MOST_ATTEMPTS, Unique
from ..redaction import MISSING, redacted
from ..results import JobResult
from .arguments import arguments_of
from .call import CallFields, by_parameter, passed_to_nobody
from .fields import INTEGER, TEXT, moment_field

if TYPE_CHECKING:
    _JobForm = forms.ModelForm[Job]
else:
    _JobForm = forms.ModelForm  # can't be subscripted when it runs

SUMMARY_LENGTH = 80

OPTIONS = ("queue_name", "priority", "run_after", "max_attempts")
"""The fields that are options of a task, beside the unique key."""


class ChooseTaskForm(forms.Form):
    """Step one. Its cleaned value is a registered task: a name is looked up, never imported."""

    task = forms.CharField(
        label=gettext_lazy("Task"),
        widget=forms.TextInput(
            {**TEXT, "list": "tasks", "autocomplete": "off", "aria-describedby": "id_task_helptext"}
        ),
    )

    def clean_task(self) -> Task[Any, Any]:
        name = self.cleaned_data["task"]
        for task in offered():
            if task.name == name:
                return task
        try:
            registry.find(name)
        except UnknownTask as exc:
            raise ValidationError(str(exc)) from exc
        raise ValidationError(_("%(name)s is not offered here."), params={"name": name})


def offered() -> Iterator[Task[Any, Any]]:
    """The tasks that the admin may enqueue, by name."""
    return (task for task in registry.registered() if task.admin_enqueue)


def summary(task: Task[Any, Any]) -> str:
    """The first line of the task's docstring, shortened; empty if it has none."""
    return Truncator((inspect.getdoc(task.func) or "").partition("\n")[0]).chars(SUMMARY_LENGTH)


class Offer(NamedTuple):
    """A task that may be chosen: its name, that within its module, and what it is for."""

    name: str
    own_name: str
    said: str


def tasks_like(text: str) -> list[tuple[str, list[Offer]]]:
    """The tasks that the admin may enqueue and that have this text in their names or summaries, by module."""
    groups: dict[str, list[Offer]] = {}
    for task in offered():
        module, _dot, own_name = task.name.rpartition(".")
        offer = Offer(task.name, own_name, summary(task))
        if text.lower() in f"{offer.name} {offer.said}".lower():
            groups.setdefault(module, []).append(offer)
    return list(groups.items())


def choices() -> list[tuple[str, str]]:
    """All of them as the choices of a field."""
    offers = [one for _module, offers in tasks_like("") for one in offers]
    return [(one.name, f"{one.name}: {one.said}" if one.said else one.name) for one in offers]


class EnqueueForm(CallFields, _JobForm):
    """Step two, for one task: its arguments, and the options of the job. ``enqueue_form()`` makes one."""

    class Meta:
        model = Job
        fields = ()

    @classmethod
    def shown(cls, job: Job) -> dict[str, Any]:
        options = ("queue_name", "priority", "max_attempts")
        return {**super().shown(job), **{name: getattr(job, name) for name in options}}

    def clean_queue_name(self) -> str:
        name: str = self.cleaned_data["queue_name"]
        if not conf.is_queue_name(name):
            raise ValidationError(_("A queue's name is printable text of 1 to 100 characters without commas."))
        return name

    def clean_run_after(self) -> datetime.datetime | None:
        moment: datetime.datetime | None = self.cleaned_data["run_after"]
        try:
            # Databases store UTC, where the calendar's first and last moments may lie outside of it.
            if moment is not None and timezone.is_aware(moment):
                moment.astimezone(datetime.UTC)
        except OverflowError:
            raise ValidationError(_("This date is out of range.")) from None
        return moment

    def clean(self) -> dict[str, Any] | None:
        """Check the call as enqueue() will, so that what it refuses is an error of this form."""
        cleaned = super().clean()
        values = self._values()
        if not self.errors:
            self.call_args, self.call_kwargs = self._call(values)
        if not self.errors:
            self._check_call()
        return cleaned

    def enqueue(self) -> JobResult[Any]:
        """Enqueue what a valid form says, in the caller's transaction. Raises what Task.enqueue() raises."""
        return self._task().enqueue(*self.call_args, **self.call_kwargs)

    def _task(self) -> Task[Any, Any]:
        options = {name: self.cleaned_data[name] for name in OPTIONS}
        if options["max_attempts"] is None:
            del options["max_attempts"]
        if key := self.cleaned_data["unique_key"]:
            # As a function: a text would be a template.
            options["unique"] = replace(self.task.options.unique or Unique(), key=lambda *args, **kwargs: key)
        return self.task.using(**options)

    def _check_call(self) -> None:
        try:
            self._task().draft(self.call_args, self.call_kwargs)
        except InvalidTask as exc:
            # Of the options, only whether the queue is allowed is still in question here.
            self.add_error("queue_name", str(exc))
        except DBQueueError as exc:
            self.add_error(None, str(exc))


class EditForm(CallFields, forms.Form):
    """Other arguments for a job that there is. ``edit_form()`` makes one."""

    def __init__(self, *args: Any, job: Job, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._job = job
        self.kept = by_parameter(self.task, job.args, job.kwargs)
        for name, argument in self.arguments.items():
            if argument.is_hidden and argument.parameter.name in self.kept:
                self.fields[name].required = False
                self.fields[name].help_text = _("It is sensitive: no page shows it. Empty: as it is.")

    def clean(self) -> dict[str, Any] | None:
        """Check the call as enqueue() does."""
        cleaned = super().clean()
        self.values = self._values()
        if not self.errors:
            self._call_args, self._call_kwargs = self._call(dict(self.values))
        if not self.errors:
            try:
                draft = self.task.draft(self._call_args, self._call_kwargs)
            except DBQueueError as exc:
                self.add_error(None, str(exc))
            else:
                self._stored = draft.args, draft.kwargs
        return cleaned

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """What a valid form says, in JSON's own types."""
        return self._stored

    def differing(self) -> list[str]:
        """The parameters for which something else is passed than before."""
        # As they are shown: whoever types a guess is not to be told whether it was right.
        now = by_parameter(self.task, *redacted(self.task.name, *self.call())[:2])
        before = by_parameter(self.task, *redacted(self.task.name, self._job.args, self._job.kwargs)[:2])
        typed = {
            one.parameter.name for name, one in self.arguments.items() if one.is_hidden and name in self.changed_data
        }
        names = self.task.signature.parameters
        dropped = passed_to_nobody(self.task, self._job.args, self._job.kwargs)
        return [
            *(name for name in names if name in typed or now.get(name, MISSING) != before.get(name, MISSING)),
            *(_("without %s") % name for name in dropped),
        ]


def edit_form(task: Task[Any, Any]) -> type[EditForm]:
    """The form for one task."""
    made: type[EditForm] = type(EditForm)("EditForm", (EditForm,), fields_of(task))  # type: ignore[misc]
    return made


def enqueue_form(task: Task[Any, Any]) -> type[EnqueueForm]:
    """The form for one task, with its defaults."""
    namespace = {
        **fields_of(task),
        "queue_name": _queue_field(task),
        "priority": forms.IntegerField(
            min_value=MIN_PRIORITY,
            max_value=MAX_PRIORITY,
            initial=task.priority,
            widget=forms.NumberInput(INTEGER),
            help_text=_("-100 to 100; higher runs first."),
        ),
        "run_after": _run_after_field(task),
        "max_attempts": forms.IntegerField(
            required=False,
            min_value=1,
            max_value=MOST_ATTEMPTS,
            initial=task.options.max_attempts,
            widget=forms.NumberInput(INTEGER),
            help_text=_("Attempts after which an error is final; 1: it is not tried again."),
        ),
        "unique_key": forms.CharField(
            required=False,
            max_length=KEY_LENGTH,
            widget=forms.TextInput(TEXT),
            help_text=_("While a job of this task has this key, no other is made. Empty: as the task's code says."),
        ),
    }
    made: type[EnqueueForm] = type(EnqueueForm)("EnqueueForm", (EnqueueForm,), namespace)  # type: ignore[misc]
    return made


def fields_of(task: Task[Any, Any]) -> dict[str, Any]:
    """What a class of CallFields has of the task."""
    arguments = arguments_of(task)
    fields = {name: argument.field for name, argument in arguments.items()}
    return {"__module__": __name__, "task": task, "arguments": arguments, **fields}


def _queue_field(task: Task[Any, Any]) -> forms.Field:
    # A task of django.tasks has the queues of its backend, which are checked with the call.
    allowed = () if task.backend else conf.read()[0].queues
    if not allowed:
        return forms.CharField(initial=task.queue_name, widget=forms.TextInput(TEXT))
    # Without the empty choice a browser would offer the first queue in place of one that is not allowed.
    empty = [] if task.queue_name in allowed else [("", "---------")]
    return forms.ChoiceField(initial=task.queue_name, choices=[*empty, *((name, name) for name in allowed)])


def _run_after_field(task: Task[Any, Any]) -> forms.Field:
    zone = _("The earliest start, in the time zone %s.") % timezone.get_current_timezone_name()
    empty = _("Empty: as soon as a worker is free.") if task.run_after is None else _("Empty: as the task's code says.")
    initial = task.run_after if isinstance(task.run_after, datetime.datetime) else None
    return moment_field(required=False, initial=initial, help_text=f"{zone} {empty}")
