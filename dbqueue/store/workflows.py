"""Steps that wait for each other: what the end of one decides about the others.

Whoever ends a step, or brings one back, first locks the rows of their workflows. So the ends of one workflow come one
after another, each sees those before it, and what it decides is written in the transaction that ends the step.
"""

import datetime
import json
import logging
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from django.db import models
from django.db.models import Count, Exists, Func, OuterRef, Q, Sum

from ..claim import Claim
from ..conf import Settings
from ..draft import LAST_YEAR, Draft
from ..exceptions import InvalidTask
from ..models import CANCELLABLE, FINAL, GROUP, OPEN, JobStatus
from ..outcome import REQUESTED
from ..plan import Plan, draft_of
from ..tree import Tree, told_cause
from .database import BATCH, key_after
from .listener import ANY_QUEUE
from .planting import Planting, groups_of

logger = logging.getLogger("dbqueue.job")

MESSAGE_LENGTH = 2000
"""Characters of a failure that are handed on in place of a result."""

_CHAINED = re.compile(
    r"^(?:During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):$",
    re.MULTILINE,
)

called_back: ContextVar[list[int] | None] = ContextVar("dbqueue_called_back", default=None)
"""Who runs jobs inline puts a list here, and finds in it the callbacks that were enqueued by their ends."""

_PASSED_OVER = Q(status=JobStatus.CANCELLED, held=True, allow_failure=True)
"""As ``Ended.is_passed_over``. An index answers to these very words."""

LEVELS = 20
"""How many steps further a failure is followed one after another, before all that waits is read at once."""


class Edge(NamedTuple):
    """What a held step waits for, and what its end decides."""

    id: int
    after_id: int | None
    group_id: int | None
    allow_failure: bool
    step__single: bool | None
    """Whether it was replaced: what stood before it decides nothing any more."""
    cancel_requested_at: datetime.datetime | None


class Bytes(Func):
    """How long JSON is as text."""

    function = "OCTET_LENGTH"
    output_field = models.BigIntegerField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="OCTET_LENGTH((%(expressions)s)::text)", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="LENGTH(CAST(%(expressions)s AS BLOB))", **context)


class Ended(NamedTuple):
    """A step that has ended."""

    id: int
    status: str
    workflow_id: int
    group_id: int | None
    allow_failure: bool
    held: bool
    after_id: int | None

    @property
    def is_passed_over(self) -> bool:
        """Whether it was cancelled while it waited for others, and what comes after it goes on."""
        return self.status == JobStatus.CANCELLED and self.held and self.allow_failure


class Released(NamedTuple):
    """What becomes of a step whose turn has come. What is None stays as it is."""

    id: int
    status: JobStatus
    given_by: int | None
    """The job whose result is put before its own arguments."""
    run_after: datetime.datetime | None
    expires_at: datetime.datetime | None


