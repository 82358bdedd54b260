"""What others do at the same moment: on threads of their own, with connections of their own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from django.db import connection, connections, transaction

from .workers import eventually


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[threading.Thread]:
    """``act`` on another thread, which has ended when the block has. Its error is raised then."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as exc:
            errors.append(exc)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
    assert not thread.is_alive() and errors == []


@contextmanager
def locked(act: Callable[[], object]) -> Iterator[threading.Event]:
    """What ``act`` does, in a transaction of somebody else, which is open until the block ends, or the event is set."""
    is_done, may_commit = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            act()
            is_done.set()
            may_commit.wait(20)

    with meanwhile(hold):
        try:
            assert is_done.wait(20)
            yield may_commit
        finally:
            may_commit.set()


@contextmanager
def beside(act: Callable[[], object]) -> Iterator[None]:
    """The block's transaction stays open until ``act``, beside it, has ended or waits for it. Needs PostgreSQL."""
    with ExitStack() as after_commit, transaction.atomic():
        yield
        thread = after_commit.enter_context(meanwhile(act))
        eventually(lambda: not thread.is_alive() or somebody_waits_for_a_lock())


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(cursor.fetchone()[0])
