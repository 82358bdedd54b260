"""The one way in: every entrance that makes jobs ends here."""

import datetime
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction

from . import signals
from .announcement import Announcement
from .conf import Settings
from .draft import Draft
from .durable import apart, is_in_transaction
from .exceptions import refused_in_async_code
from .models import JobStatus
from .plan import Plan
from .results import JobResult, get_result
from .store import Entered, store_for
from .workflow import WorkflowResult

InlineRunner = Callable[
    [Callable[[], list[JobResult[Any]]], Callable[[JobResult[Any]], None]],
    list[JobResult[Any]],
]

run_inline: InlineRunner | None = None
"""What inserts jobs and runs them where DBQUEUE['IMMEDIATE'] is on. Put here when Django starts: to run a job takes the
rooms above, which a process that enqueues does without."""


def enqueue_plan(plan: Plan) -> WorkflowResult:
    """Insert all jobs of a workflow, or none, in the caller's transaction."""
    made: list[WorkflowResult] = []

    def plant() -> list[JobResult[Any]]:
        settings = Settings.load()
        store = store_for(settings.database)
        with apart(settings.database) if plan.is_durable and is_apart() else nullcontext():
            workflow_id, ids = store.plant(plan)
        made.append(WorkflowResult(workflow_id, ids[plan.last], settings.database, _uncommitted=True))
        _note_commit(made, settings.database)
        # Who listens, and who runs them at once, wants the jobs; otherwise nobody reads what was just written.
        return made[0].steps() if settings.immediate or signals.job_enqueued.receivers else []

    enter(plant)
    return made[0]


def is_apart() -> bool:
    """Whether what is durable needs a transaction of its own. Where jobs run inline, they do so in the caller's."""
    settings = Settings.load()
    return not settings.immediate and is_in_transaction(settings.database)


def insert_apart(drafts: list[Draft]) -> list[JobResult[Any]]:
    with apart(Settings.load().database):
        return insert(drafts)


def insert(drafts: list[Draft]) -> list[JobResult[Any]]:
    """The one way in: every entrance ends here."""
    if not drafts:
        return []
    alias = Settings.load().database
    store = store_for(alias)
    if any(draft.counts_from_now for draft in drafts):
        now = store.clock()
        drafts = [draft.due_from(now) for draft in drafts]
    if any(draft.unique_key for draft in drafts):
        entered = store.enqueue_unique(drafts)
    else:
        entered = [Entered(pk, enqueued_at, exists=False) for pk, enqueued_at in store.enqueue(drafts)]
    made = [
        _existing(pk, alias) if exists else _new(draft, pk, enqueued_at, alias)
        for draft, (pk, enqueued_at, exists) in zip(drafts, entered, strict=True)
    ]
    _note_commit(made, alias)
    return made


def enter(
    insert: Callable[[], list[JobResult[Any]]], entered: Callable[[JobResult[Any]], None] = lambda job: None
) -> list[JobResult[Any]]:
    """Insert, tell, and with DBQUEUE['IMMEDIATE'] run what was inserted. Raises what names the way of async code."""
    try:
        return _enter(insert, entered)
    except SynchronousOnlyOperation:
        instead = "await aenqueue() instead of enqueue(), and sync_to_async(enqueue_many)(…) of many"
        raise refused_in_async_code("A job is enqueued", instead) from None


def _enter(
    insert: Callable[[], list[JobResult[Any]]], entered: Callable[[JobResult[Any]], None]
) -> list[JobResult[Any]]:
    def tell(job: JobResult[Any]) -> None:
        _announce(job)
        entered(job)

    if run_inline is not None and Settings.load().immediate:
        return run_inline(insert, tell)
    made = insert()
    for job in made:
        tell(job)
    return made


def _announce(job: JobResult[Any]) -> None:
    if job.duplicate:
        return
    if told := Announcement.of_new(int(job.id), job.task_name, job.queue_name, job.run_after):
        told.send()


def _new(draft: Draft, pk: int, enqueued_at: datetime.datetime, alias: str) -> JobResult[Any]:
    return JobResult(
        id=str(pk),
        task_name=draft.task,
        status=JobStatus.SCHEDULED if draft.run_after else JobStatus.READY,
        args=draft.args,
        kwargs=draft.kwargs,
        queue_name=draft.queue_name,
        priority=draft.priority,
        backend=draft.backend,
        run_after=draft.run_after,
        enqueued_at=enqueued_at,
        errors=[],
        worker_ids=[],
        max_attempts=draft.max_attempts,
        expires_at=draft.expires_at,
        database=alias,
        _uncommitted=True,
    )


def _existing(pk: int, alias: str) -> JobResult[Any]:
    result = get_result(pk, database=alias)
    result.duplicate = result._uncommitted = True
    return result


def _note_commit(results: "Sequence[JobResult[Any] | WorkflowResult]", alias: str) -> None:
    if connections[alias].in_atomic_block:
        transaction.on_commit(partial(_committed, results), using=alias)
    else:
        _committed(results)


def _committed(results: "Sequence[JobResult[Any] | WorkflowResult]") -> None:
    for result in results:
        result._uncommitted = False
