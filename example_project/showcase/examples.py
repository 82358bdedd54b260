"""Jobs in every state, so that nobody sees the pages empty."""

from datetime import timedelta

from django.db import transaction

from dbqueue import chord
from dbqueue.models import Job
from dbqueue.queues import pause

from .tasks import count_findings, count_lines, proofread, rank, survey

PACKAGES = ("asyncio", "concurrent", "email", "http", "json", "unittest", "test", "xml")

ATTIC = "attic"
"""A queue that is paused."""

FILES = 600
"""As many seconds."""


@transaction.atomic
def enqueue_examples() -> None:
    """Unless they are there from an earlier start."""
    if Job.objects.filter(task=survey.name).exists():
        return
    chord([survey.s(package) for package in PACKAGES], rank.s()).enqueue()
    count_lines.enqueue("json/decoder.py")
    count_lines.enqueue("no/such/file.py")
    count_findings.using(run_after=timedelta(hours=1)).enqueue()
    for _ in range(2):  # one runs, and the other is blocked meanwhile
        proofread.enqueue(FILES)
    (count_lines.s("json/encoder.py").set(queue_name=ATTIC) | count_findings.si()).enqueue()  # ready, and waiting
    pause(ATTIC, "Paused by the example, to show what waits.")
    count_lines.using(run_after=timedelta(days=1)).enqueue("json/scanner.py").cancel()
