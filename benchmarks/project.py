"""The benchmarks' Django project on a database of its own."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import django
import environ
import psycopg2
from django.core.management import call_command
from psycopg2.extensions import connection as Session

NAME = "dbqueue-benchmark"
"""The application_name of the benchmarks' own sessions."""

USAGE = """\
DATABASE_URL must name a PostgreSQL server that this may make a database on, as in
    python -m tests.with_postgres python -m {command}"""


@contextmanager
def on_postgresql(command: str, settings: str = "benchmarks.settings") -> Iterator[None]:
    """Set Django up on a new database of the server that DATABASE_URL names; it is dropped at the end.

    Raises SystemExit, saying what is needed, where DATABASE_URL names no PostgreSQL.
    """
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith(("postgres://", "postgresql://")):
        raise SystemExit(USAGE.format(command=command))
    name = f"dbqueue_benchmark_{os.getpid()}"
    with closing(connect(url)) as server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            _set_up(urlsplit(url)._replace(path=f"/{name}").geturl(), settings)
            yield
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def on_sqlite() -> Iterator[None]:
    """Set Django up on a new SQLite file; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="dbqueue-benchmark-") as folder:
        _set_up(f"sqlite:///{Path(folder) / 'benchmark.sqlite3'}")
        yield


def connect(url: str = "") -> Session:
    """A bare psycopg2 session in autocommit, without Django; to the scratch database unless told otherwise."""
    settings = environ.Env.db_url_config(url or os.environ["DATABASE_URL"])
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    given = {name: settings[key] for name, key in names.items() if settings[key]}
    session: Session = psycopg2.connect(**given | settings.get("OPTIONS", {}) | {"application_name": NAME})
    session.autocommit = True
    return session


def _set_up(url: str, settings: str = "benchmarks.settings") -> None:
    os.environ["DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
