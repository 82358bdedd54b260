"""What all of the store's operations stand on: one database, its clock, its tables."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import WAITING, Attempt, Job, JobQuerySet, JobStatus, UniqueScope, Worker
from ..outcome import REQUESTED

BATCH = 500
"""Rows that one promotion, rescue or batch of pruning takes in one transaction."""


def key_after(status: JobStatus) -> Any:
    """What becomes of the unique key of a job that has ended: only a success may keep it, for its period."""
    if status is not JobStatus.SUCCESSFUL:
        return None
    return models.Case(models.When(unique_scope=UniqueScope.PERIOD, then="unique_key"), default=None)


class Database(ABC):
    """One database. No state but its alias, so threads share it."""

    LOCK: Mapping[str, Any] = MappingProxyType({"skip_locked": True})
    """How a claim locks, and whoever else waits for nobody: options of select_for_update()."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    @property
    def jobs(self) -> JobQuerySet:
        return Job.objects.using(self.alias)

    def atomic(self) -> AbstractContextManager[None]:
        return transaction.atomic(using=self.alias)

    @abstractmethod
    def clock(self) -> datetime.datetime:
        """The time by the database's clock, as Django would read it from a column."""

    def call_workers(self, queues: Collection[str]) -> None:
        """Tell listening workers, when the transaction commits, that these queues got work."""

    def call_waiters(self, ids: Collection[int]) -> None:
        """Tell those who listen for the end of these jobs, when the transaction commits, that they have ended."""

    def _cancel_requested(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Cancel those of these jobs that came back from RUNNING after somebody asked for their end."""
        came_back = self.jobs.leaving(WAITING, ids).filter(cancel_requested_at__isnull=False)
        if came_back.update(status=JobStatus.CANCELLED, finished_at=now, reason=REQUESTED, unique_key=None):
            self.call_waiters(ids)

    def _of(self) -> tuple[str, ...]:
        return ("self",) if self.connection.features.has_select_for_update_of else ()

    def _attempts(self) -> "models.QuerySet[Attempt]":
        return Attempt.objects.using(self.alias)

    def _workers(self) -> Any:
        return Worker.objects.using(self.alias)
