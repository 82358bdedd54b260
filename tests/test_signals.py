"""dbqueue's own signals: what is told, when, on which thread, and that no receiver does harm."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.dispatch import Signal

import dbqueue
from dbqueue import signals
from dbqueue.announcement import Announcement
from dbqueue.console.operations import CANCEL, RETRY, operate
from dbqueue.models import Job, JobStatus, Worker
from dbqueue.outcome import Outcome
from dbqueue.services.completer import Completer
from dbqueue.services.herald import MOST_UNSENT, Herald
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop import django_tasks
from .shop.models import Mark
from .shop.retry_tasks import discards, snoozes
from .shop.signals import ALL, KINDS, misbehave, name_of
from .shop.tasks import add, die, fail, mark, nap
from .workers import burst, eventually, spawn, worker

inline = pytest.mark.django_db
in_a_worker = pytest.mark.django_db(transaction=True)


class Ear:
    """Hears all signals."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any, dict[str, Any]]] = []
        self.threads: set[int] = set()

    def __call__(self, signal: Signal, sender: Any, **told: Any) -> None:
        self.heard.append((name_of(signal), sender, told))
        self.threads.add(threading.get_ident())

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.heard]

    def told(self, name: str) -> dict[str, Any]:
        [told] = [told for heard, _, told in self.heard if heard == name]
        return told


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    for signal in ALL.values():
        signal.connect(ear)
    yield ear
    for signal in ALL.values():
        signal.disconnect(ear)


def marks(prefix: str = "") -> list[str]:
    return list(Mark.objects.filter(label__startswith=prefix).order_by("id").values_list("label", flat=True))


# What is told


@inline
def test_a_success(ear: Ear) -> None:
    result = add.using(queue_name="mail").enqueue(1, 2)
    run_jobs()
    of_job = {"job_id": int(result.id), "task_name": add.name, "queue_name": "mail"}
    result.refresh()
    worker_id = int(result.worker_ids[0])
    assert ear.heard == [
        ("job_enqueued", add, of_job | {"attempt": 0, "run_after": None}),
        ("job_started", add, of_job | {"attempt": 1, "worker_id": worker_id}),
        ("job_succeeded", add, of_job | {"attempt": 1, "worker_id": worker_id}),
    ]
    assert ear.threads == {threading.get_ident()}


@inline
def test_a_retry_and_a_failure(ear: Ear) -> None:
    fail.using(max_attempts=2, backoff=0).enqueue("bang")
    run_jobs()
    assert ear.names == ["job_enqueued", "job_started", "job_retrying", "job_started", "job_failed"]
    retrying, failed = ear.told("job_retrying"), ear.told("job_failed")
    assert (retrying["attempt"], retrying["delay"], failed["attempt"]) == (1, 0, 2)
    for told in (retrying, failed):
        assert told["exception_class_path"] == "builtins.ValueError"
        assert told["traceback"].endswith("ValueError: bang\n")


@inline
def test_a_snooze_and_a_discard(ear: Ear) -> None:
    snoozes.enqueue(3600)
    discards.enqueue("no use")
    run_jobs()
    assert ear.told("job_retrying")["delay"] == 3600
    assert ear.told("job_retrying")["exception_class_path"] == ""
    assert ear.told("job_cancelled")["reason"] == "no use"


@inline
def test_an_operators_cancel_and_what_it_leaves_alone(ear: Ear) -> None:
    waits, ended = add.enqueue(1, 2), add.enqueue(1, 2)
    store_for("default").cancel([int(ended.id)])
    ear.heard.clear()
    user = User.objects.create(username="operator")
    operate(store_for("default"), CANCEL, [int(waits.id), int(ended.id)], user.pk)
    assert ear.heard == [
        (
            "job_cancelled",
            add,
            {
                "job_id": int(waits.id),
                "task_name": add.name,
                "queue_name": "default",
                "attempt": 0,
                "reason": "",
            },
        )
    ]
    operate(store_for("default"), RETRY, [int(waits.id)], user.pk)
    assert len(ear.heard) == 1


@inline
def test_many_are_told_one_by_one_and_a_duplicate_is_not(ear: Ear) -> None:
    unique = add.using(unique=True)
    results = dbqueue.enqueue_many([add.s(1, 2), unique.s(1, 2), unique.s(1, 2)])
    assert [told["job_id"] for _, _, told in ear.heard] == [int(result.id) for result in results[:2]]


