"""One job of each kind, so that nobody sees the pages empty."""

from datetime import timedelta

from dbqueue import chord
from dbqueue.models import Job

from .tasks import count_findings, count_lines, rank, survey

PACKAGES = ("asyncio", "concurrent", "email", "http", "json", "unittest", "test", "xml")


def enqueue_examples() -> None:
    """Unless they are there from an earlier start."""
    if Job.objects.filter(task=survey.name).exists():
        return
    chord([survey.s(package) for package in PACKAGES], rank.s()).enqueue()
    count_lines.enqueue("json/decoder.py")
    count_lines.enqueue("no/such/file.py")
    count_findings.using(run_after=timedelta(hours=1)).enqueue()
