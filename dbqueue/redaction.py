"""Arguments that nobody may read: which they are, and how pages, files and log lines hide them.

An argument is sensitive where ``@task(sensitive=…)`` names it, or where its name, or a key inside it, has what the
setting SENSITIVE is about. Of a task that this process doesn't know nothing tells, so all of its arguments are.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, NamedTuple

from . import conf, registry
from .exceptions import UnknownTask

if TYPE_CHECKING:
    from .definition import Task
    from .models import Job

HIDDEN = "••••••"
"""What stands where a value would."""

MISSING = object()
"""Stands for a value where there is none."""

SHORT = 4
"""Characters below which a secret is hidden only where it is a word: as a part of words it would be everywhere."""

_WORD = re.compile(r"\w+")

LITERALS = (repr, ascii, json.dumps, lambda text: json.dumps(text, ensure_ascii=False))
"""The ways in which a text may stand in another beside as it is: in a literal of Python or JSON."""


class Secrets:
    """The sensitive values of one call, to be hidden in what it told of itself."""

    __slots__ = ("_texts", "_words")

    def __init__(self, values: Iterable[Any] = ()) -> None:
        forms = {form for value in values for form in _forms(value)}
        self._words = frozenset(form for form in forms if _is_a_word(form))
        # The longest first: one may be a part of another.
        self._texts = sorted(forms - self._words, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._words or self._texts)

    def __or__(self, other: "Secrets") -> "Secrets":
        """Those of both. One after the other would leave the rest of a secret that has one of the first inside."""
        if isinstance(other, AllIsSecret):
            return other
        both = Secrets()
        both._words = self._words | other._words
        both._texts = sorted({*self._texts, *other._texts}, key=len, reverse=True)
        return both

    def scrub(self, text: str) -> str:
        """The text without any of them."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        if not self._words:
            return text
        return _WORD.sub(lambda found: HIDDEN if found[0] in self._words else found[0], text)

    def scrub_value(self, value: Any) -> Any:
        """A value of JSON's types without any of them, and without what sensitive keys hold."""
        match value:
            case str():
                return self.scrub(value)
            case int() | float() if not isinstance(value, bool):
                return value if self.scrub(repr(value)) == repr(value) else HIDDEN
            case Mapping():
                return {
                    self.scrub(key): HIDDEN if is_sensitive_name(key) else self.scrub_value(item)
                    for key, item in value.items()
                }
            case Sequence():
                return [self.scrub_value(item) for item in value]
            case _:
                return value


class AllIsSecret(Secrets):
    """Of a call that nobody can look into: whatever it told may be one."""

    def __bool__(self) -> bool:
        return True

    def __or__(self, other: Secrets) -> Secrets:
        return self

    def scrub(self, text: str) -> str:
        return HIDDEN if text else text


class Call(NamedTuple):
    """What a job is called with, as it may be shown, and what was hidden of it."""

    args: list[Any]
    kwargs: dict[str, Any]
    secrets: Secrets


UNREADABLE = Call([HIDDEN], {}, AllIsSecret())


def is_sensitive_name(name: object) -> bool:
    """Whether what has this name is hidden whatever the task says."""
    pattern = conf.read()[0].sensitive
    return bool(pattern) and _compiled(pattern).search(str(name)) is not None


def hides(task: "Task[Any, Any] | None", name: str) -> bool:
    """Whether what is passed by this name is hidden: also what goes into a hidden ``**rest``, or what nothing takes.

    ``task`` is None for one that is not known here.
    """
    if task is None or name in task.sensitive or is_sensitive_name(name):
        return True
    parameters = task.signature.parameters
    rest = next((one.name for one in parameters.values() if one.kind is Parameter.VAR_KEYWORD), None)
    return name not in parameters and (rest is None or rest in task.sensitive or is_sensitive_name(rest))


def redacted(task_name: str, args: Any, kwargs: Any) -> Call:
    """The call of a job, whose row anybody may have written, without what nobody may read."""
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return UNREADABLE
    task = known(task_name)
    found: list[Any] = []
    try:
        shown = [_shown(value, hidden, found) for value, hidden in zip(args, _positions(task), strict=False)]
        by_name = {name: _shown(value, hides(task, name), found) for name, value in kwargs.items()}
    except RecursionError:
        return UNREADABLE
    # What a worker that knew the task has told, it has told without its secrets.
    return Call(shown, by_name, Secrets(found if task else ()))


def known(task_name: str) -> "Task[Any, Any] | None":
    """The task of this name, if this process knows it."""
    try:
        return registry.find(task_name)
    except UnknownTask:
        return None


