"""Random workflow trees: every step that should run does, with what it should be given, and no other.

``PROPERTY_EXAMPLES=2000`` explores further, with other examples each time. With workers that are killed:
``python -m tests.chaos.figures workflows``.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbqueue.conf import Settings
from dbqueue.inline import InlineWorker
from dbqueue.models import GROUP, OPEN, Attempt, Job, JobStatus, Workflow
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop.models import Mark
from .shop.workflow_tasks import told_of
from .woods import Tree, attempts_of, trees

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
@given(
    trees(8), st.lists(st.tuples(st.sampled_from(("cancel", "retry", "retry failed")), st.integers(0, 10)), max_size=5)
)
def test_what_is_cancelled_and_tried_again_in_the_middle_is_over(spec: Any, asked: list[tuple[str, int]]) -> None:
    """Whatever is cancelled, retried and run in between, no step is left behind, and none is made or succeeds twice."""
    tree = fresh(spec)
    assert tree.result is not None
    store = store_for("default")
    for operation, number in asked:
        run_jobs(limit=number % 4)
        jobs = Job.objects.filter(workflow_id=tree.result.workflow_id)
        failed = jobs.filter(status=JobStatus.FAILED)
        if ids := sorted((failed if operation == "retry" else jobs).values_list("pk", flat=True)):
            match operation:
                case "cancel":
                    store.request_cancel([ids[number % len(ids)]])
                case "retry":
                    store.retry([ids[number % len(ids)]])
                case _:
                    tree.result.retry_failed()
        none_ran_twice(tree.result.workflow_id)
    run_jobs(scheduled=True)
    assert tree.is_over
    tree.result.retry_failed()
    run_jobs(scheduled=True)
    assert tree.is_over
    none_ran_twice(tree.result.workflow_id)


@pytest.mark.django_db
@explored
@given(trees(8), st.integers(0, 10))
def test_what_is_cancelled_while_a_step_runs_grows_no_more(spec: Any, number: int) -> None:
    tree = fresh(spec)
    assert tree.result is not None
    run_jobs(limit=number)
    with InlineWorker(Settings.load(), "t") as worker:
        claims = worker.store.claim(worker.id, 1)
        tree.result.cancel()
        for claim in claims:
            worker.run(claim)
    told = Job.objects.filter(task=told_of.name, status=JobStatus.READY)
    assert [job.pk for job in Job.objects.filter(status__in=OPEN)] == [job.pk for job in told]
    assert tree.is_over
    none_ran_twice(tree.result.workflow_id)


def none_ran_twice(workflow_id: int) -> None:
    """Each step is there once, was given one result at most, and did not run again once it had succeeded."""
    jobs = list(Job.objects.filter(workflow_id=workflow_id).exclude(task=GROUP))
    labels = [job.kwargs["label"] for job in jobs]
    assert len(labels) == len(set(labels))
    failures = attempts_of(jobs)
    for job in jobs:
        has_succeeded = job.status == JobStatus.SUCCESSFUL or bool((job.step or {}).get("single"))
        # What was to be replaced when somebody wanted its end leaves no record of its attempt.
        is_cut_off = job.status == JobStatus.CANCELLED and job.cancel_requested_at is not None
        assert job.attempt - len(failures[job.pk]) - has_succeeded in (0, is_cut_off), job
        assert len(job.args) <= 1, job
