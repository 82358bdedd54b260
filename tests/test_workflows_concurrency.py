"""What others do at the same moment: two ends of one workflow, and who hears of them. Needs real transactions."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections

from dbqueue import group
from dbqueue.claim import Claim
from dbqueue.connections import owned_connection
from dbqueue.models import GROUP, BulkAction, Job, JobStatus
from dbqueue.outcome import Outcome
from dbqueue.search import Search
from dbqueue.store import Store, store_for
from dbqueue.store.listener import Listener

from .beside import beside, locked, meanwhile, somebody_waits_for_a_lock
from .shop.workflow_tasks import broken, give, inc, note
from .workers import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Store:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one transaction at a time that writes, and nobody is called")
    return store_for("default")


def register(store: Store) -> int:
    return store.register(name="w", hostname="h", pid=1, queues="", threads=9)


# Two ends at one moment


def two_members(store: Store) -> tuple[Claim, Claim]:
    """Both running, of a group that a note comes after."""
    (group(give.s(1), give.s(2)) | note.s()).enqueue()
    first, second = store.claim(register(store), 2)
    return first, second


def test_of_two_members_that_end_at_one_moment_one_sees_the_others_end(store: Store) -> None:
    first, second = two_members(store)
    with beside(lambda: store.finish([Outcome.succeeded(second, "2")])):
        store.finish([Outcome.succeeded(first, "1")])
    assert Job.objects.get(task=GROUP).return_value == [1, 2]
    after = Job.objects.get(task=note.name)
    assert (after.status, after.args) == (JobStatus.READY, [[1, 2]])


@pytest.mark.parametrize("how", ["rescue", "expire", "bulk", "cancel", "release"])
def test_whoever_else_ends_a_step_waits_for_the_others_or_comes_back(store: Store, how: str) -> None:
    """Nothing stands still because two transactions have each seen the other's member open."""
    hour = timedelta(hours=1)
    tolerated = give.s(2).set(allow_failure=True, expires=hour, queue_name="other")
    (group(give.s(1), tolerated) | note.s()).enqueue()
    [first, second] = sorted(store.claim(register(store), 2))
    other = Job.objects.get(queue_name="other").pk
    assert second.job_id == other
    match how:
        case "rescue":
            Job.objects.filter(pk=other).update(worker_id=0)
        case "release":
            store.request_cancel([other])
        case _:
            store.release([second])
            Job.objects.filter(pk=other).update(started_at=None)
    store.start_bulk(BulkAction.CANCEL, Search(queue="other"), user_id=1, user_name="operator")
    operations: dict[str, Callable[[], object]] = {
        "rescue": lambda: store.rescue(1),
        "expire": lambda: store.expire(now=store.clock() + 2 * hour),
        "bulk": store.step_bulk,
        "cancel": lambda: store.cancel([other]),
        "release": lambda: store.release([second]),
    }
    with beside(operations[how]):
        store.finish([Outcome.succeeded(first, "1")])
    operations[how]()  # what did not wait comes back
    assert Job.objects.get(pk=other).status in (JobStatus.CANCELLED, JobStatus.FAILED)
    assert Job.objects.get(task=GROUP).status == JobStatus.SUCCESSFUL
    [[one, failure]] = Job.objects.get(task=note.name).args
    assert one == 1 and failure["error"].startswith("dbqueue.exceptions.")


def test_who_moves_steps_waits_for_whoever_changes_their_workflow(store: Store) -> None:
    """He locks their rows in an order of his own, and would be waited for in a circle."""
    result = (give.s(1) | inc.s() | inc.s()).enqueue()
    ids = list(Job.objects.values_list("pk", flat=True))
    with (
        locked(lambda: store.lock_workflows_of(ids)) as may_commit,
        meanwhile(lambda: store.move(ids, "mail")) as mover,
    ):
        eventually(lambda: not mover.is_alive() or somebody_waits_for_a_lock())
        assert mover.is_alive() and {job.queue_name for job in result.steps()} == {"default"}
        may_commit.set()
    assert {job.queue_name for job in result.steps()} == {"mail"}


# Who hears of it


@contextmanager
def heard(listen: Callable[[], Listener | None]) -> Iterator[list[str]]:
    """What a listener on a thread of its own hears until something has come."""
    found: list[str] = []
    listens = threading.Event()

    def hear() -> None:
        with owned_connection("default"):
            listener = listen()
            assert listener is not None
            listens.set()
            end = time.monotonic() + 10
            while not found and time.monotonic() < end:
                found.extend(listener.wait(0.2))

    with meanwhile(hear):
        assert listens.wait(30)
        yield found


@pytest.mark.parametrize(("wait", "queue"), [(None, "mail"), (timedelta(hours=1), "")])
def test_workers_are_called_when_a_step_is_released(store: Store, wait: Any, queue: str) -> None:
    (give.s(1) | inc.s().set(queue_name="mail", run_after=wait)).enqueue()
    [claim] = store.claim(register(store), 1)
    with heard(store.listen) as calls:
        store.finish([Outcome.succeeded(claim, "1")])
    assert calls == [queue]


def test_workers_are_called_for_what_replaces_a_job(store: Store) -> None:
    give.enqueue(1)
    [claim] = store.claim(register(store), 1)
    with heard(store.listen) as calls:
        store.finish([Outcome.replaced(claim, (give.s(1).set(queue_name="mail") | inc.s()).plan())])
    assert "mail" in calls


@pytest.mark.parametrize("how", ["group", "replaced", "failure", "cancel"])
def test_whoever_waits_for_the_end_of_a_workflow_is_called(store: Store, how: str) -> None:
    nodes: dict[str, Any] = {"group": group(give.s(1)), "failure": broken.s() | inc.s(), "cancel": give.s(1) | inc.s()}
    awaited = int(nodes[how].enqueue().id if how in nodes else give.enqueue(1).id)
    worker_id = register(store)
    [claim] = store.claim(worker_id, 1)
    if how == "replaced":
        store.finish([Outcome.replaced(claim, give.s(1).plan())])
        [claim] = store.claim(worker_id, 1)
    if how == "cancel":
        store.release([claim])
    with heard(lambda: store.listen_for_end(connections["default"], awaited)) as calls:
        match how:
            case "failure":
                store.finish([Outcome.failed(claim, ValueError())])
            case "cancel":
                store.cancel([claim.job_id])
            case _:
                store.finish([Outcome.succeeded(claim, "1")])
    assert calls == [""]
    assert JobStatus(Job.objects.get(pk=awaited).status).is_final
