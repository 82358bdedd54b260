"""Tasks that run where they are called, without the database: ``apply()``, and all of them with task_always_eager."""

from typing import TYPE_CHECKING, Any

from . import states
from .exceptions import Retry
from .request import Request
from .result import EagerResult
from .utils import uuid

if TYPE_CHECKING:
    from .canvas import Signature
    from .task import Task


def is_eager() -> bool:
    """Whether CELERY_TASK_ALWAYS_EAGER holds."""
    from .app import settings

    return bool(settings().task_always_eager)


def applied(
    task: "Task",
    args: Any,
    kwargs: dict[str, Any],
    *,
    task_id: str | None = None,
    throw: bool | None = None,
    headers: dict[str, Any] | None = None,
    links: Any = (),
    errbacks: Any = (),
    **options: Any,
) -> EagerResult:
    """Run it through its retries, with no pause between them. ``throw``, or task_eager_propagates, raises its error."""
    from .app import settings

    found = _until_it_ends(task, list(args), kwargs, task_id or uuid(), headers)
    if found.successful():
        found.children = [link.clone(() if link.immutable else (found.result,)).run_eagerly(()) for link in links]
    else:
        for errback in errbacks:
            _tell(errback, found, task, args, kwargs)
        if settings().task_eager_propagates if throw is None else throw:
            raise found.result
    return found


def _until_it_ends(task: "Task", args: list[Any], kwargs: dict[str, Any], task_id: str, headers: Any) -> EagerResult:
    retries = 0
    while (found := _once(task, args, kwargs, task_id, headers, retries)).state == states.RETRY:
        retries += 1
        if found.result.again is not None:
            args, kwargs = found.result.again.args, found.result.again.kwargs
    return found


def _once(
    task: "Task", args: list[Any], kwargs: dict[str, Any], task_id: str, headers: Any, retries: int
) -> EagerResult:
    from ...exceptions import Discard, Snooze
    from .bridge import with_hooks
    from .task import EinfoLike

    request = Request(
        task,
        id=task_id,
        args=list(args),
        kwargs=kwargs,
        retries=retries,
        headers=headers,
        is_eager=True,
        called_directly=False,
        root_id=task_id,
        correlation_id=task_id,
        hostname="eager",
    )
    try:
        value = with_hooks(task, request, list(args), kwargs)
    except Retry as exc:
        return EagerResult(request, exc, states.RETRY)
    except (Discard, Snooze):
        state, meta = request.state or (states.IGNORED, None)
        return EagerResult(request, meta, state)
    except Exception as exc:  # noqa: BLE001  it is the result
        return EagerResult(request, exc, states.FAILURE, str(EinfoLike(exc)))
    return EagerResult(request, value, states.SUCCESS)


def _tell(errback: "Signature", failed: EagerResult, task: "Task", args: Any, kwargs: Any) -> None:
    from ...canvas import takes

    request = Request(task, id=failed.id, args=list(args), kwargs=kwargs)
    told = (request, failed.result, failed.traceback)
    number = 0 if errback.immutable else takes(errback.type.core.s(*errback.args, **errback.kwargs))
    error = type(failed.result)
    errback.run_eagerly(
        told if number == len(told) else (failed.id, f"{error.__module__}.{error.__qualname__}")[:number]
    )
