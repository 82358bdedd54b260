"""The probe of a container: real workers, real faults, one line of JSON, and no app imported for it."""

import json
import signal
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from dbqueue.models import Worker
from dbqueue.store import store_for

from .workers import ROOT, environment, eventually, settings_file, spawn, worker

pytestmark = pytest.mark.django_db(transaction=True)

MODULE = ("-m", "dbqueue.health")
COMMAND = ("-m", "tests", "dbqueue_health")

both_ways = pytest.mark.parametrize("way", [MODULE, COMMAND], ids=["module", "command"])


def probe(way: tuple[str, ...], *arguments: str, **extra: str) -> dict[str, Any]:
    """Run a probe of its own process and return what it says, after a look at the form in which it says so."""
    done = subprocess.run(
        [sys.executable, *way, *arguments],
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert done.stdout.endswith("\n") and done.stdout.count("\n") == 1, done
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if answer["healthy"] else 1)
    assert ("reason" in answer) != answer["healthy"]
    return answer


def alive() -> bool:
    return Worker.objects.alive().exists()


# Alive or not


@both_ways
def test_a_worker_that_lives_is_healthy_until_it_stops(way: tuple[str, ...]) -> None:
    assert probe(way) == {"healthy": False, "reason": "no worker is running"}
    with worker("--name", "web"):
        eventually(alive)
        answer = probe(way)
        assert (answer["healthy"], answer["workers"]) == (True, 1)
        assert 0 <= answer["last_heartbeat"] < 30
        assert probe(way, "--worker", "web", "--max-age", "20", "--database", "default")["healthy"]
        other = probe(way, "--worker", "we")
        assert other == {"healthy": False, "reason": "no worker is running under the name 'we'"}
    assert not probe(way)["healthy"]


def test_a_worker_that_was_killed_or_is_stopped_is_not_healthy_once_it_was_silent_for_too_long() -> None:
    process = spawn("--name", "web", DBQUEUE_HEARTBEAT_TIMEOUT="2")
    try:
        eventually(alive)
        assert probe(MODULE, "--worker", "web", DBQUEUE_HEARTBEAT_TIMEOUT="2")["healthy"]
        process.send_signal(signal.SIGSTOP)
        silent = eventually(
            lambda: not (answer := probe(MODULE, DBQUEUE_HEARTBEAT_TIMEOUT="2"))["healthy"] and answer, 60
        )
        assert silent["reason"].endswith("s ago; 2 s are allowed")
        assert silent["last_heartbeat"] > 2
        assert probe(MODULE, "--max-age", "3600")["healthy"]
        process.send_signal(signal.SIGCONT)
        eventually(lambda: probe(MODULE, DBQUEUE_HEARTBEAT_TIMEOUT="2")["healthy"], 60)
        process.kill()
        eventually(lambda: not probe(MODULE, DBQUEUE_HEARTBEAT_TIMEOUT="2")["healthy"], 60)
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_was_declared_lost_is_not_healthy() -> None:
    store = store_for("default")
    store.register(name="web", hostname="h", pid=1, queues="", threads=1)
    assert probe(MODULE)["healthy"]
    Worker.objects.update(stopped_at=store.clock(), lost=True)
    assert not probe(MODULE)["healthy"]


def test_a_supervisors_name_stands_for_its_children() -> None:
    with worker("--processes", "2", "--name", "web.a"):
        eventually(lambda: Worker.objects.alive().count() == 2)
        assert probe(MODULE, "--worker", "web.a")["workers"] == 2
        assert probe(MODULE, "--worker", "web.a.2")["workers"] == 1
        assert not probe(MODULE, "--worker", "web")["healthy"]
        assert not probe(MODULE, "--worker", "webXa")["healthy"]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_the_age_is_right_where_local_time_is_stored(tmp_path: Path, zone: str) -> None:
    changed = settings_file(tmp_path, f"USE_TZ = False\nTIME_ZONE = {zone!r}")
    process = spawn(**changed)
    try:
        eventually(alive)
        # Longer than a beat and shorter than an hour, so a wrong zone shows on either side.
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: probe(MODULE, **changed)["last_heartbeat"] > 1)
        assert not probe(MODULE, "--max-age", "1", **changed)["healthy"]
        assert probe(MODULE, "--max-age", "600", **changed)["healthy"]
    finally:
        process.kill()
        process.wait()


# What goes wrong


@both_ways
def test_a_database_that_is_away_is_told(way: tuple[str, ...], tmp_path: Path) -> None:
    changed = settings_file(tmp_path, "DATABASES['default'].update(NAME='/nowhere/at/all', HOST='/nowhere')")
    answer = probe(way, **changed)
    assert answer["reason"].startswith("OperationalError: ")


