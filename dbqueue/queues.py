"""Closing and opening queues: pause, drain, resume."""

from .conf import QUEUE_LENGTH, Settings, is_queue_name
from .exceptions import InvalidQueue
from .models import REASON_LENGTH
from .store import store_for

OTHER_NAMES: dict[str, str] = {}
"""Queues by names that adapters know them by: who serves, or leaves out, the one means the other as well."""


def with_other_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for known in names for name in (known, OTHER_NAMES.get(known, known))))


def pause(queue: str, reason: str = "") -> None:
    """Let nothing of ``queue`` start any more; what runs goes on, and what is enqueued waits.

    Every worker is told at once, and knows within POLL_INTERVAL in any case. ``reason`` is for whoever looks next, at
    most 500 characters. Raises InvalidQueue.
    """
    _check(queue, reason)
    store_for(Settings.load().database).pause(queue, reason)


def drain(queue: str, reason: str = "") -> None:
    """Let only what is in ``queue`` now start; what is enqueued later waits for ``resume``. Raises InvalidQueue."""
    _check(queue, reason)
    store_for(Settings.load().database).drain(queue, reason)


def resume(queue: str) -> bool:
    """Open a queue that was paused or drained. Returns whether it was. Raises InvalidQueue."""
    _check(queue)
    return store_for(Settings.load().database).resume(queue)


def closed() -> dict[str, str]:
    """The queues that are paused or drained, each with the reason that was given."""
    return store_for(Settings.load().database).reasons()


def _check(queue: object, reason: object = "") -> None:
    if not is_queue_name(queue):
        raise InvalidQueue(
            f"The queue is {queue!r}; it must be printable text of 1 to {QUEUE_LENGTH} characters without commas."
        )
    if not isinstance(reason, str) or len(reason) > REASON_LENGTH or "\x00" in reason:
        raise InvalidQueue(f"The reason is {reason!r}; it must be text of at most {REASON_LENGTH} characters.")
