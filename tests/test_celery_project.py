"""The project in tests/celery_project: read by ``--check``, and its own tests on both sides."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from dbqueue.compat.coverage import Verdict
from dbqueue.compat.report import check

from .celery_project.moving import PROJECT, moved, on_celery, on_dbqueue

CELERY_PYTHON = os.environ.get("CELERY_PYTHON", "")


def test_only_imports_change() -> None:
    text = (
        "import celery\n"
        "from celery import shared_task\n"
        "    from celery.result import AsyncResult\n"
        "from bakery.celery import app\n"
        "from .celery import app\n"
        "import celery_batches\n"
        "from celery_batches import Batches\n"
        "text = 'from celery import this'\n"
    )
    assert moved(text) == (
        "from dbqueue.compat import celery\n"
        "from dbqueue.compat.celery import shared_task\n"
        "    from dbqueue.compat.celery.result import AsyncResult\n"
        "from bakery.celery import app\n"
        "from .celery import app\n"
        "import celery_batches\n"
        "from celery_batches import Batches\n"
        "text = 'from celery import this'\n"
    )


def test_nothing_of_it_is_missing() -> None:
    report = check(PROJECT)
    assert report.unreadable == []
    assert report.of(Verdict.MISSING) == []
    assert len([use for use in report.uses if use.name == "@task"]) >= 40


COUNTED = {
    "@task({}=)": "bind name queue base ignore_result soft_time_limit time_limit acks_late autoretry_for max_retries "
    "retry_backoff retry_jitter retry_kwargs retry_backoff_max default_retry_delay",
    "apply_async({}=)": "args kwargs queue countdown headers priority task_id eta expires link link_error",
    "task.{}": "delay apply_async retry update_state s si signature replace chunks map starmap",
    "self.retry({}=)": "exc countdown",
    "AsyncResult.{}": "state status result get ready successful failed traceback info forget",
    "Task.{}()": "before_start on_success on_failure on_retry after_return run __call__",
    "celery.{}": "shared_task chain group chord Celery Task",
    "celery.signals.{}": "task_failure task_postrun task_prerun task_success task_retry "
    "worker_process_init worker_ready",
    "celery.schedules.{}": "crontab",
    "app.{}": "task send_task control tasks add_periodic_task register_task",
    "control.{}": "inspect revoke",
    "{}": "CELERY_BEAT_SCHEDULE CELERY_TASK_ALWAYS_EAGER CELERY_TASK_ROUTES",
}
"""What more than two of 36 public projects use of Celery itself, and some that fewer do."""


def test_it_uses_all_that_projects_use() -> None:
    used = {use.name for use in check(PROJECT).uses}
    counted = {title.format(name) for title, names in COUNTED.items() for name in names.split()}
    assert sorted(counted - used) == []


@pytest.mark.skipif(not CELERY_PYTHON, reason="CELERY_PYTHON names no interpreter with Celery")
def test_its_tests_hold_on_celery(tmp_path: Path) -> None:
    outcome = on_celery(tmp_path / "project", CELERY_PYTHON)
    assert outcome.passed, outcome.output


@pytest.mark.skipif(
    importlib.util.find_spec("dbqueue.compat.celery") is None, reason="dbqueue.compat.celery is not there yet"
)
def test_its_tests_hold_on_dbqueue(tmp_path: Path) -> None:
    outcome = on_dbqueue(tmp_path / "project", sys.executable)
    assert outcome.passed, outcome.output
