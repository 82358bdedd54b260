"""Tasks for tests/test_workflows_edges.py: what goes wrong in the middle of a workflow."""

import datetime
from typing import Any

from dbqueue import Context, chain, group, task

from .models import Mark
from .workflow_tasks import give, inc, note

TOO_FAR = datetime.timedelta(days=4_000_000)


def _is_first(label: str) -> bool:
    Mark.objects.create(label=label)
    return Mark.objects.filter(label=label).count() == 1


@task
def flaky(x: Any = None) -> str:
    """Fail the first time."""
    if _is_first("flaky"):
        raise ValueError("first")
    return "flaky"


@task
def flaky_inside() -> str:
    """The same, for another place."""
    if _is_first("flaky inside"):
        raise ValueError("first")
    return "inside"


@task
def flaky_taker(x: Any) -> Any:
    """The same, given a result, which it returns."""
    if _is_first("flaky taker"):
        raise ValueError("first")
    return x


@task(takes_context=True)
def step_aside(context: Context, *given: Any, kind: str = "note") -> None:
    """Be replaced, and leave a mark of what was given."""
    Mark.objects.create(label=f"aside {given!r}"[:100])
    match kind:
        case "note":
            context.replace(give.s("inside") | note.s())
        case "flaky":
            context.replace(flaky_inside.s())
        case "empty":
            context.replace(group())
        case "far":
            context.replace(chain(give.s(1), inc.s().set(run_after=TOO_FAR)))


@task(takes_context=True)
def add_members(context: Context, kind: str) -> str:
    match kind:
        case "empty first":
            context.add(group(), give.s("late"))
        case "one":
            context.add(note.s("added"))
        case "again":
            context.add(add_members.s("again"))
        case "far":
            context.add(give.s(1).set(expires=TOO_FAR))
    return kind


@task
def large(kilobytes: int) -> str:
    return "x" * kilobytes * 1000


@task
def length(value: Any) -> int:
    return len(value)


@task
def many_lines() -> None:
    exc = ValueError("first line\nsecond line")
    exc.add_note("a note")
    raise exc
