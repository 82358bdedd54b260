"""What the demo prints: what was found, how the jobs ran, and which of them failed."""

from collections.abc import Iterable, Sequence

from django.db import connection
from django.db.models import Count, Max, Min, Sum

from dbqueue.models import Attempt, Job, JobStatus

from .models import Function, Import, SourceFile

TOP = 10


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def findings() -> str:
    """What the jobs stored."""
    sums = SourceFile.objects.aggregate(files=Count("pk"), lines=Sum("lines"), classes=Sum("classes"))
    broken = SourceFile.objects.exclude(problem="")
    totals = [
        ("files", f"{sums['files']:,}"),
        ("lines", f"{sums['lines'] or 0:,}"),
        ("classes", f"{sums['classes'] or 0:,}"),
        ("functions", f"{Function.objects.count():,}"),
        ("imports", f"{Import.objects.count():,}"),
        ("files that Python can't parse", f"{broken.count():,}"),
    ]
    longest = Function.objects.select_related("file")[:TOP]
    modules = Import.objects.values("module").annotate(files=Count("pk")).order_by("-files", "module")[:TOP]
    return "\n".join(
        [
            _table("What was found", totals),
            _table(
                "The longest functions",
                ((f"{f.name}()  {f.file}:{f.first_line}", counted(f.lines, "line")) for f in longest),
            ),
            _table("Imported most", ((row["module"], counted(row["files"], "file")) for row in modules)),
            _table(
                "Files that Python can't parse (on purpose: Python's own test data)",
                ((file.name, file.problem) for file in broken),
            ),
        ]
    )


def run(task: str, threads: int, most_sessions: int | None) -> str:
    """How the jobs of ``task`` ran, by the database's own clock."""
    jobs = Job.objects.filter(task=task)
    # These two also where there are none: "0 failed" is worth saying.
    states = {JobStatus.SUCCESSFUL.value: 0, JobStatus.FAILED.value: 0}
    states |= dict(jobs.order_by("status").values_list("status").annotate(Count("pk")))
    span = jobs.aggregate(first=Min("started_at"), last=Max("finished_at"))
    rows = [(f"jobs {status}", f"{count:,}") for status, count in states.items()]
    if span["first"] and span["last"]:
        seconds = (span["last"] - span["first"]).total_seconds()
        ended = jobs.exclude(finished_at=None).count()
        rows += [("seconds, from the first start to the last end", f"{seconds:.1f}")]
        if seconds:
            rows += [
                (
                    "jobs a second",
                    f"{ended / seconds:.0f} (each parses a file; of the queue itself: docs/benchmarks.md)",
                )
            ]
    rows += [
        ("threads for jobs", f"{threads}"),
        ("most database connections of the worker seen at once", _sessions(most_sessions)),
    ]
    return _table("How it ran", rows)


def _sessions(most: int | None) -> str:
    if most is None:
        return "not measurable here"
    # Its own view may be larger than what the worker has open: a moment passes between a close and the session's end.
    lag = "; the server counts a closed one until its process has ended" if connection.vendor == "postgresql" else ""
    return f"{most} (a worker keeps five to seven beside its threads'{lag})"


def failures(task: str) -> str:
    """A line for every job of ``task`` that did not succeed, with the reason; empty if there is none."""
    rows = []
    for job in Job.objects.filter(task=task).exclude(status=JobStatus.SUCCESSFUL).order_by("pk"):
        last = Attempt.objects.filter(job=job).last()
        rows.append(
            (
                f"job {job.pk} {job.args} {job.status}",
                last.traceback.rstrip().rpartition("\n")[2] if last else "never ended",
            )
        )
    return "\n".join(f"  {job}: {reason}" for job, reason in rows)


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    listed: Sequence[tuple[str, str]] = list(rows)
    width = max((len(label) for label, _ in listed), default=0)
    return "\n".join([f"\n{title}", *(f"  {label:<{width}}  {value}" for label, value in listed)])
