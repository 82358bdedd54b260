"""The form of a periodic job: when, which task with which arguments, and what happens to slots at a bad moment."""

import json
import zoneinfo
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..definition import Task
from ..exceptions import DBQueueError, InvalidTask
from ..models import MAX_PRIORITY, MIN_PRIORITY, Schedule
from ..redaction import HIDDEN, MISSING, redacted, restored
from ..schedule import Cron, Every, default_timezone
from ..scheduling import draft_of
from .call import CallFields
from .enqueue import choices, fields_of
from .fields import JSONTextField

if TYPE_CHECKING:
    _ScheduleForm = forms.ModelForm[Schedule]
else:
    _ScheduleForm = forms.ModelForm  # can't be subscripted when it runs

CALL = ("task", "args", "kwargs", "queue_name", "priority")
"""What a job is made of."""

EMPTY = [("", "---------")]

SEALED = (*CALL, "name", "cron", "every", "timezone", "misfire", "overlap", "enabled")
"""What people change."""


class ScheduleForm(_ScheduleForm):
    """All that a worker would refuse at the next slot is an error here."""

    task = forms.ChoiceField(label=gettext_lazy("Task"))
    timezone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        required=False,
        help_text=gettext_lazy("The time zone in which the cron expression is read."),
    )
    args = JSONTextField(
        label=gettext_lazy("Arguments"), required=False, shape=list, help_text=gettext_lazy("JSON: a list, as [1, 2].")
    )
    kwargs = JSONTextField(
        label=gettext_lazy("Keyword arguments"),
        required=False,
        shape=dict,
        help_text=gettext_lazy('JSON: an object, as {"a": 1}.'),
    )
    # Checked before the call is, unlike the validators of the column.
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=MIN_PRIORITY,
        max_value=MAX_PRIORITY,
        help_text=gettext_lazy("-100 to 100; higher runs first. Empty: the task's own."),
    )

    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Schedule
        fields = (
            "name",
            "task",
            "cron",
            "timezone",
            "every",
            "args",
            "kwargs",
            "misfire",
            "overlap",
            "enabled",
            "queue_name",
            "priority",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shown = redacted(self.instance.task, self.instance.args, self.instance.kwargs)
        for name in ("args", "kwargs"):
            self.initial[name] = json.dumps(getattr(shown, name), ensure_ascii=False)
        self._offer("task", [*EMPTY, *choices()])
        self._offer("timezone", [*EMPTY, *((name, name) for name in _timezones())])
        self.before = {name: getattr(self.instance, name) for name in SEALED}
        if not self.instance._state.adding:
            self.initial["seen"] = seal(self.before)
        else:
            self.initial["timezone"] = self.initial.get("timezone") or default_timezone()

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise ValidationError(_("A name is printable text."))
        others = Schedule.objects.using(conf.read()[0].database).exclude(pk=self.instance.pk)
        if others.filter(source=self.instance.source, name=name).exists():
            raise ValidationError(_("There is a schedule of this name already."))
        return name

    def clean_args(self) -> list[Any]:
        parsed = self.cleaned_data["args"]
        return [] if parsed is None else self._restored(parsed.value, self.instance.args)

    def clean_kwargs(self) -> dict[str, Any]:
        parsed = self.cleaned_data["kwargs"]
        return {} if parsed is None else self._restored(parsed.value, self.instance.kwargs)

    def _restored(self, value: Any, original: Any) -> Any:
        """With what was hidden as it was, unless another task would get it now."""
        is_same_task = self.cleaned_data.get("task", self.instance.task) == self.instance.task
        try:
            return restored(value, original if is_same_task else MISSING)
        except LookupError:
            raise ValidationError(_("%s stands for what nobody may read: type it anew.") % HIDDEN) from None

    def clean(self) -> dict[str, Any] | None:
        super().clean()
        self._check_seal()
        if not self.errors and "args" not in self.fields:
            self._check_unseen()
        if not self.errors:
            self._check_clock()
        if not self.errors:
            self._check_call()
        return self.cleaned_data

    def _offer(self, field: str, choices: list[Any]) -> None:
        """These choices, and what the row has already."""
        if field not in self.fields:
            return
        current = getattr(self.instance, field)
        known = {name for group, names in choices for name in (dict(names) if isinstance(names, list) else [group])}
        choice: Any = self.fields[field]
        choice.choices = choices if current in known else [*choices, (current, current)]

    def _check_clock(self) -> None:
        cron, every = self.cleaned_data["cron"], self.cleaned_data["every"]
        if bool(cron) == (every is not None):
            self.add_error("cron", _("Give either a cron expression or a number of seconds."))
            return
        try:
            if every is not None:
                Every(every)
                self.cleaned_data["timezone"] = ""
            else:
                when = Cron(cron, self.cleaned_data["timezone"] or default_timezone())
                self.cleaned_data |= {"cron": when.expression, "timezone": when.timezone}
        except ValueError as exc:
            self.add_error("cron" if every is None else "every", str(exc))

    def _check_seal(self) -> None:
        """Whether somebody has changed the schedule since this form was made."""
        seen = self.cleaned_data.pop("seen", "")
        if seen and not constant_time_compare(seen, seal(self.before)):
            self.add_error(None, _("Somebody has changed this schedule meanwhile: load the page again."))

    def _check_unseen(self) -> None:
        """Arguments that this user may not see must not go to a task that might tell them."""
        has_some = bool(self.instance.args or self.instance.kwargs)
        if has_some and self.cleaned_data.get("task", self.before["task"]) != self.before["task"]:
            self.add_error("task", _("Your account may not see the arguments, so another task can't have them."))

    def _check_call(self) -> None:
        given = {name: self.cleaned_data.get(name, getattr(self.instance, name)) for name in CALL}
        try:
            draft_of(Schedule(**given))
        except InvalidTask as exc:
            # Of the options, only those of the queue are still in question here.
            self.add_error("queue_name", str(exc))
        except DBQueueError as exc:
            self.add_error("args" if "args" in self.fields else None, str(exc))


class _WithoutJSON(ScheduleForm):
    task = None  # type: ignore[assignment]
    args = None  # type: ignore[assignment]
    kwargs = None  # type: ignore[assignment]


class PlanForm(CallFields, _WithoutJSON):  # type: ignore[misc]
    """A new schedule of one task, with a field for each of its parameters. ``plan_form()`` makes one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.task = self.task.name

    def clean(self) -> dict[str, Any] | None:
        values = self._values()
        if not self.errors:
            called, self.instance.kwargs = self._call(values)
            self.instance.args = list(called)
        return super().clean()


def plan_form(task: Task[Any, Any]) -> type[PlanForm]:
    """The form for one task."""
    made: type[PlanForm] = type(PlanForm)("PlanForm", (PlanForm,), fields_of(task))  # type: ignore[misc]
    return made


def seal(values: Mapping[str, Any]) -> str:
    """What tells whether these are still the same, and to nobody else what they are."""
    return salted_hmac("dbqueue.schedule", json.dumps(values, sort_keys=True), algorithm="sha256").hexdigest()


@cache
def _timezones() -> list[str]:
    return sorted(zoneinfo.available_timezones())
