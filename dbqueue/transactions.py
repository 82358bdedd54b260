"""Letting somebody else's code run on this thread, and leaving the caller's transactions as they were."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.db import DatabaseError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .connections import renew

logger = logging.getLogger("dbqueue.job")


@contextmanager
def kept(who: object) -> Iterator[None]:
    """Whatever the block does to this thread's connections, their transactions go on after it.

    In a transaction of the caller: what the block wrote in an ``atomic`` that it left open is rolled back; if it broke
    the transaction, all that it wrote is; closing a connection does nothing. On a connection without one: what the
    block left open is rolled back, and the connection closed. ``who`` runs there is for the log.
    """
    with ExitStack() as stack:
        there = connections.all(initialized_only=True)
        held = [connection for connection in there if connection.in_atomic_block]
        # Who works with autocommit off is in a transaction, too: it is left alone.
        manual = [connection for connection in there if connection not in held and _is_manual(connection)]
        for connection in held:
            stack.enter_context(_transaction_of_the_caller(connection, who))
        try:
            yield
        finally:
            for connection in connections.all(initialized_only=True):
                if connection not in held and connection not in manual:
                    _mend(connection, who)


@contextmanager
def _transaction_of_the_caller(connection: BaseDatabaseWrapper, who: object) -> Iterator[None]:
    blocks, savepoints = list(connection.atomic_blocks), list(connection.savepoint_ids)
    on_commit = list(connection.run_on_commit)
    before: Any = connection.savepoint()  # None where the database has no savepoints
    overridden = vars(connection).get("close")  # one such block may stand in another
    vars(connection)["close"] = lambda: None
    try:
        yield
    finally:
        if overridden is None:
            del vars(connection)["close"]
        else:
            vars(connection)["close"] = overridden
        opened, broken = connection.savepoint_ids[len(savepoints) :], connection.needs_rollback
        connection.atomic_blocks, connection.savepoint_ids = blocks, savepoints
        connection.needs_rollback = False
        first_opened = next(filter(None, opened), None)
        if opened:
            logger.error("%s left a transaction open; what it wrote there is rolled back", who)
        if first_opened is not None:
            connection.savepoint_rollback(first_opened)
        elif opened or broken:
            _roll_back(connection, before, on_commit)
        try:
            connection.savepoint_commit(before)
        except DatabaseError:
            _roll_back(connection, before, on_commit)


def _roll_back(connection: BaseDatabaseWrapper, savepoint: Any, on_commit: list[Any]) -> None:
    connection.savepoint_rollback(savepoint)
    connection.run_on_commit = on_commit


def _is_manual(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and connection.autocommit != connection.settings_dict["AUTOCOMMIT"]


def _mend(connection: BaseDatabaseWrapper, who: object) -> None:
    """Roll back what was left open on a connection that was in no transaction."""
    autocommit: bool = connection.settings_dict["AUTOCOMMIT"]
    if not (connection.in_atomic_block or connection.closed_in_transaction or _is_manual(connection)):
        return
    logger.error("%s left a transaction open on database %r; it is rolled back", who, connection.alias)
    if connection.connection is not None:
        with suppress(Error), connection.wrap_database_errors:  # it may have been closed already
            connection.connection.rollback()
    renew(connection.alias)
    if connection.connection is not None:  # SQLite in memory, which is never closed
        connection.set_autocommit(autocommit)
