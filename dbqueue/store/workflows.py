"""Steps that wait for each other: how they come in, and what the end of one decides about the others.

Whoever ends a step, or brings one back, first locks the rows of their workflows. So the ends of one workflow come one
after another, each sees those before it, and what it decides is written in the transaction that ends the step.
"""

import datetime
import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.db import models
from django.db.models import Exists, Max, OuterRef, Q
from django.db.models.functions import Cast

from ..claim import Claim
from ..draft import Draft
from ..models import (
    CANCELLABLE,
    FINAL,
    GROUP,
    OPEN,
    Job,
    JobStatus,
    Workflow,
)
from ..outcome import REQUESTED
from ..plan import Plan, Step, draft_of
from ..tree import Row, Tree, told_cause
from .database import BATCH, Database
from .listener import ANY_QUEUE

_JOB = Job._meta.db_table

called_back: ContextVar[list[int] | None] = ContextVar("dbqueue_called_back", default=None)
"""Who runs jobs inline puts a list here, and finds in it the callbacks that were enqueued by their ends."""

FEW = 4
"""How many steps are looked at one by one for the group around a step."""

LEVELS = 20
"""How many steps further a failure is followed one after another, before all that waits is read at once."""


class Edge(NamedTuple):
    """What a held step waits for, and what its end decides."""

    id: int
    after_id: int | None
    group_id: int | None
    allow_failure: bool


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


class Ended(NamedTuple):
    """A step that has ended."""

    id: int
    status: str
    workflow_id: int
    group_id: int | None
    allow_failure: bool


class Released(NamedTuple):
    """What becomes of a step whose turn has come. What is None stays as it is."""

    id: int
    status: JobStatus
    args_json: str | None
    run_after: datetime.datetime | None
    expires_at: datetime.datetime | None


