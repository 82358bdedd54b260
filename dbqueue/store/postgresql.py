"""PostgreSQL 14 or newer: many rows in a statement, wake-ups that travel with the commit.

States stand in the SQL as literals, so that a generic plan can use the partial indexes.
"""

import datetime
import json
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..connections import is_about_locks, owned_connection, sqlstate
from ..draft import Draft
from ..exceptions import TookTooLong
from ..models import GROUP, OPEN, Job, JobStatus, Worker
from ..outcome import Outcome
from .base import Finished, Store, fence, is_of_workflow
from .claiming import declared_lost
from .listener import ANY_QUEUE, Listener
from .notifications import Notifications
from .planting import NewStep
from .workflows import Released

CHANNEL = "dbqueue"

ENDED = "dbqueue_ended"
"""The channel of awaited jobs: the words are their ids."""

CANCELED = "57014"
"""The SQLSTATE query_canceled."""

PROBE = "probe"
"""What ends the word of a listener that calls itself. Before it stands a comma, which no queue's name contains."""

ANSWER_WITHIN = 2.0
"""Seconds in which a listener must hear its own call."""

PROBE_AFTER = 10.0
"""Seconds of silence on a listening connection after which it calls itself."""

UNLISTEN_TRIES = 20
"""Statements with which a deaf listener looks for the session that it left listening behind a pooler."""

_JOB = f'"{Job._meta.db_table}"'

_COLUMNS = {
    "task": "text",
    "args": "jsonb",
    "kwargs": "jsonb",
    "queue_name": "text",
    "priority": "smallint",
    "status": "text",
    "run_after": "timestamptz",
    "backend": "text",
    "max_attempts": "smallint",
    "options": "jsonb",
}
"""What every INSERT gives, with its type."""

_RARE_COLUMNS = {
    "expires_at": "timestamptz",
    "unique_key": "text",
    "unique_scope": "text",
    "unique_until": "timestamptz",
    "concurrency_key": "text",
    "rate_key": "text",
    "schedule_id": "bigint",
    "slot": "timestamptz",
    "external_id": "text",
}
"""What is given only where a job of the batch has it."""


_STEP_COLUMNS = {
    "id": "bigint",
    "workflow_id": "bigint",
    "after_id": "bigint",
    "group_id": "bigint",
    "position": "int",
    "held": "boolean",
    "allow_failure": "boolean",
    "step": "jsonb",
}
"""What only steps of workflows have."""


class Insert(NamedTuple):
    """The INSERT of one job and that of many, for one set of columns."""

    one: str
    many: str


def _insert(columns: dict[str, str]) -> Insert:
    names = ", ".join(columns)
    values = ", ".join(f"%s::{kind}" for kind in columns.values())
    arrays = ", ".join(f"%s::{kind}[]" for kind in columns.values())
    return Insert(
        one=f"""
            INSERT INTO {_JOB} ({names}, enqueued_at, lease, attempt)
            VALUES ({values}, statement_timestamp(), 0, 0)
            {{on_conflict}}
            RETURNING id, enqueued_at, pg_notify('{CHANNEL}', %s)
        """,
        many=f"""
            INSERT INTO {_JOB} ({names}, enqueued_at, lease, attempt)
            SELECT {names}, statement_timestamp(), 0, 0
            FROM unnest({arrays}) WITH ORDINALITY AS draft ({names}, place)
            ORDER BY place
            RETURNING id, enqueued_at
        """,
    )


_PLAIN = _insert(_COLUMNS)
_FULL = _insert(_COLUMNS | _RARE_COLUMNS)
_STEPS = _insert(_COLUMNS | _RARE_COLUMNS | _STEP_COLUMNS)
_ONE_PLAIN = _PLAIN.one.format(on_conflict="")
_ONE_FULL = _FULL.one.format(on_conflict="")
_ONE_UNIQUE = _FULL.one.format(on_conflict="ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING")

