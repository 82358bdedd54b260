"""Where the jobs lie: a PostgreSQL database or a Redis, empty in each round."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from benchmarks.project import NAME, connect

REDIS = "BENCHMARK_REDIS"
"""The environment variable that names the socket of the Redis."""

REDIS_PATIENCE = 10.0
"""Seconds that Redis gets to answer after its start, and to end."""


class Store(Protocol):
    """What a round asks of it. ``environment`` is for the processes of the peer."""

    environment: dict[str, str]

    def settle(self) -> None:
        """What a server does for itself in time, done now: after the jobs were enqueued, before the worker starts."""

    def watched(self) -> AbstractContextManager[Callable[[], int]]:
        """A function that counts the connections which anybody but this benchmark has to it."""

    def unfinished(self) -> int:
        """Jobs that the queue itself does not call finished."""


@dataclass
class Database:
    """A database of the server that DATABASE_URL names."""

    name: str
    unfinished_sql: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{self.name}").geturl()
        self.environment = {"DATABASE_URL": url}

    def settle(self) -> None:
        with closing(connect(self.environment["DATABASE_URL"])) as session, session.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")

    @contextmanager
    def watched(self) -> Iterator[Callable[[], int]]:
        with closing(connect()) as session, session.cursor() as cursor:

            def look() -> int:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = %s AND backend_type = 'client backend' AND application_name <> %s",
                    [self.name, NAME],
                )
                [(count,)] = cursor.fetchall()
                return int(count)

            yield look

    def unfinished(self) -> int:
        with closing(connect(self.environment["DATABASE_URL"])) as session, session.cursor() as cursor:
            cursor.execute(self.unfinished_sql)
            [(count,)] = cursor.fetchall()
        return int(count)


@contextmanager
def new_database(name: str, template: str = "") -> Iterator[None]:
    """Make a database, as a copy where a template is named; it is dropped at the end."""
    with closing(connect()) as server, server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        try:
            yield
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Redis:
    """The Redis that this benchmark started; ``keys`` hold the jobs that are not finished."""

    socket: str
    keys: list[str]
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {REDIS: self.socket}

    def empty(self) -> None:
        with closing(_client(self.socket)) as client:
            client.flushall()

    def settle(self) -> None:
        pass

    @contextmanager
    def watched(self) -> Iterator[Callable[[], int]]:
        with closing(_client(self.socket)) as client:
            yield lambda: len(client.client_list()) - 1

    def unfinished(self) -> int:
        with closing(_client(self.socket)) as client:
            sizes = {b"list": client.llen, b"hash": client.hlen, b"none": lambda key: 0}
            return sum(sizes[client.type(key)](key) for key in self.keys)


def redis_program() -> str | None:
    return shutil.which("redis-server", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin"]))


def redis_version() -> str:
    """Of the program, as in "7.0.15"; nothing where there is none."""
    if not (program := redis_program()):
        return ""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), said.strip())


@contextmanager
def redis_server() -> Iterator[str]:
    """A running Redis's socket, for as long as the block lasts. It writes nothing to disk: its fastest, and least safe.

    Raises RuntimeError where it does not start.
    """
    if not (program := redis_program()):
        raise RuntimeError("no redis-server is installed here")
    with tempfile.TemporaryDirectory(prefix="dbqueue-redis-") as folder:
        socket, log = str(Path(folder) / "socket"), Path(folder) / "log"
        options = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder]
        with log.open("wb") as said:
            server = subprocess.Popen([program, *options], stdout=said, stderr=said, start_new_session=True)
        try:
            _wait_until_it_answers(socket, server, log)
            yield socket
        finally:
            server.terminate()
            try:
                server.wait(REDIS_PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_it_answers(socket: str, server: subprocess.Popen[bytes], log: Path) -> None:
    from redis.exceptions import ConnectionError as NoConnection

    deadline = time.monotonic() + REDIS_PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        with closing(_client(socket)) as client:
            try:
                client.ping()
            except NoConnection:
                time.sleep(0.05)
            else:
                return
    raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-1000:]}")


def _client(socket: str) -> Any:
    from redis import Redis as Client

    return Client(unix_socket_path=socket)
