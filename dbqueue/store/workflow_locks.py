"""The lock around every change of a workflow: its row. Whoever ends a step, or brings one back, holds it first."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from django.db import Error, models

from ..connections import is_about_locks
from ..models import JobQuerySet, Workflow
from .database import Database

R = TypeVar("R")

A_MOMENT = 0.2
"""Seconds for which a workflow's lock is waited for by who can also come back. Workers have it for a few milliseconds,
a caller who cancels or retries a step until his transaction ends."""


class _BecameStep(Exception):
    """A job that was looked at as one that stands alone has become a step."""


class WorkflowLocks(Database):
    """All lock by id, and workflows before their jobs, so that nobody waits in a circle."""

    def _lock_workflows(self, ids: Iterable[int | None]) -> Collection[int]:
        """By id, as everybody does. Returns those that are left unlocked: none."""
        if known := sorted({pk for pk in ids if pk is not None}):
            rows = self._workflows().filter(pk__in=known).order_by("id").select_for_update(**self._no_key())
            list(rows.values_list("id"))
        return ()

    def lock_workflows_of(self, ids: Collection[int]) -> set[int]:
        """Before these jobs are locked or changed. Returns the workflows of which any is a step."""
        workflows = self._workflows_of(ids)
        self._lock_workflows(workflows)
        return {pk for pk in workflows if pk is not None}

    def _with_workflows_locked(self, ids: Collection[int], change: Callable[[set[int]], R]) -> R:
        """Have ``change`` do something to these jobs, in a transaction, given the workflows that were locked for that.

        It begins anew where one of them has become a step meanwhile, as what replaced it was just being written:
        ``change`` asks ``_must_be_locked`` as soon as it has the jobs locked.
        """
        while True:
            with suppress(_BecameStep), self.atomic():
                return change(self.lock_workflows_of(ids))

    def _must_be_locked(self, workflows: Iterable[int | None], locked: set[int]) -> None:
        if {pk for pk in workflows if pk is not None} - locked:
            raise _BecameStep

    def _workflows_of(self, ids: Collection[int]) -> list[int | None]:
        steps = self.jobs.filter(pk__in=self.among(ids), workflow_id__isnull=False).order_by()
        return [pk for (pk,) in steps.values_list("workflow_id").distinct()]

    def _lock_free_workflows(self, ids: Iterable[int | None]) -> set[int]:
        """As _lock_workflows(), without waiting for anybody. Returns those that somebody else has locked."""
        known = {pk for pk in ids if pk is not None}
        if not known:
            return set()
        rows = self._workflows().filter(pk__in=known).order_by("id").select_for_update(**self.LOCK)
        locked = set(rows.values_list("id", flat=True))
        if locked == known:
            return set()
        not_forgotten = set(self._workflows().filter(pk__in=known).values_list("id", flat=True))
        return not_forgotten - locked

    def _lock_workflows_soon(self, ids: Collection[int]) -> set[int]:
        """Lock the workflows of these jobs, and wait a moment for that: those of a busy one are never seen free.

        Returns those that somebody has locked for longer.
        """
        workflows = self._workflows_of(ids)
        try:
            with self.waiting_at_most(A_MOMENT), self.atomic():
                self._lock_workflows(workflows)
        except Error as exc:
            if not is_about_locks(exc):
                raise
            return self._lock_free_workflows(workflows)
        return set()

    def _lock_free(self, jobs: JobQuerySet, limit: int) -> list[int]:
        """Lock the first of these jobs, with their workflows before them, past those that somebody else has locked.

        Returns their ids.
        """
        workflows: set[int] = set()
        rows: set[int] = set()
        while True:
            left = jobs.exclude(workflow_id__in=workflows).exclude(pk__in=rows)
            found = dict(left.values_list("pk", "workflow_id")[:limit])
            busy = self._lock_free_workflows(found.values())
            free = [pk for pk, workflow_id in found.items() if workflow_id not in busy]
            locked = self._lock_free_jobs(free, skip_locked=True)  # as strongly as they are locked again
            if locked_here := [pk for pk in free if pk not in locked]:
                return locked_here
            if not busy and not locked:
                return []
            workflows |= busy
            rows |= locked

    def _workflows(self) -> "models.QuerySet[Workflow]":
        return Workflow.objects.using(self.alias)

    def _no_key(self) -> dict[str, Any]:
        return {"no_key": True} if self.connection.features.has_select_for_no_key_update else {}
