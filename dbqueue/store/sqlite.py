"""SQLite 3.35 or newer: no row locks, one writer at a time, no way to call."""

import datetime
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import RawSQL
from django.utils import timezone

from ..claim import Selection
from ..connections import SQLITE_PATIENCE
from ..models import GROUP, Job, JobStatus, Worker
from ..outcome import Outcome
from .base import Store
from .claiming import declared_lost
from .listener import ANY_QUEUE, Listener
from .workflows import Released

LOOK_EVERY = 0.015
"""Seconds between two looks for a commit. At 5 ms they took 1.4 % of a core. Longer than a tick of a file's time."""

MOST_PARAMETERS = 10_000
"""Ids that are parameters of a statement, each for itself."""

BEAT_AGAIN = 0.001
"""Seconds from one try of a heartbeat to get the write lock to the next."""

_HAS_READY = f"SELECT 1 FROM \"{Job._meta.db_table}\" WHERE status = 'READY' LIMIT 1"
_HAS_READY_IN = f"SELECT 1 FROM \"{Job._meta.db_table}\" WHERE status = 'READY' AND queue_name = %s LIMIT 1"

_MARK_RUNNING = f"""
    UPDATE "{Job._meta.db_table}"
    SET status = 'RUNNING', worker_id = %s, lease = lease + 1, attempt = attempt + 1,
        started_at = coalesce(started_at, %s), last_attempted_at = %s,
        ahead = id NOT IN (SELECT value FROM json_each(%s)),
        unique_key = CASE WHEN unique_scope = 'started' THEN NULL ELSE unique_key END
    WHERE id IN (SELECT value FROM json_each(%s)) AND status = 'READY'
        AND EXISTS (SELECT 1 FROM "{Worker._meta.db_table}" WHERE id = %s AND stopped_at IS NULL)
"""

_FINISH = f"""
    WITH ended AS (
        SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS lease,
               json_extract(value, '$[2]') AS worker_id, json_extract(value, '$[3]') AS status,
               json_extract(value, '$[4]') AS return_value, json_extract(value, '$[5]') AS finished_at,
               json_extract(value, '$[6]') AS run_after, json_extract(value, '$[7]') AS uncounted,
               json_extract(value, '$[8]') AS reason
        FROM json_each(%s)
    )
    UPDATE "{Job._meta.db_table}" AS job
    SET status = ended.status,
        return_value = ended.return_value,
        finished_at = ended.finished_at,
        run_after = coalesce(ended.run_after, job.run_after),
        attempt = job.attempt - ended.uncounted,
        started_at = CASE WHEN ended.uncounted = job.attempt THEN NULL ELSE job.started_at END,
        last_attempted_at = CASE WHEN ended.uncounted = job.attempt THEN NULL ELSE job.last_attempted_at END,
        worker_id = CASE WHEN ended.status <> 'SCHEDULED' THEN job.worker_id END,
        reason = ended.reason,
        unique_key = CASE WHEN ended.status IN ('SCHEDULED', 'WAITING')
                               OR ended.status = 'SUCCESSFUL' AND job.unique_scope = 'period'
                          THEN job.unique_key END
    FROM ended
    WHERE job.id = ended.id AND job.status = 'RUNNING'
        AND job.lease = ended.lease AND job.worker_id = ended.worker_id
    RETURNING id, lease
"""

_RELEASE = f"""
    WITH released AS (
        SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS status,
               json_extract(value, '$[2]') AS given_by, json_extract(value, '$[3]') AS run_after,
               json_extract(value, '$[4]') AS expires_at
        FROM json_each(%s)
    )
    UPDATE "{Job._meta.db_table}" AS job
    SET status = released.status, run_after = released.run_after,
        args = CASE WHEN released.given_by IS NULL THEN job.args ELSE
            (SELECT '[' || coalesce(giver.return_value, 'null') FROM "{Job._meta.db_table}" AS giver
             WHERE giver.id = released.given_by)
            || CASE WHEN job.args = '[]' THEN ']' ELSE ',' || substr(job.args, 2) END END,
        expires_at = coalesce(released.expires_at, job.expires_at), held = 0
    FROM released
    WHERE job.id = released.id AND job.status = 'WAITING'
"""

_RESULTS = f"""
    UPDATE "{Job._meta.db_table}" AS job
    SET return_value = CASE
            WHEN job.task = '{GROUP}' THEN (
                SELECT '[' || coalesce(group_concat(told, ','), '') || ']' FROM (
                    SELECT coalesce(member.return_value, 'null') AS told FROM "{Job._meta.db_table}" AS member
                    WHERE member.group_id = job.id ORDER BY member.position, member.id))
            ELSE (
                SELECT member.return_value FROM "{Job._meta.db_table}" AS member
                WHERE member.group_id = job.id ORDER BY member.position, member.id LIMIT 1)
        END,
        status = 'SUCCESSFUL', finished_at = %s, held = 0,
        unique_key = CASE WHEN job.unique_scope = 'period' THEN job.unique_key END
    WHERE job.id IN (SELECT value FROM json_each(%s)) AND job.status = 'WAITING'
"""

