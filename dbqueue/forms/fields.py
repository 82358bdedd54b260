"""Form fields for values of one type, all usable without JavaScript."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

INTEGER = {"class": "vIntegerField"}
TEXT = {"class": "vTextField"}

SHAPE_NAMES: dict[type, Promise] = {
    list: gettext_lazy("a list, as [1, 2]"),
    dict: gettext_lazy('an object, as {"a": 1}'),
}


class TextField(forms.CharField):
    """Text of any number of lines, kept as it was typed."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea({"rows": 1, "class": "vLargeTextField"})
        super().__init__(**{"strip": False, "widget": widget, **kwargs})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        # Browsers send a line's end as CR LF, whatever it was.
        return text.replace("\r\n", "\n") if isinstance(text, str) else text


class Unseen(forms.Textarea):
    """What is typed here is never sent back to the browser."""

    def __init__(self) -> None:
        super().__init__({"rows": 1, "class": "vLargeTextField dbqueue-unseen", "autocomplete": "off"})

    def format_value(self, value: Any) -> None:
        return None


class UnseenLine(forms.PasswordInput):
    """The same for one line, which a browser treats as a new password: it fills nothing in and keeps nothing."""

    def __init__(self) -> None:
        super().__init__({"class": "vTextField", "autocomplete": "new-password"})


class Parsed(NamedTuple):
    """What was typed as JSON. ``null`` is a value; an empty field has none."""

    value: Any


class JSONTextField(forms.CharField):
    """JSON of one shape (list or dict), or of any. Its cleaned value is a Parsed, or None where nothing was typed.

    Not Django's JSONField, which takes ``{}``, ``[]`` and ``null`` for an empty field. ``default`` is shown as JSON;
    None shows nothing.
    """

    def __init__(
        self, *, shape: type | None = None, nullable: bool = False, default: Parsed | None = None, **kwargs: Any
    ) -> None:
        self.shape = shape
        self.nullable = nullable
        initial = None if default is None else json.dumps(default.value, ensure_ascii=False)
        widget = forms.Textarea({"rows": 2, "class": "vLargeTextField dbqueue-code", "spellcheck": "false"})
        super().__init__(initial=initial, widget=widget, **kwargs)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return Parsed(self._parse(text)) if text else None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            # As text, because to Python [1] and [true] are equal.
            return _canonical(initial) != _canonical(data)
        except (ValueError, RecursionError):
            return True

    def _parse(self, text: str) -> Any:
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValidationError(_("This is nested too deeply.")) from None
        except ValueError as exc:
            message = _('This is not JSON: %(error)s. Text stands in double quotes, as "text".')
            raise ValidationError(message, params={"error": exc}) from None
        if self.shape and not isinstance(value, self.shape) and not (self.nullable and value is None):
            raise ValidationError(_("This must be %(shape)s."), params={"shape": SHAPE_NAMES[self.shape]})
        return value


def _canonical(text: str | None) -> str:
    return json.dumps(json.loads(text), sort_keys=True) if text and text.strip() else ""


def with_widget(
    field: type[forms.Field], widget: type[forms.Widget], attrs: dict[str, str]
) -> Callable[..., forms.Field]:
    return lambda **kwargs: field(widget=widget(attrs), **kwargs)


def with_picker(
    field: type[forms.Field], widget: Callable[[dict[str, str], str], forms.Widget], kind: str, form: str
) -> Callable[..., forms.Field]:
    """A field with the browser's own picker, which needs no script and speaks ISO 8601."""
    attrs = {"type": kind, "class": "vTextField dbqueue-moment"}
    if kind != "date":
        attrs["step"] = "1"
    return lambda **kwargs: field(widget=widget(attrs, form), **kwargs)


moment_field = with_picker(forms.DateTimeField, forms.DateTimeInput, "datetime-local", "%Y-%m-%dT%H:%M:%S")
