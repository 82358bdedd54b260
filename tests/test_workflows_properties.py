"""Random workflow trees: every step that should run does, with what it should be given, and no other.

``PROPERTY_EXAMPLES=2000`` explores further, with other examples each time. With workers that are killed:
``python -m tests.chaos.figures workflows``.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbqueue.models import Attempt, Job, Workflow
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop.models import Mark
from .woods import Tree, trees

MORE = int(os.environ.get("PROPERTY_EXAMPLES", "0"))

explored = settings(
    max_examples=MORE or 40,
    derandomize=not MORE,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def fresh(spec: Any) -> Tree:
    for model in (Attempt, Job, Workflow, Mark):
        model.objects.all().delete()
    tree = Tree(spec, "t")
    tree.enqueue()
    return tree


@pytest.mark.django_db
@explored
@given(trees())
def test_every_step_does_what_it_should(spec: Any) -> None:
    tree = fresh(spec)
    run_jobs(scheduled=True)
    assert not tree.problems()


@pytest.mark.django_db
@explored
@given(trees(8), st.lists(st.integers(0, 10), max_size=3))
def test_what_is_cancelled_in_the_middle_is_over_and_may_be_tried_again(spec: Any, steps: list[int]) -> None:
    """Whatever is cancelled, retried and run in between, no step is left behind, and none is made twice."""
    tree = fresh(spec)
    assert tree.result is not None
    store = store_for("default")
    for number in steps:
        run_jobs(limit=number % 4)
        ids = sorted(Job.objects.filter(workflow_id=tree.result.workflow_id).values_list("pk", flat=True))
        store.request_cancel([ids[number % len(ids)]])
    run_jobs(scheduled=True)
    assert tree.is_over
    tree.result.retry_failed()
    run_jobs(scheduled=True)
    assert tree.is_over
    labels = [job.kwargs["label"] for job in Job.objects.filter(kwargs__has_key="kind")]
    assert len(labels) == len(set(labels)) or "become" in repr(spec) or "grow" in repr(spec)
