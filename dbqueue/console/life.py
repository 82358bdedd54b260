"""The life of one job as its page tells it: its attempts, what happened when, and why it waits."""

import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from django.db.models.functions import Right
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf
from ..exceptions import CancelRequested, Discard
from ..models import FINAL, GROUP, OPEN, RETRYABLE, Attempt, Job, JobStatus, LogLine, Worker
from ..redaction import Call
from ..store import Store, is_served
from . import display, errors
from .base import counted

MOST_LINES = 200
"""Log lines that a job's page shows; the latest."""

MOST_ATTEMPTS = 50
"""Attempts that a job's page shows; the latest."""

MOST_SAID = 200
"""Characters of what an error said that stand in one line."""

MOST_NEIGHBOURS = 20
"""Steps before and after one of a workflow that its page names."""

MOST_NESTED = 10
"""Groups around a step through which is looked for what comes after it."""

WANTED = frozenset(f"{one.__module__}.{one.__qualname__}" for one in (CancelRequested, Discard))
"""Errors by which an attempt ends that was to end so."""

LOOKS = 3
"""Times that a job which moves all the while is read, until its page shows two moments after all."""


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. ``ended`` is None while it runs."""

    number: int
    status: JobStatus
    worker: str
    started: datetime.datetime
    ended: datetime.datetime | None
    took: datetime.timedelta
    error: str = ""
    traceback: str = ""
    whole_url: str = ""
    """Where a traceback that is shown in part is shown whole."""

    @property
    def state(self) -> str:
        return display.badge(self.status, self.status.label)

    @property
    def has_failed(self) -> bool:
        return self.status == JobStatus.FAILED

    @property
    def failure(self) -> str:
        """The error in a line, with what it said where the traceback may be read."""
        return errors.line_of(self.error, self.traceback, MOST_SAID) if self.error else ""

    @property
    def began_at(self) -> str:
        return display.moment(self.started)

    @property
    def lasted(self) -> str:
        return display.span(self.took)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a job, or that it waited for. ``at`` is empty for a while, ``lasted`` for a moment."""

    said: str
    at: str = ""
    lasted: str = ""


def attempts_of(job: Job, whole_id: int | None) -> list[Attempt]:
    """What is recorded, the latest first, with the job's row as it was then: where it moves meanwhile, it is read anew.

    Of the latest attempt, and of that which ``whole_id`` names, the traceback is whole, of others its end.
    """
    for _look in range(LOOKS):
        recorded: list[Attempt] = list(
            job.attempt_set.defer("traceback")
            .annotate(tail=Right("traceback", errors.TAIL))
            .order_by("-id")[:MOST_ATTEMPTS]
        )
        now = Job.objects.using(job._state.db).filter(pk=job.pk).values_list("status", "lease", "attempt").first()
        if now in (None, (job.status, job.lease, job.attempt)):
            break
        job.refresh_from_db()
    whole = {attempt.pk for attempt in recorded[:1]} | ({whole_id} if whole_id else set())
    for attempt in recorded:
        tail: str = attempt.tail  # type: ignore[attr-defined]
        attempt.is_cut = attempt.pk not in whole and len(tail) == errors.TAIL  # type: ignore[attr-defined]
        if attempt.pk not in whole:
            attempt.traceback = errors.whole_lines(tail)
    return recorded


def runs_of(job: Job, recorded: Collection[Attempt], call: Call, now: datetime.datetime) -> list[Run]:
    """Every attempt, the latest first: that of the job's own row, if it has one, and those that are recorded."""
    current = job.unrecorded_worker_id()
    names = worker_names(job, [current, *(attempt.worker_id for attempt in recorded)])
    runs = [_recorded(job, attempt, names, call) for attempt in recorded]
    if current is not None and job.last_attempted_at is not None:
        ended = job.finished_at
        took = (ended or now) - job.last_attempted_at
        status = JobStatus(job.status)
        runs.insert(0, Run(job.attempt, status, names[current], job.last_attempted_at, ended, took))
    return runs