_SHARE = f"""
    SELECT id FROM {_JOB}
    WHERE id = %s AND unique_key = %s AND {{by_id}} IN ('SCHEDULED', 'READY', 'BLOCKED') FOR SHARE
"""
"""Several callers may hold on to one job; no claim gets it before the last of them has committed."""

_BY_ID = "status || ''"
"""The column ``status`` in an expression that no partial index answers to, for rows that are named by id. With
statistics of a quieter hour the planner would take that index and walk over every entry that an old snapshot keeps in
it, and not the few ids that are named."""

_MARK_RUNNING = f"""
    WITH clock AS MATERIALIZED (
        SELECT coalesce(%s::timestamptz, statement_timestamp()) AS now,
               set_config('synchronous_commit', coalesce(%s, current_setting('synchronous_commit')), true) AS waits
    ), marked AS (
        UPDATE {_JOB}
        SET status = 'RUNNING', worker_id = %s, lease = lease + 1, attempt = attempt + 1,
            started_at = coalesce(started_at, clock.now), last_attempted_at = clock.now,
            ahead = NOT id = ANY(%s::bigint[]),
            unique_key = CASE WHEN unique_scope = 'started' THEN NULL ELSE unique_key END
        FROM clock
        WHERE id = ANY(%s::bigint[]) AND {_BY_ID} = 'READY' AND clock.waits IS NOT NULL
            AND EXISTS (SELECT FROM "{Worker._meta.db_table}" WHERE id = %s AND stopped_at IS NULL)
        RETURNING clock.now, unique_scope
    )
    SELECT max(now), bool_or(unique_scope = 'started') FROM marked
"""

_FINISH = f"""
    WITH clock AS MATERIALIZED (
        SELECT coalesce(%s::timestamptz, statement_timestamp()) AS now,
               set_config('lock_timeout', coalesce(%s, current_setting('lock_timeout')), true) AS patience
    )
    UPDATE {_JOB} AS job
    SET status = ended.status,
        return_value = ended.value,
        finished_at = CASE WHEN ended.status NOT IN ('SCHEDULED', 'WAITING') THEN clock.now END,
        run_after = CASE WHEN ended.status = 'SCHEDULED' THEN clock.now + ended.delay * interval '1 second'
                         ELSE job.run_after END,
        attempt = job.attempt - ended.uncounted,
        started_at = CASE WHEN ended.uncounted = job.attempt THEN NULL ELSE job.started_at END,
        last_attempted_at = CASE WHEN ended.uncounted = job.attempt THEN NULL ELSE job.last_attempted_at END,
        worker_id = CASE WHEN ended.status <> 'SCHEDULED' THEN job.worker_id END,
        reason = ended.reason,
        unique_key = CASE WHEN ended.status IN ('SCHEDULED', 'WAITING')
                               OR ended.status = 'SUCCESSFUL' AND job.unique_scope = 'period'
                          THEN job.unique_key END
    FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::text[], %s::jsonb[], %s::float8[], %s::int[], %s::text[])
            AS ended (id, lease, worker_id, status, value, delay, uncounted, reason),
        clock
    WHERE job.id = ended.id AND job.{_BY_ID} = 'RUNNING' AND clock.patience IS NOT NULL
        AND job.lease = ended.lease AND job.worker_id = ended.worker_id
    RETURNING job.id, job.lease,
        CASE WHEN job.awaited AND ended.status NOT IN ('SCHEDULED', 'WAITING')
             THEN pg_notify('{ENDED}', job.id::text) END
"""

_RESERVE = f"SELECT nextval(pg_get_serial_sequence('{_JOB}', 'id')) FROM generate_series(1, %s)"