class Workflows(Planting):
    """A step is WAITING while it is held; what decides about it only ever finds it in that state."""

    @abstractmethod
    def enqueue(self, drafts: Sequence[Draft]) -> list[tuple[int, datetime.datetime]]: ...

    # Coming in

    def plant(self, plan: Plan) -> tuple[int, list[int]]:
        """Insert all steps of a plan, or none, in the caller's transaction. Returns the workflow's id, and theirs."""
        with self.atomic():
            now = self.clock()
            workflow = self._workflows().create(name=plan.name, created_at=now)
            ids = self._plant(plan, workflow.pk, now)
            self._workflows().filter(pk=workflow.pk).update(last_id=ids[plan.last])
            self._settle(self._end_empty(groups_of(plan, ids), now), now)
        return workflow.pk, ids

    # What an end decides. The workflows are locked by now.

    def _cancel_requested(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Cancel those of these jobs that came back from RUNNING after somebody asked for their end."""
        if self._write_requested(ids, now):
            self._settle(ids, now)

    def _write_requested(self, ids: Collection[int], now: datetime.datetime) -> int:
        """The same, and what follows from it is not decided yet."""
        came_back = self.jobs.leaving(CANCELLABLE, self.among(ids)).filter(cancel_requested_at__isnull=False)
        written: int = came_back.update(status=JobStatus.CANCELLED, finished_at=now, reason=REQUESTED, unique_key=None)
        if written:
            self.call_waiters(ids)
        return written

    def _settle(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Release, end or cancel what waits for these steps, as far as they have ended; and so on, to the last.

        What it decides it finds WAITING, so that a second time changes nothing.
        """
        touched: set[int] = set()
        past: set[int] = set()
        ended = self._ended(ids)
        # What is cancelled from here on is handed on as it is cancelled.
        self._hand_on([one.id for one in ended if one.status != JobStatus.SUCCESSFUL and one.allow_failure])
        while ended:
            touched |= {one.workflow_id for one in ended}
            bad = {one.id for one in ended if one.status != JobStatus.SUCCESSFUL and not one.allow_failure}
            good = [one for one in ended if one.id not in bad]
            further = self._cancel_after(bad, now)
            further += self._cancel_links([one.id for one in good if one.status != JobStatus.SUCCESSFUL], now)
            early = self._before_their_turn(ended, past)
            decided = {one.id for one in ended} - early
            past |= decided
            good = [one for one in good if one.id not in early]
            further += self._release_after([one.id for one in good], now)
            further += self._end_groups({one.group_id for one in good if one.group_id is not None}, now)
            # What stands behind an early one is early, too; what was decided once is not decided again.
            further += [pk for pk in self._passed_over(decided) if pk not in past]
            ended = self._ended(further)
        still_open = self.jobs.filter(workflow_id=OuterRef("pk"), status__in=OPEN)
        over = self._workflows().filter(~Exists(still_open), pk__in=touched, finished_at=None)
        over.update(finished_at=now)

    def _end_empty(self, groups: Collection[int], now: datetime.datetime) -> list[int]:
        """A group without members that waits for nothing has ended as it comes. Returns which have."""
        if not groups:
            return []
        first = self.jobs.filter(pk__in=self.among(groups), status=JobStatus.WAITING, after_id=None)
        return self._end_groups(set(first.values_list("pk", flat=True)), now)

    def _ended(self, ids: Collection[int]) -> list[Ended]:
        if not ids:
            return []
        rows = self.jobs.leaving(FINAL, self.among(ids)).filter(workflow_id__isnull=False).order_by("id")
        return [Ended._make(row) for row in rows.values_list(*Ended._fields)]

    def _before_their_turn(self, ended: Sequence[Ended], past: Collection[int]) -> set[int]:
        """Those of these that were passed over, and what stands before them is still open: nobody gets past yet.

        Before those that are ``past`` nothing is open any more.
        """
        found: set[int] = set()
        known = {one.id: one for one in ended}
        after = {one.id: one.after_id for one in ended if one.is_passed_over}
        while after := {pk: one for pk, one in after.items() if one is not None and one not in past}:
            if unknown := set(after.values()) - known.keys():
                rows = self.jobs.filter(pk__in=self.among(unknown)).values_list(*Ended._fields)
                known |= {one.id: one for one in map(Ended._make, rows)}
            stands = {pk: known[one] for pk, one in after.items() if one in known}
            found |= {pk for pk, one in stands.items() if one.status in OPEN}
            after = {pk: one.after_id for pk, one in stands.items() if one.is_passed_over}
        return found

    def _passed_over(self, ended: Collection[int]) -> list[int]:
        """What comes after these, and was passed over: its turn has come."""
        found = self.jobs.filter(_PASSED_OVER, after_id__in=self.among(ended)) if ended else self.jobs.none()
        return list(found.order_by("id").values_list("pk", flat=True))

    def _hand_on(self, ids: Collection[int]) -> None:
        """Let the failure of these stand where others look for their results."""
        if not ids:
            return
        failures = self._failures(ids)
        told = []
        for pk, status, reason in self.jobs.filter(pk__in=self.among(ids)).values_list("pk", "status", "reason"):
            path, text = failures.get(pk, ("", ""))
            is_reason = status == JobStatus.CANCELLED or not path
            error = "dbqueue.exceptions.JobCancelled" if is_reason else path
            message = reason if is_reason else what_was_wrong(text)
            told.append((pk, json.dumps({"error": error, "message": message[:MESSAGE_LENGTH]})))
        self._write_handed_on(told)

    def _write_handed_on(self, told: Sequence[tuple[int, str]]) -> None:
        for pk, value_json in told:
            self.jobs.filter(pk=pk).update(return_value=json.loads(value_json))

    def _failures(self, ids: Collection[int]) -> dict[int, tuple[str, str]]:
        """The last error of each, as (class, traceback)."""
        rows = self._attempts().filter(job_id__in=self.among(ids)).order_by("id")
        return {pk: (path, text) for pk, path, text in rows.values_list("job_id", "exception_class_path", "traceback")}

    def _cancel_after(self, bad: Collection[int], now: datetime.datetime) -> list[int]:
        """Cancel all that waits for these, through any depth. Returns what allows failure of that, and behind it."""
        if not bad:
            return []
        by_cause: dict[int, list[int]] = defaultdict(list)
        for pk, cause in self._down(bad, JobStatus.WAITING).items():
            by_cause[cause].append(pk)
        reasons: dict[int, str] = {}
        for cause, task, status, why in self._told(by_cause):
            reasons |= dict.fromkeys(by_cause[cause], told_cause(cause, task, status, why))
        cancelled = self._cancel_waiting(reasons, now)
        return [*self._tolerated(cancelled), *self._passed_over(cancelled)]

    def _tolerated(self, ids: Collection[int]) -> list[int]:
        return list(self.jobs.filter(pk__in=self.among(ids), allow_failure=True).values_list("pk", flat=True))

    def _cancel_links(self, tolerated: Collection[int], now: datetime.datetime) -> list[int]:
        """Links come after a success, also where what stands in the chain goes on without it."""
        if not tolerated:
            return []
        causes = {pk: told_cause(pk, task, status, why) for pk, task, status, why in self._told(tolerated)}
        links = self.jobs.filter(
            after_id__in=self.among(tolerated), status=JobStatus.WAITING, group_id=None, position__isnull=False
        )
        found = links.order_by("id").values_list("pk", "after_id")
        return self._cancel_waiting({pk: causes[after or 0] for pk, after in found}, now)

    def _cancel_waiting(self, reasons: Mapping[int, str], now: datetime.datetime) -> list[int]:
        """Cancel these steps, each for its reason. Returns their ids."""
        if reasons:
            self._write_cancelled(reasons, now)
            self.call_waiters(reasons)
            # Before anybody looks for it: a group may end in the same round.
            self._hand_on(self._tolerated(reasons))
        return list(reasons)

    def _write_cancelled(self, reasons: Mapping[int, str], now: datetime.datetime) -> None:
        by_reason: dict[str, list[int]] = defaultdict(list)
        for pk, reason in reasons.items():
            by_reason[reason].append(pk)
        for reason, ids in by_reason.items():
            self.jobs.leaving({JobStatus.WAITING}, self.among(ids)).update(
                status=JobStatus.CANCELLED, finished_at=now, reason=reason, unique_key=None
            )

    def _told(self, ids: Collection[int]) -> "Iterable[tuple[int, str, str, str]]":
        return self.jobs.filter(pk__in=self.among(ids)).values_list("pk", "task", "status", "reason") if ids else ()

    def _down(self, ids: Collection[int], status: JobStatus, asked: Collection[int] = ()) -> dict[int, int]:
        """The held steps in this state that stand after these, through any depth, each with its cause among them.

        One whose end somebody wanted is found only among those ``asked`` for.

        What is to be cancelled stops before what stands after one that allows failure.
        """
        begin = self.jobs.filter(pk__in=self.among(ids)).order_by("id")
        starts = list(begin.values_list("pk", "group_id", "workflow_id"))
        found: dict[int, int] = {}
        edges = {pk: (pk, group) for pk, group, _ in starts}
        for _ in range(LEVELS if status is JobStatus.WAITING else 0):
            if not edges:
                return found
            edges = _beyond(edges, self._next(edges, status), found, status)
        if edges:
            every = self.jobs.filter(workflow_id__in={row[2] for row in starts}, status=status, held=True)
            rows = every.order_by("id").values_list(*Edge._fields)
            after: dict[int, list[Edge]] = defaultdict(list)
            by_id = {}
            for edge in map(Edge._make, rows):
                if edge.cancel_requested_at is not None and edge.id not in asked:
                    continue
                by_id[edge.id] = edge
                if edge.after_id is not None:
                    after[edge.after_id].append(edge)
            while edges:
                groups = [by_id[group] for _, group in edges.values() if group in by_id]
                edges = _beyond(edges, [*groups, *(edge for pk in edges for edge in after[pk])], found, status)
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
        """Let what comes after these begin, given their results. Returns what among it has ended, as it is an empty
        group, or as it would be given too much.

        Locked, as an operator may be editing one.
        """
        if not ids:
            return []
        waiting = self.jobs.filter(after_id__in=self.among(ids), status=JobStatus.WAITING).order_by("id")
        columns = ("id", "after_id", "task", "step", "queue_name", "run_after", "rate_key")
        found = list(waiting.select_for_update(**self._no_key()).values_list(*columns))
        released, queues = [], {}
        for pk, after, task, step, queue, run_after, rate_key in found:
            # One that was replaced has had its turn: it waits for what is inside of it.
            if task != GROUP and not (step or {}).get("single"):
                one = _released(pk, after, step or {}, run_after, now)
                if one.run_after is None and rate_key is None:
                    # From now on it waits for a worker. (Under a rate a time would be the promise of a start.)
                    one = one._replace(run_after=now)
                released.append(one)
                queues[pk] = queue if one.status is JobStatus.READY else ANY_QUEUE
        refused = self._too_much(released)
        if released := [one for one in released if one.id not in refused]:
            self._write_released(released)
            self.call_workers({queues[one.id] for one in released})
        ended = self._end_groups({row[0] for row in found if row[2] == GROUP}, now)
        return ended + self._cancel_waiting(refused, now)

    def _too_much(self, released: Iterable[Released]) -> dict[int, str]:
        """Those of these that can't be given what they wait for, as all copies of it together are too large, and why.

        What one job alone is given was small enough to be returned.
        """
        takers: dict[int, list[int]] = defaultdict(list)
        for one in released:
            if one.given_by is not None:
                takers[one.given_by].append(one.id)
        shared = [pk for pk, ids in takers.items() if len(ids) > 1]
        if not shared:
            return {}
        most = Settings.load().max_handed_on_bytes
        refused: dict[int, str] = {}
        for pk, size in self.jobs.filter(pk__in=self.among(shared)).values_list("pk", Bytes("return_value")):
            if (number := len(takers[pk])) * (size or 0) > most:
                why = f"{size} bytes of job {pk} for {number} jobs: DBQUEUE['MAX_HANDED_ON_BYTES'] allows {most} in all"
                refused |= dict.fromkeys(takers[pk], why)
        return refused

    def _write_released(self, released: Sequence[Released]) -> None:
        giver, value = None, None
        for one in sorted(released, key=lambda one: one.given_by or 0):
            columns: dict[str, Any] = {"status": one.status, "run_after": one.run_after, "held": False}
            if one.given_by is not None:
                if one.given_by != giver:
                    giver, value = one.given_by, self.jobs.values_list("return_value", flat=True).get(pk=one.given_by)
                columns["args"] = [value, *self.jobs.values_list("args", flat=True).get(pk=one.id)]
            if one.expires_at is not None:
                columns["expires_at"] = one.expires_at
            self.jobs.leaving({JobStatus.WAITING}, [one.id]).update(**columns)

    def _end_groups(self, ids: Collection[int], now: datetime.datetime) -> list[int]:
        """End those of these groups, and replaced jobs, all of whose members have. Returns which have ended."""
        if not (tasks := self._full(ids)):
            return []
        ended_badly = ~Q(status=JobStatus.SUCCESSFUL) & Q(allow_failure=False)
        members = self.jobs.filter(group_id__in=self.among(tasks))
        counted = members.order_by().values_list("group_id")
        sums = counted.annotate(
            failures=Count("pk", filter=ended_badly), number=Count("pk"), size=Sum(Bytes("return_value"))
        )
        bad, large = set(), {}
        most = Settings.load().max_handed_on_bytes
        for group, failures, number, size in sums:
            if failures:
                bad.add(group)
            elif (size or 0) > most and tasks[group] == GROUP:
                large[group] = (
                    f"its {number} results have {size} bytes: DBQUEUE['MAX_HANDED_ON_BYTES'] allows {most} in a list"
                )
        if good := [pk for pk in tasks if pk not in bad and pk not in large]:
            self._write_results(good, now)
            self.call_waiters(good)
        causes: dict[int, int] = {}
        if bad:
            failed = members.filter(ended_badly).order_by("group_id", "position", "id")
            for group_id, pk in failed.values_list("group_id", "pk"):
                causes.setdefault(group_id or 0, pk)
        return good + self._cancel_waiting(large, now) + self._cancel_after(sorted(causes.values()), now)

    def _full(self, ids: Collection[int]) -> dict[int, str]:
        """Those of these groups, and replaced jobs, in which nothing is to come any more, each with its task."""
        if not ids:
            return {}
        of_group = self.jobs.filter(workflow_id=OuterRef("workflow_id"), group_id=OuterRef("pk"), status__in=OPEN)
        full = self.jobs.filter(~Exists(of_group), pk__in=self.among(ids), status=JobStatus.WAITING).order_by("id")
        if not (tasks := dict(full.values_list("pk", "task"))):
            return {}
        # A member that was passed over has ended, and what stands before it may not have.
        rows = self.jobs.filter(_PASSED_OVER, group_id__in=self.among(tasks)).values_list(*Ended._fields)
        passed_over = [Ended._make(row) for row in rows]
        early = self._before_their_turn(passed_over, ())
        waiting = {one.group_id for one in passed_over if one.id in early}
        return {pk: task for pk, task in tasks.items() if pk not in waiting}

    def _write_results(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Let these groups have the list of what their members returned, and replaced jobs what that one did."""
        for pk, task in self.jobs.filter(pk__in=ids).values_list("pk", "task"):
            values = list(
                self.jobs.filter(group_id=pk).order_by("position", "id").values_list("return_value", flat=True)
            )
            self.jobs.leaving({JobStatus.WAITING}, [pk]).update(
                return_value=values if task == GROUP else values[0],
                status=JobStatus.SUCCESSFUL,
                finished_at=now,
                held=False,
                unique_key=key_after(JobStatus.SUCCESSFUL),
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
            drafts = [_called_back(callback, pk, *failures.get(pk, ("", "")), now) for pk, callback in told]
            made = self.enqueue([draft for draft in drafts if draft is not None])
            if (heard := called_back.get()) is not None:
                heard += [pk for pk, _ in made]

    def _with_inside(self, ids: Collection[int]) -> set[int]:
        """These, and what is inside of those that are groups, or were replaced."""
        holds = Q(task=GROUP) | Q(step__single=True)
        holders = self.jobs.filter(holds, pk__in=self.among(ids), status=JobStatus.WAITING)
        return set(ids) | self._inside_of(set(holders.values_list("pk", flat=True)))

    def _replaced(self, ids: Collection[int]) -> set[int]:
        """Those of these that were replaced, and cancelled since."""
        replaced = self.jobs.leaving({JobStatus.CANCELLED}, self.among(ids)).filter(step__single=True)
        return set(replaced.values_list("pk", flat=True))

    def _inside_of(self, holders: Collection[int]) -> set[int]:
        """These groups and replaced jobs, with all that is inside of them."""
        found: set[int] = set()
        by_workflow: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
        rows = self.jobs.filter(pk__in=self.among(holders)).values_list("pk", "workflow_id", "after_id")
        for pk, workflow_id, after in rows if holders else ():
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

    def _wait_again(self, ids: Collection[int], asked: Collection[int]) -> None:
        """Let what was cancelled because of these, or before its turn, wait for them again.

        What somebody has cancelled himself stays, and what comes after that, unless it is among those ``asked`` for.
        """
        held = list(self._down(ids, JobStatus.CANCELLED, set(asked)))
        self.jobs.leaving({JobStatus.CANCELLED}, self.among(held)).update(
            status=JobStatus.WAITING, finished_at=None, reason="", cancel_requested_at=None
        )
        steps = self.jobs.filter(pk__in=self.among(ids), workflow_id__isnull=False).values("workflow_id")
        self._workflows().filter(pk__in=steps).update(finished_at=None)

    def _handed_on(self, ids: Collection[int]) -> set[int]:
        """Those of these whose failure was given, in place of a result, to what has begun since, or is in a list."""
        tolerated = dict(self.jobs.filter(pk__in=self.among(ids), allow_failure=True).values_list("pk", "group_id"))
        if not tolerated:
            return set()
        steps = self.jobs.filter(workflow_id__in=self._workflows_of(tolerated))
        begun = steps.filter(Q(held=False) | Q(step__single=True), after_id__in=self.among(tolerated))
        groups = {group for group in tolerated.values() if group is not None}
        over = self.jobs.leaving({JobStatus.SUCCESSFUL}, self.among(groups)).values_list("pk", flat=True)
        listed = set(over) if groups else set()
        found = {after or 0 for after in begun.values_list("after_id", flat=True)}
        return found | {pk for pk, group in tolerated.items() if group in listed}

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


def _beyond(
    edges: dict[int, tuple[int, int | None]], following: Iterable[Edge], found: dict[int, int], status: JobStatus
) -> dict[int, tuple[int, int | None]]:
    """Note those that follow and are new, with their causes. Returns those to go on from, as ``edges`` is."""
    by_group = {group: cause for cause, group in edges.values() if group is not None}
    further: dict[int, tuple[int, int | None]] = {}
    for edge in following:
        is_inside = edge.id in by_group
        if edge.id in found or (edge.step__single and not is_inside):
            continue
        cause = by_group[edge.id] if is_inside else edges[edge.after_id or 0][0]
        found[edge.id] = cause
        if not edge.allow_failure or status is JobStatus.CANCELLED:
            further[edge.id] = cause, edge.group_id
    return further


def _released(
    pk: int, after: int, step: dict[str, Any], run_after: datetime.datetime | None, now: datetime.datetime
) -> Released:
    if (wait := step.get("wait")) is not None:
        run_after = _after(now, wait)
    expires_in = step.get("expires_in")
    return Released(
        pk,
        JobStatus.READY if run_after is None else JobStatus.SCHEDULED,
        None if step.get("immutable") else after,
        run_after,
        None if expires_in is None else _after(now, expires_in),
    )


def _after(now: datetime.datetime, seconds: float) -> datetime.datetime:
    """Of what is out of range (a plan refuses it, but the row may be older than that) the last time that there is."""
    try:
        return min(now + datetime.timedelta(seconds=seconds), now.replace(year=LAST_YEAR, day=1))
    except OverflowError:
        return now.replace(year=LAST_YEAR, day=1)


def _called_back(
    callback: dict[str, Any], failed: int, path: str, traceback: str, now: datetime.datetime
) -> Draft | None:
    """None, which is logged, for what can't be read: a row may be of any version, and its job's end is not to wait."""
    try:
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
        ).due_from(now)
    except (LookupError, TypeError, ValueError, InvalidTask) as exc:
        logger.error("A callback of job %d can't be read, and is left out: %r", failed, exc)
        return None


def what_was_wrong(text: str) -> str:
    """Of a traceback the error's own lines: what ``traceback.format_exception_only()`` says of it."""
    # Of a chain of errors the last one counts; its frames are indented, and its own first line is not.
    last = _CHAINED.split(text)[-1]
    _, has_frames, rest = last.partition("Traceback (most recent call last):\n")
    lines = (rest if has_frames else last).strip("\n").splitlines()
    for number, line in enumerate(lines):
        if line[:1] not in (" ", ""):
            return "\n".join(lines[number:])
    # Those of a group stand behind a bar.
    barred = (line[4:] for line in lines if line.startswith("  | ") and line[4:5] not in (" ", ""))
    return next(barred, lines[-1].strip() if lines else "")
