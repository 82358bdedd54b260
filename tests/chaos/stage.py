"""The private database on which the proof is made, and this process's Django on it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import django

from ..servers import PgBouncer, PostgresServer, url_of

DATABASES = ("postgresql", "sqlite")

SETTINGS = {
    "DBQUEUE_HEARTBEAT_TIMEOUT": "2",
    "DBQUEUE_POLL_INTERVAL": "0.5",
    "DBQUEUE_GRACE": "3",
}
"""The workers' environment: limits short enough that a minute shows what happens at each of them."""


@dataclass(frozen=True)
class Stage:
    """What a fault may hurt. Without ``server`` the database is SQLite."""

    server: PostgresServer | None = None
    standby: PostgresServer | None = None
    bouncer: PgBouncer | None = None

    def __str__(self) -> str:
        kind = "PostgreSQL" if self.server else "SQLite"
        return kind + (" with a standby" if self.standby else "") + (" behind PgBouncer" if self.bouncer else "")


@contextmanager
def open_stage(database: str, *, pgbouncer: bool = False, standby: bool = False) -> Iterator[Stage]:
    """Start a database of its own, set Django up on it and make its tables; all of it goes with the block.

    To be called once in a process, before anything imports models.
    """
    with ExitStack() as stack:
        if database == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dbqueue-chaos-"))
            made, url = Stage(), f"sqlite:///{Path(folder) / 'chaos.sqlite3'}"
        else:
            server = stack.enter_context(PostgresServer(max_connections=200))
            copy = server.synchronous_standby() if standby else None
            if copy:
                stack.callback(copy.remove)
            bouncer = stack.enter_context(PgBouncer(server)) if pgbouncer else None
            made = Stage(server, copy, bouncer)
            url = url_of(server, copy, target_session_attrs="read-write") if copy else (bouncer or server).url
        _set_up(url)
        yield made


def _set_up(url: str) -> None:
    os.environ["DATABASE_URL"] = url
    os.environ.pop("TEST_DATABASE_NAME", None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
