"""Queues that are paused, drained and opened again, with real workers."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

import dbqueue
from dbqueue import queues
from dbqueue.exceptions import InvalidQueue
from dbqueue.models import JobStatus
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop.tasks import add
from .workers import worker

pytestmark = pytest.mark.django_db(transaction=True)


def test_workers_leave_a_paused_queue_alone_until_it_is_resumed() -> None:
    with worker("--threads", "2"):
        add.enqueue(1, 2).get(timeout=15)
        dbqueue.pause("mail", "the provider is down")
        waits, runs = add.using(queue_name="mail").enqueue(1, 2), add.enqueue(3, 4)
        assert runs.get(timeout=15) == 7
        waits.refresh()
        assert waits.status is JobStatus.READY

        assert dbqueue.resume("mail")
        assert waits.get(timeout=15) == 3


def test_a_worker_that_starts_knows_what_is_closed() -> None:
    dbqueue.drain("default")
    later = add.enqueue(1, 2)
    with worker("--threads", "2"):
        assert add.using(queue_name="mail").enqueue(1, 2).get(timeout=15) == 3
        later.refresh()
        assert later.status is JobStatus.READY


def test_inline_runs_leave_it_alone_too() -> None:
    dbqueue.pause("default")
    add.enqueue(1, 2)
    assert run_jobs() == []
    dbqueue.resume("default")
    assert len(run_jobs()) == 1


def test_the_command_says_what_it_did() -> None:
    def said(*arguments: str) -> str:
        out = StringIO()
        call_command("dbqueue_queue", *arguments, stdout=out)
        return out.getvalue()

    assert said() == "No queue is paused or drained.\n"
    assert said("pause", "mail", "--reason", "a new template") == "Queue mail is paused.\n"
    assert said("drain", "slow") == "Queue slow is drained: what is in it now still runs.\n"
    assert said() == "mail: paused, a new template\nslow: drained, no reason given\n"
    assert said("resume", "mail") == "Queue mail is open.\n"
    assert said("resume", "mail") == "Queue mail is open; it was not closed.\n"
    assert list(queues.closed()) == ["slow"]
    with pytest.raises(CommandError, match="Which queue"):
        said("pause")


def test_a_name_that_nobody_knows_is_closed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    warned = "No task, setting or job so far names the queue 'defualt'. Known are 'default'"
    for close in (dbqueue.pause, dbqueue.drain):
        caplog.clear()
        close("defualt")
        [said] = caplog.messages
        assert said.startswith(warned) and said.endswith("Did you mean 'default'?")
        assert list(queues.closed()) == ["defualt"]
        caplog.clear()
        close("defualt")  # which has a row now
        dbqueue.resume("defualt")
        close("default")
        dbqueue.resume("default")
        assert caplog.messages == []

    out, err = StringIO(), StringIO()
    call_command("dbqueue_queue", "pause", "defualt", stdout=out, stderr=err)
    assert out.getvalue() == "Queue defualt is paused.\n"
    assert err.getvalue().startswith(f"Warning: {warned}")
    assert caplog.messages == []


def test_a_name_that_only_a_job_has_is_known(caplog: pytest.LogCaptureFixture) -> None:
    add.using(queue_name="of customer 7").enqueue(1, 2)
    dbqueue.pause("of customer 7")
    assert caplog.messages == []
    dbqueue.pause("of customer 8")
    assert "Did you mean 'of customer 7'?" in caplog.text


def test_a_name_is_known_of_a_job_that_runs_or_has_just_ended(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add.using(queue_name="of customer 7").enqueue(1, 2)
    run_jobs()
    add.using(queue_name="of customer 8").enqueue(1, 2)
    store = store_for("default")
    assert store.claim(store.register(name="worker", hostname="h", pid=1, queues="", threads=1), 1)
    assert not store.has_seen("of customer 7") and not store.has_seen("of customer 8")
    caplog.clear()
    for name in ("of customer 7", "of customer 8"):
        dbqueue.pause(name)
        dbqueue.resume(name)
    monkeypatch.setattr(queues, "NEWEST", 0)
    dbqueue.pause("of customer 8")
    assert caplog.messages == []
    dbqueue.pause("of customer 7")
    assert "names the queue 'of customer 7'" in caplog.text


@pytest.mark.parametrize(("queue", "reason"), [("", ""), ("a,b", ""), (5, ""), ("mail", "x" * 501), ("mail", None)])
def test_what_is_no_queue_or_no_reason(queue: Any, reason: Any) -> None:
    with pytest.raises(InvalidQueue, match="it must be"):
        dbqueue.pause(queue, reason)
    assert queues.closed() == {}