_HAND_ON = f"""
    WITH told AS (
        SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS value FROM json_each(%s)
    )
    UPDATE "{Job._meta.db_table}" AS job SET return_value = told.value FROM told WHERE job.id = told.id
"""

_CANCEL_WAITING = f"""
    WITH cancelled AS (
        SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS reason FROM json_each(%s)
    )
    UPDATE "{Job._meta.db_table}" AS job
    SET status = 'CANCELLED', finished_at = %s, reason = cancelled.reason, unique_key = NULL
    FROM cancelled WHERE job.id = cancelled.id AND job.status = 'WAITING'
"""


class SQLiteStore(Store):
    def clock(self) -> datetime.datetime:
        # The file is on this host, and so is its clock.
        return timezone.now()

    def among(self, ids: Collection[int]) -> Any:
        """Many are one parameter: a statement may have 32,766 of them, unless SQLite is built otherwise."""
        if len(ids) <= MOST_PARAMETERS:
            return ids
        return RawSQL("SELECT value FROM json_each(%s)", [json.dumps(list(ids))])

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
        with self.connection.cursor() as cursor:
            for queue, _ in self._lanes(selection):
                cursor.execute(*(_HAS_READY_IN, [queue]) if queue else (_HAS_READY,))
                if cursor.fetchone():
                    return True
        return False

    def _mark_running(
        self, ids: list[int], at_once: set[int], worker_id: int, now: datetime.datetime | None, *, limited: bool = False
    ) -> datetime.datetime:
        now = now or self.clock()
        moment = self._stored(now)
        with self.connection.cursor() as cursor:
            cursor.execute(
                _MARK_RUNNING, [worker_id, moment, moment, json.dumps(list(at_once)), json.dumps(ids), worker_id]
            )
            if not cursor.rowcount:
                raise declared_lost(worker_id)
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

    def listen_for_end(self, connection: BaseDatabaseWrapper, job_id: int) -> Listener:
        return _ChangeWatch(connection)

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
                    None if later or outcome.status is JobStatus.WAITING else self._stored(now),
                    self._stored(now + datetime.timedelta(seconds=outcome.delay)) if later else None,
                    int(not outcome.counted),
                    outcome.reason,
                )
            )
        with self.connection.cursor() as cursor:
            cursor.execute(_FINISH, [json.dumps(ended)])
            return set(cursor.fetchall())

    def _reserve_ids(self, number: int) -> list[int]:
        # The workflow's row was inserted before, so this connection has the write lock.
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [Job._meta.db_table])
            found = cursor.fetchone()
        first = (found[0] if found else 0) + 1
        return list(range(first, first + number))

    def _write_released(self, released: Sequence[Released]) -> None:
        rows = [
            (one.id, one.status, one.given_by, *(moment and self._stored(moment) for moment in one[3:]))
            for one in released
        ]
        with self.connection.cursor() as cursor:
            cursor.execute(_RELEASE, [json.dumps(rows)])

    def _write_results(self, ids: Collection[int], now: datetime.datetime) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_RESULTS, [self._stored(now), json.dumps(list(ids))])

    def _write_handed_on(self, told: Sequence[tuple[int, str]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_HAND_ON, [json.dumps(told)])

    def _write_cancelled(self, reasons: Mapping[int, str], now: datetime.datetime) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_CANCEL_WAITING, [json.dumps(list(reasons.items())), self._stored(now)])

    def _stored(self, moment: datetime.datetime) -> str:
        return str(self.connection.ops.adapt_datetimefield_value(moment))


class _ChangeWatch(Listener):
    """Sees that another connection, of any process, has committed."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA database_list")
            self._log = f"{cursor.fetchone()[2]}-wal"
        self._seen = self._version()

    def wait(self, timeout: float) -> Collection[str]:
        """The log's file is looked at, which costs half of a question; where it tells of something, SQLite is asked.

        It is also asked first, and once more after each change: the file's time goes in ticks of up to 10 ms.
        """
        end = time.monotonic() + timeout
        before, is_sure = None, False
        while time.monotonic() < end:
            stamp = self._stamp()
            if stamp is None or stamp != before or not is_sure:
                before, is_sure = stamp, stamp == before
                version = self._version()
                if version != self._seen:
                    self._seen = version
                    return (ANY_QUEUE,)
            time.sleep(LOOK_EVERY)
        return ()

    def _stamp(self) -> tuple[int, int] | None:
        """None where there is no such file: in memory, or in another journal mode."""
        try:
            found = os.stat(self._log)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _version(self) -> int:
        # Past Django's cursor, which costs thirty times as much as the question.
        with self._connection.wrap_database_errors:
            found: tuple[int] = self._connection.connection.execute("PRAGMA data_version").fetchone()
        return found[0]
