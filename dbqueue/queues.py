"""Closing and opening queues: pause, drain, resume."""

import difflib
import logging
from collections.abc import Sequence

from django.conf import settings as django_settings

from . import registry
from .conf import QUEUE_LENGTH, Settings, is_queue_name
from .exceptions import InvalidQueue
from .models import DEFAULT_QUEUE, REASON_LENGTH
from .store import Store, store_for

logger = logging.getLogger("dbqueue.queues")

MOST_NAMES = 20
"""Names that one message lists."""

NEWEST = 1000
"""Jobs, the last that were enqueued, whose queues are looked at: what has just ended is counted some seconds later."""

OTHER_NAMES: dict[str, str] = {}
"""Queues by names that adapters know them by: who serves, or leaves out, the one means the other as well."""


def with_other_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for known in names for name in (known, OTHER_NAMES.get(known, known))))


def pause(queue: str, reason: str = "") -> None:
    """Let nothing of ``queue`` start any more; what runs goes on, and what is enqueued waits.

    Every worker is told at once, and knows within POLL_INTERVAL in any case. ``reason`` is for whoever looks next, at
    most 500 characters. A name that nobody knows is closed too, and logged as a warning. Raises InvalidQueue.
    """
    _warn(close(queue, reason))


def drain(queue: str, reason: str = "") -> None:
    """Let only what is in ``queue`` now start; what is enqueued later waits for ``resume``. Otherwise as ``pause``."""
    _warn(close(queue, reason, drains=True))


def close(queue: str, reason: str, *, drains: bool = False) -> str:
    """Pause or drain it. Returns a warning where nobody knew the name; empty: somebody did. Raises InvalidQueue."""
    _check(queue, reason)
    alias = Settings.load().database
    doubt = doubt_of([queue], alias)  # before there is a row of it
    store = store_for(alias)
    (store.drain if drains else store.pause)(queue, reason)
    return doubt


def resume(queue: str) -> bool:
    """Open a queue that was paused or drained. Returns whether it was. Raises InvalidQueue."""
    _check(queue)
    return store_for(Settings.load().database).resume(queue)


def closed() -> dict[str, str]:
    """The queues that are paused or drained, each with the reason that was given."""
    return store_for(Settings.load().database).reasons()


def drained() -> set[str]:
    """Those of the closed queues in which what was there before still runs."""
    return {queue.name for queue in store_for(Settings.load().database).said_of_queues() if queue.last_id is not None}


def doubt_of(names: Sequence[str], alias: str) -> str:
    """A warning about those of these queues that no task, setting or job has ever named; empty where there are none.

    Any name may be right: ``using(queue_name=…)`` makes a queue. But one that is mistyped stays empty, unnoticed.
    """
    store, declared = store_for(alias), _declared()
    strange = (name for name in names if name not in declared and name not in OTHER_NAMES)
    unseen = [name for name in strange if not store.has_seen(name)]
    if not unseen:
        return ""
    recent = _recent(store)
    unknown = [name for name in unseen if name not in recent]
    if not unknown:
        return ""
    known = sorted({*declared, *recent, *store.seen_queues(MOST_NAMES)})
    more = ", …" if len(known) > MOST_NAMES else ""
    near = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"No task, setting or job so far names the queue {' or '.join(map(repr, unknown))}. Known are "
        f"{', '.join(map(repr, known[:MOST_NAMES]))}{more}.{hint}"
    )


def _recent(store: Store) -> set[str]:
    """The queues of jobs that run, and of the newest: by indexes only."""
    newest = store.jobs.order_by("-pk").values_list("queue_name", flat=True)[:NEWEST]
    return {*newest, *(queue_name for queue_name, _ in store.running())}


def _declared() -> set[str]:
    """The queues that settings and the tasks of this process name."""
    tasks = list(registry.registered())
    scheduled = {one.queue_name for task in tasks for one in task.schedules.values() if one.queue_name}
    backends = getattr(django_settings, "TASKS", {}).values()
    of_backends = {name for backend in backends for name in backend.get("QUEUES", ())}
    return {DEFAULT_QUEUE, *Settings.load().queues, *of_backends, *scheduled, *(task.queue_name for task in tasks)}


def _warn(doubt: str) -> None:
    if doubt:
        logger.warning("%s", doubt)


def _check(queue: object, reason: object = "") -> None:
    if not is_queue_name(queue):
        raise InvalidQueue(
            f"The queue is {queue!r}; it must be printable text of 1 to {QUEUE_LENGTH} characters without commas."
        )
    if not isinstance(reason, str) or len(reason) > REASON_LENGTH or "\x00" in reason:
        raise InvalidQueue(f"The reason is {reason!r}; it must be text of at most {REASON_LENGTH} characters.")
