"""What settings of Celery's say, where they are written: by name, and by the values that matter."""

import ast
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeGuard

from . import coverage
from .coverage import COVERED, Judgement, Verdict
from .meanings import Function, Name, Scope, kind_of, meaning

Said = tuple[int, str, Judgement]
"""A line, a name as it is shown, and its judgement."""

JSON = ("json", "application/json", "text/json")

UNITS = ("days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks")
"""What a timedelta is made of, in its order."""

LONGEST = 366 * 86_400
"""Seconds of the longest interval."""


def of_setting(shown: str, name: str, value: ast.expr | None, line: int, scope: Scope) -> Iterator[Said]:
    """What is to be said of a setting: ``name`` is its new one in lower case, ``value`` None where it is only read."""
    if name == "beat_schedule" and value is not None:
        yield line, shown, COVERED
        yield from of_schedule(value, scope)
        return
    value = _followed(value, scope)
    yield line, shown, _judged(name, value, scope)
    if name == "task_routes" and value is not None:
        yield from _of_routes(value, scope)


def of_schedule(value: ast.expr, scope: Scope) -> Iterator[Said]:
    """The entries of a beat schedule."""
    entries = _followed(value, scope)
    if not isinstance(entries, ast.Dict):
        yield value.lineno, "beat_schedule", coverage.NOT_LITERAL
        return
    for key, entry in zip(entries.keys, entries.values, strict=True):
        if key is None:
            yield from of_schedule(entry, scope)
        else:
            yield from of_entry(entry, scope)


def of_entry(value: ast.expr, scope: Scope) -> Iterator[Said]:
    """One entry of a beat schedule."""
    entry = _followed(value, scope)
    if not isinstance(entry, ast.Dict):
        yield value.lineno, "beat_schedule", coverage.NOT_LITERAL
        return
    for line, name, said in _items(entry):
        yield from _judged_by(coverage.BEAT_ENTRY, line, name)
        if name == "schedule":
            yield from interval("beat_schedule: schedule", said, scope)
        if name == "options" and isinstance(said, ast.Dict):
            for option_line, option, _ in _items(said):
                yield from _judged_by(coverage.BEAT_OPTIONS, option_line, option)


def serializer(value: ast.expr | None) -> Judgement | None:
    """What is to be said of ``serializer=``, if it is written here and not JSON."""
    if not isinstance(value, ast.Constant) or value.value is None or value.value in JSON:
        return None
    return coverage.PICKLE if "pickle" in str(value.value) else coverage.OTHER_SERIALIZER


def keys(node: ast.Dict) -> Iterator[tuple[int, str, ast.expr]]:
    """What a dict that is written out holds: line, key, value."""
    return _items(node)


def _judged(name: str, value: ast.expr | None, scope: Scope) -> Judgement:
    if name in ("task_serializer", "result_serializer"):
        if isinstance(value, ast.Constant):
            return serializer(value) or COVERED
    elif name in ("accept_content", "result_accept_content"):
        if isinstance(value, ast.List | ast.Tuple | ast.Set) and all(
            isinstance(one, ast.Constant) for one in value.elts
        ):
            is_json = all(isinstance(one, ast.Constant) and one.value in JSON for one in value.elts)
            return COVERED if is_json else Judgement(Verdict.DIFFERS, coverage.ONLY_JSON)
    elif name == "task_routes":
        return _routes(value, scope)
    elif name == "beat_scheduler" and isinstance(value, ast.Constant):
        return _scheduler(str(value.value))
    return coverage.setting(name)


def _scheduler(value: str) -> Judgement:
    if value.startswith("django_celery_beat"):
        return coverage.DATABASE_SCHEDULER
    return coverage.setting("beat_scheduler") if value.startswith("celery.") else coverage.OWN_SCHEDULER


def _routes(value: ast.expr | None, scope: Scope) -> Judgement:
    if value is None or isinstance(value, ast.Dict) or (isinstance(value, ast.Constant) and value.value is None):
        return COVERED
    if isinstance(value, ast.List | ast.Tuple):
        found = [_followed(one, scope) for one in value.elts]
        return COVERED if all(map(_is_route, found)) else coverage.ROUTER
    if isinstance(value, ast.Constant) or isinstance(meaning(value, scope), Function):
        return coverage.ROUTER
    return coverage.NOT_LITERAL


def _of_routes(value: ast.expr, scope: Scope) -> Iterator[Said]:
    """What the routes say beside a queue, as far as they are written out."""
    value = _followed(value, scope) or value
    if _is_pair(value) or isinstance(value, ast.Dict):
        for route in value.values if isinstance(value, ast.Dict) else value.elts[1:]:
            said = _followed(route, scope)
            for line, name, _ in _items(said) if isinstance(said, ast.Dict) else ():
                if name != "queue":
                    yield from _judged_by(coverage.ROUTE, line, name)
    elif isinstance(value, ast.List | ast.Tuple):
        for one in value.elts:
            yield from _of_routes(one, scope)


def _is_route(value: ast.expr | None) -> bool:
    """A dict of routes, a pair of a pattern and where it goes, or a list of such pairs."""
    return isinstance(value, ast.Dict) or _is_pair(value) or _elements_are_pairs(value)


def _elements_are_pairs(value: ast.expr | None) -> bool:
    return isinstance(value, ast.List | ast.Tuple) and all(map(_is_pair, value.elts))


def _is_pair(value: ast.expr | None) -> TypeGuard[ast.List | ast.Tuple]:
    """The pattern is a text, or what ``re.compile()`` makes."""
    return (
        isinstance(value, ast.List | ast.Tuple)
        and len(value.elts) == 2
        and isinstance(value.elts[0], ast.Constant | ast.Call)
    )


def interval(shown: str, value: ast.expr, scope: Scope) -> Iterator[Said]:
    """A number is seconds, as is a timedelta: here whole ones, up to 366 days."""
    seconds = _seconds(value, scope)
    if seconds is not None and not (1 <= seconds <= LONGEST and seconds == int(seconds)):
        reason = f"an interval of {seconds:g} s: it must be whole seconds, from 1 to 366 days"
        yield value.lineno, shown, Judgement(Verdict.MISSING, reason)


def _seconds(value: ast.expr, scope: Scope) -> float | None:
    """Of an interval that is written out."""
    value = _followed(value, scope) or value
    if isinstance(value, ast.Call):
        if meaning(value.func, scope) != Name(("datetime", "timedelta")):
            return None
        given = dict(zip(UNITS, value.args, strict=False))
        given.update((keyword.arg or "", keyword.value) for keyword in value.keywords)
        said = {name: number for name, one in given.items() if (number := _number(one)) is not None}
        is_read = said.keys() == given.keys() <= set(UNITS)
        return timedelta(**said).total_seconds() if is_read else None
    return _number(value)


def _number(value: ast.expr) -> float | None:
    """A number, or a product of numbers."""
    match value:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            first, second = _number(left), _number(right)
            return None if first is None or second is None else first * second
    return None


def _judged_by(section: coverage.Section, line: int, name: str) -> Iterator[Said]:
    if (judgement := section.judge(name)) is not None:
        yield line, section.title.format(name), judgement


def _items(node: ast.Dict) -> Iterator[tuple[int, str, ast.expr]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.lineno, key.value, value


def _followed(value: ast.expr | None, scope: Scope) -> ast.expr | None:
    """What a name was bound to, once."""
    if isinstance(value, ast.Name) and not kind_of(meaning(value, scope)):
        return scope.expression(value.id) or value
    return value
