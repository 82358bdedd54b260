"""``make matrix``: the whole suite with each supported pair of Python and Django, on SQLite and on PostgreSQL.

Needs only Python. A pair's virtual environment stays in ``.matrix/``. The exit code is 0 if every run passed; a pair
whose Python is not on this machine is told, and is no failure unless it is all of them.

With ``--rest`` it is what ``make test`` with this Python left over, each Django once on PostgreSQL and the newest on
SQLite too: in half the time.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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

ONE_INSTALLS = threading.Lock()
"""pip writes beside the sources."""


def main() -> int:
    parser = argparse.ArgumentParser(description="The whole suite with each supported pair of Python and Django.")
    parser.add_argument("--rest", action="store_true", help="only what `make test` with this Python left over")
    parser.add_argument("--jobs", type=int, default=1, help="how many suites run at once (1)")
    options = parser.parse_args()
    runs: list[tuple[Pair, str, str]] = []
    for pair in PAIRS:
        python = find_python(pair.python)
        if python is None:
            print(f"{pair}: NOT RUN, there is no Python {pair.python} here")
        elif not options.rest:
            runs += [(pair, python, database) for database in DATABASES]
        elif pair.pool or python != sys.executable:
            runs += [(pair, python, database) for database in (DATABASES if pair == PAIRS[-1] else DATABASES[1:])]
    with ThreadPoolExecutor(options.jobs) as threads:
        verdicts = list(threads.map(lambda each: run(*each, is_alone=options.jobs == 1), runs))
    print()
    for (pair, _, database), (code, said, failed) in zip(runs, verdicts, strict=True):
        print(f"{pair!s:<50} {database:<11} {'passed' if code == 0 else f'FAILED with {code}'} {said}")
        for line in failed:
            print(f"    {line}")
    return 0 if verdicts and not any(code for code, *_ in verdicts) else 1


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


def run(pair: Pair, python: str, database: str, *, is_alone: bool) -> tuple[int, str, list[str]]:
    """Run the suite. Returns the exit code, how long it took with the last line printed, and a line a failed test."""
    try:
        with ONE_INSTALLS:
            own_python = install(pair, python)
    except subprocess.CalledProcessError as exc:
        return exc.returncode, "it could not be installed", []
    began = time.monotonic()
    environment = dict(os.environ)
    # The long faults strike `make test`, and here the pair with the pool: they are the database's, and its driver's.
    command = [own_python, "-m", "pytest", "-m", "not browser" if pair.pool else "not browser and not long"]
    if database == "SQLite":
        environment.pop("DATABASE_URL", None)
    else:
        command = [own_python, "-m", "tests.with_postgres", *command]
        if pair.pool:
            environment["TEST_POOL"] = "1"
    print(f"\n== {pair}, {database}", flush=True)
    prefix = "" if is_alone else f"{pair.python} {database}: "
    last_line, failed = "", []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as suite:
        for line in suite.stdout or ():
            print(prefix + line, end="", flush=True)
            last_line = line.strip() or last_line
            if line.startswith(("FAILED ", "ERROR ")):
                failed.append(last_line)
    return suite.returncode, f"({time.monotonic() - began:.0f} s): {last_line}", failed


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


if __name__ == "__main__":
    sys.exit(main())
