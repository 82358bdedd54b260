"""django-ox's jobs."""

from django_ox.bulk import enqueue_many as _enqueue_many

from benchmarks.peers.django_tasks import enqueue_each, enqueue_timed, noop, set_up

__all__ = ["enqueue_each", "enqueue_many", "enqueue_timed", "set_up"]


def enqueue_many(number: int) -> None:
    _enqueue_many(noop, [((), {})] * number)
