"""A workflow seen from outside: a tree of results, waiting for it, ending it, trying again what failed."""

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, Union

from asgiref.sync import sync_to_async
from django.db import transaction

from . import signals
from .announcement import Announcement
from .conf import Settings
from .exceptions import JobDoesNotExist
from .models import FINAL, GROUP, Job, JobStatus, Workflow
from .results import JobResult, from_row, get_result, id_of
from .store import store_for
from .tree import Tree

AT_ONCE = 500
"""Jobs that are read at once with their attempts."""

Part = Union["WorkflowResult", JobResult[Any]]


class Ended(NamedTuple):
    """How many jobs have ended, however they did, and of how many."""

    done: int
    total: int


class Progress(Ended):
    """How far a workflow is; of what has ended, ``failed`` and ``cancelled`` have not succeeded.

    Compared and unpacked it is the pair ``(done, total)``.
    """

    failed: int = 0
    cancelled: int = 0

    def __new__(cls, done: int, total: int, failed: int = 0, cancelled: int = 0) -> Self:
        made = super().__new__(cls, done, total)
        made.failed, made.cancelled = failed, cancelled
        return made

    @classmethod
    def of(cls, states: Mapping[str, int]) -> Self:
        """From how many jobs are in each state."""
        done = sum(number for state, number in states.items() if state in FINAL)
        failed, cancelled = (states.get(state, 0) for state in (JobStatus.FAILED, JobStatus.CANCELLED))
        return cls(done, sum(states.values()), failed, cancelled)

    def __repr__(self) -> str:
        return f"Progress(done={self.done}, total={self.total}, failed={self.failed}, cancelled={self.cancelled})"

    def __str__(self) -> str:
        said = [f"{self.done} of {self.total}"]
        said += [f"{self.failed} failed"] if self.failed else []
        said += [f"{self.cancelled} cancelled"] if self.cancelled else []
        return ", ".join(said)