_RELEASE = f"""
    UPDATE {_JOB} AS job
    SET status = released.status, run_after = released.run_after,
        args = CASE WHEN released.given_by IS NULL THEN job.args
                    ELSE jsonb_build_array(coalesce(giver.return_value, 'null'::jsonb)) || job.args END,
        expires_at = coalesce(released.expires_at, job.expires_at), held = false
    FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
            AS released (id, status, given_by, run_after, expires_at)
        LEFT JOIN {_JOB} AS giver ON giver.id = released.given_by
    WHERE job.id = released.id AND job.{_BY_ID} = 'WAITING'
"""

_RESULTS = f"""
    UPDATE {_JOB} AS job
    SET return_value = CASE
            WHEN job.task = '{GROUP}' THEN (
                SELECT coalesce(jsonb_agg(coalesce(member.return_value, 'null'::jsonb)
                                          ORDER BY member.position, member.id), '[]'::jsonb)
                FROM {_JOB} AS member WHERE member.group_id = job.id)
            ELSE (
                SELECT member.return_value
                FROM {_JOB} AS member WHERE member.group_id = job.id ORDER BY member.position, member.id LIMIT 1)
        END,
        status = 'SUCCESSFUL', finished_at = %s, held = false,
        unique_key = CASE WHEN job.unique_scope = 'period' THEN job.unique_key END
    WHERE job.id = ANY(%s::bigint[]) AND job.{_BY_ID} = 'WAITING'
"""

_HAND_ON = f"""
    UPDATE {_JOB} AS job SET return_value = told.value
    FROM unnest(%s::bigint[], %s::jsonb[]) AS told (id, value) WHERE job.id = told.id
"""

_CANCEL_WAITING = f"""
    UPDATE {_JOB} AS job SET status = 'CANCELLED', finished_at = %s, reason = cancelled.reason, unique_key = NULL
    FROM unnest(%s::bigint[], %s::text[]) AS cancelled (id, reason)
    WHERE job.id = cancelled.id AND job.{_BY_ID} = 'WAITING'
"""

_NOTIFY = f"SELECT pg_notify('{CHANNEL}', queue) FROM unnest(%s::text[]) AS queue"

_NOTIFY_ENDED = f"SELECT pg_notify('{ENDED}', id::text) FROM {_JOB} WHERE id = ANY(%s::bigint[]) AND awaited"

_AWAIT = f"""
    UPDATE {_JOB} SET awaited = true
    WHERE id = (
        SELECT id FROM {_JOB} WHERE id = %s AND {_BY_ID} = ANY(%s::text[]) FOR NO KEY UPDATE SKIP LOCKED
    )
"""
"""Nobody is waited for: the caller's own transaction, on another connection, may hold that row."""

LOCK_TIMEOUT = "20ms"
"""How long the outcomes of a batch wait for a job's lock, before those that are free are written without the others."""

BULK = 1000
"""Rows of one INSERT: larger ones measured no faster."""


