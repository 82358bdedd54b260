"""With what a task runs again: the arguments that ``self.retry()`` says, beside those that the run has."""

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from ...exceptions import InvalidTask
from .values import encoded

if TYPE_CHECKING:
    from .request import Request
    from .task import Task


class Again(NamedTuple):
    """The call of the next run; ``as_json`` as its row has it, None where there is no row."""

    args: list[Any]
    kwargs: dict[str, Any]
    as_json: tuple[str, str] | None


def called_again(task: "Task", request: "Request", args: Any, kwargs: Any) -> Again | None:
    """What retry() says; None where it says nothing. Raises what the call of the task would raise."""
    from .bridge import ERRBACK
    from .task import checked_arguments

    if args is None and kwargs is None:
        return None
    if ERRBACK in (request.headers or {}):
        raise InvalidTask(
            f"{task.name} runs as an errback: retry() gives it the failure again, and no other arguments."
        )
    checked_arguments(args, kwargs)
    signature = task.core.signature
    if args is None:
        again_args, again_kwargs = _with_keywords(signature, list(request.args), dict(kwargs))
    elif kwargs is None:
        again_args, again_kwargs = list(args), _without(signature, len(args), request.kwargs)
    else:
        again_args, again_kwargs = list(args), dict(kwargs)
    return Again(again_args, again_kwargs, _checked(task, request, again_args, again_kwargs))


def _checked(task: "Task", request: "Request", args: list[Any], kwargs: dict[str, Any]) -> tuple[str, str] | None:
    """As at a call: what a worker runs has to bind, and to be JSON; what runs here only to bind."""
    if request.job_id is None:
        task.core.signature.bind(*args, **kwargs)
        return None
    draft = task.core.draft(tuple(encoded(args)), encoded(kwargs))
    return draft.args_json, draft.kwargs_json


def _without(signature: inspect.Signature, number: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords of this run but for those that so many positional arguments say anew."""
    positional = [
        one for one in signature.parameters.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    said = {one.name for one in positional[:number] if one.kind is one.POSITIONAL_OR_KEYWORD}
    return {name: value for name, value in kwargs.items() if name not in said}


def _with_keywords(
    signature: inspect.Signature, args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of this run, those replaced that keywords say anew."""
    for place, one in enumerate(list(signature.parameters.values())[: len(args)]):
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.name in kwargs:
            args[place] = kwargs.pop(one.name)
    return args, kwargs
