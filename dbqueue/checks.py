"""System checks: what would go wrong later, said at the start."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.db import connections

from . import conf

POOL_DEFAULT = 4
"""psycopg_pool's own max_size."""


@checks.register
def check_settings(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Every key of DBQUEUE is known and allowed."""
    _, problems = conf.read()
    errors: list[checks.CheckMessage] = [checks.Error(problem, id="dbqueue.E001") for problem in problems]
    return errors + [
        checks.Warning(f"The environment variable {name} names no setting of dbqueue.", id="dbqueue.W001")
        for name in conf.unknown_variables()
    ]


@checks.register
def check_alias(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """The queue lives where the work's data live."""
    alias = conf.read()[0].database
    if alias == "default":
        return []
    return [
        checks.Warning(
            f"dbqueue's jobs are in the database {alias!r}. A job enqueued in a transaction on another database is not "
            "rolled back with it.",
            hint="Leave DBQUEUE['DATABASE'] at 'default', or enqueue from transaction.on_commit().",
            id="dbqueue.W002",
        )
    ]


@checks.register(checks.Tags.database)
def check_database(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> Any:
    """The database is one that dbqueue has statements for, and is set up for several threads."""
    settings = conf.read()[0]
    if settings.database not in (databases or ()):
        return []
    connection = connections[settings.database]
    if connection.vendor == "sqlite":
        return _check_sqlite(settings.database)
    if connection.vendor == "postgresql":
        return _check_pool(settings)
    return []


def _check_sqlite(alias: str) -> "list[checks.CheckMessage]":
    options = django_settings.DATABASES[alias].get("OPTIONS", {})
    if str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    return [
        checks.Warning(
            f"Jobs that use transactions on the SQLite database {alias!r} can fail with 'database is locked'.",
            hint="Set OPTIONS = {'transaction_mode': 'IMMEDIATE', 'init_command': 'PRAGMA journal_mode=WAL'}.",
            id="dbqueue.W003",
        )
    ]


def _check_pool(settings: conf.Settings) -> "list[checks.CheckMessage]":
    pool = django_settings.DATABASES[settings.database].get("OPTIONS", {}).get("pool")
    if not pool:
        return []
    size = POOL_DEFAULT if pool is True else pool.get("max_size") or max(POOL_DEFAULT, pool.get("min_size", 0))
    if size >= settings.threads:
        return []
    return [
        checks.Warning(
            f"The connection pool of {settings.database!r} holds {size} connections, and a worker has "
            f"{settings.threads} threads: jobs would wait for each other.",
            hint=f"Set OPTIONS['pool'] = {{'max_size': {settings.threads}}} or more, or fewer DBQUEUE['THREADS'].",
            id="dbqueue.W004",
        )
    ]
