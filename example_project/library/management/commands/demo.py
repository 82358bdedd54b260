"""``manage.py demo``: read Python's library with dbqueue, and say how that went."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

import dbqueue
from dbqueue.conf import Settings
from dbqueue.models import FINAL, Job, Worker

from ... import login, report, sources
from ...models import SourceFile
from ...tasks import analyse
from ...watching import SESSION_NAME, ProgressBar, session_counter

LOOK = 0.02
SHOW = 0.25
"""Seconds between two looks at the worker's sessions, and between two steps of the progress bar."""


class Command(BaseCommand):
    help = "Enqueue a job for each file of Python's library, run a worker until all are done, show what was found."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--threads", type=int, help="Jobs at once (default: DBQUEUE['THREADS']).")
        parser.add_argument("--files", type=int, metavar="N", help="Only the first N files.")
        parser.add_argument("--no-user", action="store_true", help="Make no user for the admin.")

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is told to ignore it
        try:
            self._demonstrate(**options)
        except KeyboardInterrupt:
            self.stdout.write("\nStopped. What was not run is still in the queue.")
            sys.exit(128 + signal.SIGINT)

    def _demonstrate(self, **options: Any) -> None:
        threads = options["threads"] or Settings.load().threads
        call_command("migrate", verbosity=0)
        if others := ", ".join(worker.name for worker in Worker.objects.alive()):
            self.stdout.write(
                f"Other workers take jobs from this database too, so the figures are not one worker's: {others}"
            )
        Job.objects.filter(task=analyse.name).delete()
        SourceFile.objects.all().delete()

        results = dbqueue.enqueue_many(analyse.s(name) for name in sources.names()[: options["files"]])
        self.stdout.write(
            f"{report.counted(len(results), 'job')} enqueued on {connection.vendor}, for a worker with "
            f"{report.counted(threads, 'thread')}."
        )
        with tempfile.TemporaryFile("w+") as log:
            code, most_sessions = self._watch(self._start_worker(threads, log), len(results))
            log.seek(0)
            if said := log.read():
                self.stdout.write(f"\nThe worker said:\n{said}")

        self.stdout.write(report.findings())
        self.stdout.write(report.run(analyse.name, threads, most_sessions))
        if failures := report.failures(analyse.name):
            raise CommandError(f"Not every job succeeded:\n{failures}")
        if code:
            raise CommandError(f"Every job succeeded, but the worker ended with {code}.")
        if not options["no_user"]:
            self._make_user()

    def _start_worker(self, threads: int, log: IO[str]) -> "subprocess.Popen[str]":
        """Start a worker as anybody would; from a warning upwards, it logs to ``log``."""
        command = [
            sys.executable,
            sys.argv[0],
            "dbqueue_worker",
            "--burst",
            "--queues",
            analyse.queue_name,  # what `make serve` has left in others can wait
            "--threads",
            str(threads),
            "--verbosity",
            "0",
        ]
        # What old code looks like to a newer Python is no news here.
        quiet = {"PYTHONWARNINGS": "ignore::SyntaxWarning,ignore::DeprecationWarning"}
        # With DEBUG, Django keeps the text of every query.
        environment = {**os.environ, **quiet, "DEBUG": "off", "PGAPPNAME": SESSION_NAME}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True)

    def _watch(self, worker: "subprocess.Popen[str]", total: int) -> tuple[int, int | None]:
        """Show the progress until the worker ends. Returns its exit code, and the most sessions that it had at once."""
        count_sessions = session_counter(worker.pid)
        most = 0
        bar = ProgressBar(total)
        show_at = 0.0
        try:
            while worker.poll() is None:
                if count_sessions:
                    most = max(most, count_sessions())
                if time.monotonic() > show_at:
                    bar.show(_ended())
                    show_at = time.monotonic() + SHOW
                time.sleep(LOOK)
        finally:
            worker.terminate()  # after Ctrl-C; one that has ended doesn't mind
            worker.wait()
        bar.show(_ended())
        bar.close()
        return worker.returncode, most if count_sessions else None

    def _make_user(self) -> None:
        self.stdout.write(
            "\nThe jobs and what they found are in the admin: run `make serve`, open http://127.0.0.1:8000/\n"
            f"and {login.give_new_password()} (made for this; each demo makes a new one).\n"
            "A job that is enqueued there runs at once: a worker runs beside the server."
        )


def _ended() -> int:
    return Job.objects.filter(task=analyse.name, status__in=FINAL).count()
