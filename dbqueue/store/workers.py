"""The workers' own rows: entered, kept alive, ended."""

import datetime
import uuid
from collections import Counter
from collections.abc import Iterable

from django.db.models import F

from ..models import JobStatus, Worker, WorkerRequest
from ..outcome import Outcome
from .database import Database


class WorkerRows(Database):
    """A worker's signs of life, and the end of one that gives none."""

    def register(
        self,
        *,
        name: str,
        hostname: str,
        pid: int,
        queues: str,
        threads: int,
        token: uuid.UUID | None = None,
        asked: str = "",
        now: datetime.datetime | None = None,
    ) -> int:
        """Enter a worker process. Returns its id, which is never used again."""
        now = now or self.clock()
        worker = Worker(
            name=name,
            hostname=hostname,
            pid=pid,
            queues=queues,
            threads=threads,
            token=token or uuid.uuid4(),
            asked=asked,
            started_at=now,
            heartbeat_at=now,
        )
        worker.save(using=self.alias, force_insert=True)
        return worker.pk

    def beat(self, worker_id: int, now: datetime.datetime | None = None) -> bool:
        """Say that this worker lives. False: it was declared lost, its jobs are others' now."""
        alive = self._workers().alive().filter(pk=worker_id)
        return bool(alive.update(heartbeat_at=now or self.clock()))

    def ask_worker(self, worker_id: int, request: WorkerRequest | None) -> bool:
        """Ask a worker to claim nothing more, or to end; None takes that back. It learns of it with its next heartbeat.

        Returns whether it was there to be asked.
        """
        return bool(self._workers().alive().filter(pk=worker_id).update(asked=request or ""))

    def asked_of(self, worker_id: int) -> str:
        """What an operator wants of this worker; empty: nothing."""
        return self._workers().filter(pk=worker_id).values_list("asked", flat=True).first() or ""

    def count_lost_leases(self, outcomes: Iterable[Outcome]) -> None:
        """Note with each worker how many of these outcomes it could not write."""
        for worker_id, number in Counter(outcome.claim.worker_id for outcome in outcomes).items():
            self._workers().filter(pk=worker_id).update(leases_lost=F("leases_lost") + number)

    def unregister(self, worker_id: int, now: datetime.datetime | None = None) -> None:
        self._workers().alive().filter(pk=worker_id).update(stopped_at=now or self.clock())

    def forget(self, worker_id: int) -> None:
        """Remove the row of one that ran jobs inline, and lived for a moment."""
        self._workers().filter(pk=worker_id).delete()

    def silent_holders(self, timeout: float, now: datetime.datetime | None = None) -> list[tuple[Worker, int]]:
        """The workers that were silent for ``timeout`` seconds and are not declared lost, each with how many jobs."""
        silent = self._workers().silent_since((now or self.clock()) - datetime.timedelta(seconds=timeout))
        held = Counter(
            self.jobs.filter(status=JobStatus.RUNNING, worker__in=silent.values("pk")).values_list("worker", flat=True)
        )
        return [(worker, held[worker.pk]) for worker in silent.filter(pk__in=held)]

    def declare_lost(self, timeout: float, now: datetime.datetime | None = None) -> int:
        """End the workers that were silent for ``timeout`` seconds. Returns how many."""
        now = now or self.clock()
        silent = self._workers().silent_since(now - datetime.timedelta(seconds=timeout))
        return silent.update(stopped_at=now, lost=True)  # type: ignore[no-any-return]

    def lose(self, token: uuid.UUID, now: datetime.datetime | None = None) -> int:
        """End the worker with this token, whose process somebody saw die. Returns how many rows it had."""
        alive = self._workers().alive().filter(token=token)
        return alive.update(stopped_at=now or self.clock(), lost=True)  # type: ignore[no-any-return]
