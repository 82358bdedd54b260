"""What the commands print."""

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import django
from django.db import connection


def heading(title: str) -> str:
    """The title, and under it everything that a figure depends on."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT 'PostgreSQL ' || current_setting('server_version') || ', fsync ' || current_setting('fsync')"
                " || ', synchronous_commit ' || current_setting('synchronous_commit')"
            )
        else:
            cursor.execute("SELECT 'SQLite ' || sqlite_version() || ', WAL, synchronous NORMAL'")
        database = cursor.fetchone()[0]
    driver = ""
    if connection.vendor == "postgresql":
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        driver = f"psycopg {version('psycopg')}, " if is_psycopg3 else f"psycopg2 {version('psycopg2-binary')}, "
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{title}\n"
        f"{datetime.date.today()}, {os.cpu_count()} cores, load before {busy}\n"
        f"Python {platform.python_version()}, Django {django.__version__}, {driver}{database}\n"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under a first row of titles: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