class PostgreSQLStore(Store):
    LOCK = MappingProxyType({"skip_locked": True, "no_key": True})

    def clock(self) -> datetime.datetime:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")
            return cursor.fetchone()[0]  # type: ignore[no-any-return]

    def listen(self) -> Listener:
        return _NotifyListener(self.connection)

    def enqueue(self, drafts: Sequence[Draft]) -> list[tuple[int, datetime.datetime]]:
        full = any(map(_has_rare_columns, drafts))
        if len(drafts) == 1:
            [entered] = self._enqueue_one(_ONE_FULL if full else _ONE_PLAIN, drafts[0], full)
            return [entered]
        made: list[tuple[int, datetime.datetime]] = []
        with self.atomic(), self.connection.cursor() as cursor:
            for start in range(0, len(drafts), BULK):
                rows = [_insertable(draft, full) for draft in drafts[start : start + BULK]]
                columns = [list(column) for column in zip(*rows, strict=True)]
                cursor.execute(_FULL.many if full else _PLAIN.many, columns)
                # Ids were drawn in the order of the drafts.
                made += sorted(cursor.fetchall())
            self.call_workers({_channel_word(draft) for draft in drafts})
        return made

    def _insert_where_free(self, drafts: Sequence[Draft]) -> dict[str | None, tuple[int, datetime.datetime]]:
        # By key, as two that insert the same keys would otherwise wait for each other; but a line keeps its order.
        ordered = drafts if any(draft.concurrency_key for draft in drafts) else sorted(drafts, key=_unique_key)
        made = {}
        for draft in ordered:
            if entered := self._enqueue_one(_ONE_UNIQUE, draft, full=True):
                [made[draft.unique_key]] = entered
        return made

    def _hold_on(self, pk: int, draft: Draft) -> bool:
        if draft.replaces:
            return super()._hold_on(pk, draft)
        with self.connection.cursor() as cursor:
            cursor.execute(_SHARE.format(by_id=_BY_ID), [pk, draft.unique_key])
            return cursor.fetchone() is not None

    def _enqueue_one(self, sql: str, draft: Draft, full: bool) -> list[tuple[int, datetime.datetime]]:
        """Returns what was inserted: nothing, where the statement lets a unique key stand in the way."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, [*_insertable(draft, full), _channel_word(draft)])
            return [(pk, enqueued_at) for pk, enqueued_at, _ in cursor.fetchall()]

    @contextmanager
    def in_a_hurry(self, seconds: float) -> Iterator[None]:
        try:
            with self.atomic():
                with self.connection.cursor() as cursor:
                    cursor.execute("SELECT current_setting('statement_timeout')")
                    (before,) = cursor.fetchone()
                    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
                yield
                with self.connection.cursor() as cursor:  # there may be a transaction around it
                    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])
        except OperationalError as exc:
            if sqlstate(exc) != CANCELED:
                raise
            raise TookTooLong(f"A statement took more than {seconds:g} s.") from exc

    def refuse_early(self) -> None:
        self.connection.check_constraints()

    @contextmanager
    def waiting_at_most(self, seconds: float) -> Iterator[None]:
        with self.atomic():
            with self.connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {round(seconds * 1000)}")
            yield
            with self.connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout TO DEFAULT")  # there may be a transaction around it

    def _mark_running(
        self, ids: list[int], at_once: set[int], worker_id: int, now: datetime.datetime | None, *, limited: bool = False
    ) -> datetime.datetime:
        # A claim that a server crash takes back only makes its jobs READY again. An outcome always waits for the disk,
        # and so does a claim under a limit, where somebody else might be let in meanwhile, and one that frees a unique
        # key, which nobody might be told of.
        commit = None if limited else "off"
        with self.connection.cursor() as cursor:
            cursor.execute(_MARK_RUNNING, [now, commit, worker_id, _array(at_once), _array(ids), worker_id])
            claimed_at, frees_key = cursor.fetchone()
            if frees_key:
                cursor.execute("SET LOCAL synchronous_commit TO DEFAULT")
        if claimed_at is None:
            raise declared_lost(worker_id)
        return claimed_at  # type: ignore[no-any-return]

    def _finish(self, outcomes: Sequence[Outcome], now: datetime.datetime | None, *, waits: bool) -> Finished:
        if any(o.failure or o.status is JobStatus.SCHEDULED or is_of_workflow(o) for o in outcomes):
            return super()._finish(outcomes, now, waits=waits)
        try:
            # One statement, so it needs no transaction around it.
            applied = self._apply(outcomes, now, patience=None if waits else LOCK_TIMEOUT)
        except OperationalError as exc:
            if waits or not is_about_locks(exc):
                raise
            return super()._finish(outcomes, now, waits=waits)
        return Finished([outcome for outcome in outcomes if fence(outcome) not in applied], [])

    def _apply(
        self, outcomes: Sequence[Outcome], now: datetime.datetime | None, patience: str | None = None
    ) -> set[tuple[int, int]]:
        outcomes = sorted(outcomes, key=lambda outcome: outcome.claim.job_id)  # as whoever locks several jobs does
        claims = [outcome.claim for outcome in outcomes]
        columns: list[Any] = [
            _array(claim.job_id for claim in claims),
            _array(claim.lease for claim in claims),
            _array(claim.worker_id for claim in claims),
            _array(outcome.status.value for outcome in outcomes),
            [outcome.value_json for outcome in outcomes],
            _array(outcome.delay for outcome in outcomes),
            _array(int(not outcome.counted) for outcome in outcomes),
            [outcome.reason for outcome in outcomes],
        ]
        with self.connection.cursor() as cursor:
            cursor.execute(_FINISH, [now, patience, *columns])
            return {(pk, lease) for pk, lease, _ in cursor.fetchall()}

    def _reserve_ids(self, number: int) -> list[int]:
        with self.connection.cursor() as cursor:
            cursor.execute(_RESERVE, [number])
            return sorted(pk for (pk,) in cursor.fetchall())

    def _write_steps(self, ids: list[int], rows: list[NewStep], now: datetime.datetime) -> None:
        for start in range(0, len(rows), BULK):
            some = slice(start, start + BULK)
            made = [_step_columns(pk, row) for pk, row in zip(ids[some], rows[some], strict=True)]
            with self.connection.cursor() as cursor:
                cursor.execute(_STEPS.many, [list(column) for column in zip(*made, strict=True)])

    def _write_released(self, released: Sequence[Released]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_RELEASE, [list(column) for column in zip(*released, strict=True)])

    def _write_results(self, ids: Collection[int], now: datetime.datetime) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_RESULTS, [now, _array(ids)])

    def _write_handed_on(self, told: Sequence[tuple[int, str]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_HAND_ON, [list(column) for column in zip(*told, strict=True)])

    def _write_cancelled(self, reasons: Mapping[int, str], now: datetime.datetime) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(_CANCEL_WAITING, [now, _array(reasons), list(reasons.values())])

    def call_workers(self, queues: Collection[str]) -> None:
        if queues:
            with self.connection.cursor() as cursor:
                cursor.execute(_NOTIFY, [sorted(queues)])

    def call_waiters(self, ids: Collection[int]) -> None:
        if ids:
            with self.connection.cursor() as cursor:
                cursor.execute(_NOTIFY_ENDED, [_array(ids)])

    def listen_for_end(self, connection: BaseDatabaseWrapper, job_id: int) -> Listener:
        return _EndListener(connection, job_id)


def _array(values: Iterable[int | float | str]) -> str:
    """Numbers or states as PostgreSQL writes an array: a driver would look at each of them, which takes longer."""
    return f"{{{','.join(map(str, values))}}}"


def _step_columns(pk: int, row: NewStep) -> tuple[Any, ...]:
    step = None if row.step is None else json.dumps(row.step)
    return (
        *_insertable(row.draft, True, row.status),
        pk,
        row.workflow_id,
        row.after_id,
        row.group_id,
        row.position,
        row.held,
        row.allow_failure,
        step,
    )


def _insertable(draft: Draft, full: bool, status: JobStatus | None = None) -> tuple[Any, ...]:
    status = status or (JobStatus.SCHEDULED if draft.run_after else JobStatus.READY)
    columns = (
        draft.task,
        draft.args_json,
        draft.kwargs_json,
        draft.queue_name,
        draft.priority,
        str(status),
        draft.run_after,
        draft.backend,
        draft.max_attempts,
        draft.options_json,
    )
    return (*columns, *_rare(draft)) if full else columns


def _rare(draft: Draft) -> tuple[Any, ...]:
    return (
        draft.expires_at,
        draft.unique_key,
        draft.unique_scope,
        draft.unique_until,
        draft.concurrency_key,
        draft.rate_key,
        draft.schedule_id,
        draft.slot,
        draft.external_id,
    )


def _has_rare_columns(draft: Draft) -> bool:
    return any(value is not None for value in _rare(draft))


def _unique_key(draft: Draft) -> str:
    return draft.unique_key or ""


def _channel_word(draft: Draft) -> str:
    """What a notification says: the queue that has work, or "look anew" for a job whose time is to come."""
    return ANY_QUEUE if draft.run_after else draft.queue_name


class _NotifyListener(Listener):
    """LISTEN on this thread's connection, otherwise in autocommit: inside a transaction nothing would arrive.

    LISTEN succeeds also where nothing will ever arrive: behind a pooler that gives the session to somebody else after
    each transaction. So a listener calls itself, with a word that is no queue's name, and is deaf if that doesn't come.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.proven = False
        self._connection = connection
        self._word = f"{uuid.uuid4().hex},{PROBE}"
        self._answer_by: float | None = None
        self._silent_from = 0.0
        self._session = _in_one_session(connection, f"LISTEN {CHANNEL}")
        self._notifications = Notifications(connection)
        # Over another connection: a pooler may bring back with a statement what would not come by itself.
        with owned_connection(connection.alias) as other:
            self._call_over(other)

    def wait(self, timeout: float) -> Collection[str]:
        self._notifications.wait(timeout)
        if self._answer_by is None and time.monotonic() > self._silent_from:
            # A half-open socket never becomes readable; only a statement finds it out.
            self._call_over(self._connection)
        words = self._notifications.received()
        if words:
            self._silent_from = time.monotonic() + PROBE_AFTER
        if self._word in words:
            self.proven = True
            self._answer_by = None
        return {word for word in words if not word.endswith(f",{PROBE}")}

    def is_deaf(self) -> bool:
        return self._answer_by is not None and time.monotonic() > self._answer_by

    def close(self) -> None:
        _unlisten(self._connection, CHANNEL, self._session)

    def _call_over(self, connection: BaseDatabaseWrapper) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_NOTIFY, [[self._word]])
        self._answer_by = time.monotonic() + ANSWER_WITHIN
        self._silent_from = time.monotonic() + PROBE_AFTER


