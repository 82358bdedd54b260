"""``dbqueue_worker`` as a command: what it refuses, what it says at its start, and how it ends."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from dbqueue.checks import SQLITE_OPTIONS
from dbqueue.models import JobStatus, Worker

from .shop.command_tasks import leave_a_thread_busy
from .shop.tasks import add
from .workers import burst, eventually, settings_file, spawn, worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    """The command sets its own, also where it is called in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "THREADS is 0; it must be a whole number from 1 to 1000"),
        (["--database", "nowhere"], "DATABASE is 'nowhere'; it must be an alias of DATABASES"),
        (["--queues", "a,,b"], "'' is not a queue's name"),
        (["--name", "x" * 256], "it must be printable text of at most 255 characters"),
        (["--name", "x" * 253, "--processes", "10"], "it must be printable text of at most 252 characters"),
        (["--name", "a\nb"], r"--name is 'a\nb'; it must be printable text"),
        (
            ["--queues", ",".join(f"{number:091}" for number in range(11))],
            "--queues and --exclude-queues must not have more than 1000 characters together",
        ),
        (["--queues", "a,b", "--exclude-queues", "b,a"], "--exclude-queues leaves nothing of --queues a,b"),
        (["--reload", "--burst"], "--reload keeps a worker running: it can't be used with --burst or --max-jobs"),
        (["--reload", "--max-jobs", "1"], "--reload keeps a worker running"),
    ],
)
def test_what_it_refuses_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        call_command("dbqueue_worker", *arguments)
    assert message in str(caught.value)
    assert not Worker.objects.exists()


def test_a_queue_that_no_new_job_can_be_in_is_named(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.DBQUEUE = {"QUEUES": ["default", "mail"]}
    settings.TASKS = {"default": {"BACKEND": "dbqueue.backend.DatabaseBackend", "QUEUES": ["letters"]}}
    for arguments in (["--queues", "mail,mial"], ["--exclude-queues", "mial"]):
        caplog.clear()
        with pytest.raises(SystemExit):
            call_command("dbqueue_worker", "--burst", "--threads", "1", *arguments)
        assert "No new job can be in 'mial': the queues are 'default', 'letters', 'mail'" in caplog.text


def test_a_queue_that_nobody_has_named_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def said(*arguments: str) -> list[str]:
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            call_command("dbqueue_worker", "--burst", "--threads", "1", *arguments)
        assert ended.value.code == 0
        return [message for message in caplog.messages if "names the queue" in message]

    [warning] = said("--queues", "mial,default")
    assert warning.startswith("No task, setting or job so far names the queue 'mial'. Known are 'default', ")
    assert warning.endswith("Did you mean 'mail'?")
    assert "'mial' or 'maail'" in said("--exclude-queues", "mial,maail")[0]
    assert said("--queues", "mail,default") == []
    add.using(queue_name="mial").enqueue(1, 2)
    assert said("--queues", "mial") == []
    assert said("--queues", "mial") == []  # now because one has ended there


def test_where_nothing_can_be_asked_no_queue_is_doubted(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.sqlite3")}
    changed = settings_file(tmp_path, f"DATABASES['default'] = {database}")
    output = spawn("--burst", "--queues", "mial", **changed).finish()
    assert "names the queue" not in output and "Have you run manage.py migrate?" in output


@pytest.mark.parametrize("queues", [["letters"], []])
def test_queues_of_django_tasks_may_be_served_too(settings: Settings, queues: list[str]) -> None:
    settings.DBQUEUE = {"QUEUES": ["default"]}
    settings.TASKS = {"default": {"BACKEND": "dbqueue.backend.DatabaseBackend", "QUEUES": queues}}
    with pytest.raises(SystemExit) as ended:
        call_command("dbqueue_worker", "--burst", "--queues", "letters,default,letters", "--threads", "1")
    assert ended.value.code == 0
    assert Worker.objects.get().queues == "letters,default"


def test_called_by_a_program_it_ends_without_ending_that() -> None:
    result = add.enqueue(1, 2)
    with pytest.raises(SystemExit) as ended:
        call_command("dbqueue_worker", "--burst", "--threads", "1")
    assert ended.value.code == 0
    assert result.get() == 3


def test_a_thread_that_a_job_left_running_does_not_keep_the_process() -> None:
    result = leave_a_thread_busy.enqueue()
    output = burst(DBQUEUE_TASK_MODULES="tasks,command_tasks")
    assert result.get() == "left"
    assert output.rstrip().endswith("stopped")


def test_what_registered_for_the_end_of_the_process_is_called(tmp_path: Path) -> None:
    changed = 'import atexit\natexit.register(print, "last words")'
    assert burst(**settings_file(tmp_path, changed)).rstrip().endswith("last words")


def test_missing_tables_are_told_with_what_to_do(tmp_path: Path) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.sqlite3")}
    changed = f"DATABASES = {dict.fromkeys(('default', 'jobs'), database)}"
    for arguments, advice in (([], "migrate?"), (["--database", "jobs"], "migrate --database jobs?")):
        process = spawn("--burst", *arguments, **settings_file(tmp_path, changed))
        output = process.finish()
        assert process.returncode == 1
        assert output.rstrip().endswith(f"Have you run manage.py {advice}")
        assert "Traceback" not in output


def test_the_start_tells_what_the_database_is_not_set_up_for(tmp_path: Path) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")
    output = burst(**settings_file(tmp_path, 'DATABASES["default"]["OPTIONS"] = {}'))
    assert "dbqueue.W003" in output
    assert f"OPTIONS'] = {SQLITE_OPTIONS}" in output
    assert "dbqueue.W003" not in burst()


def test_the_start_counts_the_threads_that_the_command_asks_for(tmp_path: Path) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about PostgreSQL")
    changed = settings_file(tmp_path, 'DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"max_size": 8}')
    warned: Any = "'default' holds 8 connections, and a worker has 9 threads"
    assert warned in spawn("--burst", "--threads", "9", **changed).finish()
    assert "dbqueue.W004" not in spawn("--burst", "--threads", "8", **changed).finish()


def test_a_task_of_another_module_is_told_where_it_was_looked_for() -> None:
    result = leave_a_thread_busy.enqueue()
    burst()
    result.refresh()
    assert result.status == JobStatus.FAILED
    named = "name its module 'tests.shop.command_tasks' in DBQUEUE['TASK_MODULES'], or import it in the app's tasks.py."
    assert named in result.errors[0].traceback


def test_the_help_shows_what_is_for_people() -> None:
    output = spawn("--help").finish()
    assert "--burst" in output
    assert "supervised" not in output


def test_code_that_can_not_start_is_tried_again_when_it_has_changed(tmp_path: Path) -> None:
    environment = settings_file(tmp_path, "import broken_later")
    module = tmp_path / "broken_later.py"
    module.write_text("")
    with worker("--reload", **environment) as process:
        eventually(lambda: Worker.objects.alive().exists())
        module.write_text("this is no Python")
        eventually(lambda: "ended early" in process.output)
        module.write_text("MENDED = True")
        eventually(lambda: Worker.objects.alive().exists())
        assert add.enqueue(1, 2).get(timeout=15) == 3
        assert process.output.count("SyntaxError") == 1