@inline
def test_a_receiver_may_hear_of_one_task_and_its_variants_only() -> None:
    heard: list[int] = []

    def receive(job_id: int, **told: Any) -> None:
        heard.append(job_id)

    signals.job_succeeded.connect(receive, sender=add)
    signals.job_succeeded.connect(receive, sender=django_tasks.multiply, dispatch_uid="of django.tasks")
    try:
        mark.enqueue("another")
        ours = [add.using(priority=3).enqueue(1, 2).id, add.enqueue(1, 2).id]
        ours.append(django_tasks.multiply.using(priority=-5).enqueue(1, 2).id)
        run_jobs()
    finally:
        signals.job_succeeded.disconnect(sender=add, receiver=receive)
        signals.job_succeeded.disconnect(sender=django_tasks.multiply, dispatch_uid="of django.tasks")
    assert heard == list(map(int, ours))


@inline
def test_the_task_is_nobody_where_this_process_does_not_know_it(ear: Ear) -> None:
    add.enqueue(1, 2)
    Job.objects.update(task="gone.task")
    run_jobs()
    assert ear.heard[-1][:2] == ("job_failed", None)
    assert ear.names == ["job_enqueued", "job_failed"]  # it was never started


@inline
def test_nothing_is_made_for_nobody() -> None:
    add.enqueue(1, 2)
    store = store_for("default")
    [claim] = store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=1), 1)
    outcome = Outcome.succeeded(claim, None)
    assert Announcement.of_outcome(outcome) is None and Announcement.of_start(claim) is None
    signals.job_succeeded.connect(misbehave)
    try:
        assert Announcement.of_outcome(outcome) is not None
    finally:
        signals.job_succeeded.disconnect(misbehave)


# Receivers that misbehave


@pytest.fixture
def bad(request: pytest.FixtureRequest) -> Iterator[None]:
    def receive(**told: Any) -> None:
        misbehave(request.param)

    for signal in ALL.values():
        signal.connect(receive)
    yield
    for signal in ALL.values():
        signal.disconnect(receive)


@inline
@pytest.mark.parametrize("bad", KINDS, indirect=True)
@pytest.mark.usefixtures("bad")
def test_no_receiver_harms_the_callers_transaction() -> None:
    session = connection.connection
    with transaction.atomic():
        Mark.objects.create(label="the caller's")
        result = mark.enqueue("the job's")
        run_jobs()
        Mark.objects.create(label="the caller goes on")
    result.refresh()
    assert result.status == JobStatus.SUCCESSFUL
    assert set(marks()) == {"the caller's", "the job's", "the caller goes on"}
    assert connection.connection is session


@in_a_worker
@pytest.mark.parametrize("bad", KINDS, indirect=True)
@pytest.mark.usefixtures("bad")
def test_no_receiver_harms_a_connection_without_a_transaction() -> None:
    result = mark.enqueue("the job's")
    assert not connection.in_atomic_block and connection.get_autocommit()
    run_jobs()
    result.refresh()
    assert (result.status, marks()) == (JobStatus.SUCCESSFUL, ["the job's"])


@in_a_worker
@pytest.mark.parametrize("kind", KINDS)
def test_no_receiver_harms_a_worker(kind: str) -> None:
    results: list[dbqueue.JobResult[Any]] = [mark.enqueue("the job's"), fail.enqueue("bang"), add.enqueue(1, 2)]
    output = burst("--threads", "1", SHOP_SIGNALS=kind)
    for result in results:
        result.refresh()
    assert [result.status for result in results] == [JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.SUCCESSFUL]
    # After an exit no further receiver of that signal is asked; what stands in an open transaction is rolled back.
    if kind not in ("exit", "interrupt", "open"):
        assert marks("job_succeeded") == [f"job_succeeded {result.id} 1" for result in results[::2]]
        assert marks("worker_ready") and marks("worker_stopping"), output
    assert "never committed" not in marks()


# In a worker