class _EndListener(Listener):
    """LISTEN for the end of one job, on a connection in autocommit that nobody else uses."""

    def __init__(self, connection: BaseDatabaseWrapper, job_id: int) -> None:
        self._connection = connection
        self._job_id = job_id
        self._has_asked = False
        self._session = _in_one_session(connection, f"LISTEN {ENDED}")
        self._notifications = Notifications(connection)
        self._ask()

    def wait(self, timeout: float) -> Collection[str]:
        if not self._has_asked:
            self._ask()
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self._notifications.wait(left)
            # Others' jobs end on this channel too.
            if str(self._job_id) in self._notifications.received():
                return (ANY_QUEUE,)
        return ()

    def close(self) -> None:
        _unlisten(self._connection, ENDED, self._session)

    def _ask(self) -> None:
        """Have the outcome's statement call. Where somebody has locked the row, this is done later."""
        with self._connection.cursor() as cursor:
            cursor.execute(_AWAIT, [self._job_id, OPEN])
            self._has_asked = cursor.rowcount > 0


def _in_one_session(connection: BaseDatabaseWrapper, statement: str) -> int:
    """Returns the process id of the server's session in which it was executed."""
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute(statement)
        cursor.execute("SELECT pg_backend_pid()")
        session: int = cursor.fetchone()[0]
    connection.commit()
    connection.set_autocommit(True)
    return session


def _unlisten(connection: BaseDatabaseWrapper, channel: str, session: int) -> None:
    """Leave no session listening for nobody, and close the connection."""
    # A pooler gives each statement to a session of its choice, mostly to the one that was used last.
    for _ in range(UNLISTEN_TRIES):
        if _in_one_session(connection, f"UNLISTEN {channel}") == session:
            break
    connection.close()
