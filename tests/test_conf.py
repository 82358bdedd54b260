"""Settings and system checks: bad input is named, with what is allowed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.core.checks import run_checks
from django.db import connection
from pytest_django import Settings as SettingsWrapper

from dbqueue import conf, every, registry
from dbqueue.checks import SQLITE_OPTIONS, _isolation_of
from dbqueue.conf import Settings
from dbqueue.exceptions import InvalidSettings

from .workers import ROOT


@pytest.fixture(autouse=True)
def read_anew() -> Any:
    conf.read.cache_clear()
    yield
    conf.read.cache_clear()


def found() -> list[str]:
    return [f"{message.id}: {message.msg}" for message in run_checks() if str(message.id).startswith("dbqueue")]


def test_the_defaults_pass(settings: SettingsWrapper) -> None:
    assert Settings.load() == Settings()
    assert found() == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"THREDS": 1}, "DBQUEUE has an unknown key 'THREDS'; did you mean 'THREADS'?"),
        ({"threads": 1}, "DBQUEUE has an unknown key 'threads'; did you mean 'THREADS'?"),
        ({"XYZZY": 1}, "DBQUEUE has an unknown key 'XYZZY'; known are DATABASE, QUEUES"),
        ({"THREADS": "8"}, "DBQUEUE['THREADS'] is '8'; it must be a whole number from 1 to 1000."),
        ({"THREADS": 0}, "DBQUEUE['THREADS'] is 0; it must be a whole number from 1 to 1000."),
        ({"THREADS": True}, "DBQUEUE['THREADS'] is True"),
        ({"THREADS": 2.0}, "DBQUEUE['THREADS'] is 2.0"),
        ({"POLL_INTERVAL": 0}, "DBQUEUE['POLL_INTERVAL'] is 0; it must be seconds, from 0.01 to 3600."),
        ({"DATABASE": "nowhere"}, "DBQUEUE['DATABASE'] is 'nowhere'; it must be an alias of DATABASES."),
        ({"QUEUES": "mail"}, "DBQUEUE['QUEUES'] is 'mail'; it must be a list of queue names"),
        ({"QUEUES": ["a,b"]}, "DBQUEUE['QUEUES'] is ['a,b']"),
        ({"UNKNOWN_TASK": "ignore"}, "DBQUEUE['UNKNOWN_TASK'] is 'ignore'; it must be 'fail' or 'wait'."),
        ({"KEEP_FAILED_DAYS": -1}, "DBQUEUE['KEEP_FAILED_DAYS'] is -1; it must be days, from 0 to 36500."),
        ({"KEEP_SUCCESSFUL_DAYS": "7"}, "DBQUEUE['KEEP_SUCCESSFUL_DAYS'] is '7'; it must be days, from 0 to 36500."),
        ({"LISTEN": "yes"}, "DBQUEUE['LISTEN'] is 'yes'; it must be True or False."),
        (["THREADS"], "DBQUEUE is ['THREADS']; it must be a dict."),
    ],
)
def test_a_bad_setting_is_a_check_error(settings: SettingsWrapper, given: Any, message: str) -> None:
    settings.DBQUEUE = given
    assert any(text.startswith(f"dbqueue.E001: {message}") for text in found()), found()
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert message in str(caught.value)


def test_the_environment_comes_before_the_dict(settings: SettingsWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DBQUEUE = {"THREADS": 3, "GRACE": 1}
    monkeypatch.setenv("DBQUEUE_THREADS", "4")
    monkeypatch.setenv("DBQUEUE_QUEUES", "a,b")
    monkeypatch.setenv("DBQUEUE_LISTEN", "false")
    monkeypatch.setenv("DBQUEUE_POLL_INTERVAL", "0.5")
    loaded = Settings.load()
    assert (loaded.threads, loaded.queues, loaded.listen, loaded.poll_interval) == (4, ("a", "b"), False, 0.5)
    assert loaded.grace == 1


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "DBQUEUE_THREADS",
            "many",
            "DBQUEUE_THREADS (environment) is 'many'; it must be a whole number from 1 to 1000.",
        ),
        ("DBQUEUE_THREADS", "0", "DBQUEUE_THREADS (environment) is 0"),
        ("DBQUEUE_KEEP_FAILED_DAYS", "12h", "DBQUEUE_KEEP_FAILED_DAYS (environment) is '12h'"),
        ("DBQUEUE_THREADS", "1e3", "DBQUEUE_THREADS (environment) is '1e3'"),
        ("DBQUEUE_LISTEN", "perhaps", "DBQUEUE_LISTEN (environment) is 'perhaps'; it must be True or False."),
    ],
)
def test_a_bad_variable_is_a_check_error(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert any(text.startswith(f"dbqueue.E001: {message}") for text in found()), found()


def test_a_variable_that_names_no_setting_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBQUEUE_THREDS", "4")
    assert found() == ["dbqueue.W001: The environment variable DBQUEUE_THREDS names no setting of dbqueue."]


@pytest.mark.parametrize(
    ("zone", "warned"), [("Europe/Berlin", True), ("UTC", False), ("Asia/Kolkata", False), (None, False), ("", False)]
)
def test_local_time_that_jumps_is_a_warning(settings: SettingsWrapper, zone: str | None, warned: bool) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = zone
    assert [text.startswith("dbqueue.W006: USE_TZ is False") for text in found()] == [True] * warned


def test_a_change_of_one_setting_is_checked() -> None:
    assert Settings().replace(threads=2).threads == 2
    with pytest.raises(InvalidSettings, match="THREADS is 0"):
        Settings().replace(threads=0)


@pytest.mark.parametrize("module", ["jobs", "jobs.mail", "tests.shop.command_tasks", ".tasks", "tasks.py"])
def test_a_task_module_that_no_app_has_is_a_warning(settings: SettingsWrapper, module: str) -> None:
    settings.DBQUEUE = {"TASK_MODULES": ["tasks", "command_tasks", "management.commands", module]}
    assert found() == [
        f"dbqueue.W005: DBQUEUE['TASK_MODULES'] has {module!r}, and no installed app has a module of that name."
    ]


def test_a_queue_outside_the_restriction_is_a_warning_with_its_tasks(settings: SettingsWrapper) -> None:
    queues = {task.queue_name for task in registry.registered() if not task.backend}
    settings.DBQUEUE = {"QUEUES": sorted(queues - {"mail"})}
    [text] = found()
    assert text.startswith("dbqueue.W008: The queue 'mail' is not among DBQUEUE['QUEUES']: ")
    assert re.search(r"would be in it, and are refused: (\S+, )*short\.name\b", text)
    settings.DBQUEUE = {"QUEUES": ["nobody's"]}
    [text] = [text for text in found() if "The queue 'default'" in text]
    assert re.search(r"refused: (\S+, ){4}\S+ and \d+ more\.$", text)
    settings.DBQUEUE = {"QUEUES": sorted(queues)}
    assert found() == []


def test_a_queue_of_a_schedule_alone_is_a_warning_too(settings: SettingsWrapper) -> None:
    task = registry.find("short.name")
    settings.DBQUEUE = {"QUEUES": sorted({task.queue_name for task in registry.registered()})}
    task.schedules["short.name"] = every(hours=1, queue_name="nightly")
    try:
        [text] = found()
    finally:
        task.schedules.clear()
    assert text.startswith("dbqueue.W008: The queue 'nightly' is not among") and text.endswith("refused: short.name.")


def checked(folder: Path, settings: str, tasks: str = "") -> str:
    """What ``manage.py check`` says of a project of its own, whose package has a tasks.py."""
    package = folder / "somebody"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(f"SECRET_KEY = 'x'\nUSE_TZ = True\n{settings}\n")
    (package / "tasks.py").write_text(tasks)
    command = [sys.executable, "-m", "django", "check", "--settings", "somebody.settings"]
    env = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_tasks_of_django_without_a_setting_are_a_warning(tmp_path: Path) -> None:
    module = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    tasks = f"from {module} import task\n\n@task\ndef add(x, y): return x + y\n"
    more = "" if django.VERSION >= (6, 0) else ", 'django_tasks'"
    apps = f"INSTALLED_APPS = ['dbqueue', 'somebody'{more}]\n"
    immediate = f"TASKS = {{'default': {{'BACKEND': '{module}.backends.immediate.ImmediateBackend'}}}}"
    ours = "TASKS = {'default': {'BACKEND': 'dbqueue.backend.DatabaseBackend'}}"
    assert "(dbqueue.W009) TASKS is not set" in (said := checked(tmp_path, apps, tasks))
    assert "without a job or a worker: somebody.tasks.add." in said
    assert "dbqueue" not in checked(tmp_path, apps)
    # Who has set it has chosen.
    assert "dbqueue" not in checked(tmp_path, apps + immediate, tasks)
    assert "dbqueue" not in checked(tmp_path, apps + ours, tasks)


def test_a_setting_that_this_django_does_not_read_is_a_warning(tmp_path: Path) -> None:
    ours = "TASKS = {'default': {'BACKEND': 'dbqueue.backend.DatabaseBackend'}}"
    said = checked(tmp_path, f"INSTALLED_APPS = ['dbqueue', 'somebody']\n{ours}")
    assert ("(dbqueue.W010) TASKS names dbqueue's backend" in said) is (django.VERSION < (6, 0))


def test_tasks_of_a_package_that_is_no_app_are_a_warning(tmp_path: Path) -> None:
    tasks = "from dbqueue import task\n\n@task\ndef add(x, y): return x + y\n"
    said = checked(tmp_path, "INSTALLED_APPS = ['dbqueue']", tasks)
    assert "(dbqueue.W011) Nothing has imported the module 'somebody.tasks'" in said
    assert "dbqueue" not in checked(tmp_path, "INSTALLED_APPS = ['dbqueue', 'somebody']", tasks)


@pytest.mark.django_db
def test_a_sqlite_database_without_immediate_transactions_is_a_warning(settings: SettingsWrapper) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("about SQLite")
    messages = run_checks(databases=["default"])
    assert not [message for message in messages if message.id == "dbqueue.W003"]
    options = settings.DATABASES["default"].pop("OPTIONS")
    try:
        messages = run_checks(databases=["default"])
    finally:
        settings.DATABASES["default"]["OPTIONS"] = options
    (warning,) = [message for message in messages if str(message.id).startswith("dbqueue")]
    assert warning.id == "dbqueue.W003"
    assert warning.hint == f"Set DATABASES['default']['OPTIONS'] = {SQLITE_OPTIONS}."


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_the_pages_show_the_options_for_sqlite_that_the_check_asks_for(page: str) -> None:
    text = (ROOT / page).read_text()
    for name, value in SQLITE_OPTIONS.items():
        assert f'"{name}": {json.dumps(value)},' in text


@pytest.mark.django_db
@pytest.mark.parametrize(("pool", "warned"), [(True, True), ({"max_size": 7}, True), ({"max_size": 8}, False)])
def test_a_pool_smaller_than_the_threads_is_a_warning(settings: SettingsWrapper, pool: Any, warned: bool) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about PostgreSQL")
    options = settings.DATABASES["default"].setdefault("OPTIONS", {})
    before = options.get("pool")
    options["pool"] = pool
    try:
        messages = run_checks(databases=["default"])
    finally:
        options.pop("pool")
        if before is not None:
            options["pool"] = before
    assert ["dbqueue.W004" in str(message.id) for message in messages] == [True] * warned


def isolation_errors() -> list[str]:
    return [message.msg for message in run_checks(databases=["default"]) if message.id == "dbqueue.E003"]


@pytest.mark.django_db
@pytest.mark.parametrize("level", ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_transactions_that_keep_their_first_snapshot_are_an_error(level: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about PostgreSQL")
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    assert isolation_errors() == []
    options = connection.settings_dict["OPTIONS"]
    options["isolation_level"] = IsolationLevel[level.replace(" ", "_")]
    try:
        errors = isolation_errors()
    finally:
        del options["isolation_level"]
    assert [level in error for error in errors] == [True] * (level in ("REPEATABLE READ", "SERIALIZABLE"))


@pytest.mark.django_db(transaction=True)
def test_so_are_those_of_a_session_whose_default_it_is() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about PostgreSQL")
    options = connection.settings_dict["OPTIONS"]
    options["options"] = r"-c default_transaction_isolation=repeatable\ read"  # as good as ALTER ROLE … SET
    connection.close()
    try:
        [error] = isolation_errors()
    finally:
        del options["options"]
        connection.close()
    assert "REPEATABLE READ" in error


@pytest.mark.parametrize(
    ("options", "level"),
    [({}, "READ COMMITTED"), ({"isolation_level": "repeatable read"}, "REPEATABLE READ")],
)
def test_on_mysql_the_level_is_the_one_that_django_sets(options: dict[str, Any], level: str) -> None:
    unconnected: Any = SimpleNamespace(vendor="mysql", settings_dict={"OPTIONS": options})
    assert _isolation_of(unconnected) == level
