"""What a monitoring system reads, from the roll-up and from counts by index: Prometheus's text; whether all is well."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .. import conf
from ..history import Sums, moment_at, upper_bound
from ..models import History, JobStatus, Resolution
from .base import store

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImportError("dbqueue's /metrics needs prometheus-client: pip install 'django-dbqueue[metrics]'.") from exc

MOST_COUNTED = 100_000
"""Jobs of one state that are counted; a larger number is told as this."""

MOST_IN_A_QUEUE = 10_000
"""The same of one queue, of which there may be many."""

BOUNDS = 27
"""Buckets that are told: up to 18 hours."""

TEXT = "text/plain; charset=utf-8"

View = Callable[[HttpRequest], HttpResponse]


def guarded(view: View) -> View:
    """Answer only who sends the token of DBQUEUE['METRICS_TOKEN'], as ``Authorization: Bearer …``."""

    def guard(request: HttpRequest) -> HttpResponse:
        token = conf.read()[0].metrics_token
        if not token:
            return HttpResponse(
                "DBQUEUE['METRICS_TOKEN'] is not set, or has an error: nobody may read this.\n", TEXT, 403
            )
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(sent.strip().encode(), token.encode()):
            said = "It needs the header Authorization: Bearer <token>.\n"
            return HttpResponse(said, TEXT, 401, headers={"WWW-Authenticate": "Bearer"})
        return view(request)

    return never_cache(require_safe(guard))


@guarded
def metrics(request: HttpRequest) -> HttpResponse:
    """Everything that is measured, as it is now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Measured())
    return HttpResponse(generate_latest(registry), CONTENT_TYPE_LATEST)


@guarded
def healthz(request: HttpRequest) -> HttpResponse:
    """200 where the database answers and a worker lives; 503 with the reason elsewhere."""
    try:
        alive = store().living_workers(conf.read()[0].heartbeat_timeout)
    except Error as exc:
        return HttpResponse(f"The database does not answer: {exc}\n", TEXT, 503)
    if not alive:
        return HttpResponse("No worker is alive.\n", TEXT, 503)
    return HttpResponse(f"Live workers: {len(alive)}.\n", TEXT)


class Measured(Collector):
    """Asks the database when it is asked."""

    def collect(self) -> Iterator[Metric]:
        yield from self._now()
        rows = list(store().history(Resolution.EVER, moment_at(0)))
        yield self._attempts(rows)
        yield _histogram("dbqueue_wait_seconds", "From when a job could start to its claim.", rows, "wait")
        yield _histogram("dbqueue_run_seconds", "How long attempts ran.", rows, "run")

    def _now(self) -> Iterator[Metric]:
        now = store().clock()
        jobs = GaugeMetricFamily("dbqueue_jobs", "Jobs that have not ended, by state.", labels=["state"])
        for state in (JobStatus.READY, JobStatus.SCHEDULED, JobStatus.BLOCKED, JobStatus.WAITING, JobStatus.RUNNING):
            jobs.add_metric([state.lower()], min(store().count(state, MOST_COUNTED), MOST_COUNTED))
        yield jobs
        ready = GaugeMetricFamily("dbqueue_queue_ready", "Jobs that may start now.", labels=["queue"])
        oldest = GaugeMetricFamily("dbqueue_queue_wait_seconds", "How long the first has waited.", labels=["queue"])
        for name in store().busy_queues():
            line = store().line(name, MOST_IN_A_QUEUE)
            ready.add_metric([name], min(line.ready, MOST_IN_A_QUEUE))
            oldest.add_metric([name], max(0.0, (now - line.since).total_seconds()) if line.since else 0.0)
        yield ready
        yield oldest
        paused = GaugeMetricFamily("dbqueue_queue_closed", "1: it is paused or drained.", labels=["queue"])
        for name in store().closed_queues():
            paused.add_metric([name], 1)
        yield paused
        workers = store().living_workers(conf.read()[0].heartbeat_timeout, now)
        yield GaugeMetricFamily("dbqueue_workers", "Live workers.", len(workers))
        yield GaugeMetricFamily("dbqueue_threads", "Their threads.", sum(worker.threads for worker in workers))

    def _attempts(self, rows: Iterable[History]) -> Metric:
        labels = ["queue", "task", "outcome"]
        family = CounterMetricFamily(
            "dbqueue_attempts", "Attempts that ended, by the state that followed.", labels=labels
        )
        counts: dict[tuple[str, str, str], int] = defaultdict(int)
        for row in rows:
            counts[row.queue_name, row.task, row.outcome.lower()] += row.count
        for key, count in sorted(counts.items()):
            family.add_metric(key, count)
        return family


def _histogram(name: str, text: str, rows: Iterable[History], what: str) -> Metric:
    """By queue. The library wants counts that add up from bucket to bucket."""
    family = HistogramMetricFamily(name, text, labels=["queue"])
    queues: dict[str, Sums] = defaultdict(Sums)
    for row in rows:
        queues[row.queue_name].add(row.count, row.waits, row.runs, row.wait_seconds, row.run_seconds)
    for queue, sums in sorted(queues.items()):
        counts, total = (sums.waits, sums.wait_seconds) if what == "wait" else (sums.runs, sums.run_seconds)
        buckets, below = [], 0
        for index in range(BOUNDS):
            below += counts[index]
            buckets.append((f"{upper_bound(index):g}", float(below)))
        buckets.append(("+Inf", float(sum(counts))))
        family.add_metric([queue], buckets=buckets, sum_value=total)
    return family
