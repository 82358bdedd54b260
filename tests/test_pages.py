"""What the documents show runs."""

import datetime
import re
from typing import Any

import pytest
from django.utils import timezone

import dbqueue
from dbqueue.models import Attempt, Job, JobStatus
from dbqueue.testing import run_jobs

from .shop.tasks import add, fail
from .workers import ROOT


def snippet(page: str, beginning: str) -> dict[str, Any]:
    """Run the page's block of Python in which ``beginning`` stands, and return its names."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (found,) = [block for block in blocks if beginning in block]
    names: dict[str, Any] = {}
    exec(found, names)
    return names


@pytest.mark.django_db(transaction=True)
def test_the_clean_up_deletes_what_ended_long_ago_and_nothing_else() -> None:
    for number in range(5):
        add.enqueue(number, 0)
    fail.enqueue("m")
    run_jobs()
    young = Job.objects.order_by("id").first()
    assert young
    Job.objects.exclude(pk=young.pk).update(finished_at=timezone.now() - datetime.timedelta(days=8))
    waiting = add.enqueue(1, 2)

    snippet("docs/operations.md", "def clean_up")["clean_up"](days=7, batch=2)

    assert set(Job.objects.values_list("pk", "status")) == {
        (young.pk, JobStatus.SUCCESSFUL),
        (int(waiting.id), JobStatus.READY),
    }
    assert not Attempt.objects.exists()


def test_the_package_lists_its_names() -> None:
    assert set(dbqueue.__all__) <= set(dir(dbqueue))
