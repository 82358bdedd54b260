"""Real worker processes on the tests' database."""

import atexit
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from django.db import connection

ROOT = Path(__file__).parent.parent


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process that is to open the database that this test is using."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        **extra,
    }


def settings_file(folder: Path, text: str) -> dict[str, str]:
    """The environment of a process whose settings are those of the tests, changed by ``text``."""
    (folder / "changed_settings.py").write_text(f"from tests.settings import *\n\n{text}\n")
    return {"DJANGO_SETTINGS_MODULE": "changed_settings", "PYTHONPATH": f"{folder}:{ROOT}"}


class WorkerProcess(subprocess.Popen[bytes]):
    """A worker whose output goes to a file, so that it can be read at any time and never blocks the worker."""

    def __init__(self, *arguments: str, **extra: str) -> None:
        descriptor, name = tempfile.mkstemp(dir=_logs())
        self._log = Path(name)
        super().__init__(
            [sys.executable, "-m", "tests", "dbqueue_worker", *arguments],
            cwd=ROOT,
            env=environment(**extra),
            stdout=descriptor,
            stderr=subprocess.STDOUT,
        )
        os.close(descriptor)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    def finish(self, timeout: float = 60.0) -> str:
        """Wait for its end and return all that it printed."""
        self.wait(timeout)
        return self.output


def spawn(*arguments: str, **extra: str) -> WorkerProcess:
    """Start ``dbqueue_worker`` with these arguments and these environment variables."""
    return WorkerProcess(*arguments, **extra)


def stop_between_transactions(process: WorkerProcess) -> None:
    """SIGSTOP it, and not where it holds what others wait for: on SQLite, the one lock that whoever writes needs."""

    def stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if none_is_in_a_transaction():
            return True
        process.send_signal(signal.SIGCONT)
        return False

    eventually(stopped)


def none_is_in_a_transaction() -> bool:
    """Whether no other session holds a lock that a writer would wait for."""
    if connection.vendor == "sqlite":
        with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0)) as session:
            try:
                session.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            session.rollback()
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle')"
        )
        (none,) = cursor.fetchone()
    return bool(none)


@contextmanager
def worker(*arguments: str, **extra: str) -> Iterator[WorkerProcess]:
    """A worker for as long as the block lasts; stopped with SIGTERM, and killed where that takes over 15 seconds."""
    process = spawn(*arguments, **extra)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def burst(*arguments: str, **extra: str) -> str:
    """Run what is due in a worker process of its own and return its output."""
    process = spawn("--burst", *arguments, **extra)
    output = process.finish()
    assert process.returncode == 0, output
    return output


@cache
def _logs() -> str:
    folder = tempfile.mkdtemp(prefix="dbqueue-logs-")
    atexit.register(shutil.rmtree, folder)
    return folder


def eventually(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until ``condition()`` is true and return its value. Fails after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"still not so after {timeout} s"
        time.sleep(0.02)
    return value
