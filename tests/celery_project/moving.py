"""The project in ``project/``, copied to a folder, its imports changed or not, and its tests run there."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent / "project"
ROOT = PROJECT.parents[2]

FROM_CELERY = re.compile(r"^(\s*)from celery(?=[.\s])", re.MULTILINE)
IMPORT_CELERY = re.compile(r"^(\s*)import celery$", re.MULTILINE)

ON_CELERY = """\
import pytest


@pytest.fixture
def worker():
    return lambda: None
"""

ON_DBQUEUE = """\
import pytest


@pytest.fixture
def worker():
    from dbqueue.testing import run_jobs

    return lambda: run_jobs(scheduled=True)
"""
"""How what was begun is done: the one thing that the tests are told of where they run."""

SETTINGS = """\
from bakery.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "dbqueue"]
"""

SECONDS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the project's tests ended."""

    passed: bool
    output: str

    @property
    def has_begun(self) -> bool:
        """Whether pytest got as far as a summary."""
        return re.search(r"\d+ (passed|failed|error)", self.output) is not None

    @property
    def last_line(self) -> str:
        """Pytest's summary."""
        return self.output.strip().splitlines()[-1] if self.has_begun else "no test has run"


def moved(text: str) -> str:
    """A module whose imports name ``dbqueue.compat.celery``; nothing else of it changes."""
    text = FROM_CELERY.sub(r"\1from dbqueue.compat.celery", text)
    return IMPORT_CELERY.sub(r"\1from dbqueue.compat import celery", text)


def on_celery(folder: Path, python: str) -> Outcome:
    """Its tests in eager mode, with an interpreter that has Celery, pytest and pytest-django."""
    shutil.copytree(PROJECT, folder)
    (folder / "side.py").write_text(ON_CELERY)
    return _run(folder, python, {"DJANGO_SETTINGS_MODULE": "bakery.settings", "PYTHONPATH": str(folder)})


def on_dbqueue(folder: Path, python: str) -> Outcome:
    """Its tests with changed imports; jobs are rows, and are run where a worker would run them."""
    shutil.copytree(PROJECT, folder)
    for path in folder.rglob("*.py"):
        path.write_text(moved(path.read_text()))
    (folder / "side.py").write_text(ON_DBQUEUE)
    (folder / "with_dbqueue.py").write_text(SETTINGS)
    paths = os.pathsep.join((str(folder), str(ROOT)))
    return _run(folder, python, {"DJANGO_SETTINGS_MODULE": "with_dbqueue", "PYTHONPATH": paths, "BAKERY_EAGER": "0"})


def _run(folder: Path, python: str, environment: dict[str, str]) -> Outcome:
    config = folder / "pytest.ini"
    config.write_text("[pytest]\naddopts = -q -p side -p no:cacheprovider --disable-warnings -rfE\n")
    done = subprocess.run(
        [python, "-m", "pytest", "-c", str(config), "--rootdir", str(folder), str(folder / "checks")],
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    return Outcome(done.returncode == 0, done.stdout)
