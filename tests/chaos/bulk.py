"""All failed jobs retried from the page, while the workers that carry it out are killed."""

import statistics
import time
from argparse import Namespace
from collections.abc import Collection
from random import Random

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db.models import F
from django.test import Client, override_settings

from dbqueue.models import RETRYABLE, Attempt, BulkOperation, Job, JobStatus
from dbqueue.store import store_for

from ..shop.tasks import add
from ..workers import WorkerProcess, eventually, spawn
from .stage import SETTINGS, Stage
from .verdict import print_table

PAGE = "/admin/dbqueue/job/bulk/?state=FAILED"

CHANGED = 500
"""Jobs that are retried, and as many that are deleted, by somebody else before their turn comes."""

TO_END = 600.0
"""Seconds in which all must be over."""


def bulk(stage: Stage, options: Namespace) -> int:
    """``options.times`` kills of the only worker during the retry of ``options.jobs`` jobs."""
    _make_failed(options.jobs)
    by_hand = set(Job.objects.order_by("-pk").values_list("pk", flat=True)[: 2 * CHANGED])
    retried, deleted = _split(by_hand)
    operator = Client()
    operator.force_login(User.objects.create_superuser("operator"))
    kills = []
    process = _a_worker()
    try:
        began = time.monotonic()
        with override_settings(ALLOWED_HOSTS=["testserver"]):
            response = operator.post(PAGE, {"action": "retry"})
        assert response.status_code == 302, response.content.decode()
        asked = time.monotonic() - began
        store_for("default").retry(retried)
        store_for("default").delete(deleted)
        for number in range(1, options.times + 1):
            share = options.jobs * number // (options.times + 1)
            eventually(lambda share=share: _operation().changed >= share, timeout=TO_END)  # type: ignore[misc]
            process.kill()
            process.wait()
            kills.append(_operation().changed)
            process = _a_worker()
        eventually(lambda: _operation().finished_at is not None, timeout=TO_END)
        carried_out = time.monotonic() - began
        eventually(lambda: not Job.objects.exclude(status=JobStatus.SUCCESSFUL).exists(), timeout=TO_END)
        all_done = time.monotonic() - began
    finally:
        process.terminate()
        process.wait(60)
    figures = {
        "jobs that had failed": options.jobs,
        "kills of the worker": len(kills),
        "jobs retried when it was killed, median": statistics.median(kills) if kills else 0,
        "until the page had answered, s": round(asked, 3),
        "until the last job was retried, s": round(carried_out, 1),
        "until the last job had succeeded, s": round(all_done, 1),
        "log entries": LogEntry.objects.count(),
    }
    print_table("Figures", figures)
    return _judge(options.jobs, retried)


def _judge(jobs: int, retried: Collection[int]) -> int:
    operation = _operation()
    meant = Job.objects.exclude(pk__in=retried)
    must_be_zero = {
        "jobs lost": jobs - CHANGED - Job.objects.count(),
        "jobs not done": Job.objects.exclude(status=JobStatus.SUCCESSFUL).count(),
        "jobs retried more than once": Job.objects.exclude(earlier_attempts=1).count(),
        "jobs that ran more often than kills explain": Job.objects.filter(attempt__gt=F("earlier_attempts") + 1)
        .exclude(pk__in=Attempt.objects.filter(exception_class_path__endswith=".WorkerLost").values("job_id"))
        .count(),
        "jobs of others touched": jobs - 2 * CHANGED - operation.changed,
        "jobs meant and not counted": meant.count() - operation.changed,
        "log entries beside the one": LogEntry.objects.count() - 1,
        "jobs that may be retried": Job.objects.filter(status__in=RETRYABLE).count(),
    }
    print_table("Figures (each must be 0)", must_be_zero)
    return sum(map(abs, must_be_zero.values()))


def _make_failed(number: int) -> None:
    now = store_for("default").clock()
    rows = (
        Job(
            task=add.name,
            args=[one, 1],
            status=JobStatus.FAILED,
            enqueued_at=now,
            started_at=now,
            last_attempted_at=now,
            finished_at=now,
            attempt=1,
            lease=1,
        )
        for one in range(number)
    )
    Job.objects.bulk_create(rows, batch_size=2000)


def _split(ids: Collection[int]) -> tuple[list[int], list[int]]:
    mixed = sorted(ids)
    Random(1).shuffle(mixed)
    return mixed[:CHANGED], mixed[CHANGED:]


def _operation() -> BulkOperation:
    return BulkOperation.objects.get()


def _a_worker() -> WorkerProcess:
    return spawn(**SETTINGS)
