"""Run jobs inside a test: at once, on the test's own connection and in its transaction."""

import os
import socket
from typing import Any

from .announcement import Announcement
from .claim import Selection
from .conf import Settings
from .executor import Executor
from .results import JobResult, get_result
from .store import store_for
from .transactions import kept


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
            with kept(f"Job {claims[0]}"):
                outcome = executor.run(claims[0])
            store.finish([outcome])
            if announcement := Announcement.of_outcome(outcome):
                announcement.send()
            store.unblock({key} if (key := claims[0].concurrency_key) else ())
            results.append(get_result(claims[0].job_id))
            if outcome.failure and outcome.failure.exception_class_path == "builtins.KeyboardInterrupt":
                raise KeyboardInterrupt  # who runs the tests wants them to end
    finally:
        store.unregister(worker_id)
    return results
