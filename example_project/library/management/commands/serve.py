"""``manage.py serve``: the web server, a worker beside it, and jobs to look at."""

import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from example_project.showcase.examples import enqueue_examples

from ... import login

GRACE = "5"
"""Seconds that running jobs get at the end. What takes longer is given back, and runs again at the next start."""


class Command(BaseCommand):
    help = "Run the web server and a worker, both starting anew when the code changes, until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000", help="As in runserver.")
        parser.add_argument("--bare", action="store_true", help="Enqueue no jobs to look at.")

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        if not options["bare"]:
            enqueue_examples()
        for number in (signal.SIGTERM, signal.SIGINT):  # a shell that starts this behind its back ignores SIGINT
            signal.signal(number, _interrupt)
        place = f"127.0.0.1:{options['address']}" if options["address"].isdigit() else options["address"]
        self.stdout.write(f"The queue is at http://{place}/, in the admin: {_how_to_log_in()}. Ctrl-C ends it.")
        self.stdout.flush()
        children = [_start("runserver", options["address"]), _start("dbqueue_worker", "--reload", "--grace", GRACE)]
        try:
            while all(child.poll() is None for child in children):
                time.sleep(0.2)
            raise CommandError(_what_ended(*children))
        except KeyboardInterrupt:
            self.stdout.write(f"\nStopping: what the worker can't finish in {GRACE} seconds it gives back.")
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # it is stopping already
            for child in children:
                child.terminate()
            for child in children:
                child.wait()


def _how_to_log_in() -> str:
    if login.somebody_can_log_in():
        return "log in as before (`make demo` gives its user a new password, and prints it)"
    return login.give_new_password()


def _what_ended(server: "subprocess.Popen[bytes]", worker: "subprocess.Popen[bytes]") -> str:
    if server.poll() is None:
        return "The worker ended by itself; the web server was stopped."
    return (
        "The web server ended by itself; the worker was stopped. Where something else has its port: "
        "make serve ADDRESS=127.0.0.1:8001."
    )


def _start(*arguments: str) -> "subprocess.Popen[bytes]":
    # In a session of its own: Ctrl-C reaches only this process, which then tells each child once.
    command = [sys.executable, sys.argv[0], *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
