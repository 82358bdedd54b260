"""Jobs that survive the rollback of the transaction in which they are enqueued."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connections, transaction

from .connections import owned_connection, sqlstate
from .exceptions import NotDurable

PATIENCE = 5
"""Seconds to wait for a lock. It may be the caller's own, who holds it for as long as this waits."""

LOCK_NOT_AVAILABLE = "55P03"


def is_in_transaction(alias: str) -> bool:
    """Whether the caller may still roll back. A TestCase's own transaction doesn't count.

    What is written beside that one would outlive the test.
    """
    connection = connections[alias]
    if blocks := connection.atomic_blocks:
        return not getattr(blocks[0], "_from_testcase", False)
    return not connection.get_autocommit()


@contextmanager
def apart(alias: str) -> Iterator[None]:
    """A connection of its own for this thread, and a transaction that commits as the block ends. Raises NotDurable."""
    if connections[alias].vendor == "sqlite":
        raise NotDurable(
            "A job with durable=True can't be enqueued inside a transaction on SQLite: the transaction holds the "
            "database's one write lock, so a second connection would wait for its end. Enqueue it before or after the "
            "transaction, or without durable."
        )
    with owned_connection(alias) as connection:
        try:
            with transaction.atomic(using=alias):
                if connection.vendor == "postgresql":
                    with connection.cursor() as cursor:
                        cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
                yield
        except OperationalError as exc:
            if sqlstate(exc) != LOCK_NOT_AVAILABLE:
                raise
            raise NotDurable(
                f"A job with durable=True waited {PATIENCE} s for a lock, most likely of the transaction in which it "
                "was enqueued: has that enqueued or changed a job with the same unique key?"
            ) from exc