@dataclass(slots=True)
class WorkflowResult:
    """A workflow, or a branch of one: a chain or a group inside of it.

    Its result is that of the job ``last_id``: of a chain's last step; of a group, whose row collects its members'. The
    tree is read when it is asked for, and again after ``refresh()``.
    """

    workflow_id: int
    last_id: int
    database: str
    _stop: int | None = field(default=None, repr=False)
    _known: Tree | None = field(default=None, repr=False, compare=False)
    _uncommitted: bool = field(default=False, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The id of the job whose result this is; ``dbqueue.get_result()`` takes it."""
        return str(self.last_id)

    @property
    def status(self) -> JobStatus:
        """The state of that job, as it is now: CANCELLED where it never ran, because one before it failed.

        ``progress`` tells whether something failed. The admin sums a workflow up: to it, that one has failed.
        """
        return self.last_result().status

    @property
    def is_finished(self) -> bool:
        return self.status.is_final

    @property
    def return_value(self) -> Any:
        """Raises ResultNotReady unless it has succeeded."""
        return self.last_result().return_value

    def last_result(self) -> JobResult[Any]:
        """The result of the job whose end is that of all. Raises JobDoesNotExist."""
        result = get_result(self.last_id, database=self.database)
        result._uncommitted = self._uncommitted
        return result

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most ``timeout`` seconds (None: for ever), and return the value; see JobResult.get().

        Raises JobCancelled where a step before the last has not succeeded; the text names it.
        """
        return self.last_result().get(timeout)

    async def aget(self, timeout: float | None = None) -> Any:
        """The same as get(), from async code."""
        return await sync_to_async(self.get)(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end, however it ends. Steps that nobody waits for may still run. See JobResult.wait()."""
        self.last_result().wait(timeout)

    def refresh(self) -> None:
        """Forget what was read of the tree."""
        self._known = None

    @property
    def children(self) -> list[Part]:
        """Of a chain its steps, of a group its members, in order. What has no parts is a JobResult."""
        path = self._tree.path(self.last_id, self._stop)
        if len(path) > 1:
            return self._parts([(pk, self._tree.rows[pk].after_id) for pk in path])
        stop = self._tree.stop_of(self.last_id)
        return self._parts([(pk, stop) for pk in self._tree.members(self.last_id)])

    def steps(self) -> list[JobResult[Any]]:
        """All jobs of this branch, groups left out, in the order in which they were made."""
        rows = Job.objects.using(self.database).filter(workflow_id=self.workflow_id).exclude(task=GROUP)
        ids = set(self._ids())
        found = rows.order_by("id").prefetch_related("attempt_set")
        return [from_row(row) for row in found.iterator(chunk_size=AT_ONCE) if row.pk in ids]

    @property
    def progress(self) -> Progress:
        """Jobs that have ended, of all, and how many of them failed or were cancelled. Reads the tree anew."""
        self.refresh()
        return Progress.of(self._tree.states(self._ids()))

    async def aprogress(self) -> Progress:
        """The same as progress, from async code."""
        return await sync_to_async(lambda: self.progress)()

    def cancel(self, *, interrupt: bool = False) -> bool:
        """Ask for the end of all of it, in the caller's transaction, as JobResult.cancel() does of one job.

        Returns whether there was anything to end. What was to come after it is cancelled with it.
        """
        store = store_for(self.database)
        self.refresh()
        ids, now = self._ids(), store.clock()
        asked = store.request_cancel(ids, interrupt=interrupt, now=now)
        self.refresh()
        if asked.cancelled and signals.job_cancelled.receivers:
            self._announce_cancel(ids, now)
        return any(asked)

    async def acancel(self, *, interrupt: bool = False) -> bool:
        """The same as cancel(), from async code."""
        return await sync_to_async(self.cancel)(interrupt=interrupt)

    def retry_failed(self) -> int:
        """Try again what failed, or was cancelled or expired, with a fresh count of attempts.

        What was cancelled because of them waits for them again. What has succeeded stays as it is. Returns how many
        jobs run again, without those that wait for them, or for one that still runs.
        """
        self.refresh()
        retried = store_for(self.database).retry_steps(self._ids())
        self.refresh()
        return retried

    async def aretry_failed(self) -> int:
        """The same as retry_failed(), from async code."""
        return await sync_to_async(self.retry_failed)()

    def _announce_cancel(self, ids: Collection[int], now: datetime.datetime) -> None:
        """Tell of the jobs that were cancelled by this request, and not of those that were because of them."""
        store = store_for(self.database)
        asked = store.jobs.leaving({JobStatus.CANCELLED}, store.among(ids))
        rows = asked.filter(cancel_requested_at=now, finished_at=now).order_by("id")
        for told in Announcement.of_jobs(signals.job_cancelled, rows.defer("args", "kwargs"), reason=""):
            transaction.on_commit(told.send, using=self.database)

    @property
    def _tree(self) -> Tree:
        if self._known is None:
            self._known = Tree.of(self.workflow_id, self.database)
        return self._known

    def _ids(self) -> list[int]:
        if self.last_id not in self._tree.rows:
            raise JobDoesNotExist(f"Workflow {self.workflow_id} has been deleted.")
        return [place.row.id for place in self._tree.walk(self.last_id, self._stop)]

    def _parts(self, ends: list[tuple[int, int | None]]) -> list[Part]:
        """What ends with each of these steps and begins after the other one."""
        leaves = [pk for pk, stop in ends if self._is_leaf(pk, stop)]
        rows = Job.objects.using(self.database).prefetch_related("attempt_set").in_bulk(leaves)
        return [
            from_row(rows[pk])
            if pk in rows
            else WorkflowResult(self.workflow_id, pk, self.database, stop, self._tree, self._uncommitted)
            for pk, stop in ends
        ]

    def _is_leaf(self, pk: int, stop: int | None) -> bool:
        row = self._tree.rows[pk]
        return not row.is_group and not self._tree.members(pk) and len(self._tree.path(pk, stop)) == 1


def get_workflow(workflow_id: int | str, *, database: str | None = None) -> WorkflowResult:
    """Look a workflow up by its id. Raises JobDoesNotExist, also where it has been deleted, and for what is no id."""
    alias = database or Settings.load().database
    row = Workflow.objects.using(alias).filter(pk=id_of(workflow_id, "workflow")).first()
    if row is None or row.last_id is None:
        raise JobDoesNotExist(f"No workflow has the id {workflow_id}.")
    return WorkflowResult(row.pk, row.last_id, alias)
