"""``app.control``: what workers are and do, read from their rows, and revoking."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ... import conf, registry
from ...claim import Selection
from .request import delivery
from .result import AsyncResult

if TYPE_CHECKING:
    from ...models import Job, Worker
    from ...store import Store

MOST = 1000
"""Jobs of one kind that are told."""


class Control:
    """Commands go to rows, so they reach also workers that are away just now, and outlive a restart."""

    def inspect(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> "Inspect":
        return Inspect(destination)

    def revoke(self, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> None:
        """Cancel jobs by id; with ``terminate`` also inside of a run."""
        for one in task_id if isinstance(task_id, list | tuple | set) else [task_id]:
            AsyncResult(one).revoke(terminate=terminate)

    def terminate(self, task_id: Any, **kwargs: Any) -> None:
        self.revoke(task_id, terminate=True)

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> list[dict[str, Any]]:
        return [{name: answer} for name, answer in (Inspect(destination).ping() or {}).items()]

    def purge(self, **kwargs: Any) -> int:
        """Cancel all jobs that wait. Returns how many."""
        found = _store().jobs.filter(status__in=("READY", "SCHEDULED", "BLOCKED"))
        return _store().cancel(list(found.values_list("pk", flat=True)), reason="purged")

    discard_all = purge


class Inspect:
    """What living workers do, by their names; None where none lives, as in Celery."""

    def __init__(self, destination: Any = None) -> None:
        self._names = [destination] if isinstance(destination, str) else destination

    def active(self, safe: Any = None) -> dict[str, list[dict[str, Any]]] | None:
        """What runs, by worker."""
        workers = self._workers()
        jobs = _store().jobs.filter(status="RUNNING", ahead=False, worker_id__in=[one.pk for one in workers])
        return self._by_worker(workers, jobs)

    def reserved(self, safe: Any = None) -> dict[str, list[dict[str, Any]]] | None:
        """What they have claimed and not begun."""
        workers = self._workers()
        jobs = _store().jobs.filter(status="RUNNING", ahead=True, worker_id__in=[one.pk for one in workers])
        return self._by_worker(workers, jobs)

    def scheduled(self, safe: Any = None) -> dict[str, list[dict[str, Any]]] | None:
        """What waits for its time. It waits in the database: each worker that serves its queue tells of it."""
        workers = self._workers()
        jobs = list(_store().jobs.filter(status="SCHEDULED").order_by("run_after")[:MOST])
        return {
            one.name: [
                {
                    "eta": job.run_after.isoformat() if job.run_after else None,
                    "priority": job.priority,
                    "request": _told(job),
                }
                for job in jobs
                if Selection.parse(one.queues).serves(job.queue_name)
            ]
            for one in workers
        } or None

    def registered(self, *args: Any) -> dict[str, list[str]] | None:
        """The tasks that this process knows; workers of the same code know the same."""
        names = [task.name for task in registry.registered()]
        return {one.name: names for one in self._workers()} or None

    registered_tasks = registered

    def stats(self) -> dict[str, dict[str, Any]] | None:
        return {
            one.name: {
                "pid": one.pid,
                "pool": {"max-concurrency": one.threads, "implementation": "threads"},
                "uptime": int((_store().clock() - one.started_at).total_seconds()),
                "hostname": one.hostname,
            }
            for one in self._workers()
        } or None

    def ping(self, destination: Any = None) -> dict[str, dict[str, str]] | None:
        """Those that were heard of within HEARTBEAT_TIMEOUT."""
        return {one.name: {"ok": "pong"} for one in self._workers()} or None

    def active_queues(self) -> dict[str, list[dict[str, str]]] | None:
        """The queues that each names; one that names none serves all."""
        return {
            one.name: [{"name": name} for name in Selection.parse(one.queues).include] for one in self._workers()
        } or None

    def revoked(self) -> dict[str, list[str]] | None:
        return {one.name: [] for one in self._workers()} or None

    def _workers(self) -> "list[Worker]":
        found = _store().living_workers(conf.read()[0].heartbeat_timeout)
        return [one for one in found if self._names is None or one.name in self._names]

    def _by_worker(self, workers: "list[Worker]", jobs: Any) -> dict[str, list[dict[str, Any]]] | None:
        by_id = {one.pk: one for one in workers}
        found: dict[int | None, list[dict[str, Any]]] = defaultdict(list)
        for job in jobs.order_by("id")[:MOST]:
            found[job.worker_id].append(_told(job, by_id[job.worker_id]))
        return {one.name: found[one.pk] for one in workers} or None


def _told(job: "Job", worker: "Worker | None" = None) -> dict[str, Any]:
    return {
        "id": job.external_id or str(job.pk),
        "name": job.task,
        "type": job.task,
        "args": job.args,
        "kwargs": job.kwargs,
        "time_start": None if job.last_attempted_at is None else job.last_attempted_at.timestamp(),
        "delivery_info": delivery(job.queue_name, job.priority, job.crashes),
        "hostname": worker and worker.name,
        "worker_pid": worker and worker.pid,
        "acknowledged": worker is not None,
    }


def _store() -> "Store":
    from ...store import store_for

    return store_for(conf.read()[0].database)
