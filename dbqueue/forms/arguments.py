"""A task's parameters as form fields, chosen by their type hints."""

import contextlib
import datetime
import decimal
import inspect
import json
import re
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass, replace
from enum import Enum, Flag
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.forms.widgets import DateTimeBaseInput
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise
from django.utils.html import escape
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..definition import Task
from ..encoding import encode, normalize, storable_text
from ..exceptions import NotStorable
from ..redaction import hides, shown_parameter
from .fields import (
    INTEGER,
    SHAPE_NAMES,
    TEXT,
    JSONTextField,
    Parsed,
    TextField,
    Unseen,
    UnseenLine,
    moment_field,
    with_picker,
    with_widget,
)

PREFIX = "arg_"
"""Before the name of a parameter in the name of its field, so that no parameter hides one of the job's options."""

SHOWN_LENGTH = 80
"""Characters that are shown of a default that a field can't hold."""

NO_DEFAULT = inspect.Parameter.empty

_HAS_LINES = re.compile(r"key|cert|pem|credential", re.IGNORECASE)
"""Names of secrets that may have several lines, of which a field for passwords would make one."""


class Nothing(Enum):
    """Stands for "no value", where None is one."""

    LEFT_OUT = "left out"


LEFT_OUT = Nothing.LEFT_OUT


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of a type are typed in, which defaults the field can show, and what the task receives."""

    field: Callable[..., forms.Field]
    shows: tuple[type, ...]
    receives: Callable[[Any], Any] = lambda value: value
    note: "str | Promise" = ""


WORDS: "dict[type, str | Promise]" = {
    int: gettext_lazy("A whole number."),
    float: gettext_lazy("A number."),
    decimal.Decimal: gettext_lazy("A decimal number."),
    str: gettext_lazy("Text."),
    bool: gettext_lazy("Yes or no."),
}
"""What types are called for somebody who is no programmer; others go by their own name."""

KINDS: dict[type, Kind] = {
    int: Kind(with_widget(forms.IntegerField, forms.NumberInput, INTEGER), (int,)),
    float: Kind(with_widget(forms.FloatField, forms.NumberInput, {**INTEGER, "step": "any"}), (float, int)),
    str: Kind(TextField, (str,)),
    bool: Kind(forms.BooleanField, (bool,)),
    decimal.Decimal: Kind(
        with_widget(forms.DecimalField, forms.NumberInput, {**INTEGER, "step": "any"}),
        (decimal.Decimal,),
        str,
        gettext_lazy("The task receives it as text."),
    ),
    uuid.UUID: Kind(
        with_widget(forms.UUIDField, forms.TextInput, TEXT),
        (uuid.UUID,),
        str,
        gettext_lazy("The task receives it as text."),
    ),
    datetime.date: Kind(
        with_picker(forms.DateField, forms.DateInput, "date", "%Y-%m-%d"),
        (datetime.date,),
        datetime.date.isoformat,
        gettext_lazy("The task receives it as ISO 8601 text, as 2030-12-31."),
    ),
    datetime.time: Kind(
        with_picker(forms.TimeField, forms.TimeInput, "time", "%H:%M:%S"),
        (datetime.time,),
        datetime.time.isoformat,
        gettext_lazy("The task receives it as ISO 8601 text, as 23:59:00."),
    ),
    datetime.datetime: Kind(
        moment_field,
        (datetime.datetime,),
        datetime.datetime.isoformat,
        gettext_lazy("The task receives it as ISO 8601 text, as 2030-12-31T23:59:00+00:00."),
    ),
    datetime.timedelta: Kind(
        with_widget(forms.DurationField, forms.TextInput, TEXT),
        (datetime.timedelta,),
        duration_iso_string,
        gettext_lazy("As 01:30:00, or 2 12:00:00 with days. The task receives it as ISO 8601 text, as P0DT01H30M00S."),
    ),
}

SHAPES: dict[Any, type] = {
    **dict.fromkeys((list, tuple, set, frozenset, Sequence, MutableSequence), list),
    **dict.fromkeys((dict, Mapping, MutableMapping), dict),
}
"""What a JSON field insists on, by the hint's class or origin; for other hints any JSON will do."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter and its field. ``receives`` turns the field's cleaned value into what the task receives."""

    parameter: inspect.Parameter
    field: forms.Field
    nullable: bool
    receives: Callable[[Any], Any]
    is_hidden: bool = False

    @property
    def may_be_left_out(self) -> bool:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return self.parameter.default is not NO_DEFAULT or self.parameter.kind in kinds

    def value(self, cleaned: Any, *, changed: bool) -> Any:
        """What the call passes, or LEFT_OUT. Raises NotStorable."""
        if self.may_be_left_out and not changed:
            return LEFT_OUT
        if cleaned is None:
            return None if self.nullable else LEFT_OUT
        return self._stored(self.receives(cleaned))

    def shown(self, stored: Any) -> Any:
        """What the field shows for what a job has been given."""
        if self.receives is _parsed:
            return storable_text(json.dumps(stored, ensure_ascii=False))
        if isinstance(self.field, forms.TypedChoiceField):
            choices: Any = self.field.choices
            keys = [key for key, _label in choices if key]
            return next((key for key in keys if _same(self.receives(self.field.coerce(key)), stored)), "")
        if isinstance(self.field.widget, forms.NumberInput | DateTimeBaseInput) and not self._takes(stored):
            return ""  # a browser would show nothing either
        if isinstance(self.field, forms.DateTimeField) and isinstance(stored, str):
            with contextlib.suppress(ValueError, OverflowError):
                moment = parse_datetime(stored)
                if moment is not None and timezone.is_aware(moment):
                    moment.astimezone(datetime.UTC)  # as the field will, for which this may be out of range
                return moment
            return ""
        return storable_text(stored) if isinstance(stored, str) else stored

    def _takes(self, value: Any) -> bool:
        try:
            self.field.clean(value)
        except ValidationError:
            return False
        return True

    def default(self) -> Any:
        """The parameter's default, for a call that can't leave it out. Raises NotStorable."""
        default = self.parameter.default
        is_typed = self.field.initial is not None and self.receives is not _parsed
        return self._stored(self.receives(default) if is_typed else default)

    def _stored(self, value: Any) -> Any:
        try:
            encode(value, self.parameter.name)
        except NotStorable:
            if self.is_hidden:
                raise NotStorable(_("This can't be stored as JSON.")) from None
            raise
        return value


def arguments_of(task: Task[Any, Any]) -> dict[str, Argument]:
    """A field for each parameter that a caller of the task may pass, by the field's name."""
    hints = type_hints(task.func)
    parameters = task.signature.parameters.values()
    return {PREFIX + one.name: _argument_of(task, one, hints.get(one.name, Any)) for one in parameters}


