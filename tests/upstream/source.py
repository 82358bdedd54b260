"""Django's ``tests/tasks``: fetched from its source distribution on PyPI, and made to test this project's backend.

The wheel has no tests, and their text is Django's, so it is not kept in this repository.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

HAS_TASKS = django.VERSION >= (6, 0)

# Before Django 6.0 there is the package django-tasks, which is 6.0's code under its own names.
RELEASE = django.get_version() if HAS_TASKS else "6.0.*"

CACHE = Path(__file__).parents[2] / ".upstream"

PART = "/tests/tasks/"

OURS = {
    # In place of the two backends that run nothing, or run at once: those of backends.py.
    r"\bdjango\.tasks\.backends\.(dummy|immediate)\b": "tests.upstream.backends",
    # A custom backend is made from ours.
    r"\bfrom django\.tasks\.backends\.base import BaseTaskBackend\b": (
        "from dbqueue.backend import DatabaseBackend as BaseTaskBackend"
    ),
}
"""What is written otherwise in the copy that runs."""

BACKPORT = {
    r"\bdjango\.tasks\b": "django_tasks",
    r"\b(InvalidTask|InvalidTaskBackend)\b": r"\1Error",
    r"Backend does not support async Tasks": "Backend does not support async tasks",
}
"""The same, for the names and one message of the package django-tasks."""


def folder() -> Path:
    """A folder that holds the package ``tasks``, ready to run. It lives as long as this process.

    Raises RuntimeError if Django's source can't be had.
    """
    original = CACHE / f"Django-{RELEASE.replace('*', 'x')}"
    if not original.exists():
        _fetch(original)
    made = Path(tempfile.mkdtemp(prefix="dbqueue-upstream-"))
    atexit.register(shutil.rmtree, made)
    (made / "tasks").mkdir()
    for path in original.glob("*.py"):
        (made / "tasks" / path.name).write_text(_rewritten(path.read_text()))
    return made


def _fetch(target: Path) -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        _download(Path(name))
        (archive,) = Path(name).glob("*.tar.gz")
        extracted = Path(name) / "tasks"
        extracted.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar:
                if PART in member.name and member.isfile() and (content := tar.extractfile(member)):
                    (extracted / Path(member.name).name).write_bytes(content.read())
        if not list(extracted.glob("test_*.py")):
            raise RuntimeError(f"{archive.name} has no tests in {PART}.")
        try:
            os.rename(extracted, target)
        except OSError:
            if not target.exists():  # another process of the tests may have been faster
                raise


def _download(target: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-binary", ":all:", "--ignore-requires-python", "--dest", str(target), f"Django=={RELEASE}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Django's own tests can't be fetched, so they can't be run:\n{done.stderr}{done.stdout}")


def _rewritten(text: str) -> str:
    for pattern, replacement in (OURS if HAS_TASKS else OURS | BACKPORT).items():
        text = re.sub(pattern, replacement, text)
    return text
