"""A thread's database connections: closing them after a job, owning one for a service.

Connections belong to threads. Nothing sends ``request_finished`` on a worker's thread, so unless the thread itself
closes what its job opened, the sessions stay until the server has no slot left.
"""

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

IDLE = 0
"""libpq's word for a session outside of any transaction (PQTRANS_IDLE)."""

MYSQL_LOCKS = (1205, 1213)
"""ER_LOCK_WAIT_TIMEOUT and ER_LOCK_DEADLOCK."""

SQLITE_PATIENCE = 60
"""Seconds that a worker's own SQLite connection waits for the write lock: longer than any job should hold it."""


def sqlstate(exc: Error) -> str:
    """Five characters, or nothing where the driver or the database has none."""
    cause: Any = exc.__cause__
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def is_about_locks(exc: Error) -> bool:
    """Whether a statement was given up because somebody else had a lock: another time it may work."""
    cause: Any = exc.__cause__
    code = cause.args[0] if cause is not None and cause.args else None
    return sqlstate(exc) in ("55P03", "40P01", "40001") or code in MYSQL_LOCKS or "locked" in str(code)


def close_all() -> list[str]:
    """Close every connection of this thread, whatever state a job left it in.

    Returns what was found wrong, in words, one text a connection.

    Closing inside ``atomic`` leaves a Django connection that refuses every later query on its thread ("the wedge"), and
    so does an ``atomic`` that was left open; such a connection is dropped, and the thread's next query gets a new one.
    """
    used = [connection for connection in connections.all(initialized_only=True) if not _is_untouched(connection)]
    if not used:
        return []  # and Django's own call would close nothing either
    found = []
    for connection in used:
        if leak := _leak(connection):
            found.append(f"database {connection.alias!r}: {leak}")
            _drop(connection)
        else:
            _leave_clean(connection)
    try:
        connections.close_all()
    except Exception:  # noqa: BLE001  a driver's own error: close them one by one
        for connection in connections.all(initialized_only=True):
            _drop(connection)
    return found


@contextmanager
def owned_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Give this thread a connection to ``alias`` that no pool hands out, for as long as the block lasts.

    A service must not wait for a slot that jobs hold.
    """
    theirs = connections[alias]
    with second_connection(alias) as ours:
        connections[alias] = ours
        try:
            yield ours
        finally:
            connections[alias] = theirs


@contextmanager
def second_connection(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """One more connection to ``alias``, which no pool hands out; the thread's own stays what the ORM uses."""
    ours = _unpooled(connections[alias])
    ours.queries_log = deque(maxlen=0)  # under DEBUG Django would keep 9,000 statements of hundreds of rows each
    try:
        yield ours
    finally:
        ours.close()


def renew(alias: str) -> None:
    """Close this thread's connection to ``alias`` after an error, so that the next query opens another."""
    connection = connections[alias]
    _reset(connection)
    connection.close()


def _unpooled(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    settings = copy.deepcopy(connection.settings_dict)
    options = settings["OPTIONS"]
    options.pop("pool", None)
    if connection.vendor == "sqlite":
        options["timeout"] = max(options.get("timeout", 0), SQLITE_PATIENCE)
    return type(connection)(settings, connection.alias)


def _is_untouched(connection: BaseDatabaseWrapper) -> bool:
    """Whether the job has not used it. Asked first, because many jobs use none of a project's databases."""
    return (
        connection.connection is None
        and not connection.in_atomic_block
        and not connection.closed_in_transaction
        and not connection.queries_log
    )


def _leak(connection: BaseDatabaseWrapper) -> str:
    if connection.closed_in_transaction:
        return "the job closed the connection inside a transaction"
    if connection.in_atomic_block:
        broken = ", and the transaction was broken" if connection.needs_rollback else ""
        return f"the job left a transaction open{broken}; what it wrote there is rolled back"
    if connection.connection is not None and connection.autocommit != connection.settings_dict["AUTOCOMMIT"]:
        return "the job left autocommit switched off; what it had not committed is rolled back"
    return ""


def _leave_clean(connection: Any) -> None:
    """Make a connection fit for whoever has it next."""
    # Under DEBUG Django logs every query, and only a request would clear that log.
    connection.queries_log.clear()
    if connection.connection is None or not getattr(connection, "pool", None):
        return
    # Closing will only give it back to the pool: what the job has set or locked in its session must not outlive it.
    try:
        _reset_session(connection)
    except Exception:  # noqa: BLE001  a session that can't be cleaned is not kept
        _drop(connection)


def _reset_session(connection: Any) -> None:
    """Bring a pooled session of psycopg 3 back to what Django makes of a new one.

    All in one message, past psycopg's cursor: this is asked once a job, and may cost more than the job's own query.
    """
    raw = connection.connection
    if raw.info.transaction_status != IDLE:
        raise DatabaseError("The job has begun a transaction in SQL of its own.")
    resets = (
        "SELECT pg_advisory_unlock_all()",
        "RESET SESSION AUTHORIZATION",
        "RESET ROLE",  # these two are not among what RESET ALL resets
        "RESET ALL",
        f"SET TIME ZONE '{connection.timezone_name}'",
    )
    result = raw.pgconn.exec_("; ".join(resets).encode())
    if result.error_message:
        raise DatabaseError(result.error_message.decode(errors="replace"))
    connection._configure_connection(raw)


def _drop(connection: BaseDatabaseWrapper) -> None:
    raw = connection.connection
    if connection.closed_in_transaction:
        # Already closed, or with a pool: already somebody else's. Only the wrapper is ours to forget.
        connection.connection = None
    elif raw is not None:
        with suppress(Exception):  # broken ones may refuse
            # Closed before a pool may take it back: nobody is to get a session in an unknown state.
            raw.close()
    _reset(connection)
    with suppress(Exception):
        # A pool is told that its slot is free. Without one this closes a second time, which MySQL's driver refuses.
        connection.close()
    del connections[connection.alias]


def _reset(connection: BaseDatabaseWrapper) -> None:
    """Make Django forget the transaction that this connection was in."""
    connection.in_atomic_block = False
    connection.needs_rollback = False
    connection.closed_in_transaction = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.run_on_commit = []
