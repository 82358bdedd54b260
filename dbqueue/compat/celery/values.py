"""Values for which JSON has no form, as kombu writes them: they come back as what they were."""

import base64
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

from django.utils.functional import Promise

# The order matters: a datetime is a date, too.
_KINDS: dict[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}


def encoded(value: Any) -> Any:
    """``{"__type__": "uuid", "__value__": "…"}`` for what JSON can't hold; of a lazy text the text.

    Of an object with ``__json__()``, as a signature, what that gives. Keys are made text as JSON does it.

    What else JSON can't hold stays as it is: dbqueue refuses it, by name.
    """
    if isinstance(value, dict):
        return {_key(key): encoded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(one) for one in value]
    if isinstance(value, Promise):
        return str(value)
    for name, (kind, write, _) in _KINDS.items():
        if isinstance(value, kind):
            return {"__type__": name, "__value__": write(value)}
    if (as_json := getattr(value, "__json__", None)) is not None:
        return encoded(as_json())
    return value


def _key(key: Any) -> Any:
    """As JSON writes a key that is no text; what can be none stays, and is refused."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return repr(key) if isinstance(key, int | float) and not isinstance(key, enum.Enum) else key


def decoded(value: Any) -> Any:
    """What was encoded."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__type__", "__value__"} and value["__type__"] in _KINDS:
        return _KINDS[value["__type__"]][2](value["__value__"])
    return {key: decoded(one) for key, one in value.items()}
