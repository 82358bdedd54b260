"""``python -m tests.with_mariadb COMMAND …``: run a command with DATABASE_URL naming a real MariaDB.

It starts the server of Debian's package mariadb-server in a folder that is removed at the end, in a time zone that is
not UTC, which is where mistakes about time show. It fails where there is none.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIME_ZONE = "+05:30"
PATIENCE = 60.0
"""Seconds that the server may take to start or to stop."""
SYSTEM_USER = "mysql"
"""Whom the server runs as when root starts it; the package makes that user."""


@contextmanager
def server() -> Iterator[str]:
    """A running server's URL, for as long as the block lasts. Raises RuntimeError where it can't start."""
    with tempfile.TemporaryDirectory(prefix="dbq-maria-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        user = [f"--user={SYSTEM_USER}"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(folder, SYSTEM_USER)
        data, socket, log = folder / "data", folder / "socket", folder / "log"
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        made = subprocess.run(
            [_program(install[0]), *install[1:], *user, "--skip-test-db"], check=False, capture_output=True, text=True
        )
        if made.returncode:
            raise RuntimeError(f"mariadb-install-db failed:\n{made.stdout}{made.stderr}")
        with log.open("wb") as output:
            started = subprocess.Popen(
                [
                    _program("mariadbd"),
                    "--no-defaults",
                    f"--datadir={data}",
                    f"--socket={socket}",
                    "--skip-networking",
                    "--character-set-server=utf8mb4",
                    f"--default-time-zone={TIME_ZONE}",
                    *user,
                ],
                stdout=output,
                stderr=output,
            )
        try:
            _await(started, socket, log)
            yield f"mysql://root@localhost/dbqueue?unix_socket={socket}"
        finally:
            started.terminate()
            started.wait(PATIENCE)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError(f"There is no {name} here: on Debian it is in the package mariadb-server.")
    return found


def _await(started: "subprocess.Popen[bytes]", socket: Path, log: Path) -> None:
    """Wait until the server takes connections, and make the database that the URL names."""
    end = time.monotonic() + PATIENCE
    create = [
        _program("mariadb"),
        "--no-defaults",
        f"--socket={socket}",
        "--user=root",
        "-e",
        "CREATE DATABASE dbqueue",
    ]
    while subprocess.run(create, check=False, capture_output=True).returncode:
        if started.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"MariaDB did not start:\n{log.read_text()}")
        time.sleep(0.1)


def main(command: list[str]) -> int:
    with server() as url:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it