def readable_signature(task: Task[Any, Any]) -> inspect.Signature:
    """The task's signature with the hints themselves, where the code has them as text."""
    hints, signature = type_hints(task.func), task.signature
    returned = hints.get("return", signature.return_annotation)
    return signature.replace(
        parameters=[
            shown_parameter(task, one).replace(annotation=hints.get(one.name, one.annotation))
            for one in signature.parameters.values()
        ],
        return_annotation=None if returned is types.NoneType else returned,
    )


def type_hints(func: Callable[..., Any]) -> dict[str, Any]:
    """The hints of ``func`` that can be evaluated here: a name that only a type checker imports costs only its own."""
    func = inspect.unwrap(func)
    hints = {}
    for name, annotation in _annotations(func).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(alone, getattr(func, "__globals__", {})))
        except Exception:  # noqa: BLE001  evaluating somebody's annotation may raise anything
            continue  # its field takes JSON
    return hints


def _annotations(func: Callable[..., Any]) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(func, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(func)


def _argument_of(task: Task[Any, Any], parameter: inspect.Parameter, hint: Any) -> Argument:
    if hides(task, parameter.name):
        return _sensitive(parameter, hint)
    # The field shows what anybody may see of the default; where the call needs it, it is the default itself.
    return replace(_argument(shown_parameter(task, parameter), hint), parameter=parameter)


def _argument(parameter: inspect.Parameter, hint: Any) -> Argument:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return _variadic(parameter, list, f"*{parameter.name}")
    if parameter.kind is parameter.VAR_KEYWORD:
        return _variadic(parameter, dict, f"**{parameter.name}")
    hint, nullable = _without_none(hint)
    nullable = nullable or parameter.default is None
    if choices := _choices(hint, nullable):
        return _chosen(parameter, choices, nullable)
    if isinstance(hint, type) and issubclass(hint, Model) and not hint._meta.abstract:
        return _a_row(parameter, hint, nullable)
    if isinstance(hint, type) and hint in KINDS:
        return _typed(parameter, hint, nullable)
    return _as_json(parameter, hint, nullable)


def _sensitive(parameter: inspect.Parameter, hint: Any) -> Argument:
    """A field that shows neither a default nor what was typed, also when its form comes back with an error."""
    hint, nullable = _without_none(hint)
    nullable = nullable or parameter.default is None
    is_named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    kind = KINDS.get(hint) if is_named and isinstance(hint, type) and hint is not bool else None
    note = gettext_lazy("It is sensitive: no page shows it.")
    words = WORDS.get(hint, "") if kind else _("JSON.")
    empty = _("Empty: the code's default.") if parameter.default is not NO_DEFAULT else ""
    options: dict[str, Any] = {
        "label": parameter.name,
        "required": is_named and _required(parameter, nullable),
        "help_text": _help(words, note, "" if kind is None else kind.note, empty),
    }
    shape = {parameter.VAR_POSITIONAL: list, parameter.VAR_KEYWORD: dict}.get(parameter.kind)  # type: ignore[call-overload]
    field = JSONTextField(shape=shape, nullable=nullable, **options) if kind is None else kind.field(**options)
    field.widget = Unseen() if kind is None or _HAS_LINES.search(parameter.name) else UnseenLine()
    return Argument(parameter, field, nullable, _parsed if kind is None else kind.receives, is_hidden=True)


def _variadic(parameter: inspect.Parameter, shape: type, label: str) -> Argument:
    field = JSONTextField(label=label, required=False, shape=shape, help_text=_help(f"JSON: {SHAPE_NAMES[shape]}."))
    return Argument(parameter, field, False, _parsed)


def _typed(parameter: inspect.Parameter, hint: type, nullable: bool) -> Argument:
    kind = KINDS[hint]
    shown = isinstance(parameter.default, kind.shows)
    options: dict[str, Any] = {"initial": parameter.default} if shown else {}
    if hint is str:
        options["empty_value"] = None if nullable else ""
    # An empty box is False, and an empty text is text.
    says_all = shown and hint in (str, bool) and not nullable
    note = "" if says_all else _empty_note(parameter, nullable)
    field = kind.field(
        label=parameter.name,
        required=_required(parameter, nullable) and hint is not bool,
        help_text=_help(WORDS.get(hint, f"{inspect.formatannotation(hint)}."), kind.note, note),
        **options,
    )
    return Argument(parameter, field, nullable, kind.receives)


def _chosen(parameter: inspect.Parameter, choices: dict[str, Any], nullable: bool) -> Argument:
    default = next((key for key, value in choices.items() if _same(value, parameter.default)), None)
    empty = [("", _("None") if nullable else "---------")] if nullable or default is None else []
    labels = [(key, str(getattr(value, "label", key))) for key, value in choices.items()]
    field = forms.TypedChoiceField(
        label=parameter.name,
        required=_required(parameter, nullable),
        choices=[*empty, *labels],
        coerce=lambda key: _among(choices, key),
        empty_value=None,
        initial=default,
        help_text=_help("" if nullable or default else _empty_note(parameter, nullable)),
    )
    return Argument(parameter, field, nullable, lambda value: value.value if isinstance(value, Enum) else value)


def _a_row(parameter: inspect.Parameter, model: type[Model], nullable: bool) -> Argument:
    """The primary key of a row that there is."""
    said = {"name": model._meta.verbose_name, "key": model._meta.pk.name if model._meta.pk else "pk"}
    field = forms.ModelChoiceField(
        model._default_manager.all(),
        label=parameter.name,
        required=_required(parameter, nullable),
        widget=forms.TextInput(TEXT),
        help_text=_help(_("The %(key)s of a %(name)s. The task receives it.") % said, _empty_note(parameter, nullable)),
        error_messages={"invalid_choice": _("There is no %(name)s with this %(key)s.") % said},
    )
    return Argument(parameter, field, nullable, _key_of)


def _key_of(row: Model) -> Any:
    return row.pk if isinstance(row.pk, int) else str(row.pk)


def _as_json(parameter: inspect.Parameter, hint: Any, nullable: bool) -> Argument:
    default = None
    if parameter.default is not NO_DEFAULT and parameter.default is not None:
        with contextlib.suppress(NotStorable):  # then the help text shows it
            default = Parsed(normalize(parameter.default, parameter.name))
    named = _('JSON, as 1, "text", [1, 2] or {"a": 1}.') if hint is Any else f"JSON: {inspect.formatannotation(hint)}."
    field = JSONTextField(
        label=parameter.name,
        required=_required(parameter, nullable),
        shape=next((shape for kind, shape in SHAPES.items() if kind == (typing.get_origin(hint) or hint)), None),
        nullable=nullable,
        default=default,
        help_text=_help(named, _empty_note(parameter, nullable)),
    )
    return Argument(parameter, field, nullable, _parsed)


def _parsed(cleaned: Parsed) -> Any:
    return cleaned.value


def _required(parameter: inspect.Parameter, nullable: bool) -> bool:
    return parameter.default is NO_DEFAULT and not nullable


def _without_none(hint: Any) -> tuple[Any, bool]:
    """``X`` and True for ``X | None``. A NewType or a type alias is taken for what it stands for."""
    while inner := getattr(hint, "__supertype__", None) or _aliased(hint):
        hint = inner
    members, origin = typing.get_args(hint), typing.get_origin(hint)
    rest = tuple(member for member in members if member not in (None, types.NoneType))
    if len(rest) == len(members) or not rest:
        return hint, False
    if origin is typing.Literal:
        return typing.Literal[rest], True
    if origin in (typing.Union, types.UnionType):
        return typing.Union[rest], True  # noqa: UP007  there is no operator for a tuple of types
    return hint, False


def _aliased(hint: Any) -> Any:
    kind = getattr(typing, "TypeAliasType", None)  # from Python 3.12
    return hint.__value__ if kind and isinstance(hint, kind) else None


def _choices(hint: Any, nullable: bool) -> dict[str, Any]:
    """The values of a hint that has few, by what the page shows for them."""
    if hint is bool and nullable:
        return {"True": True, "False": False}
    if isinstance(hint, type) and issubclass(hint, Enum) and not issubclass(hint, Flag):
        return dict(hint.__members__)
    if typing.get_origin(hint) is typing.Literal:
        values = typing.get_args(hint)
        shown = str if all(isinstance(value, str) for value in values) else repr
        return {shown(value): value for value in values}
    return {}


def _among(choices: dict[str, Any], key: str) -> Any:
    """The value of a choice. Raises ValueError, which the field turns into an error of its own."""
    if key not in choices:
        raise ValueError(key)
    return choices[key]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _empty_note(parameter: inspect.Parameter, nullable: bool) -> str:
    """What an empty field means, where it means something."""
    if nullable:
        return _("Empty: None.")
    if parameter.default is NO_DEFAULT:
        return ""
    return _("Empty: the code's default, %s.") % Truncator(repr(parameter.default)).chars(SHOWN_LENGTH)


def _help(*sentences: "str | Promise") -> str:
    """Help text. The admin's templates take it for HTML."""
    return escape(" ".join(str(sentence) for sentence in sentences if sentence))
