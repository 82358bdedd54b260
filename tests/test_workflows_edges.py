"""Workflows where something goes wrong in the middle: nothing stands still, nothing is lost, nothing comes twice."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from dbqueue import group
from dbqueue.exceptions import InvalidTask
from dbqueue.models import GROUP, OPEN, Attempt, Job, JobStatus, Workflow
from dbqueue.outcome import Outcome
from dbqueue.services import completer as completer_module
from dbqueue.services.completer import Completer
from dbqueue.store import Store, store_for
from dbqueue.testing import run_jobs

from .shop.edge_tasks import TOO_FAR, add_members, step_aside
from .shop.workflow_tasks import give, inc, note

pytestmark = pytest.mark.django_db


@pytest.fixture
def store() -> Store:
    return store_for("default")


def a_worker(store: Store, threads: int = 9) -> int:
    return store.register(name="w", hostname="h", pid=1, queues="", threads=threads)


def states(*tasks: Any) -> list[str]:
    """Of the jobs of these tasks, or of all but groups, in the order in which they were made."""
    jobs = Job.objects.filter(task__in=[task.name for task in tasks]) if tasks else Job.objects.exclude(task=GROUP)
    return list(jobs.order_by("id").values_list("status", flat=True))


def assert_all_over() -> None:
    assert not Job.objects.filter(status__in=OPEN).exists()
    assert not Workflow.objects.filter(finished_at=None).exists()


# Times that nobody will see


@pytest.mark.parametrize("name", ["run_after", "expires"])
def test_a_time_out_of_range_is_refused_at_enqueue_for_every_step(name: str) -> None:
    late = inc.s().set(**{name: TOO_FAR})
    for node in (give.s(1) | late, give.s(1) | group(inc.s(), late) | note.s(), give.s(1).link(late)):
        with pytest.raises(InvalidTask, match=name):
            node.enqueue()
    assert not Job.objects.exists() and not Workflow.objects.exists()


def test_a_time_out_of_range_is_refused_where_a_job_asks_for_it() -> None:
    group(step_aside.s(kind="far"), add_members.s("far"), give.s(1)).enqueue()
    run_jobs()
    assert states() == [JobStatus.FAILED, JobStatus.FAILED, JobStatus.SUCCESSFUL]
    assert all("days=4000000" in attempt.traceback for attempt in Attempt.objects.all())
    assert_all_over()


@pytest.mark.parametrize("kept", ["wait", "expires_in"])
def test_a_row_that_says_such_a_time_all_the_same_harms_nobody(kept: str) -> None:
    (give.s(1) | inc.s()).enqueue()
    Job.objects.filter(task=inc.name).update(step={kept: TOO_FAR.total_seconds()})
    run_jobs(limit=1)
    job = Job.objects.get(task=inc.name)
    assert job.status == (JobStatus.SCHEDULED if kept == "wait" else JobStatus.READY)
    assert (job.run_after if kept == "wait" else job.expires_at).year == 9000  # type: ignore[union-attr]


# An error in dbqueue itself


def complete(store: Store, outcomes: Sequence[Outcome]) -> None:
    completer = Completer(store, lambda: None)
    for outcome in outcomes:
        completer.put(outcome)
    completer.run_once()
    assert not completer.pending


def test_an_outcome_that_can_not_be_written_fails_its_job_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (give.s(number) | inc.s()).enqueue()
    give.enqueue("plain")
    claims = store.claim(a_worker(store), 9)
    settle = type(store)._settle

    def broken(self: Store, ids: Sequence[int], now: Any) -> None:
        if any(job.status == JobStatus.SUCCESSFUL for job in self.jobs.filter(pk__in=[*ids], args=[1])):
            raise ZeroDivisionError("a bug")
        settle(self, ids, now)

    monkeypatch.setattr(type(store), "_settle", broken)
    complete(store, [Outcome.succeeded(claim, "1") for claim in claims])
    good, bad = JobStatus.SUCCESSFUL, JobStatus.FAILED
    assert states(give) == [good, bad, good, good]
    assert states(inc) == [JobStatus.READY, JobStatus.CANCELLED, JobStatus.READY]
    assert "a bug" in Attempt.objects.get().traceback


def test_an_outcome_that_can_not_be_written_at_all_ends_no_worker(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (give.s(1) | inc.s()).enqueue()
    give.enqueue("plain")
    claims = store.claim(a_worker(store), 9)
    settle = type(store)._settle
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "_settle", lambda self, ids, now: 1 / 0)
        completer = Completer(store, lambda: None)
        for claim in claims:
            completer.put(Outcome.succeeded(claim, "1"))
        completer.run_once()
        assert states(give) == [JobStatus.RUNNING, JobStatus.SUCCESSFUL]
        assert completer.pending == 1 and "ZeroDivisionError" in caplog.text
    assert type(store)._settle is settle
    time.sleep(completer_module.TRY_AGAIN)
    completer.run_once()
    assert not completer.pending
    assert states(give, inc) == [JobStatus.SUCCESSFUL, JobStatus.READY, JobStatus.SUCCESSFUL]
