"""The limit of the database itself: claim and finish in a bare loop, no thread and no Python in between."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from django.db import connection

from .project import connect

BATCH = 500

_POSTGRESQL_CLAIM = f"""
    UPDATE dbqueue_job
    SET status = 'RUNNING', worker_id = 1, lease = lease + 1, attempt = attempt + 1,
        started_at = statement_timestamp(), last_attempted_at = statement_timestamp()
    WHERE id IN (
        SELECT id FROM dbqueue_job WHERE status = 'READY' ORDER BY priority DESC, id
        FOR UPDATE SKIP LOCKED LIMIT {BATCH}
    )
    RETURNING id
"""
_POSTGRESQL_FINISH = """
    UPDATE dbqueue_job SET status = 'SUCCESSFUL', finished_at = statement_timestamp() WHERE id = ANY(%s)
"""

_NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
_SQLITE_CLAIM = f"""
    UPDATE dbqueue_job
    SET status = 'RUNNING', worker_id = 1, lease = lease + 1, attempt = attempt + 1,
        started_at = {_NOW}, last_attempted_at = {_NOW}
    WHERE id IN (SELECT id FROM dbqueue_job WHERE status = 'READY' ORDER BY priority DESC, id LIMIT {BATCH})
    RETURNING id
"""
_SQLITE_FINISH = f"""
    UPDATE dbqueue_job SET status = 'SUCCESSFUL', finished_at = {_NOW} WHERE id IN (SELECT value FROM json_each(%s))
"""


def drain() -> float:
    """Take every READY job to SUCCESSFUL on one connection, in batches of BATCH. Returns jobs a second."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            return _loop(cursor, _SQLITE_CLAIM, _SQLITE_FINISH, lambda ids: str(ids))
    with closing(connect()) as session, session.cursor() as cursor:
        return _loop(cursor, _POSTGRESQL_CLAIM, _POSTGRESQL_FINISH, lambda ids: ids)


def _loop(cursor: Any, claim: str, finish: str, bound: Callable[[list[int]], Any]) -> float:
    done = 0
    began = time.monotonic()
    while True:
        cursor.execute(claim)
        ids = [row[0] for row in cursor.fetchall()]
        if not ids:
            return done / (time.monotonic() - began)
        cursor.execute(finish, [bound(ids)])
        done += len(ids)
