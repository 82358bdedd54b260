"""``make matrix``: the whole suite with each supported pair of Python and Django, on SQLite and on PostgreSQL.

Needs only Python. A pair's virtual environment stays in ``.matrix/``. The exit code is 0 if every run passed; a pair
whose Python is not on this machine is told in the table at the end, and is no failure unless it is all of them.

With ``--rest`` it is what ``make test`` with this Python left over, each Django once on PostgreSQL and the newest on
SQLite too: in half the time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".matrix"


@dataclass(frozen=True)
class Pair:
    """``pool``: with psycopg 3 and its pool, instead of psycopg2."""

    python: str
    django: str
    pool: bool = False

    def __str__(self) -> str:
        return f"Python {self.python}, Django {self.django}, {'psycopg 3 with its pool' if self.pool else 'psycopg2'}"

    @property
    def folder(self) -> Path:
        return HOME / f"{self.python}-{self.django}{'-pool' if self.pool else ''}"


PAIRS = (Pair("3.11", "5.2"), Pair("3.12", "6.0", pool=True), Pair("3.13", "6.1"))
DATABASES = ("SQLite", "PostgreSQL")


def main() -> int:
    parser = argparse.ArgumentParser(description="The whole suite with each supported pair of Python and Django.")
    parser.add_argument("--rest", action="store_true", help="only what `make test` with this Python left over")
    rest = parser.parse_args().rest
    rows: list[tuple[str, str, str]] = []
    codes: list[int] = []
    for pair in PAIRS:
        python = find_python(pair.python)
        if rest and python == sys.executable and not pair.pool:
            continue
        if python is None:
            rows.append((str(pair), "", f"NOT RUN: there is no Python {pair.python} here"))
            continue
        for database in DATABASES[1:] if rest and pair != PAIRS[-1] else DATABASES:
            print(f"\n== {pair}, {database}", flush=True)
            began = time.monotonic()
            code, last_line = run(pair, python, database)
            codes.append(code)
            verdict = "passed" if code == 0 else f"FAILED with {code}"
            rows.append((str(pair), database, f"{verdict} ({time.monotonic() - began:.0f} s): {last_line}"))
    print()
    for row in rows:
        print(f"{row[0]:<50} {row[1]:<11} {row[2]}")
    return 0 if codes and not any(codes) else 1


def find_python(version: str) -> str | None:
    """A Python of this version: this one, one on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, shutil.which(f"python{version}")]
    candidates += [str(folder / "bin" / "python") for folder in sorted(pyenv.glob(f"{version}.*"))]
    return next((python for python in candidates if python and _version(python) == version), None)


def _version(python: str) -> str:
    """The version that this program says it is. A launcher on PATH may stand for a Python that is not there."""
    asked = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def run(pair: Pair, python: str, database: str) -> tuple[int, str]:
    """Run the suite. Returns the exit code, and the last line of what was printed."""
    try:
        own_python = install(pair, python)
    except subprocess.CalledProcessError as exc:
        return exc.returncode, "it could not be installed"
    environment = dict(os.environ)
    # The long faults strike `make test`, and here the pair with the pool: they are the database's, and its driver's.
    command = [own_python, "-m", "pytest", "-m", "not browser" if pair.pool else "not browser and not long"]
    if database == "SQLite":
        environment.pop("DATABASE_URL", None)
    else:
        command = [own_python, "-m", "tests.with_postgres", *command]
        if pair.pool:
            environment["TEST_POOL"] = "1"
    last_line = ""
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as suite:
        for line in _lines(suite):
            print(line, end="", flush=True)
            last_line = line.strip() or last_line
    return suite.returncode, last_line


def install(pair: Pair, python: str) -> str:
    """Make the pair's environment, unless it is newer than pyproject.toml. Returns its Python."""
    own_python, stamp = str(pair.folder / "bin" / "python"), pair.folder / ".installed"
    wanted = ROOT / "pyproject.toml"
    if not stamp.exists() or stamp.stat().st_mtime < wanted.stat().st_mtime:
        extra = "[psycopg]" if pair.pool else ""
        subprocess.run([python, "-m", "venv", "--clear", str(pair.folder)], check=True)
        pip = [own_python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "pip>=25.1"], cwd=ROOT, check=True)
        subprocess.run(
            [*pip, "--editable", f".{extra}", "--group", "test", f"Django~={pair.django}.0"], cwd=ROOT, check=True
        )
        stamp.touch()
    return own_python


def _lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    if process.stdout is not None:
        yield from process.stdout


if __name__ == "__main__":
    sys.exit(main())