def without_tracebacks(runs: Iterable[Run]) -> list[Run]:
    """For somebody who may not see what jobs are called with: a traceback may tell it."""
    return [replace(run, traceback="", whole_url="") for run in runs]


def log_of(job: Job, call: Call) -> list[tuple[datetime.datetime, str]]:
    """The latest lines, the latest of them first."""
    lines = LogLine.objects.using(job._state.db).filter(job_id=job.pk).order_by("-id")[:MOST_LINES]
    return [(line.made_at, call.secrets.scrub(line.text)) for line in lines]


def worker_names(job: Job, ids: Iterable[int | None]) -> dict[int, str]:
    """The workers' names by id; for one whose row has gone, its id."""
    wanted = {pk for pk in ids if pk is not None}
    if not wanted:
        return {}
    found = Worker.objects.using(job._state.db).filter(pk__in=wanted).values_list("pk", "name")
    return {pk: f"#{pk}" for pk in wanted} | dict(found)


def timeline(job: Job, runs: Iterable[Run], reason: str, now: datetime.datetime) -> Iterator[Step]:
    """What happened to it, from its enqueue to its end or to now. ``reason``: as it may be told to this reader."""
    yield Step(_("Enqueued"), display.moment(job.enqueued_at))
    oldest_first = sorted(runs, key=lambda run: run.started)
    if oldest_first and oldest_first[0].number > 1:
        older = oldest_first[0].number - 1
        yield Step(ngettext("%d older attempt", "%d older attempts", older) % older)
    last: datetime.datetime | None = job.enqueued_at
    for run in oldest_first:
        # Attempts that are not shown came between; and of two rows for one attempt the later may have begun before.
        if last is not None and run.started > last and not (last == job.enqueued_at and run.number > 1):
            yield Step(_("Waited"), lasted=display.span(run.started - last))
        said = _("Attempt %(number)d on %(worker)s") % {"number": run.number, "worker": run.worker}
        yield Step(said, display.moment(run.started), run.lasted)
        if run.error and run.has_failed:
            yield Step(run.failure, display.moment(run.ended))
        last = run.ended
    if job.status in FINAL:
        said = str(JobStatus(job.status).label)
        yield Step(f"{said}: {reason}" if reason else said, display.moment(job.finished_at))
    elif job.status != JobStatus.RUNNING and last is not None:
        yield Step(_("Waits"), lasted=display.span(now - last))


def why_it_waits(store: Store, job: Job, now: datetime.datetime) -> list[str]:
    """What stands between this job and its next start, or its end, in words; empty for one that needs nothing."""
    match job.status:
        case JobStatus.SCHEDULED if job.run_after is not None and job.run_after > now:
            return list(_its_time(job, now))
        case JobStatus.SCHEDULED | JobStatus.READY:
            return list(_its_turn(store, job, now))
        case JobStatus.BLOCKED:
            return [_its_place(store, job)]
        case JobStatus.WAITING:
            return list(_others(store, job))
        case JobStatus.RUNNING if job.cancel_requested_at is not None:
            return [_("It has been asked to stop, and has not stopped yet.")]
    return []


def steps_before(store: Store, job: Job) -> list[Job]:
    """The steps for whose results this one waited, or waits: of a group, its members. One more than is shown."""
    if job.after_id is None:
        return []
    steps = store.jobs.filter(workflow_id=job.workflow_id).only("pk", "task", "status").order_by("pk")
    before = list(steps.filter(pk=job.after_id))
    if before and before[0].task == GROUP:
        return list(steps.filter(group_id=job.after_id)[: MOST_NEIGHBOURS + 1])
    return before


def steps_after(store: Store, job: Job) -> list[Job]:
    """The steps that come when this one, and what stands beside it in its group, has ended. One more than is shown."""
    ends, around = [job.pk], job.group_id
    while around is not None and len(ends) <= MOST_NESTED:
        ends.append(around)
        around = store.jobs.filter(pk=around).values_list("group_id", flat=True).first()
    after = store.jobs.filter(workflow_id=job.workflow_id, after_id__in=ends).exclude(task=GROUP)
    return list(after.only("pk", "task", "status").order_by("pk")[: MOST_NEIGHBOURS + 1])


