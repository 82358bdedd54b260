"""The worker as a process: real signals, real databases."""

import pytest

from dbqueue.models import Job, JobStatus

from .shop.tasks import add
from .workers import burst

pytestmark = pytest.mark.django_db(transaction=True)


def test_burst_runs_what_is_due_and_exits() -> None:
    results = [add.enqueue(number, 1) for number in range(50)]

    burst()

    for result in results:
        result.refresh()
    assert [result.return_value for result in results] == list(range(1, 51))
    assert Job.objects.exclude(status=JobStatus.SUCCESSFUL).count() == 0
