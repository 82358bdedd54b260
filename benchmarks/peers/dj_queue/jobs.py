"""dj-queue's jobs."""

from typing import cast

from dj_queue.backend import DjQueueBackend

from benchmarks.peers.django_tasks import enqueue_each, enqueue_timed, noop, set_up

__all__ = ["enqueue_each", "enqueue_many", "enqueue_timed", "set_up"]


def enqueue_many(number: int) -> None:
    backend = cast(DjQueueBackend, noop.get_backend())
    backend.enqueue_all([(noop, [], {})] * number)