class Workflows(Database):
    """A step is WAITING while it is held; what decides about it only ever finds it in that state."""

    JSON = "%s"
    """How JSON text is given to a column of JSON."""

    @abstractmethod
    def enqueue(self, drafts: Sequence[Draft]) -> list[tuple[int, datetime.datetime]]: ...

    @abstractmethod
    def _row(self, draft: Draft, now: datetime.datetime) -> Job: ...

    # Coming in

    def plant(self, plan: Plan) -> tuple[int, list[int]]:
        """Insert all steps of a plan, or none, in the caller's transaction. Returns the workflow's id, and theirs."""
        with self.atomic():
            now = self.clock()
            workflow = self._workflows().create(name=plan.name, created_at=now)
            ids = self._plant(plan, workflow.pk, now)
            self._workflows().filter(pk=workflow.pk).update(last_id=ids[plan.last])
        return workflow.pk, ids

    def _plant(
        self,
        plan: Plan,
        workflow_id: int,
        now: datetime.datetime,
        group_id: int | None = None,
        position: int | None = None,
        callbacks: Sequence[dict[str, Any]] = (),
    ) -> list[int]:
        """``group_id`` and ``position`` are those of the plan's result; ``callbacks`` all of its jobs inherit."""
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
        self._settle_empty([pk for pk, step in zip(made, plan.steps, strict=True) if step.is_group], now)
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

    # While it runs

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

    def _put_in_place(self, job_id: int, workflow_id: int | None, plan: Plan, now: datetime.datetime) -> int:
        """Put a plan in the place of a job, which waits for its result. Returns the workflow's id."""
        job = self.jobs.only("task", "step").get(pk=job_id)
        if workflow_id is None:
            workflow_id = self._workflows().create(name=job.task, created_at=now, last_id=job_id).pk
        step = {**(job.step or {}), "single": True}
        self.jobs.filter(pk=job_id).update(workflow_id=workflow_id, held=True, step=step)
        self._plant(plan, workflow_id, now, job_id, 0, step.get("on_error", ()))
        return int(workflow_id)

    def _add_members(self, group_id: int, plans: Iterable[Plan], workflow_id: int, now: datetime.datetime) -> None:
        last = self.jobs.filter(group_id=group_id).aggregate(last=Max("position"))["last"]
        for place, plan in enumerate(plans, start=-1 if last is None else last):
            self._plant(plan, workflow_id, now, group_id, place + 1)

    # What an end decides. The workflows are locked by now.

    def _lock_workflows(self, ids: Iterable[int | None]) -> None:
        """By id, as everybody does."""
        if known := sorted({pk for pk in ids if pk is not None}):
            rows = self._workflows().filter(pk__in=known).order_by("id").select_for_update(**self._no_key())
            list(rows.values_list("id"))

    def lock_workflows_of(self, ids: Collection[int]) -> bool:
        """Before these jobs are locked or changed. Returns whether any is a step of a workflow."""
        workflows = self._workflows_of(ids)
        self._lock_workflows(workflows)
        return bool(workflows)

    def _workflows_of(self, ids: Collection[int]) -> list[int | None]:
        steps = self.jobs.filter(pk__in=self.among(ids), workflow_id__isnull=False).order_by()
        return [pk for (pk,) in steps.values_list("workflow_id").distinct()]

    def _cancel_requested(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Cancel those of these jobs that came back from RUNNING after somebody asked for their end."""
        came_back = self.jobs.leaving(CANCELLABLE, self.among(ids)).filter(cancel_requested_at__isnull=False)
        if came_back.update(status=JobStatus.CANCELLED, finished_at=now, reason=REQUESTED, unique_key=None):
            self.call_waiters(ids)
            self._settle(ids, now)

    def _lock_free_workflows(self, ids: Iterable[int | None]) -> set[int]:
        """The same without waiting for anybody. Returns those that somebody else has locked."""
        known = {pk for pk in ids if pk is not None}
        if not known:
            return set()
        rows = self._workflows().filter(pk__in=known).order_by("id").select_for_update(**self.LOCK)
        locked = set(rows.values_list("id", flat=True))
        return known - locked - (known - set(self._workflows().filter(pk__in=known).values_list("id", flat=True)))

    def _lock_free_workflows_of(self, ids: Collection[int]) -> set[int]:
        return self._lock_free_workflows(self._workflows_of(ids))

    def _settle(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Release, end or cancel what waits for these steps, as far as they have ended; and so on, to the last.

        What it decides it finds WAITING, so that a second time changes nothing.
        """
        touched: set[int] = set()
        ended = self._ended(ids)
        while ended:
            touched |= {one.workflow_id for one in ended}
            bad = {one.id for one in ended if one.status != JobStatus.SUCCESSFUL and not one.allow_failure}
            self._hand_on([one.id for one in ended if one.status != JobStatus.SUCCESSFUL and one.allow_failure])
            good = [one for one in ended if one.id not in bad]
            further = self._cancel_after(bad, now)
            further += self._release_after([one.id for one in good], now)
            further += self._end_groups({one.group_id for one in good if one.group_id is not None}, now)
            ended = self._ended(further)
        still_open = self.jobs.filter(workflow_id=OuterRef("pk"), status__in=OPEN)
        over = self._workflows().filter(~Exists(still_open), pk__in=touched, finished_at=None)
        over.update(finished_at=now)

    def _settle_empty(self, groups: Collection[int], now: datetime.datetime) -> None:
        """A group without members that waits for nothing has ended as it comes."""
        if groups:
            first = self.jobs.filter(pk__in=self.among(groups), status=JobStatus.WAITING, after_id=None)
            self._settle(self._end_groups(set(first.values_list("pk", flat=True)), now), now)

    def _ended(self, ids: Collection[int]) -> list[Ended]:
        if not ids:
            return []
        rows = self.jobs.leaving(FINAL, self.among(ids)).filter(workflow_id__isnull=False).order_by("id")
        columns = ("id", "status", "workflow_id", "group_id", "allow_failure")
        return [Ended._make(row) for row in rows.values_list(*columns)]

    def _hand_on(self, ids: Collection[int]) -> None:
        """Let the failure of these stand where others look for their results."""
        if not ids:
            return
        failures = self._failures(ids)
        for pk, status, reason in self.jobs.filter(pk__in=self.among(ids)).values_list("pk", "status", "reason"):
            path, text = failures.get(pk, ("", ""))
            if status == JobStatus.CANCELLED or not path:
                path, text = "dbqueue.exceptions.JobCancelled", reason
            self.jobs.filter(pk=pk).update(return_value={"error": path, "message": _last_line(text)})

    def _failures(self, ids: Collection[int]) -> dict[int, tuple[str, str]]:
        """The last error of each, as (class, traceback)."""
        rows = self._attempts().filter(job_id__in=self.among(ids)).order_by("id")
        return {pk: (path, text) for pk, path, text in rows.values_list("job_id", "exception_class_path", "traceback")}

    def _cancel_after(self, bad: Collection[int], now: datetime.datetime) -> list[int]:
        """Cancel all that waits for these, through any depth. Returns those of them that allow failure."""
        by_cause: dict[int, list[int]] = defaultdict(list)
        for pk, cause in self._down(bad, JobStatus.WAITING).items():
            by_cause[cause].append(pk)
        causes = {pk: (task, status, why) for pk, task, status, why in self._told(by_cause)}
        for cause, ids in by_cause.items():
            task, status, why = causes[cause]
            reason = told_cause(cause, task, status, why)
            self.jobs.leaving({JobStatus.WAITING}, self.among(ids)).update(
                status=JobStatus.CANCELLED, finished_at=now, reason=reason, unique_key=None
            )
        cancelled = [pk for ids in by_cause.values() for pk in ids]
        self.call_waiters(cancelled)
        return list(self.jobs.filter(pk__in=self.among(cancelled), allow_failure=True).values_list("pk", flat=True))

    def _told(self, ids: Collection[int]) -> "Iterable[tuple[int, str, str, str]]":
        return self.jobs.filter(pk__in=self.among(ids)).values_list("pk", "task", "status", "reason") if ids else ()

    def _down(self, ids: Collection[int], status: JobStatus) -> dict[int, int]:
        """The held steps in this state that stand after these, through any depth, each with its cause among them.

        What stands after one that allows failure is left out.
        """
        begin = self.jobs.filter(pk__in=self.among(ids)).order_by("id")
        starts = list(begin.values_list("pk", "group_id", "workflow_id"))
        found: dict[int, int] = {}
        edges = {pk: (pk, group) for pk, group, _ in starts}
        for _ in range(LEVELS if status is JobStatus.WAITING else 0):
            if not edges:
                return found
            edges = _beyond(edges, self._next(edges, status), found)
        if edges:
            every = self.jobs.filter(workflow_id__in={row[2] for row in starts}, status=status, held=True)
            rows = every.order_by("id").values_list(*Edge._fields)
            after: dict[int, list[Edge]] = defaultdict(list)
            by_id = {}
            for edge in map(Edge._make, rows):
                by_id[edge.id] = edge
                if edge.after_id is not None:
                    after[edge.after_id].append(edge)
            while edges:
                groups = [by_id[group] for _, group in edges.values() if group in by_id]
                edges = _beyond(edges, [*groups, *(edge for pk in edges for edge in after[pk])], found)
        return found

    def _next(self, edges: dict[int, tuple[int, int | None]], status: JobStatus) -> list[Edge]:
        """What follows these, by one step."""
        held = self.jobs.filter(status=status, held=True).order_by("id")
        groups = {group for _, group in edges.values() if group is not None}
        found = list(held.filter(after_id__in=self.among(list(edges))).values_list(*Edge._fields))
        if groups:
            found += held.filter(pk__in=self.among(groups)).values_list(*Edge._fields)
        return list(map(Edge._make, found))

    def _release_after(self, ids: Collection[int], now: datetime.datetime) -> list[int]:
        """Let what comes after these begin, given their results. Returns the empty groups among it, which have ended.

        Locked, as an operator may be editing one.
        """
        if not ids:
            return []
        waiting = self.jobs.filter(after_id__in=self.among(ids), status=JobStatus.WAITING).order_by("id")
        columns = ("id", "after_id", "task", Cast("args", models.TextField()), "step", "queue_name", "run_after")
        found = list(waiting.select_for_update(**self._no_key()).values_list(*columns))
        given = {row[1] for row in found if row[2] != GROUP and not (row[4] or {}).get("immutable")}
        values = self._values(given)
        released, queues = [], set()
        for pk, after, task, args, step, queue, run_after in found:
            if task != GROUP:
                said = step or {}
                one = _released(pk, None if said.get("immutable") else (args, values[after]), said, run_after, now)
                released.append(one)
                queues.add(queue if one.status is JobStatus.READY else ANY_QUEUE)
        if released:
            self._write_released(released)
            self.call_workers(queues)
        return self._end_groups({row[0] for row in found if row[2] == GROUP}, now)

    def _values(self, ids: Collection[int]) -> dict[int, str]:
        """What these jobs have returned, as JSON text."""
        rows = self.jobs.filter(pk__in=self.among(ids)).values_list("pk", Cast("return_value", models.TextField()))
        return {pk: "null" if value is None else value for pk, value in rows} if ids else {}

    def _write_released(self, released: Sequence[Released]) -> None:
        for one in released:
            columns: dict[str, Any] = {"status": one.status, "run_after": one.run_after, "held": False}
            if one.args_json is not None:
                columns["args"] = json.loads(one.args_json)
            if one.expires_at is not None:
                columns["expires_at"] = one.expires_at
            self.jobs.leaving({JobStatus.WAITING}, [one.id]).update(**columns)

    def _end_groups(self, ids: Collection[int], now: datetime.datetime) -> list[int]:
        """End those of these groups, and replaced jobs, all of whose members have. Returns which have ended."""
        if not ids:
            return []
        of_group = self.jobs.filter(workflow_id=OuterRef("workflow_id"), group_id=OuterRef("pk"), status__in=OPEN)
        full = self.jobs.filter(~Exists(of_group), pk__in=self.among(ids), status=JobStatus.WAITING).order_by("id")
        found = dict(full.values_list("pk", "step"))
        members = self.jobs.filter(group_id__in=self.among(found)).order_by("group_id", "position", "id")
        values: dict[int, list[str]] = {pk: [] for pk in found}
        bad: dict[int, int] = {}
        columns = ("pk", "group_id", "status", "allow_failure", Cast("return_value", models.TextField()))
        for pk, group, status, allows, value in members.values_list(*columns):
            if status != JobStatus.SUCCESSFUL and not allows:
                bad.setdefault(group, pk)
            values[group].append("null" if value is None else value)
        ended = []
        for pk, step in found.items():
            if pk not in bad:
                is_single = (step or {}).get("single")
                self._write_value(pk, values[pk][0] if is_single else f"[{','.join(values[pk])}]", now)
                ended.append(pk)
        self.call_waiters(ended)
        return ended + self._cancel_after(sorted(set(bad.values())), now)

    def _write_value(self, pk: int, value_json: str, now: datetime.datetime) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {_JOB} SET return_value = {self.JSON} WHERE id = %s AND status = 'WAITING'", [value_json, pk]
            )
        self.jobs.leaving({JobStatus.WAITING}, [pk]).update(
            status=JobStatus.SUCCESSFUL, finished_at=now, held=False, unique_key=None
        )

    def _call_back(self, failed: Collection[int]) -> None:
        """Enqueue what is to be told of these failures."""
        if not failed:
            return
        rows = self.jobs.filter(pk__in=failed, status=JobStatus.FAILED, step__isnull=False).order_by("id")
        steps = [(pk, step or {}) for pk, step in rows.values_list("pk", "step")]
        told = [(pk, callback) for pk, step in steps for callback in step.get("on_error", ())]
        if told:
            failures, now = self._failures({pk for pk, _ in told}), self.clock()
            drafts = [_called_back(callback, pk, *failures.get(pk, ("", ""))) for pk, callback in told]
            made = self.enqueue([draft.due_from(now) for draft in drafts])
            if (heard := called_back.get()) is not None:
                heard += [pk for pk, _ in made]

    def _with_inside(self, ids: Collection[int]) -> set[int]:
        """These, and what is inside of those that are groups, or were replaced."""
        holds = Q(task=GROUP) | Q(step__single=True)
        holders = self.jobs.filter(holds, pk__in=self.among(ids), status=JobStatus.WAITING)
        found = set(ids)
        by_workflow: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
        for pk, workflow_id, after in holders.values_list("pk", "workflow_id", "after_id"):
            by_workflow[workflow_id or 0].append((pk, after))
        for known, places in by_workflow.items():
            tree = Tree.of(known, self.alias)
            found.update(place.row.id for pk, after in places for place in tree.walk(pk, after))
        return found

    def workflow_of(self, claim: Claim) -> int | None:
        """The workflow of which it is a step, also where it has become one by being replaced."""
        if claim.workflow_id is not None:
            return claim.workflow_id
        return self.jobs.filter(pk=claim.job_id, held=True).values_list("workflow_id", flat=True).first()

    # Trying again

    def _wait_again(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Let what was cancelled because of these, or before its turn, wait for them again."""
        held = list(self._down(ids, JobStatus.CANCELLED))
        self.jobs.leaving({JobStatus.CANCELLED}, self.among(held)).update(
            status=JobStatus.WAITING, finished_at=None, reason="", cancel_requested_at=None
        )
        steps = self.jobs.filter(pk__in=self.among(ids), workflow_id__isnull=False).values("workflow_id")
        self._workflows().filter(pk__in=steps).update(finished_at=None)

    def _decide_again(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Look at what these held steps wait for: it may have ended long ago."""
        after = self.jobs.filter(pk__in=self.among(ids), after_id__isnull=False).values("after_id")
        decides = self.jobs.filter(Q(pk__in=after) | Q(group_id__in=self.among(ids))).values_list("pk", flat=True)
        self._settle(list(decides), now)

    # Leaving

    def delete_workflow(self, workflow_id: int) -> int | None:
        """Delete a workflow that has ended, with its jobs. Returns how many; None: it has not ended, or has gone."""
        with self.atomic():
            self._lock_workflows([workflow_id])
            if not self._workflows().filter(pk=workflow_id, finished_at__isnull=False).delete()[0]:
                return None
            ids = list(self.jobs.filter(workflow_id=workflow_id).values_list("pk", flat=True))
            self.jobs.leaving(FINAL, self.among(ids)).only("id").delete()
        return len(ids)

    def prune_workflows(self, before: datetime.datetime, limit: int = BATCH) -> int:
        """Forget up to ``limit`` workflows that ended before this time. Their jobs then go as all others do."""
        with self.atomic():
            old = self._workflows().filter(finished_at__lt=before).order_by("finished_at")
            ids = list(old.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit])
            self._workflows().filter(pk__in=ids).delete()
        return len(ids)

    def _alive(self, workflows: Collection[int | None]) -> set[int]:
        """Those of these workflows that are not forgotten: nothing of them is deleted alone."""
        known = {pk for pk in workflows if pk is not None}
        return set(self._workflows().filter(pk__in=known).values_list("pk", flat=True)) if known else set()

    def _workflows(self) -> "models.QuerySet[Workflow]":
        return Workflow.objects.using(self.alias)

    def _no_key(self) -> dict[str, Any]:
        return {"no_key": True} if self.connection.features.has_select_for_no_key_update else {}


