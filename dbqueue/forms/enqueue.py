"""The two steps: choose a task, then fill in its arguments and the job's options."""

import datetime
import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf, registry
from ..definition import Task
from ..exceptions import DBQueueError, InvalidTask, NotStorable, UnknownTask
from ..models import MAX_PRIORITY, MIN_PRIORITY, Job
from ..results import JobResult
from .arguments import LEFT_OUT, PREFIX, Argument, arguments_of
from .fields import INTEGER, TEXT, moment_field

if TYPE_CHECKING:
    _JobForm = forms.ModelForm[Job]
else:
    _JobForm = forms.ModelForm  # can't be subscripted when it runs

SUMMARY_LENGTH = 80

OPTIONS = ("queue_name", "priority", "run_after")


class ChooseTaskForm(forms.Form):
    """Step one. Its cleaned value is a registered task: a name is looked up, never imported."""

    task = forms.CharField(label=gettext_lazy("Task"), widget=forms.Select)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast(forms.Select, self.fields["task"].widget).choices = [("", "---------"), *grouped(offered())]

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


def grouped(tasks: Iterable[Task[Any, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Choices by module, so that typing a task's own name finds it."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for task in tasks:
        module, _dot, own_name = task.name.rpartition(".")
        first_line = summary(task)
        groups.setdefault(module, []).append((task.name, f"{own_name}: {first_line}" if first_line else own_name))
    return list(groups.items())


class EnqueueForm(_JobForm):
    """Step two, for one task: its arguments, and the options of the job. ``enqueue_form()`` makes one."""

    task: ClassVar[Task[Any, Any]]
    arguments: ClassVar[dict[str, Argument]]

    class Meta:
        model = Job
        fields = ()

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
        return self.task.using(**{name: self.cleaned_data[name] for name in OPTIONS})

    def _check_call(self) -> None:
        try:
            self._task().draft(self.call_args, self.call_kwargs)
        except InvalidTask as exc:
            # Of the options, only whether the queue is allowed is still in question here.
            self.add_error("queue_name", str(exc))
        except DBQueueError as exc:
            self.add_error(None, str(exc))

    def _values(self) -> dict[str, Any]:
        """What is passed for each parameter that is not left out."""
        values = {}
        for name, argument in self.arguments.items():
            if name in self.cleaned_data:
                try:
                    value = argument.value(self.cleaned_data[name], changed=name in self.changed_data)
                except NotStorable as exc:
                    self.add_error(name, str(exc))
                else:
                    values[argument.parameter.name] = value
        return {name: value for name, value in values.items() if value is not LEFT_OUT}

    def _call(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by keyword; by position only where the signature leaves no choice."""
        rest: list[Any] = self._take(values, inspect.Parameter.VAR_POSITIONAL) or []
        more: dict[str, Any] = self._take(values, inspect.Parameter.VAR_KEYWORD) or {}
        placed = [argument for argument in self.arguments.values() if _is_placed(argument, bool(rest))]
        while placed and not rest and placed[-1].parameter.name not in values:
            placed.pop()
        args = [self._placed_value(argument, values) for argument in placed]
        return (*args, *rest), {**values, **more}

    def _take(self, values: dict[str, Any], kind: Any) -> Any:
        """Take the value of the one parameter of this kind out of ``values``; None if there is none."""
        for name, argument in self.arguments.items():
            if argument.parameter.kind is kind:
                value = values.pop(argument.parameter.name, None)
                if kind is inspect.Parameter.VAR_KEYWORD:
                    self._refuse_doubles(name, value or {})
                return value
        return None

    def _placed_value(self, argument: Argument, values: dict[str, Any]) -> Any:
        """A value for a place that can't be left out, as others stand behind it."""
        name = argument.parameter.name
        if name in values:
            return values.pop(name)
        try:
            return argument.default()
        except NotStorable:
            self.add_error(PREFIX + name, _("An argument behind this one is given, so this one needs a value too."))
            return None

    def _refuse_doubles(self, name: str, more: dict[str, Any]) -> None:
        """A key of ``**kwargs`` must not name a parameter that has a field of its own."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        taken = [key for key in more if PREFIX + key in self.arguments]
        doubles = [key for key in taken if self.arguments[PREFIX + key].parameter.kind in kinds]
        if doubles:
            self.add_error(name, _("These have fields of their own: %s.") % ", ".join(doubles))


def _is_placed(argument: Argument, has_rest: bool) -> bool:
    kind = argument.parameter.kind
    return kind is inspect.Parameter.POSITIONAL_ONLY or (has_rest and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)


def enqueue_form(task: Task[Any, Any]) -> type[EnqueueForm]:
    """The form for one task, with its defaults."""
    arguments = arguments_of(task)
    namespace = {
        "__module__": __name__,
        "task": task,
        "arguments": arguments,
        **{name: argument.field for name, argument in arguments.items()},
        "queue_name": _queue_field(task),
        "priority": forms.IntegerField(
            min_value=MIN_PRIORITY,
            max_value=MAX_PRIORITY,
            initial=task.priority,
            widget=forms.NumberInput(INTEGER),
            help_text=_("-100 to 100; higher runs first."),
        ),
        "run_after": _run_after_field(task),
    }
    made: type[EnqueueForm] = type(EnqueueForm)("EnqueueForm", (EnqueueForm,), namespace)  # type: ignore[misc]
    return made


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
