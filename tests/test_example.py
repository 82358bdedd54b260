"""What a newcomer runs: the example's commands as processes, and its task."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from django.contrib.auth.models import User
from django.db import connection

from dbqueue.models import Job, JobStatus, LogLine, Schedule, Worker, Workflow
from example_project.library import report, sources
from example_project.library.models import Function, Import, SourceFile
from example_project.library.tasks import analyse

from .workers import ROOT, burst, eventually

pytestmark = pytest.mark.django_db(transaction=True)

SERVICES = 6
"""Connections that a worker keeps beside those of its threads: docs/architecture.md."""


def manage(*arguments: str, **extra: str) -> "subprocess.Popen[str]":
    """Start the example's manage.py on the database of this test."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "example_project" / "manage.py"), *arguments],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DATABASE_URL": database_url(),
            **extra,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def database_url() -> str:
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files belong to the library."""
    monkeypatch.setattr(sources, "INSTALLED", tmp_path)
    return tmp_path


def test_the_demo_reads_files_and_says_how_it_went() -> None:
    process = manage("demo", "--files", "40", "--threads", "3")
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 0, output
    assert "40 of 40 jobs" in output
    assert re.search(r"jobs SUCCESSFUL +40\n", output)
    assert SourceFile.objects.count() == 40
    assert Function.objects.exists()
    most = re.search(r"most database connections of the worker seen at once +(\d+|not measurable here)", output)
    assert most
    if connection.vendor == "postgresql":
        # No upper bound: the server lists sessions for a moment after the worker has closed them.
        assert int(most[1]) > 0
    elif Path("/proc/self/fd").is_dir():
        assert 0 < int(most[1]) <= 3 + SERVICES
    else:
        assert most[1] == "not measurable here"
    user = User.objects.get()
    password = re.search(rf"log in as {user.username} with the password (\S+)", output)
    assert password
    assert user.check_password(password[1])


def test_the_demo_fails_and_names_each_job_that_failed() -> None:
    process = manage("demo", "--files", "30", "--no-user", DBQUEUE_MAX_RESULT_BYTES="1")
    output, _ = process.communicate(timeout=60)

    failed = Job.objects.filter(task=analyse.name, status=JobStatus.FAILED)
    assert process.returncode == 1
    assert failed.exists()
    for job in failed:
        assert re.search(rf"job {job.pk} .* FAILED: dbqueue.exceptions.NotStorable: The return value has", output)
    assert not User.objects.exists()


def test_an_interrupted_demo_ends_with_a_word() -> None:
    process = manage("demo", "--no-user")
    eventually(lambda: Worker.objects.alive().exists())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "Stopped." in output
    assert not Worker.objects.alive().exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_beside_the_server_and_both_end_together(number: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = manage("serve", "--bare", f"127.0.0.1:{port}")
    try:
        assert eventually(lambda: status_of(f"http://127.0.0.1:{port}/admin/login/")) == 200
        assert analyse.enqueue("keyword.py").get(timeout=15) >= 0
    finally:
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)

    assert process.returncode == 0, output
    assert f"The queue is at http://127.0.0.1:{port}/, in the admin" in output
    password = re.search(r"log in as dbqueue-demo with the password (\S+)\. Ctrl-C", output)
    assert password
    assert User.objects.get().check_password(password[1])
    assert status_of(f"http://127.0.0.1:{port}/admin/login/") is None
    assert Worker.objects.exists()
    assert not Worker.objects.alive().exists()


def test_of_a_taken_port_it_says_how_to_take_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = manage("serve", "--bare", f"127.0.0.1:{taken.getsockname()[1]}")
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 1, output
    assert "Where something else has its port: make serve ADDRESS=127.0.0.1:8001." in output
    assert not Worker.objects.alive().exists()


def test_the_pages_have_something_to_show_and_no_more_of_it_at_a_second_start() -> None:
    showcase = Job.objects.filter(task__startswith="example_project.showcase.tasks.")
    failed = showcase.filter(task__endswith=".count_lines", status=JobStatus.FAILED)
    for _ in range(2):
        process = manage("serve", "127.0.0.1:0")
        try:
            eventually(lambda: Worker.objects.alive().exists(), timeout=60)
            eventually(lambda: Workflow.objects.filter(finished_at__isnull=False).exists(), timeout=60)
            eventually(failed.exists, timeout=60)
            eventually(lambda: set(showcase.values_list("status", flat=True)) == set(JobStatus), timeout=60)
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    for job in showcase.filter(task__endswith=".survey"):
        told = job.progress or {}
        assert told.get("done") == told.get("total")
    surveyed = [job.args[0] for job in showcase.filter(task__endswith=".survey")]
    body = showcase.get(task__endswith=".rank")
    assert (body.status, sorted(body.return_value or ())) == (JobStatus.SUCCESSFUL, sorted(surveyed))
    assert LogLine.objects.filter(job__in=showcase, text__contains="functions in").count() == len(surveyed)
    assert Schedule.objects.filter(task="example_project.showcase.tasks.count_findings").count() == 1


def status_of(url: str) -> int | None:
    try:
        with urlopen(url, timeout=5) as response:
            return int(response.status)
    except URLError:
        return None


def test_a_file_that_is_read_twice_is_stored_once(library: Path) -> None:
    (library / "shop.py").write_text("import os\nfrom . import cart\nclass A:\n    def f(self):\n        return 1\n")

    assert analyse("shop.py") == 1
    assert analyse("shop.py") == 1

    file = SourceFile.objects.get()
    assert (file.lines, file.classes, file.problem) == (5, 1, "")
    assert list(Function.objects.values_list("name", "first_line", "lines")) == [("f", 4, 2)]
    assert list(Import.objects.values_list("module", flat=True)) == [".", "os"]


@pytest.mark.parametrize("source", [b"print 'x'\n", b"x = '\0'\n", b"# coding: no-such\n", b"\xff\n"])
def test_a_file_that_cannot_be_parsed_is_a_finding(library: Path, source: bytes) -> None:
    (library / "broken.py").write_bytes(source)

    assert analyse("broken.py") == 0

    assert "Error: " in SourceFile.objects.get().problem


def test_a_job_that_failed_is_reported_with_its_reason() -> None:
    analyse.enqueue("no/such/file.py")
    burst()

    failures = report.failures(analyse.name)

    assert re.fullmatch(
        r"  job \d+ \['no/such/file.py'\] FAILED: FileNotFoundError: The library has no file 'no/such/file.py'.",
        failures,
    )


def test_the_library_has_over_a_thousand_files() -> None:
    names = sources.names()

    assert len(names) > sources.FEWEST
    assert "json/decoder.py" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["/etc/passwd", "../os.py", "json/../../os.py", "json", ""])
def test_a_name_leads_only_to_files_of_the_library(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="The library has no file"):
        sources.read(name)
