"""SQLite 3.35 or newer: no row locks, one writer at a time, no way to call."""

import datetime
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..claim import Selection
from ..connections import SQLITE_PATIENCE
from ..models import Job, JobStatus
from ..outcome import Outcome
from .base import Part, Store
from .listener import ANY_QUEUE, Listener

LOOK_EVERY = 0.01
"""Seconds between two looks at ``PRAGMA data_version``, which takes some microseconds and reads no table. The sleeps
cost more than the looks: at 5 ms a worker at rest used 1.4 % of a core, at 8 ms 1.0 %."""

BEAT_AGAIN = 0.001
"""Seconds from one try of a heartbeat to get the write lock to the next."""

_MARK_RUNNING = f"""
    UPDATE "{Job._meta.db_table}"
    SET status = 'RUNNING', worker_id = %s, lease = lease + 1, attempt = attempt + 1,
        started_at = coalesce(started_at, %s), last_attempted_at = %s,
        ahead = id NOT IN (SELECT value FROM json_each(%s))
    WHERE id IN (SELECT value FROM json_each(%s)) AND status = 'READY'
"""

_FINISH = f"""
    WITH ended AS (
        SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS lease,
               json_extract(value, '$[2]') AS worker_id, json_extract(value, '$[3]') AS status,
               json_extract(value, '$[4]') AS return_value, json_extract(value, '$[5]') AS finished_at,
               json_extract(value, '$[6]') AS run_after
        FROM json_each(%s)
    )
    UPDATE "{Job._meta.db_table}" AS job
    SET status = ended.status,
        return_value = ended.return_value,
        finished_at = ended.finished_at,
        run_after = coalesce(ended.run_after, job.run_after),
        attempt = job.attempt - (ended.status = 'SCHEDULED'),
        worker_id = CASE WHEN ended.status <> 'SCHEDULED' THEN job.worker_id END
    FROM ended
    WHERE job.id = ended.id AND job.status = 'RUNNING'
        AND job.lease = ended.lease AND job.worker_id = ended.worker_id
    RETURNING id, lease
"""


class SQLiteStore(Store):
    def clock(self) -> datetime.datetime:
        # The file is on this host, and so is its clock.
        return timezone.now()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """A transaction that takes the write lock as it begins.

        One that reads first and then writes fails with "database is locked", at once, when another process wrote in
        between. The lock also stands in for ``skip_locked``, which SQLite ignores.
        """
        connection: Any = self.connection
        connection.ensure_connection()
        before, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        try:
            with transaction.atomic(using=self.alias):
                yield
        finally:
            connection.transaction_mode = before

    def _has_ready(self, selection: Selection) -> bool:
        # A look takes no lock; only who sees work asks for the writer's place.
        return any(self._part(Part(queue)).exists() for queue in self._lanes(selection))

    def _mark_running(
        self, ids: list[int], at_once: set[int], worker_id: int, now: datetime.datetime | None
    ) -> datetime.datetime:
        self._check_alive(worker_id)
        now = now or self.clock()
        moment = self._stored(now)
        with self.connection.cursor() as cursor:
            cursor.execute(_MARK_RUNNING, [worker_id, moment, moment, json.dumps(list(at_once)), json.dumps(ids)])
        return now

    def beat(self, worker_id: int, now: datetime.datetime | None = None) -> bool:
        """As everywhere, but under WAL pushing for the write lock.

        SQLite keeps no line before its lock, and sleeps up to 100 ms between two tries: among many writers a patient
        one may wait for so long that its worker is taken for dead. Without WAL a writer that waits keeps new readers
        out, and one that pushes would let them in before it again and again.
        """
        if not self._has_wal():
            return super().beat(worker_id, now)
        end = time.monotonic() + SQLITE_PATIENCE
        with self._without_patience():
            while True:
                try:
                    return super().beat(worker_id, now)
                except OperationalError as exc:
                    if "locked" not in str(exc) or time.monotonic() > end:
                        raise
                time.sleep(BEAT_AGAIN)

    def _has_wal(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode: str = cursor.fetchone()[0]
        return mode == "wal"

    @contextmanager
    def _without_patience(self) -> Iterator[None]:
        with self.connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            (before,) = cursor.fetchone()
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                yield
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {before}")

    def listen(self) -> Listener:
        return _ChangeWatch(self.connection)

    def _apply(self, outcomes: Sequence[Outcome], now: datetime.datetime) -> set[tuple[int, int]]:
        ended = []
        for outcome in outcomes:
            claim, later = outcome.claim, outcome.status is JobStatus.SCHEDULED
            ended.append(
                (
                    claim.job_id,
                    claim.lease,
                    claim.worker_id,
                    outcome.status,
                    outcome.value_json,
                    None if later else self._stored(now),
                    self._stored(now + datetime.timedelta(seconds=outcome.delay)) if later else None,
                )
            )
        with self.connection.cursor() as cursor:
            cursor.execute(_FINISH, [json.dumps(ended)])
            return set(cursor.fetchall())

    def _stored(self, moment: datetime.datetime) -> str:
        return str(self.connection.ops.adapt_datetimefield_value(moment))


class _ChangeWatch(Listener):
    """Sees that another connection, of any process, has committed."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        connection.ensure_connection()
        self._connection = connection
        self._seen = self._version()

    def wait(self, timeout: float) -> Collection[str]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            version = self._version()
            if version != self._seen:
                self._seen = version
                return (ANY_QUEUE,)
            time.sleep(LOOK_EVERY)
        return ()

    def _version(self) -> int:
        # Past Django's cursor, which costs thirty times as much as the question.
        with self._connection.wrap_database_errors:
            found: tuple[int] = self._connection.connection.execute("PRAGMA data_version").fetchone()
        return found[0]
