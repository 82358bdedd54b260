"""Run jobs inside a test: at once, on the test's own connection and in its transaction."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from django.db import DatabaseError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .claim import Claim, Selection
from .conf import Settings
from .connections import renew
from .executor import Executor
from .outcome import Outcome
from .results import JobResult, get_result
from .store import store_for

logger = logging.getLogger("dbqueue.testing")


def run_jobs(*, limit: int | None = None) -> list[JobResult[Any]]:
    """Run what is due, and what that enqueues, one job after another; at most ``limit`` jobs (None: to the end).

    Jobs pass through the same claim, executor and finish as in a worker, so one that raises ends FAILED; nothing of it
    is raised here, but for a KeyboardInterrupt, after it was written. Returns the results in the order of the runs.

    In a transaction of the caller, as in a TestCase, each job has a savepoint, and the transaction goes on after it,
    whatever the job did: what it wrote in an ``atomic`` that it left open is rolled back; if it broke the transaction,
    all that it wrote is; closing a connection does nothing. One difference to a worker remains there: after an error of
    the database, outside an ``atomic`` of its own, a job can't go on to another query. Without a transaction of the
    caller, what a job left open is rolled back, and its connection closed.
    """
    settings = Settings.load()
    store, executor = store_for(settings.database), Executor(settings)
    results: list[JobResult[Any]] = []
    worker_id = store.register(name="run_jobs", hostname=socket.gethostname(), pid=os.getpid(), queues="", threads=1)
    try:
        while limit is None or len(results) < limit:
            while store.promote():
                pass
            claims = store.claim(worker_id, 1, Selection(closed=store.closed_queues(), ageing=settings.priority_ageing))
            if not claims:
                break
            outcome = _run(executor, claims[0])
            store.finish([outcome])
            store.unblock({key} if (key := claims[0].concurrency_key) else ())
            results.append(get_result(claims[0].job_id))
            if outcome.failure and outcome.failure.exception_class_path == "builtins.KeyboardInterrupt":
                raise KeyboardInterrupt  # who runs the tests wants them to end
    finally:
        store.unregister(worker_id)
    return results


def _run(executor: Executor, claim: Claim) -> Outcome:
    with ExitStack() as stack:
        held = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
        for connection in held:
            stack.enter_context(_transaction_of_the_caller(connection, claim))
        outcome = executor.run(claim)
        for connection in connections.all(initialized_only=True):
            if connection not in held:
                _mend(connection, claim)
    return outcome


@contextmanager
def _transaction_of_the_caller(connection: BaseDatabaseWrapper, claim: Claim) -> Iterator[None]:
    """Let a job work inside an open transaction, and leave that as it was."""
    blocks, savepoints = list(connection.atomic_blocks), list(connection.savepoint_ids)
    before_the_job: Any = connection.savepoint()  # None where the database has no savepoints
    vars(connection)["close"] = lambda: None
    try:
        yield
    finally:
        del vars(connection)["close"]
        opened, broken = connection.savepoint_ids[len(savepoints) :], connection.needs_rollback
        connection.atomic_blocks, connection.savepoint_ids = blocks, savepoints
        connection.needs_rollback = False
        if opened:
            logger.error("Job %s left a transaction open; what it wrote there is rolled back", claim)
        if opened or broken:
            connection.savepoint_rollback(next(filter(None, opened), before_the_job))
        try:
            connection.savepoint_commit(before_the_job)
        except DatabaseError:
            connection.savepoint_rollback(before_the_job)


def _mend(connection: BaseDatabaseWrapper, claim: Claim) -> None:
    """Roll back what a job left open on a connection that was in no transaction."""
    autocommit: bool = connection.settings_dict["AUTOCOMMIT"]
    switched = connection.connection is not None and connection.autocommit != autocommit
    if not (connection.in_atomic_block or connection.closed_in_transaction or switched):
        return
    logger.error("Job %s left a transaction open on database %r; it is rolled back", claim, connection.alias)
    if connection.connection is not None:
        with suppress(Error), connection.wrap_database_errors:  # the job may have closed it already
            connection.connection.rollback()
    renew(connection.alias)
    if connection.connection is not None:  # SQLite in memory, which is never closed
        connection.set_autocommit(autocommit)
