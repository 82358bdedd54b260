"""What an operator asks of a worker on its page: real workers that heed it."""

import pytest

from dbqueue.models import Job, JobStatus, Worker, WorkerRequest
from dbqueue.store import Store, store_for

from .shop import tasks
from .workers import eventually, worker

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = {"DBQUEUE_HEARTBEAT_TIMEOUT": "2"}


@pytest.fixture
def store() -> Store:
    return store_for("default")


def the_worker() -> Worker:
    return Worker.objects.get(stopped_at=None)


def test_a_quiet_worker_claims_nothing_until_it_is_told_to(store: Store) -> None:
    with worker(**QUICK) as process:
        eventually(lambda: tasks.add.enqueue(1, 2).get(timeout=15) == 3)
        assert store.ask_worker(the_worker().pk, WorkerRequest.QUIET)
        eventually(lambda: "is quiet now" in process.output)
        result = tasks.add.enqueue(1, 2)
        # A whole poll of the worker's goes by, and more.
        with pytest.raises(TimeoutError):
            result.get(timeout=3)
        assert Job.objects.get(pk=result.id).status == JobStatus.READY
        assert store.ask_worker(the_worker().pk, None)
        assert result.get(timeout=15) == 3


def test_a_worker_that_is_asked_to_stop_finishes_what_runs(store: Store) -> None:
    with worker("--threads", "1", **QUICK) as process:
        running = tasks.nap.enqueue(3)
        eventually(lambda: Job.objects.filter(status=JobStatus.RUNNING).exists())
        store.ask_worker(the_worker().pk, WorkerRequest.STOP)
        assert process.wait(30) == 0
    running.refresh()
    assert running.status is JobStatus.SUCCESSFUL


def test_a_signal_after_that_is_the_first_and_lets_it_finish(store: Store) -> None:
    with worker("--threads", "1", **QUICK) as process:
        running = tasks.nap.enqueue(5)
        eventually(lambda: Job.objects.filter(status=JobStatus.RUNNING).exists())
        store.ask_worker(the_worker().pk, WorkerRequest.STOP)
        eventually(lambda: "is asked to stop" in process.output)
        process.terminate()
        assert process.wait(30) == 0
    running.refresh()
    assert (running.status, running.attempts) == (JobStatus.SUCCESSFUL, 1)


def test_a_quiet_worker_that_was_declared_lost_comes_back_quiet(store: Store) -> None:
    with worker(**QUICK) as process:
        eventually(lambda: tasks.add.enqueue(1, 2).get(timeout=15) == 3)
        store.ask_worker(the_worker().pk, WorkerRequest.QUIET)
        eventually(lambda: "is quiet now" in process.output)
        Worker.objects.update(stopped_at=store.clock(), lost=True)
        eventually(lambda: Worker.objects.filter(stopped_at=None).exists())
        assert the_worker().asked == WorkerRequest.QUIET
        waiting = tasks.add.enqueue(1, 2)
        with pytest.raises(TimeoutError):
            waiting.get(timeout=3)


def test_a_worker_that_has_gone_is_not_asked(store: Store) -> None:
    pk = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    store.unregister(pk)
    assert not store.ask_worker(pk, WorkerRequest.STOP)
    assert store.asked_of(pk) == ""


def test_queues_of_a_row_are_those_of_the_command_line() -> None:
    from dbqueue.claim import Selection

    for selection in (Selection(), Selection(("a", "b")), Selection((), ("c",)), Selection(("a",), ("c",))):
        assert Selection.parse(str(selection)) == selection
