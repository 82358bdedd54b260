"""What running jobs tell of themselves, and what is asked of them."""

import datetime
from collections.abc import Collection, Iterable
from typing import NamedTuple

from ..models import CANCELLABLE, JobStatus, LogLine
from ..running import Running
from .listener import ANY_QUEUE
from .workflows import Workflows


class Asked(NamedTuple):
    """The ids of the jobs that were cancelled at once, and of those that run and were asked to end.

    Also of those inside of groups, which nobody had named.
    """

    cancelled: list[int]
    asked: list[int]


class Reports(Workflows):
    """Progress and log lines on their way in, requests to cancel on their way out."""

    def request_cancel(
        self, ids: Collection[int], *, interrupt: bool = False, now: datetime.datetime | None = None
    ) -> Asked:
        """Cancel jobs that wait, and ask those that run to end; what has ended is left alone.

        A second request takes nothing back of the first.
        """
        now = now or self.clock()
        return self._with_workflows_locked(ids, lambda locked: self._request_cancel(ids, locked, interrupt, now))

    def _request_cancel(self, ids: Collection[int], locked: set[int], interrupt: bool, now: datetime.datetime) -> Asked:
        if locked:
            ids = self._with_inside(ids)
        # Locked first, or one might be claimed or given back between two statements and escape both.
        rows = self.jobs.leaving(CANCELLABLE | {JobStatus.RUNNING}, self.among(ids)).order_by("id")
        found = list(rows.select_for_update().values_list("id", "status", "workflow_id"))
        self._must_be_locked((workflow_id for _, _, workflow_id in found), locked)
        states = {pk: status for pk, status, _ in found}
        running = [pk for pk, status in states.items() if status == JobStatus.RUNNING]
        waiting = [pk for pk, status in states.items() if status != JobStatus.RUNNING]
        self.jobs.leaving(CANCELLABLE, self.among(waiting)).update(
            status=JobStatus.CANCELLED, finished_at=now, unique_key=None, cancel_requested_at=now
        )
        asked = {"cancel_requested_at": now} | ({"cancel_interrupts": True} if interrupt else {})
        self.jobs.leaving({JobStatus.RUNNING}, self.among(running)).update(**asked)
        self.call_waiters(waiting)
        if locked:
            self._settle(waiting, now)
        if running:
            self.call_workers({ANY_QUEUE})
        return Asked(waiting, running)

    def cancel_requests(self, ids: Iterable[int]) -> list[tuple[int, int, bool]]:
        """(id, lease, whether to interrupt it) of those of these jobs that run and that somebody wants to end."""
        asked = self.jobs.leaving({JobStatus.RUNNING}, list(ids)).filter(cancel_requested_at__isnull=False)
        return list(asked.values_list("id", "lease", "cancel_interrupts"))

    def write_reports(self, jobs: Collection[Running]) -> None:
        """Write the progress and the log lines that these jobs have told since the last time.

        Under the fence of the lease alone: what is told last may come after the outcome. What somebody else has locked
        is left for the next time: it may be a caller's long transaction.
        """
        told = {(job.claim.job_id, job.claim.lease): (job, job.progress, list(job.lines)) for job in jobs}
        with self.atomic():
            rows = self.jobs.filter(pk__in=[pk for pk, _ in told]).order_by("id").select_for_update(**self.LOCK)
            locked = [key for key in rows.values_list("id", "lease") if key in told]
            for key in locked:
                job, progress, lines = told[key]
                if progress is not job.progress_told:
                    self.jobs.filter(pk=job.claim.job_id, lease=job.claim.lease).update(progress=progress)
                LogLine.objects.using(self.alias).bulk_create(
                    LogLine(job_id=job.claim.job_id, attempt=job.claim.attempt, made_at=line.made_at, text=line.text)
                    for line in lines
                )
        for job, progress, lines in map(told.__getitem__, locked):
            job.progress_told = progress
            for _ in lines:
                job.lines.popleft()
