"""Jobs as a file for a spreadsheet."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from django.http import HttpResponse

from ..encoding import storable_text
from ..models import Job
from ..redaction import redacted, result_of
from . import display

COLUMNS = (
    "id",
    "task",
    "status",
    "queue_name",
    "priority",
    "attempt",
    "max_attempts",
    "enqueued_at",
    "run_after",
    "started_at",
    "finished_at",
    "worker_id",
)

TOLD = ("args", "kwargs", "return_value", "reason")
"""What only some may see."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet would calculate."""


def as_csv(jobs: Iterable[Job], *, with_calls: bool) -> HttpResponse:
    """A row for each job; ``with_calls`` also what it is called with and has returned, but for what is sensitive."""
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="jobs.csv"'
    rows = csv.writer(response)
    rows.writerow([*COLUMNS, "error", *(TOLD if with_calls else ())])
    for job in jobs:
        rows.writerow([_cell(value) for value in _values(job, with_calls=with_calls)])
    return response


def _values(job: Job, *, with_calls: bool) -> Iterator[Any]:
    call = redacted(job.task, job.args, job.kwargs)
    for column in COLUMNS:
        yield getattr(job, column)
    failures = list(job.attempt_set.all())
    yield failures[-1].exception_class_path if failures else ""
    if with_calls:
        for value in (call.args, call.kwargs, result_of(job, call)):
            yield display.json_text(value)
        yield call.secrets.scrub(job.reason)


def _cell(value: Any) -> Any:
    """What a spreadsheet shows as it is: text that it would take for a formula has an apostrophe before it."""
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, str):
        value = storable_text(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
