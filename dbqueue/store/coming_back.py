"""How claimed jobs come back unfinished: given back by their worker, or rescued from one that died."""

import datetime
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from django.db import models
from django.db.models import F, Value
from django.db.models.functions import Greatest

from ..claim import Claim
from ..exceptions import WorkerLost
from ..history import WORKER_LOST
from ..models import Attempt, Job, JobStatus
from ..outcome import Failure
from .database import BATCH
from .workflows import Workflows


class Rescue(NamedTuple):
    """The ids of the jobs that dead workers had claimed, by what became of them. What is READY may be claimed again by
    now: its attempts are told as they were."""

    again: dict[int, int]
    """READY, an attempt further. Each with its attempts."""

    unbegun: dict[int, int]
    """READY, as if never claimed: no thread had begun them. Each with its attempts."""

    failed: list[int]
    """FAILED: too many workers died of them."""


class ComingBack(Workflows):
    """The ways from RUNNING back to READY without an outcome."""

    def release(self, claims: Collection[Claim]) -> int:
        """Give back claims that did not end, without using up their attempt. Returns how many were still held."""
        with self.atomic():
            self._lock_workflows({claim.workflow_id for claim in claims})
            return self._release(claims)

    def release_free(self, claims: Collection[Claim]) -> list[Claim]:
        """The same without waiting for those who have jobs or workflows locked. Returns the claims of these."""
        with self.atomic():
            busy = self._lock_free_workflows({claim.workflow_id for claim in claims})
            free = [claim for claim in claims if claim.workflow_id not in busy]
            locked = self._lock_free_jobs([claim.job_id for claim in free])
            self._release([claim for claim in free if claim.job_id not in locked])
        return [claim for claim in claims if claim.workflow_id in busy or claim.job_id in locked]

    def _release(self, claims: Collection[Claim]) -> int:
        groups: dict[tuple[int, int, int], list[Claim]] = defaultdict(list)
        for claim in claims:
            groups[claim.worker_id, claim.lease, claim.attempt].append(claim)
        released = 0
        for (worker_id, lease, attempt), group in groups.items():
            held = self.jobs.leaving({JobStatus.RUNNING}, [claim.job_id for claim in group])
            released += held.filter(lease=lease, worker_id=worker_id).update(**_unclaimed(attempt))
        if released:
            self._cancel_requested([claim.job_id for claim in claims], self.clock())
            self.call_workers({claim.queue_name for claim in claims})
        return released

    def rescue(self, max_crashes: int, limit: int = BATCH, now: datetime.datetime | None = None) -> Rescue:
        """Return up to ``limit`` jobs that dead workers had claimed.

        What a thread had begun is an attempt that ended with WorkerLost, and a crash: READY again, or FAILED at the
        ``max_crashes``th. What had been taken ahead was no attempt; it is READY, and not taken ahead again, because
        nobody knows that it had not just begun.
        """
        now = now or self.clock()
        with self.atomic():
            stalled = self._lock_stalled(limit)
            unbegun = {job.pk: job.attempt - 1 for job in stalled if job.ahead}
            begun = [job for job in stalled if not job.ahead]
            failed = [job.pk for job in begun if job.crashes + 1 >= max_crashes]
            again = {job.pk: job.attempt for job in begun if job.crashes + 1 < max_crashes}
            self._record_lost(begun, max_crashes, now)
            crashed = F("crashes") + 1
            self._leave_running(again, status=JobStatus.READY, worker=None, crashes=crashed)
            self._leave_running(
                failed, status=JobStatus.FAILED, worker=None, finished_at=now, crashes=crashed, unique_key=None
            )
            for attempt in {job.attempt for job in stalled if job.ahead}:
                ids = [job.pk for job in stalled if job.ahead and job.attempt == attempt]
                self._leave_running(ids, **_unclaimed(attempt), crashes=Greatest("crashes", Value(1)))
            self._call_back(failed)
            if any(job.workflow_id for job in stalled):
                self._settle(failed, now)
            self._cancel_requested([job.pk for job in stalled if job.cancel_requested_at], now)
        self.call_workers({job.queue_name for job in stalled if job.pk not in failed})
        self.call_waiters(failed)
        return Rescue(again, unbegun, failed)

    def _lock_stalled(self, limit: int) -> list[Job]:
        """Those that nobody else has locked; before them their workflows."""
        ids = self._lock_free(self.jobs.stalled().order_by("id"), limit)
        stalled = self.jobs.stalled().filter(pk__in=ids).order_by("id")
        return list(stalled.select_for_update(skip_locked=True, of=self._of())) if ids else []

    def _leave_running(self, ids: Collection[int], **columns: Any) -> None:
        if ids:
            self.jobs.leaving({JobStatus.RUNNING}, ids).update(**columns)

    def has_abandoned(self, timeout: float) -> bool:
        """Whether jobs run for workers that are dead, or silent for ``timeout`` seconds: whether to rescue."""
        heard = self.clock() - datetime.timedelta(seconds=timeout)
        living = self._workers().alive().filter(pk=models.OuterRef("worker_id"), heartbeat_at__gte=heard)
        return self.jobs.filter(~models.Exists(living), status=JobStatus.RUNNING).exists()

    def _record_lost(self, jobs: Iterable[Job], max_crashes: int, now: datetime.datetime) -> None:
        self._attempts().bulk_create(
            Attempt(
                job_id=job.pk,
                number=job.attempt,
                worker_id=job.worker_id or 0,
                started_at=job.last_attempted_at or now,
                ended_at=now,
                exception_class_path=WORKER_LOST,
                traceback=Failure.of(_lost(job, max_crashes)).traceback,
            )
            for job in jobs
        )


def _lost(job: Job, max_crashes: int) -> WorkerLost:
    said = "worker lost: the process that ran this attempt died, or went silent for too long."
    if job.crashes + 1 < max_crashes:
        return WorkerLost(said)
    return WorkerLost(f"{said} That was crash {job.crashes + 1}, and DBQUEUE['MAX_CRASHES'] is {max_crashes}.")


def _unclaimed(attempt: int) -> dict[str, Any]:
    """What makes a row as it was before it was claimed for this attempt, but for its lease."""
    return {"status": JobStatus.READY, "worker": None, **uncounted(attempt)}


def uncounted(attempt: int) -> dict[str, Any]:
    """What takes this attempt out of the row's count."""
    columns: dict[str, Any] = {"attempt": attempt - 1}
    if attempt == 1:
        columns["started_at"] = columns["last_attempted_at"] = None
    return columns
