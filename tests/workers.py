"""Real worker processes on the tests' database."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection

ROOT = Path(__file__).parent.parent


def environment(**extra: str) -> dict[str, str]:
    """The environment of a process that is to open the database that this test is using."""
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]), **extra}


def spawn(*arguments: str, **extra: str) -> "subprocess.Popen[str]":
    """Start ``dbqueue_worker`` with these arguments; its output is on ``.stdout``."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests", "dbqueue_worker", *arguments],
        cwd=ROOT,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def worker(*arguments: str, **extra: str) -> "Iterator[subprocess.Popen[str]]":
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


def burst(*arguments: str, **extra: str) -> str:
    """Run what is due in a worker process of its own and return its output."""
    process = spawn("--burst", *arguments, **extra)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def eventually(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until ``condition()`` is true and return its value. Fails after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"still not so after {timeout} s"
        time.sleep(0.02)
    return value
