"""What all of the store's operations stand on: one database, its clock, its tables."""

import datetime
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import Attempt, Job, JobQuerySet, JobStatus, UniqueScope, Worker

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

    def newest_id(self) -> int:
        """0 where there is no job."""
        return self.jobs.aggregate(newest=models.Max("pk"))["newest"] or 0

    def oldest_id(self) -> int:
        """0 where there is no job."""
        return self.jobs.aggregate(oldest=models.Min("pk"))["oldest"] or 0

    def atomic(self) -> AbstractContextManager[None]:
        return transaction.atomic(using=self.alias)

    def among(self, ids: Collection[int]) -> Any:
        """For ``…__in=`` and leaving(), where these may be all steps of a workflow."""
        return ids

    def in_a_hurry(self, seconds: float) -> AbstractContextManager[None]:
        """For what a person waits for: a statement that takes longer raises TookTooLong, where it can be told."""
        return nullcontext()

    def waiting_at_most(self, seconds: float) -> AbstractContextManager[None]:
        """A transaction in which nobody waits longer for a lock, where the database can be told."""
        return nullcontext()

    def refuse_early(self) -> None:
        """Raise IntegrityError now for what the commit would refuse, where it can be asked for."""

    @abstractmethod
    def clock(self) -> datetime.datetime:
        """The time by the database's clock, as Django would read it from a column."""

    def call_workers(self, queues: Collection[str]) -> None:
        """Tell listening workers, when the transaction commits, that these queues got work."""

    def call_waiters(self, ids: Collection[int]) -> None:
        """Tell those who listen for the end of these jobs, when the transaction commits, that they have ended."""

    def _lock_free_jobs(self, ids: Collection[int], **lock: Any) -> set[int]:
        """Lock the rows of these jobs without waiting for anybody. Returns those that somebody else has locked."""
        if not self.connection.features.has_select_for_update:
            return set()
        rows = self.jobs.filter(pk__in=self.among(ids)).order_by("id").select_for_update(**(lock or self.LOCK))
        locked = set(rows.values_list("id", flat=True))
        if len(locked) == len(ids):
            return set()
        there = set(self.jobs.filter(pk__in=self.among(ids)).values_list("id", flat=True))
        return there - locked

    def _of(self) -> tuple[str, ...]:
        return ("self",) if self.connection.features.has_select_for_update_of else ()

    def _attempts(self) -> "models.QuerySet[Attempt]":
        return Attempt.objects.using(self.alias)

    def _workers(self) -> Any:
        return Worker.objects.using(self.alias)
