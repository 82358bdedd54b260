"""Listening for work: proven by a call to oneself, and without a word to anybody else. PostgreSQL has the calls."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from dbqueue.connections import owned_connection
from dbqueue.services.notifier import Notifier
from dbqueue.store import ANY_QUEUE, Listener, postgresql, store_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="what is heard here exists on PostgreSQL only"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is soon long. Answers may still take as long as in a worker."""
    monkeypatch.setattr(postgresql, "PROBE_AFTER", 0.1)


@pytest.fixture(autouse=True)
def own_connection() -> Iterator[None]:
    with owned_connection("default"):
        yield


class Calls(list[str]):
    """What a notifier has told."""

    def note(self, queues: Any) -> None:
        self.extend(queues)


def run_until(notifier: Notifier, condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        assert notifier.run_once() == 0.0


def listener_of(notifier: Notifier) -> Listener:
    assert notifier._listener is not None
    return notifier._listener


def call(word: str) -> None:
    with owned_connection("default") as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_notify('dbqueue', %s)", [word])


def test_a_listener_on_a_direct_connection_proves_itself_and_stays() -> None:
    calls = Calls()
    notifier = Notifier(store_for("default"), calls.note, lambda: None)
    notifier.run_once()
    first = listener_of(notifier)

    run_until(notifier, lambda: first.proven)
    for _ in range(6):  # several silences, each ended by a call of its own
        assert notifier.run_once() == 0.0

    assert listener_of(notifier) is first
    assert calls == [ANY_QUEUE]  # that is what it says when it starts; its calls to itself woke nobody


def test_a_call_that_came_along_with_an_answer_is_heard_at_once() -> None:
    heard, done = Calls(), threading.Event()

    def listen() -> None:
        with owned_connection("default") as mine, mine.cursor() as cursor:
            listener = store_for("default").listen()
            assert listener is not None
            while not listener.proven:
                listener.wait(1)
            call("mail")
            cursor.execute("SELECT pg_sleep(0.2)")
            heard.note(listener.wait(3600))
        done.set()

    threading.Thread(target=listen, daemon=True).start()
    assert done.wait(30)
    assert heard == ["mail"]


def test_a_call_to_oneself_is_nobody_elses_work() -> None:
    listener = store_for("default").listen()
    assert listener is not None
    heard: set[str] = set()

    call("0123456789abcdef,probe")
    call("mail")
    while not heard:
        heard |= set(listener.wait(5))
    heard |= set(listener.wait(0.2))

    assert heard == {"mail"}


def test_a_session_that_stopped_listening_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_WITHIN", 0.5)
    calls = Calls()
    notifier = Notifier(store_for("default"), calls.note, lambda: None)
    notifier.run_once()
    first = listener_of(notifier)
    run_until(notifier, lambda: first.proven)

    with connection.cursor() as cursor:
        cursor.execute("UNLISTEN *")

    run_until(notifier, lambda: notifier._listener not in (None, first) and listener_of(notifier).proven)
    call("mail")
    run_until(notifier, lambda: "mail" in calls)
