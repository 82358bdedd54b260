"""How the steps of workflows come in: all at once, in the place of a job that runs, and as members of a group."""

import datetime
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from django.db.models import Max, Q

from ..draft import Draft
from ..models import Job, JobStatus
from ..plan import Plan, Step
from ..tree import Row, Tree
from .listener import ANY_QUEUE
from .workflow_locks import WorkflowLocks

FEW = 4
"""How many steps are looked at one by one for the group around a step."""


class NewStep(NamedTuple):
    """A row that is to be written."""

    draft: Draft
    status: JobStatus
    workflow_id: int
    after_id: int | None
    group_id: int | None
    position: int | None
    held: bool
    allow_failure: bool
    step: dict[str, Any] | None


class Planting(WorkflowLocks):
    """Nothing is decided here: an empty group that comes in has not ended yet."""

    @abstractmethod
    def _row(self, draft: Draft, now: datetime.datetime) -> Job: ...

    def _plant(
        self,
        plan: Plan,
        workflow_id: int,
        now: datetime.datetime,
        group_id: int | None = None,
        position: int | None = None,
        callbacks: Sequence[dict[str, Any]] = (),
    ) -> list[int]:
        """``group_id`` and ``position`` are those of the plan's result; ``callbacks`` all of its jobs inherit.

        Of its groups that are empty none has ended: whatever else is to be planted may be what comes into them.
        """
        ids = self._reserve_ids(len(plan.steps))
        made: list[int] = []
        rows: list[NewStep] = []
        for place, step in enumerate(plan.steps):
            draft = step.draft if step.waits else step.draft.due_from(now)
            known = ids or made
            row = NewStep(
                draft,
                _first_state(step, draft),
                workflow_id,
                None if step.after is None else known[step.after],
                group_id if place == plan.last else None if step.group is None else known[step.group],
                position if place == plan.last else step.position,
                step.waits,
                step.allow_failure,
                step.kept(callbacks),
            )
            if ids:
                rows.append(row)
            else:
                made.append(self._write_step(row, now))
        if ids:
            self._write_steps(ids, rows, now)
        made = ids or made
        ready = {step.draft.queue_name for step in plan.steps if not step.waits and not step.draft.run_after}
        self.call_workers(ready | {ANY_QUEUE})
        return made

    def _reserve_ids(self, number: int) -> list[int]:
        """Ids for rows that name each other; empty where the database gives none before it has a row."""
        return []

    def _write_steps(self, ids: list[int], rows: list[NewStep], now: datetime.datetime) -> None:
        self.jobs.bulk_create([self._job(row, now, pk) for pk, row in zip(ids, rows, strict=True)], batch_size=500)

    def _write_step(self, row: NewStep, now: datetime.datetime) -> int:
        job = self._job(row, now)
        job.save(using=self.alias, force_insert=True)
        return job.pk

    def _job(self, row: NewStep, now: datetime.datetime, pk: int | None = None) -> Job:
        job = self._row(row.draft, now)
        job.pk = pk
        for name in ("status", "workflow_id", "after_id", "group_id", "position", "held", "allow_failure", "step"):
            setattr(job, name, getattr(row, name))
        return job

    def enclosing_group(self, job_id: int) -> int | None:
        """The group in which this step stands, itself or as a part of a chain; None outside of any.

        As a rule it is near, and found step by step through an index; beyond that all of the workflow is read at once.
        """
        row = first = self._first_of(pk=job_id)
        for _ in range(FEW):
            if row is None:
                break
            is_inside = row.group_id is not None
            row = self._first_of(pk=row.group_id) if is_inside else self._after(row.id)
            if is_inside and row is not None and row.is_group:
                return row.id
        workflow_id = None if first is None else self.jobs.values_list("workflow_id", flat=True).get(pk=first.id)
        return None if workflow_id is None else Tree.of(workflow_id, self.alias).group_of(job_id)

    def _after(self, job_id: int) -> Row | None:
        """What a chain goes on with. Of a group its row is the first, then come its members, which stand there, too."""
        not_a_link = Q(position=None) | Q(group_id__isnull=False)
        return self._first_of(not_a_link, after_id=job_id, status=JobStatus.WAITING)

    def _first_of(self, *conditions: Q, **columns: Any) -> Row | None:
        row = self.jobs.filter(*conditions, **columns).order_by("id").values_list(*Row._fields).first()
        return None if row is None else Row._make(row)

    def _put_in_place(
        self, job_id: int, workflow_id: int | None, plan: Plan, now: datetime.datetime
    ) -> tuple[int, list[int]]:
        """Put a plan in the place of a job, which waits for its result. Returns the workflow's id, and the groups'."""
        job = self.jobs.only("task", "step").get(pk=job_id)
        if workflow_id is None:
            workflow_id = self._workflows().create(name=job.task, created_at=now, last_id=job_id).pk
        step = {**(job.step or {}), "single": True}
        self.jobs.filter(pk=job_id).update(workflow_id=workflow_id, held=True, step=step)
        ids = self._plant(plan, workflow_id, now, job_id, 0, step.get("on_error", ()))
        return int(workflow_id), groups_of(plan, ids)

    def _add_members(self, group_id: int, plans: Iterable[Plan], workflow_id: int, now: datetime.datetime) -> list[int]:
        """Returns the ids of the groups that are among them."""
        groups: list[int] = []
        last = self.jobs.filter(group_id=group_id).aggregate(last=Max("position"))["last"]
        for place, plan in enumerate(plans, start=-1 if last is None else last):
            groups += groups_of(plan, self._plant(plan, workflow_id, now, group_id, place + 1))
        return groups

    def _open_to_members(self, adders: Collection[int], groups: Collection[int]) -> tuple[set[int], set[int]]:
        """Those of these jobs that may add members, and those of these groups that may have more.

        What somebody wants to end grows no further. A group that is cancelled because a member has failed may: that one
        may be tried again, and its siblings go on.
        """
        if not adders:
            return set(), set()
        wanted = self.jobs.filter(pk__in=self.among({*adders, *groups}), cancel_requested_at=None)
        found = set(wanted.values_list("pk", flat=True))
        return found & {*adders}, found & {*groups}


def groups_of(plan: Plan, ids: Sequence[int]) -> list[int]:
    return [pk for pk, step in zip(ids, plan.steps, strict=True) if step.is_group]


def _first_state(step: Step, draft: Draft) -> JobStatus:
    if step.waits:
        return JobStatus.WAITING
    return JobStatus.SCHEDULED if draft.run_after else JobStatus.READY
