"""How attempts failed, in a line: the error's name, and what it said, without what nobody may read."""

import json
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Cast, Left, Right

from ..models import Attempt, Job
from ..redaction import redacted

TAIL = 2_000
"""Characters of the end of a traceback that are read for its last line, and shown of an older attempt's."""

MOST_SAID = 80
"""Characters of that line which a list shows."""

MOST_CALLED = 4_000
"""Characters of arguments that a list reads to know what to hide. Of a job with more it shows the error's name."""


def name_of(path: str) -> str:
    """As Python writes it."""
    return path.removeprefix("builtins.")


def line_of(path: str, traceback: str, most: int) -> str:
    """What the error said, after its name; the name alone where the text doesn't tell. At most so many characters."""
    name = name_of(path)
    for line in reversed(traceback.splitlines()):
        said = line.lstrip(" |+-")  # as a group of exceptions is drawn
        if said == name or said.startswith(f"{name}: "):
            return said if len(said) <= most else f"{said[: most - 1]}…"
    return name


def whole_lines(tail: str) -> str:
    """The end of a text without the line in which it was cut: a part of a secret is not known for one."""
    return tail.partition("\n")[2] if len(tail) == TAIL else tail


def with_last_error(jobs: "QuerySet[Job]", *, with_line: bool) -> "QuerySet[Job]":
    """Each with how its last attempt failed; ``with_line`` also what ``last_line`` needs, cut by the database."""
    attempts = Attempt.objects.using(jobs.db).filter(job_id=OuterRef("pk")).order_by("-id")
    jobs = jobs.annotate(error_name=Subquery(attempts.values("exception_class_path")[:1]))
    if not with_line:
        return jobs
    tails = attempts.annotate(tail=Right("traceback", TAIL)).values("tail")
    called = {f"{name}_text": Left(Cast(name, TextField()), MOST_CALLED + 1) for name in ("args", "kwargs")}
    return jobs.annotate(error_tail=Subquery(tails[:1]), **called)


def last_line(job: Any) -> str:
    """How a job of ``with_last_error`` failed; empty where no attempt is kept."""
    path = getattr(job, "error_name", None) or ""
    tail = getattr(job, "error_tail", None)
    if not tail or max(len(job.args_text), len(job.kwargs_text)) > MOST_CALLED:
        return name_of(path)
    try:
        call = redacted(job.task, json.loads(job.args_text), json.loads(job.kwargs_text))
    except (ValueError, RecursionError):  # somebody else has written what Python's json doesn't read
        return name_of(path)
    return line_of(path, call.secrets.scrub(whole_lines(tail)), MOST_SAID)
