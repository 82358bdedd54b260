"""Watching a worker process from outside: its database sessions, and how far it has come."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from django.db import connection

from .report import counted

SESSION_NAME = "dbqueue-demo-worker"
"""What the worker calls its sessions on PostgreSQL, by the variable PGAPPNAME."""


def session_counter(pid: int) -> Callable[[], int] | None:
    """A function that counts the sessions that process ``pid`` has open on this database; None: not measurable here."""
    if connection.vendor == "postgresql":
        return _count_postgresql
    descriptors = Path(f"/proc/{pid}/fd")
    if connection.vendor == "sqlite" and descriptors.is_dir():
        file = os.path.realpath(connection.settings_dict["NAME"])
        return lambda: _count_opened(descriptors, file)
    return None


def _count_postgresql() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [SESSION_NAME])
        return int(cursor.fetchone()[0])


def _count_opened(descriptors: Path, file: str) -> int:
    """SQLite opens its file once for each connection; what a closed one leaves open, the next one takes over."""
    try:
        return sum(_target(descriptor) == file for descriptor in descriptors.iterdir())
    except FileNotFoundError:
        return 0  # the process has ended


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:
        return ""  # closed since the folder was listed


class ProgressBar:
    """A bar on a terminal; a line for every tenth where stderr goes elsewhere."""

    WIDTH = 40

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._shown = -1
        self._live = sys.stderr.isatty()

    def show(self, done: int) -> None:
        share = done / self._total if self._total else 1.0
        if self._live:
            bar = ("#" * int(share * self.WIDTH)).ljust(self.WIDTH, ".")
            print(f"\r  [{bar}] {self._state(done, share)}", end="", file=sys.stderr, flush=True)
        elif int(share * 10) > self._shown:
            self._shown = int(share * 10)
            print(f"  {self._state(done, share)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live:
            print(file=sys.stderr)

    def _state(self, done: int, share: float) -> str:
        return f"{share:4.0%}  {done:,} of {counted(self._total, 'job')}, {time.monotonic() - self._began:.0f} s"
