"""What was said about queues: paused, drained, or nothing."""

import datetime

from django.db import models
from django.db.models import Max

from ..models import Queue
from .database import Database
from .listener import ANY_QUEUE


class Queues(Database):
    """Which queues are closed. Jobs may be enqueued into any; those of a closed one wait."""

    def pause(self, name: str, reason: str = "", now: datetime.datetime | None = None) -> None:
        """Let nothing of this queue start any more. What runs goes on."""
        self._close(name, None, reason, now)

    def drain(self, name: str, reason: str = "", now: datetime.datetime | None = None) -> None:
        """Let only what is in the queue now start. What comes later waits, until ``resume``."""
        last_id = self.jobs.aggregate(last=Max("id"))["last"] or 0
        self._close(name, last_id, reason, now)

    def resume(self, name: str) -> bool:
        """Open the queue. Returns whether it was closed."""
        deleted, _ = self._queues().filter(pk=name).delete()
        self.call_workers({ANY_QUEUE})
        return bool(deleted)

    def closed_queues(self) -> dict[str, int]:
        """The closed queues, each with the last id that may still start: 0 for one that is paused."""
        rows = self._queues().filter(paused_at__isnull=False).values_list("name", "last_id")
        return {name: last_id or 0 for name, last_id in rows}

    def reasons(self) -> dict[str, str]:
        """Why each closed queue was closed."""
        return dict(self._queues().filter(paused_at__isnull=False).values_list("name", "reason"))

    def _close(self, name: str, last_id: int | None, reason: str, now: datetime.datetime | None) -> None:
        said = {"paused_at": now or self.clock(), "last_id": last_id, "reason": reason}
        self._queues().update_or_create(name=name, defaults=said)
        self.call_workers({ANY_QUEUE})

    def _queues(self) -> "models.QuerySet[Queue]":
        return Queue.objects.using(self.alias)
