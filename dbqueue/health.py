"""Whether a worker lives, for a container's probe: ``python -m dbqueue.health`` or ``manage.py dbqueue_health``.

A probe runs every few seconds beside the worker. It must not pay for the import of a whole project, nor fail because
some app can't be imported, so it needs nothing but the settings: no model, and SQL of its own. The ages of heartbeats
are told by the database's clock, as everywhere.
"""

import argparse
import json
import math
import os
import re
import sys
import threading
import warnings
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import django
from django.conf import settings as django_settings
from django.core.exceptions import AppRegistryNotReady
from django.db import connections

from .conf import Settings
from .connections import owned_connection
from .exceptions import InvalidSettings

DEADLINE = 5.0
"""Seconds that the database gets for its answer. One that is frozen, or behind a dead network, never gives one."""

HELP = "Say whether a worker lives: exit code 0 or 1, and a line of JSON."

_ALIVE = "SELECT name, {age} FROM dbqueue_worker WHERE stopped_at IS NULL"

Answer = dict[str, Any]
"""What the probe prints: ``healthy``, and ``reason`` where that is false."""


def main(arguments: Sequence[str]) -> int:
    """Print the answer as one line of JSON. Returns the exit code: 0 or 1.

    Raises AppRegistryNotReady where the database's backend itself needs models.
    """
    parser = _Parser(prog="dbqueue_health", description=HELP)
    add_arguments(parser)
    # Those that manage.py gives to every command; for ``python -m`` the first two count.
    parser.add_argument("--settings", help="The settings' module (default: DJANGO_SETTINGS_MODULE).")
    parser.add_argument("--pythonpath", help="A folder to import from.")
    parser.add_argument("-v", "--verbosity", help=argparse.SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = options.settings
    if options.pythonpath:
        sys.path.insert(0, options.pythonpath)
    # Django has not been set up, on purpose.
    warnings.filterwarnings("ignore", message="Accessing the database during app initialization")
    answer = check(worker=options.worker, max_age=options.max_age, database=options.database)
    print(json.dumps(answer))
    return 0 if answer["healthy"] else 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worker", metavar="NAME", help="Ask for the worker of this --name (default: for any).")
    parser.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help="The oldest heartbeat that counts (default: DBQUEUE['HEARTBEAT_TIMEOUT']).",
    )
    parser.add_argument("--database", help="Alias of the database (default: DBQUEUE['DATABASE']).")


def check(*, worker: str | None = None, max_age: float | None = None, database: str | None = None) -> Answer:
    """Ask the database, on a connection of its own, and judge. Whatever goes wrong is an answer, too.

    Raises only AppRegistryNotReady, as ``main()`` does.
    """
    try:
        settings = Settings.load() if database is None else Settings.load().replace(database=database)
        allowed = settings.heartbeat_timeout if max_age is None else max_age
        if not 0 < allowed < math.inf:
            raise InvalidSettings(f"--max-age is {allowed!r}; it must be a number of seconds above 0.")
        return _judge(_heartbeats(settings.database), worker, allowed)
    except AppRegistryNotReady:
        raise
    except Exception as exc:  # noqa: BLE001  settings or drivers that can't be imported, a database that is away
        return _unhealthy(" ".join(f"{type(exc).__name__}: {exc}".split()))


def _heartbeats(alias: str) -> list[tuple[str, float]]:
    """The name and the seconds since the last heartbeat of each worker that has not ended.

    Raises TimeoutError after DEADLINE.
    """
    replies: SimpleQueue[list[tuple[str, float]] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            replies.put(_select(alias))
        except Exception as exc:  # noqa: BLE001  raised below, on the thread that waits
            replies.put(exc)

    # On a thread, because no timeout of a driver covers all the ways in which a server may not answer.
    threading.Thread(target=ask, name="dbqueue-health", daemon=True).start()
    try:
        reply = replies.get(timeout=DEADLINE)
    except Empty:
        raise TimeoutError(f"the database {alias!r} gave no answer within {DEADLINE:g} s") from None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _select(alias: str) -> list[tuple[str, float]]:
    with owned_connection(alias) as connection, connection.cursor() as cursor:
        cursor.execute(_ALIVE.format(age=_age(connections[alias].vendor)))
        return [(name, float(age)) for name, age in cursor.fetchall()]


def _age(vendor: str) -> str:
    """SQL for the seconds since ``heartbeat_at``. Only PostgreSQL's column knows its time zone."""
    utc = django_settings.USE_TZ
    match vendor:
        case "postgresql":
            return "extract(epoch FROM statement_timestamp() - heartbeat_at)"
        case "sqlite":
            now = "'now'" if utc else "'now', 'localtime'"
            return f"(julianday({now}) - julianday(heartbeat_at)) * 86400"
        case "mysql":
            now = "UTC_TIMESTAMP(6)" if utc else "NOW(6)"
            return f"TIMESTAMPDIFF(MICROSECOND, heartbeat_at, {now}) / 1000000"
        case _:
            raise NotImplementedError(f"dbqueue does not know the database {vendor!r}")


def _judge(heartbeats: list[tuple[str, float]], worker: str | None, allowed: float) -> Answer:
    # A supervisor numbers its children: "mail" stands for "mail.1" and "mail.2", too.
    name = re.compile(r".*" if worker is None else rf"{re.escape(worker)}(\.\d+)?", re.DOTALL)
    ages = [max(0.0, age) for known, age in heartbeats if name.fullmatch(known)]
    if not ages:
        return _unhealthy("no worker is running" + (f" under the name {worker!r}" if worker is not None else ""))
    last = round(min(ages), 3)
    if last > allowed:
        return _unhealthy(f"the last heartbeat was {last:.1f} s ago; {allowed:g} s are allowed", last_heartbeat=last)
    return {"healthy": True, "workers": sum(age <= allowed for age in ages), "last_heartbeat": last}


def _unhealthy(reason: str, **more: Any) -> Answer:
    return {"healthy": False, "reason": reason, **more}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A probe knows two exit codes; a container runtime may have its own idea of argparse's third."""
        self.print_usage(sys.stderr)
        print(json.dumps(_unhealthy(message)))
        sys.exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AppRegistryNotReady:
        django.setup()
        sys.exit(main(sys.argv[1:]))
