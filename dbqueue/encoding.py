"""What JSON and a text column can hold, and clear words for what they can't.

PostgreSQL refuses NUL, lone surrogates and NaN in jsonb, and Python's ``json`` lets all three through, as it lets
``{1: "a"}`` come back as ``{"1": "a"}``. Here they are refused for every database, before anything is written.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .exceptions import NotStorable

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""One for all calls: ``json.dumps`` with options makes one a call."""

MAX_DEPTH = 100
"""How deep lists and dicts may stand in each other: far below where Python's or a database's own decoder gives up."""


def encode(value: Any, what: str) -> str:
    """Return ``value`` as JSON text.

    ``what`` names the value in errors, as in ``"kwargs"``. Tuples become lists, and bytes become text if they are
    UTF-8, as in ``django.tasks``. Raises NotStorable, naming the place inside the value and what is there.
    """
    try:
        if _needs_no_change(value, MAX_DEPTH):
            text = _ENCODER.encode(value)
            text.encode()
            # json writes NUL as an escape; the same six characters may also be somebody's honest text.
            if "\\u0000" not in text:
                return text
    except (TypeError, ValueError):
        pass  # normalize() finds the place and says what is there
    plain = normalize(value, what)
    try:
        return _ENCODER.encode(plain)
    except ValueError as exc:
        raise NotStorable(f"{what} can't be stored as JSON: {exc}") from exc


def encode_result(value: Any, most: int) -> str:
    """A return value as JSON text. Raises NotStorable, also where that has more than so many bytes."""
    text = encode(value, "The return value")
    if (size := len(text.encode())) > most:
        raise NotStorable(
            f"The return value has {size} bytes as JSON; DBQUEUE['MAX_RESULT_BYTES'] allows "
            f"{most}. Store it elsewhere and return where it is."
        )
    return text


def normalize(value: Any, what: str, depth: int = MAX_DEPTH) -> Any:
    """Return ``value`` in JSON's own types: dict, list, str, int, float, bool, None. Raises NotStorable."""
    if depth < 0:
        raise NotStorable(f"{what[:80]}… is nested deeper than {MAX_DEPTH} levels, or holds itself.")
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise NotStorable(f"{what} is {value!r}, which JSON can't hold.")
            return value
        case str():
            return _checked_text(value, what)
        case bytes():
            return _checked_text(_decoded(value, what), what)
        case Mapping():
            return {
                _checked_key(key, what): normalize(item, f"{what}[{key!r}]", depth - 1) for key, item in value.items()
            }
        case Sequence():
            return [normalize(item, f"{what}[{number}]", depth - 1) for number, item in enumerate(value)]
        case _:
            raise NotStorable(
                f"Unsupported type: {what} is {type(value)}: {_short(value)}. "
                "JSON holds dict, list, str, int, float, bool and None; tuples become lists, bytes text."
            )


def storable_text(text: str) -> str:
    """Return ``text`` with what a text column can't hold (NUL, lone surrogates) written as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def told(exc: Exception) -> str:
    """An error in words that a text column can hold, without the values of the row that PostgreSQL adds to its own."""
    return storable_text(str(exc).partition("\nDETAIL:")[0])


def _needs_no_change(value: Any, depth: int) -> bool:
    """Whether json.dumps writes this as it is. It would turn a key that is not text into text without a word."""
    match value:
        case dict():
            return depth > 0 and all(
                type(key) is str and _needs_no_change(item, depth - 1) for key, item in value.items()
            )
        case list() | tuple():
            return depth > 0 and all(_needs_no_change(item, depth - 1) for item in value)
    return True


def _checked_key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise NotStorable(f"Unsupported type: a key of {what} is {key!r}, {type(key)}; JSON's keys are text.")
    return _checked_text(key, f"a key of {what}")


def _decoded(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NotStorable(f"Unsupported value: {what} is bytes that are not UTF-8: {_short(value)}") from None


def _checked_text(text: str, what: str) -> str:
    if "\x00" in text:
        raise NotStorable(f"{what} holds a NUL character, which PostgreSQL can't store: {_short(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotStorable(f"{what} holds a lone surrogate, which is not text: {_short(text)}") from None
    return text


def _short(value: Any) -> str:
    try:
        shown = ascii(value)
    except Exception as exc:  # noqa: BLE001  a value's own __repr__ may raise anything
        return f"<its repr() raised {type(exc).__name__}>"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
