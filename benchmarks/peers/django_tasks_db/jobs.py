"""django-tasks-db's jobs."""

from django.db import transaction

from benchmarks.peers.django_tasks import enqueue_each, enqueue_timed, set_up

__all__ = ["enqueue_each", "enqueue_many", "enqueue_timed", "set_up"]


def enqueue_many(number: int) -> None:
    with transaction.atomic():
        enqueue_each(number)