def result_of(job: "Job", call: Call) -> Any:
    """What a job returned, as far as anybody may read it: of a task that is not known here, nothing."""
    try:
        return HIDDEN if known(job.task) is None else call.secrets.scrub_value(job.return_value)
    except RecursionError:
        return HIDDEN


def key_of(job: "Job", key: str | None, call: Call) -> str:
    """A key that was made of a job's arguments, as far as anybody may read it.

    A digest of them tells what is missing to who tries all that it may be.
    """
    if not key or known(job.task) is None:
        return HIDDEN if key else ""
    return HIDDEN if call.secrets and key == job.unique_key else call.secrets.scrub(key)


def shown_signature(task: "Task[Any, Any]") -> Signature:
    """The task's signature without what its defaults hide."""
    signature = task.signature
    return signature.replace(parameters=[shown_parameter(task, one) for one in signature.parameters.values()])


def shown_parameter(task: "Task[Any, Any]", parameter: Parameter) -> Parameter:
    """A parameter without what its default hides."""
    if parameter.default is Parameter.empty:
        return parameter
    hidden = hides(task, parameter.name)
    return parameter.replace(default=_Mask() if hidden else _shown(parameter.default, False, []))


def restored(value: Any, original: Any) -> Any:
    """``value``, with what is hidden in it put back from the same place of ``original``, which may be MISSING.

    Raises LookupError where it has no such place, where something stands beside the mask, and in a list whose items
    are not those that were shown: a secret would go to another's place.
    """
    match value:
        case str() if HIDDEN in value:
            if value != HIDDEN or original is MISSING:
                raise LookupError(HIDDEN)
            return original
        case dict():
            if any(HIDDEN in key for key in value):
                raise LookupError(HIDDEN)
            places = original if isinstance(original, dict) else {}
            return {key: restored(item, places.get(key, MISSING)) for key, item in value.items()}
        case list():
            items = original if isinstance(original, list) else []
            return [_restored_item(item, items[n] if n < len(items) else MISSING) for n, item in enumerate(value)]
        case _:
            return value


def _restored_item(item: Any, original: Any) -> Any:
    if original is not MISSING and item == _shown(original, False, []):
        return original
    return restored(item, MISSING)


class _Mask:
    """Stands for a default in a signature."""

    def __repr__(self) -> str:
        return HIDDEN


def _positions(task: "Task[Any, Any] | None") -> Iterator[bool]:
    """For each place in args, whether what stands there is hidden. What no parameter takes is."""
    for parameter in task.signature.parameters.values() if task else ():
        if parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            yield hides(task, parameter.name)
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            while True:
                yield hides(task, parameter.name)
    while True:
        yield True


def _shown(value: Any, is_hidden: bool, found: list[Any]) -> Any:
    """The value as it may be shown; what is hidden of it goes to ``found``."""
    if is_hidden:
        found.extend(_leaves(value))
        return HIDDEN
    match value:
        case Mapping():
            return {key: _shown(item, is_sensitive_name(key), found) for key, item in value.items()}
        case list():
            return [_shown(item, False, found) for item in value]
        case tuple():
            return tuple(_shown(item, False, found) for item in value)
        case _:
            return value


def _leaves(value: Any) -> Iterator[Any]:
    match value:
        case Mapping():
            for key, item in value.items():
                yield key
                yield from _leaves(item)
        case list() | tuple():
            for item in value:
                yield from _leaves(item)
        case _:
            yield value


def _forms(value: Any) -> set[str]:
    """How a value may stand in a text. Nothing can be told from True, False and None."""
    if value is None or isinstance(value, bool) or value == "":
        return set()
    if not isinstance(value, str):
        return {repr(value)}
    # A group of exceptions writes something before each line of its members.
    lines = {line.strip() for line in value.splitlines()} if "\n" in value else set()
    texts = {value, *(line for line in lines if len(line) >= 2 * SHORT)}
    if len(value.strip()) >= SHORT:
        texts.add(value.strip())  # as from a file, with the end of its line
    once = _as_literals(texts)
    return texts | once | _as_literals(once)


def _as_literals(texts: Iterable[str]) -> set[str]:
    return {literal(text)[1:-1] for text in texts for literal in LITERALS}


def _is_a_word(form: str) -> bool:
    """Whether it is hidden only as a word of its own."""
    return _WORD.fullmatch(form) is not None and (len(form) < SHORT or form.isdigit())


@cache
def _compiled(pattern: str) -> "re.Pattern[str]":
    return re.compile(pattern, re.IGNORECASE)
