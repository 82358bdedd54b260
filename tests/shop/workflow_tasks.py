"""Tasks that the tests of workflows put together."""

import hashlib
import json
from typing import Any

from dbqueue import Context, Discard, chain, group, task

from .models import Mark


@task
def give(value: Any) -> Any:
    """Return it."""
    return value


@task
def inc(x: int, by: int = 1) -> int:
    return x + by


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def note(*args: Any) -> list[Any]:
    """Leave a mark of what it was called with, and return it."""
    Mark.objects.create(label=repr(args)[:100])
    return list(args)


@task
def nothing() -> None:
    """Take and return nothing."""


@task
def broken(*args: Any) -> None:
    raise ValueError("broken on purpose")


@task
def unwanted(*args: Any) -> None:
    raise Discard("not wanted any more")


@task(max_attempts=3, backoff=0)
def thrice(x: int) -> int:
    """Fail twice, then return what it was given."""
    Mark.objects.create(label="thrice")
    if Mark.objects.filter(label="thrice").count() % 3:
        raise ValueError("not yet")
    return x


@task(takes_context=True)
def become(context: Context, kind: str, x: int) -> None:
    """Be replaced, by what the kind says."""
    match kind:
        case "signature":
            context.replace(inc.s(x, by=10))
        case "chain":
            context.replace(chain(inc.s(x, by=10), inc.s(by=100)))
        case "group":
            context.replace(group(inc.s(x, by=number) for number in range(3)))
        case "empty":
            context.replace(group())
        case "broken":
            context.replace(group(broken.si() for _ in range(x)))
        case "failure":
            context.replace(inc.s(x) | broken.s())
        case "again":
            context.replace(become.s("again", x - 1) if x else give.s("the last"))


@task(takes_context=True)
def grow(context: Context, number: int) -> int:
    """Add as many members less one, each of which does the same."""
    for less in range(number):
        context.add(grow.s(less))
    return number


@task(takes_context=True)
def dig(context: Context, times: int) -> int:
    """Be replaced by the same so many times; then add a member, from the middle of a chain that replaces the last."""
    if times:
        context.replace(dig.s(times - 1) | inc.s(by=0))
    context.add(give.s("added"))
    return 0


@task(takes_context=True)
async def grow_later(context: Context, number: int) -> int:
    """The same in async code, each new member being no such task."""
    for less in range(number):
        await context.aadd(give.s(less))
    return number


@task(takes_context=True)
async def grow_wrongly(context: Context) -> None:
    context.add(give.s(1))


@task(takes_context=True)
def become_after(context: Context, x: int, kind: str) -> None:
    """The same, given a result."""
    become.func(context, kind, x)


@task(takes_context=True)
def grow_of(context: Context, numbers: list[int]) -> int:
    """The same, given a list."""
    return int(grow.func(context, numbers[0]))


@task
def told_nothing() -> None:
    Mark.objects.create(label="told nothing")


@task
def told_id(job_id: str) -> None:
    Mark.objects.create(label=f"told {job_id}")


@task
def told_all(job_id: str, error: str, traceback: str, own: str) -> None:
    Mark.objects.create(label=f"{own}: {job_id} {error} {traceback.strip().splitlines()[-1]}"[:100])


@task
def told_flag(job_id: str, verbose: bool = False) -> None:
    Mark.objects.create(label=f"told {job_id} {verbose}")


@task
def told_traceback(job_id: str, error: str = "", traceback: str = "") -> None:
    Mark.objects.create(label=f"told {job_id} {error} {traceback[:9]}")


@task(unique=True)
def only_one() -> None: ...


def digest(label: str, given: list[Any]) -> str:
    """What a step of a random tree returns: it tells what it was given, and through any depth what they were."""
    return hashlib.sha1(json.dumps([label, normal(given)]).encode()).hexdigest()[:12]


def normal(value: Any) -> Any:
    """A failure that was handed on tells ids, which nobody knows before."""
    if isinstance(value, dict):
        return "failure"
    return [normal(one) for one in value] if isinstance(value, list) else value


@task(takes_context=True, max_attempts=2, backoff=0)
def leaf(context: Context, *given: Any, label: str, kind: str) -> str:
    """A step of a random tree."""
    Mark.objects.create(label=label)
    match kind:
        case "fail":
            raise ValueError(label)
        case "discard":
            raise Discard(label)
        case "retry" if context.attempt == 1:
            raise ValueError(label)
        case "become":
            context.replace(leaf.s(label=f"{label}.1", kind="ok") | leaf.s(label=f"{label}.2", kind="ok"))
        case "become failing":
            context.replace(leaf.s(label=f"{label}.1", kind="ok") | leaf.s(label=f"{label}.2", kind="fail"))
        case "become group":
            context.replace(group(leaf.s(label=f"{label}.{number}", kind="ok") for number in (1, 2)))
        case "become empty":
            context.replace(group())
        case "grow":
            context.add(leaf.s(label=f"{label}.1", kind="ok"))
        case "grow empty":
            context.add(group(), leaf.s(label=f"{label}.1", kind="ok"))
        case "grow often":
            context.add(leaf.s(label=f"{label}.1", kind="ok"))
            context.add(group(leaf.s(label=f"{label}.2", kind="ok")), leaf.s(label=f"{label}.3", kind="ok"))
    return digest(label, list(given))


@task
def told_of(job_id: str, label: str) -> None:
    """The callback of a step of a random tree."""
    Mark.objects.create(label=f"{label} told")


@task(takes_context=True)
def tell_headers(context: Context, fail: bool = False) -> None:
    Mark.objects.create(label=json.dumps(context.headers, sort_keys=True))
    if fail:
        raise ValueError("on purpose")


@task(takes_context=True)
def relay(context: Context) -> None:
    context.replace(tell_headers.si())