def _beyond(
    edges: dict[int, tuple[int, int | None]], following: Iterable[Edge], found: dict[int, int]
) -> dict[int, tuple[int, int | None]]:
    """Note those that follow and are new, with their causes. Returns those to go on from, as ``edges`` is."""
    by_group = {group: cause for cause, group in edges.values() if group is not None}
    further: dict[int, tuple[int, int | None]] = {}
    for edge in following:
        if edge.id in found:
            continue
        cause = edges[edge.after_id][0] if edge.after_id in edges else by_group[edge.id]
        found[edge.id] = cause
        if not edge.allow_failure:
            further[edge.id] = cause, edge.group_id
    return further


def _first_state(step: Step, draft: Draft) -> JobStatus:
    if step.waits:
        return JobStatus.WAITING
    return JobStatus.SCHEDULED if draft.run_after else JobStatus.READY


def _released(
    pk: int,
    given: tuple[str, str] | None,
    step: dict[str, Any],
    run_after: datetime.datetime | None,
    now: datetime.datetime,
) -> Released:
    """``given`` are its own arguments and the result that it waited for, as JSON text."""
    if (wait := step.get("wait")) is not None:
        run_after = now + datetime.timedelta(seconds=wait)
    expires_in = step.get("expires_in")
    args = None
    if given is not None:
        own, value = given
        args = f"[{value}]" if own == "[]" else f"[{value},{own[1:]}"
    return Released(
        pk,
        JobStatus.READY if run_after is None else JobStatus.SCHEDULED,
        args,
        run_after,
        None if expires_in is None else now + datetime.timedelta(seconds=expires_in),
    )


def _called_back(callback: dict[str, Any], failed: int, path: str, traceback: str) -> Draft:
    task, args, kwargs, columns = draft_of(callback, (str(failed), path, traceback))
    options = callback["options"]
    return Draft(
        task=task,
        args=args,
        kwargs=kwargs,
        args_json=json.dumps(args),
        kwargs_json=json.dumps(kwargs),
        run_after=None,
        options_json=None if options is None else json.dumps(options),
        **columns,
    )


def _last_line(text: str) -> str:
    """Of a traceback, what was wrong."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
