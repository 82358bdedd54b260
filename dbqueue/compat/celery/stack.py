"""The requests of the tasks that run on this thread: a task that calls another directly is below it."""

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .request import Request

_stack: "contextvars.ContextVar[tuple[Request, ...]]" = contextvars.ContextVar("dbqueue_celery_requests", default=())


def top() -> "Request | None":
    stack = _stack.get()
    return stack[-1] if stack else None


def of_task(name: str) -> "Request | None":
    """The innermost request of this task."""
    return next((request for request in reversed(_stack.get()) if request.task == name), None)


@contextmanager
def pushed(request: "Request") -> Iterator[None]:
    token = _stack.set((*_stack.get(), request))
    try:
        yield
    finally:
        _stack.reset(token)