@in_a_worker
def test_a_worker_tells_what_happens() -> None:
    good, bad = mark.enqueue("the job's"), fail.using(max_attempts=2, backoff=0).enqueue("bang")
    burst("--threads", "1", SHOP_SIGNALS="tell")
    error = "builtins.ValueError"
    # Two threads, each in the order of what happens.
    of_jobs = [label for label in marks() if label.startswith(("job_started", "the job's"))]
    assert of_jobs == [f"job_started {good.id} 1", "the job's", f"job_started {bad.id} 1", f"job_started {bad.id} 2"]
    assert [label for label in marks() if label not in of_jobs] == [
        "worker_ready",
        f"job_succeeded {good.id} 1",
        f"job_retrying {bad.id} 1  {error}",
        f"job_failed {bad.id} 2  {error}",
        "worker_stopping",
    ]


@in_a_worker
def test_a_slow_receiver_delays_no_outcome_and_what_it_has_left_is_told_at_the_end() -> None:
    results = [nap.enqueue(0) for _ in range(3)]
    # Started is told on the job's own thread, so here only the outcome's receiver is slow.
    with worker("--threads", "1", SHOP_SIGNALS="slow", SHOP_SIGNALS_OF="job_succeeded"):
        for result in results:
            assert result.get(timeout=15) is None
        assert len(marks("job_succeeded")) <= 1
        Mark.objects.create(label="go")
    assert len(marks("job_succeeded")) == 3
    assert marks()[-1] == "worker_stopping"


@in_a_worker
def test_a_receiver_that_never_returns_does_not_keep_a_worker_from_its_end() -> None:
    result = nap.enqueue(0)
    process = spawn("--burst", SHOP_SIGNALS="slow", SHOP_SIGNALS_OF="job_succeeded")
    output = process.finish()
    result.refresh()
    assert (process.returncode, result.status) == (0, JobStatus.SUCCESSFUL)
    assert "ends before its signals' receivers" in output


@in_a_worker
def test_a_rescue_and_its_end() -> None:
    result = die.enqueue(1.5)  # time for what is told of the rescue, beside the start on the job's own thread
    spawn("--threads", "1", DBQUEUE_HEARTBEAT_TIMEOUT="2").finish()
    options = {"DBQUEUE_HEARTBEAT_TIMEOUT": "2", "DBQUEUE_MAX_CRASHES": "2", "SHOP_SIGNALS": "tell"}
    spawn("--threads", "1", **options).finish()
    assert set(marks("job_")) == {f"job_rescued {result.id} 1", f"job_started {result.id} 2"}
    with worker(**options):
        eventually(lambda: marks("job_failed"), 30)
    assert marks("job_failed") == [f"job_failed {result.id} 2  dbqueue.exceptions.WorkerLost"]


@in_a_worker
def test_a_job_that_expired() -> None:
    result = add.using(expires=timedelta(seconds=0.01)).enqueue(1, 2)
    time.sleep(0.02)
    with worker(SHOP_SIGNALS="tell"):
        eventually(lambda: marks("job_cancelled"))
    [told] = marks("job_cancelled")
    assert told.startswith(f"job_cancelled {result.id} ") and told.endswith(" expired")


@in_a_worker
def test_an_outcome_that_is_refused_is_not_told(ear: Ear) -> None:
    store = store_for("default")
    told: list[Outcome] = []
    add.enqueue(1, 2)
    worker_id = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [claim] = store.claim(worker_id, 1)
    Worker.objects.update(stopped_at=store.clock(), lost=True)
    store.rescue(3)
    completer = Completer(store, lambda: None, told.extend)
    completer.put(Outcome.succeeded(claim, "3"))
    completer.run_once()
    assert told == [] and completer.pending == 0
    [again] = store.claim(store.register(name="w", hostname="h", pid=1, queues="", threads=1), 1)
    completer.put(outcome := Outcome.succeeded(again, "3"))
    completer.run_once()
    assert told == [outcome]


def test_memory_is_bounded_where_receivers_are_too_slow(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def receive(number: int, **told: Any) -> None:
        heard.append(number)

    signals.job_succeeded.connect(receive)
    try:
        herald = Herald("default", lambda: None)
        for number in range(MOST_UNSENT + 5):
            herald.put(Announcement(signals.job_succeeded, {"number": number}))
        assert herald.pending == MOST_UNSENT
        herald.run_once()
    finally:
        signals.job_succeeded.disconnect(receive)
    assert heard == list(range(MOST_UNSENT))
    assert "Signals left out because their receivers are too slow: 5" in caplog.text
