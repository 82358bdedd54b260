"""A call of one task as fields: from what is typed to args and kwargs, and from those of a job to what is shown."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.utils.translation import gettext as _

from ..definition import Task
from ..exceptions import NotStorable
from ..models import Job
from ..redaction import HIDDEN, MISSING, redacted, restored
from .arguments import LEFT_OUT, PREFIX, Argument

if TYPE_CHECKING:
    _Form = forms.Form
else:
    _Form = object


class CallFields(_Form):
    """What the forms have in common that are made from a task's signature."""

    task: ClassVar[Task[Any, Any]]
    arguments: ClassVar[dict[str, Argument]]

    kept: Mapping[str, Any] = {}
    """By parameter, the arguments of a job that is changed: what is not shown stays as it is."""

    @classmethod
    def shown(cls, job: Job) -> dict[str, Any]:
        """Initial values from a job of the task, as far as anybody may read it and it fits the task's signature."""
        call = redacted(job.task, job.args, job.kwargs)
        given = by_parameter(cls.task, call.args, call.kwargs)
        return {
            name: argument.shown(given[argument.parameter.name])
            for name, argument in cls.arguments.items()
            if argument.parameter.name in given and not argument.is_hidden
        }

    def _value(self, name: str, argument: Argument) -> Any:
        """What is passed for one parameter. Raises NotStorable, and LookupError for what was hidden."""
        changed, original = name in self.changed_data, self.kept.get(argument.parameter.name, MISSING)
        if argument.is_hidden and not changed and original is not MISSING:
            return original
        return restored(argument.value(self.cleaned_data[name], changed=changed), original)

    def _values(self) -> dict[str, Any]:
        """What is passed for each parameter that is not left out."""
        values = {}
        for name, argument in self.arguments.items():
            if name in self.cleaned_data:
                try:
                    values[argument.parameter.name] = self._value(name, argument)
                except NotStorable as exc:
                    self.add_error(name, str(exc))
                except LookupError:
                    self.add_error(name, _("%s stands for what nobody may read: type it anew.") % HIDDEN)
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


def by_parameter(task: Task[Any, Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """What a job passes for each parameter that the task has, also where the call as a whole doesn't fit any more."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return {}
    try:
        bound = task.signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        parameters = task.signature.parameters
        placed = [
            name for name, one in parameters.items() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
        named = {name: value for name, value in kwargs.items() if name in parameters}
        return {**dict(zip(placed, args, strict=False)), **named}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in bound.items()}


def passed_to_nobody(task: Task[Any, Any], args: Any, kwargs: Any) -> list[str]:
    """What a job passes and no parameter takes, by its name or place."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return ["args", "kwargs"]
    kinds = [one.kind for one in task.signature.parameters.values()]
    places = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    over = [] if inspect.Parameter.VAR_POSITIONAL in kinds else range(places, len(args))
    unknown = [] if inspect.Parameter.VAR_KEYWORD in kinds else sorted(kwargs.keys() - task.signature.parameters.keys())
    return [*(f"args[{place}]" for place in over), *unknown]


def _is_placed(argument: Argument, has_rest: bool) -> bool:
    kind = argument.parameter.kind
    return kind is inspect.Parameter.POSITIONAL_ONLY or (has_rest and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