@both_ways
def test_a_server_that_never_answers_does_not_hang_the_probe(way: tuple[str, ...], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        database = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": deaf.getsockname()[1],
            "NAME": "x",
            "USER": "x",
            "PASSWORD": "x",
        }
        answer = probe(way, **settings_file(tmp_path, f"DATABASES = {{'default': {database}}}"))
    assert answer["reason"] == "TimeoutError: the database 'default' gave no answer within 5 s"


@both_ways
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--max-age", "x"], "argument --max-age: invalid float value: 'x'"),
        (["--max-age", "0"], "--max-age is 0.0; it must be a number of seconds above 0"),
        (["--max-age", "nan"], "--max-age is nan; it must be a number of seconds above 0"),
        (["--database", "nowhere"], "DATABASE is 'nowhere'; it must be an alias of DATABASES"),
        (["--wroker", "x"], "unrecognized arguments: --wroker x"),
    ],
)
def test_what_it_does_not_understand_is_named(way: tuple[str, ...], arguments: list[str], reason: str) -> None:
    assert reason in probe(way, *arguments)["reason"]


def test_settings_that_can_not_be_used_are_told() -> None:
    missing = probe(MODULE, DJANGO_SETTINGS_MODULE="no.such.settings")
    assert missing["reason"] == "ModuleNotFoundError: No module named 'no'"
    assert "THREADS" in probe(MODULE, DBQUEUE_THREADS="0")["reason"]


# What it does not do


@both_ways
def test_no_app_is_imported_for_it(way: tuple[str, ...], tmp_path: Path) -> None:
    """Neither an app that can't be imported nor one that prints at its import reaches the probe."""
    for app, code in (("broken", "raise RuntimeError('broken models')"), ("chatty", "print('hello')")):
        (tmp_path / app).mkdir()
        (tmp_path / app / "__init__.py").touch()
        for module in ("models", "tasks"):
            (tmp_path / app / f"{module}.py").write_text(code)
    changed = settings_file(tmp_path, "INSTALLED_APPS = ['chatty', 'broken', *INSTALLED_APPS]")
    store_for("default").register(name="web", hostname="h", pid=1, queues="", threads=1)

    assert probe(way, **changed)["healthy"]

    with pytest.raises(AssertionError, match="Traceback"):  # any other command does import them
        probe(("-m", "tests", "check"), **changed)


@both_ways
def test_a_backend_that_needs_models_gets_them(way: tuple[str, ...], tmp_path: Path) -> None:
    """As those of GeoDjango do."""
    engine = connection.settings_dict["ENGINE"]
    (tmp_path / "mapping").mkdir()
    (tmp_path / "mapping" / "__init__.py").touch()
    (tmp_path / "mapping" / "base.py").write_text(
        f"from django.db import models\nfrom {engine}.base import DatabaseWrapper\n\n"
        "class Place(models.Model):\n    class Meta:\n        app_label, db_table, managed = 'mapping', 'p', False\n"
    )
    changed = settings_file(tmp_path, "DATABASES['default']['ENGINE'] = 'mapping'")
    store_for("default").register(name="web", hostname="h", pid=1, queues="", threads=1)
    assert probe(way, **changed)["healthy"]


@pytest.mark.parametrize(
    "arguments",
    [
        (*MODULE, "--settings", "changed_settings", "--pythonpath", "{folder}"),
        (*COMMAND, "--settings=changed_settings", "--pythonpath={folder}", "--no-color", "-v", "0"),
    ],
)
def test_the_settings_can_be_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    settings_file(tmp_path, "DBQUEUE = {'THREADS': 'named'}")
    way = tuple(argument.format(folder=tmp_path) for argument in arguments)
    assert "THREADS'] is 'named'" in probe(way)["reason"]


@both_ways
def test_its_help_is_help(way: tuple[str, ...]) -> None:
    command = [sys.executable, *way, "--help"]
    assert b"--max-age SECONDS" in subprocess.check_output(command, cwd=ROOT, env=environment())


def test_a_program_may_call_the_command() -> None:
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("dbqueue_health", stdout=out)
    assert ended.value.code == 1
    assert json.loads(out.getvalue()) == {"healthy": False, "reason": "no worker is running"}
    store_for("default").register(name="web", hostname="h", pid=1, queues="", threads=1)
    out = StringIO()
    call_command("dbqueue_health", worker="web", max_age=20, stdout=out)
    assert json.loads(out.getvalue())["healthy"]
