"""System checks: what would go wrong later, said at the start."""

import datetime
import sys
import zoneinfo
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import django
from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf, registry
from .connections import second_connection

POOL_DEFAULT = 4
"""psycopg_pool's own max_size."""

MOST_NAMES = 5
"""Tasks that one message names."""

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}
"""What SQLite needs where several threads write; the README and docs/operations.md show the same."""

worker_settings: ContextVar[conf.Settings | None] = ContextVar("worker_settings", default=None)
"""At the start of a worker: the settings with what its command line changed."""


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
def check_task_modules(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Every entry of TASK_MODULES is a module of some app; what names none is ignored at start."""
    names = [app.name for app in apps.get_app_configs()]
    return [
        checks.Warning(
            f"DBQUEUE['TASK_MODULES'] has {module!r}, and no installed app has a module of that name.",
            hint="Names are looked for inside each app: 'jobs.mail' stands for shop/jobs/mail.py of an app 'shop'.",
            id="dbqueue.W005",
        )
        for module in conf.read()[0].task_modules
        if module != "tasks" and not any(_is_module(f"{app}.{module}") for app in names)
    ]


@checks.register
def check_settings_package(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """The package of the settings is no app by itself: nobody imports the tasks in it."""
    parts = (getattr(django_settings, "SETTINGS_MODULE", None) or "").split(".")
    packages = {".".join(parts[:end]) for end in range(1, len(parts))} - {app.name for app in apps.get_app_configs()}
    return [
        checks.Warning(
            f"Nothing has imported the module '{package}.{module}': a worker knows no task of it.",
            hint=f"Add {package!r} to INSTALLED_APPS, or import the module in the tasks.py of an app.",
            id="dbqueue.W011",
        )
        for package in sorted(packages)
        for module in conf.read()[0].task_modules
        if f"{package}.{module}" not in sys.modules and _is_module(f"{package}.{module}")
    ]


@checks.register
def check_queues(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """The queues of tasks, and of their schedules, are among those that DBQUEUE['QUEUES'] allows."""
    allowed = conf.read()[0].queues
    outside: dict[str, set[str]] = {}
    # Of a task of django.tasks the QUEUES of its backend decide.
    for task in (task for task in registry.registered() if allowed and not task.backend):
        for name in {task.queue_name, *(one.queue_name for one in task.schedules.values())} - {"", *allowed}:
            outside.setdefault(name, set()).add(task.name)
    return [
        checks.Warning(
            f"The queue {name!r} is not among DBQUEUE['QUEUES']: {', '.join(map(repr, allowed))}. Jobs of these tasks, "
            f"or of their schedules, would be in it, and are refused: {_some(tasks)}.",
            hint="Add the queue, or give the tasks another queue_name.",
            id="dbqueue.W008",
        )
        for name, tasks in sorted(outside.items())
    ]


@checks.register
def check_django_tasks(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Tasks of django.tasks come here only where TASKS says so, and where somebody reads TASKS.

    Who has set TASKS has chosen, be it Django's ImmediateBackend; that of a project which has not set it is nobody's
    choice.
    """
    settings: Any = django_settings  # whose type knows the settings, and no method
    if settings.is_overridden("TASKS"):
        return _check_that_tasks_is_read()
    if not (names := _tasks_of_django()):
        return []
    return [
        checks.Warning(
            "TASKS is not set, and Django's default is to run tasks of django.tasks at once, inside enqueue(), without "
            f"a job or a worker: {_some(names)}.",
            hint="Set TASKS = {'default': {'BACKEND': 'dbqueue.backend.DatabaseBackend', 'QUEUES': []}}; with Django's "
            "ImmediateBackend there, if that is what you want, this check is silent.",
            id="dbqueue.W009",
        )
    ]


def _check_that_tasks_is_read() -> "list[checks.CheckMessage]":
    backends = [options.get("BACKEND") for options in django_settings.TASKS.values()]
    is_read = django.VERSION >= (6, 0) or apps.is_installed("django_tasks")
    if is_read or "dbqueue.backend.DatabaseBackend" not in backends:
        return []
    return [
        checks.Warning(
            f"TASKS names dbqueue's backend, and 'django_tasks' is not in INSTALLED_APPS: Django {django.__version__} "
            "does not read TASKS itself.",
            hint="Install the package django-tasks, and add 'django_tasks' to INSTALLED_APPS.",
            id="dbqueue.W010",
        )
    ]


def _tasks_of_django() -> set[str]:
    """The tasks of Django's own decorator in the modules that were imported to register tasks."""
    if django.VERSION < (6, 0) and not find_spec("django_tasks"):
        return set()
    from .tasks_api import Task

    names = [f"{app.name}.{module}" for app in apps.get_app_configs() for module in conf.read()[0].task_modules]
    found = [value for name in names if name in sys.modules for value in vars(sys.modules[name]).values()]
    return {task.module_path for task in found if isinstance(task, Task)}


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(sorted(names)[:MOST_NAMES]) + more


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


@checks.register
def check_immediate(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Jobs that run inside requests are for tests and a developer's machine."""
    if not conf.read()[0].immediate or django_settings.DEBUG:
        return []
    return [
        checks.Warning(
            "DBQUEUE['IMMEDIATE'] is on and DEBUG is off: enqueue() runs its job before it returns, in the caller's "
            "transaction, and no worker is asked.",
            hint="Leave IMMEDIATE off where users wait. In the settings of tests, silence this check.",
            id="dbqueue.W007",
        )
    ]


@checks.register
def check_time_zone(app_configs: Any, **kwargs: Any) -> "list[checks.CheckMessage]":
    """Local time without a zone jumps twice a year, and heartbeats with it."""
    if django_settings.USE_TZ or _has_one_offset(django_settings.TIME_ZONE):
        return []
    return [
        checks.Warning(
            f"USE_TZ is False and TIME_ZONE is {django_settings.TIME_ZONE!r}, which changes its clocks: when they go "
            "forward, all workers look dead for a moment and running jobs run again; when they go back, jobs that wait "
            "for a time start up to an hour late.",
            hint="Set USE_TZ = True, or TIME_ZONE = 'UTC'.",
            id="dbqueue.W006",
        )
    ]


def _has_one_offset(name: str) -> bool:
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (ValueError, TypeError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return True  # the host's own zone, or one that can't be read: nothing is known of it
    year = datetime.datetime.now(zone).year
    return len({datetime.datetime(year, month, 1, tzinfo=zone).utcoffset() for month in range(1, 13)}) == 1


@checks.register(checks.Tags.database)
def check_database(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> Any:
    """The database is one that dbqueue has statements for, and is set up for several threads."""
    settings = worker_settings.get() or conf.read()[0]
    if settings.database not in (databases or ()):
        return []
    connection = connections[settings.database]
    if connection.vendor == "sqlite":
        return _check_sqlite(settings.database)
    found = _check_isolation(settings.database)
    return found + _check_pool(settings) if connection.vendor == "postgresql" else found


def _is_module(name: str) -> bool:
    """Whether there is such a module; the packages that it stands in are imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a package on the way to it is missing, or the name is none
        return False


def _check_sqlite(alias: str) -> "list[checks.CheckMessage]":
    options = django_settings.DATABASES[alias].get("OPTIONS", {})
    if str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE"):
        return []
    return [
        checks.Warning(
            f"Jobs that read and then write in one transaction on the SQLite database {alias!r} can fail with "
            "'database is locked'.",
            hint=f"Set DATABASES[{alias!r}]['OPTIONS'] = {SQLITE_OPTIONS}.",
            id="dbqueue.W003",
        )
    ]


def _check_isolation(alias: str) -> "list[checks.CheckMessage]":
    """Who has waited for the lock of a workflow must see what was written under it: its snapshot is to be younger."""
    if (level := _isolation_of(connections[alias])) not in ("REPEATABLE READ", "SERIALIZABLE"):
        return []
    return [
        checks.Error(
            f"Transactions on the database {alias!r} are {level}: they don't see what others have committed since they "
            "began, so that two jobs of a group that end at one moment leave it waiting for ever.",
            hint=f"Leave 'isolation_level' out of DATABASES[{alias!r}]['OPTIONS'], and the server's default at READ "
            "COMMITTED. A transaction of your own may begin with SET TRANSACTION ISOLATION LEVEL.",
            id="dbqueue.E003",
        )
    ]


def _isolation_of(connection: BaseDatabaseWrapper) -> str:
    """As SQL names it. What the settings leave open, the server tells: for a role or a database it may be anything."""
    options = connection.settings_dict.get("OPTIONS", {})
    match connection.vendor:
        case "postgresql":
            level = options.get("isolation_level")
            return _told_by(connection, "SHOW transaction_isolation") if level is None else _name_of(level)
        case "mysql":
            # Django's own default; that of the server is stricter, and holds with None.
            level = options.get("isolation_level", "read committed")
            return str(level).upper() if level else _told_by(connection, f"SELECT @@{_variable(connection)}")
    return ""


def _name_of(level: int) -> str:
    from django.db.backends.postgresql.psycopg_any import IsolationLevel  # it takes a driver

    try:
        return str(IsolationLevel(level).name).replace("_", " ")  # psycopg2 has other numbers than psycopg 3
    except ValueError:
        return ""  # Django refuses it as it connects


def _variable(connection: Any) -> str:
    return "tx_isolation" if connection.mysql_is_mariadb else "transaction_isolation"


def _told_by(connection: BaseDatabaseWrapper, question: str) -> str:
    """Asked in a transaction: a session in autocommit tells of another level than the one it begins with.

    Not through a pool, which hides for half a minute that a server is not up yet.
    """
    try:
        if connection.settings_dict.get("OPTIONS", {}).get("pool"):
            with second_connection(connection.alias) as apart:
                apart.set_autocommit(False)
                return _answer(apart, question)
        with transaction.atomic(using=connection.alias):
            return _answer(connection, question)
    except ImproperlyConfigured:
        return ""  # what else is wrong with the settings, Django tells as it connects


def _answer(connection: BaseDatabaseWrapper, question: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(question)
        return str(cursor.fetchone()[0]).replace("-", " ").upper()


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
            hint=f"Set OPTIONS['pool'] = {{'max_size': {settings.threads}}} or more, or use fewer threads.",
            id="dbqueue.W004",
        )
    ]