def _its_time(job: Job, now: datetime.datetime) -> Iterator[str]:
    assert job.run_after is not None
    yield _("Starts in %s.") % display.span(job.run_after - now)
    if job.attempt > job.earlier_attempts:
        yield _("It has been tried before, and is tried again then.")
    elif job.rate_key:
        yield _("Its rate limit may have set this time.")


def _its_turn(store: Store, job: Job, now: datetime.datetime) -> Iterator[str]:
    workers = store.living_workers(conf.read()[0].heartbeat_timeout, now)
    serving = [worker for worker in workers if is_served(job.queue_name, [worker])]
    last_to_run = store.closed_queues().get(job.queue_name, job.pk)
    if job.pk > last_to_run:
        said = _("Its queue is being drained, and it came later") if last_to_run else _("Its queue is paused")
        reason = store.reasons().get(job.queue_name)
        yield f"{said}: {reason}." if reason else f"{said}."
    if not workers:
        yield _("No worker is alive: start one with manage.py dbqueue_worker.")
    elif not serving:
        yield _("No living worker serves the queue %s.") % job.queue_name
    elif all(worker.asked for worker in serving):
        yield _("The workers that serve its queue were asked to claim nothing more.")
    elif job.status == JobStatus.SCHEDULED:
        yield _("Its time has come: a worker makes it ready within moments.")
    else:
        before = store.count_before(job)
        ahead = ngettext("%s job of its queue is ahead of it.", "%s jobs of its queue are ahead of it.", before)
        yield ahead % counted(before) if before else _("It is next in its queue.")
        threads = sum(worker.threads for worker in serving)
        running = store.jobs.filter(status=JobStatus.RUNNING, worker_id__in=[worker.pk for worker in serving]).count()
        busy = min(running, threads)
        of_them = ngettext(
            "%(busy)d of the %(threads)d threads that serve this queue is busy.",
            "%(busy)d of the %(threads)d threads that serve this queue are busy.",
            busy,
        )
        yield of_them % {"busy": busy, "threads": threads}


def _its_place(store: Store, job: Job) -> str:
    running = store.jobs.filter(concurrency_key=job.concurrency_key, status=JobStatus.RUNNING).count()
    before = store.jobs.filter(
        concurrency_key=job.concurrency_key, status__in=(JobStatus.READY, JobStatus.SCHEDULED)
    ).count()
    said = {"running": running, "others": before}
    return _("Its concurrency limit is reached: of its key %(running)d run, %(others)d are ahead of it.") % said


def _others(store: Store, job: Job) -> Iterator[str]:
    members = store.jobs.filter(workflow_id=job.workflow_id, group_id=job.pk)
    if left := members.filter(status__in=OPEN).count():
        yield ngettext("It waits for %d member.", "It waits for %d members.", left) % left
    if job.after_id is not None:
        before = store.jobs.filter(pk=job.after_id).values_list("task", "status").first()
        if before is not None and before[1] in OPEN:
            said = {"id": job.after_id, "task": before[0], "state": JobStatus(before[1]).label}
            yield _("It waits for job %(id)d (%(task)s), which is: %(state)s.") % said


def _recorded(job: Job, attempt: Attempt, names: Mapping[int, str], call: Call) -> Run:
    return Run(
        attempt.number,
        _ended_as(job, attempt),
        names[attempt.worker_id],
        attempt.started_at,
        attempt.ended_at,
        attempt.ended_at - attempt.started_at,
        attempt.exception_class_path,
        call.secrets.scrub(attempt.traceback),
        f"?traceback={attempt.pk}#attempts" if getattr(attempt, "is_cut", False) else "",
    )


def _ended_as(job: Job, attempt: Attempt) -> JobStatus:
    """As the job, where that one ended with it. Of an older one the error tells whether it was a failure."""
    if job.status in RETRYABLE and attempt.ended_at == job.finished_at:
        return JobStatus(job.status)
    return JobStatus.CANCELLED if attempt.exception_class_path in WANTED else JobStatus.FAILED
