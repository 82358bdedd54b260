"""``manage.py dbqueue_worker``: run jobs."""

import logging
import os
import signal
import sys
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from ...claim import Selection
from ...conf import Settings, is_queue_name
from ...connections import close_all
from ...dispatcher import Dispatcher, Mode
from ...exceptions import InvalidSettings
from ...supervisor import Supervisor

LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}


class Command(BaseCommand):
    help = "Run jobs from the database until told to stop (SIGTERM or SIGINT; a second one ends at once)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--queues", type=_queues, default=(), metavar="A,B", help="Serve only these queues.")
        parser.add_argument("--exclude-queues", type=_queues, default=(), metavar="C", help="Serve all but these.")
        parser.add_argument("--threads", type=int, help="Jobs at once in a process (default: DBQUEUE['THREADS']).")
        parser.add_argument("--processes", type=_positive, default=1, help="Worker processes (default: 1).")
        parser.add_argument("--database", help="Alias of the database (default: DBQUEUE['DATABASE']).")
        parser.add_argument("--burst", action="store_true", help="Run what is due, then exit with 0.")
        parser.add_argument("--max-jobs", type=_positive, metavar="N", help="Exit after N jobs in a process.")
        parser.add_argument("--name", default="", help="The worker's name (default: host and process id).")
        parser.add_argument("--grace", type=float, help="Seconds that running jobs get at the end (DBQUEUE['GRACE']).")
        parser.add_argument("--reload", action="store_true", help="Start anew when the code changes. For development.")
        parser.add_argument("--supervised-by", type=int, help="Set by a supervisor: its process id.")

    def handle(self, *args: Any, **options: Any) -> None:
        _log_to_console(options["verbosity"])
        settings = _settings(options)
        if options["supervised_by"] is None and (options["processes"] > 1 or options["reload"]):
            sys.exit(_run(Supervisor(options["processes"], options["name"], reload=options["reload"])))
        mode = Mode(
            selection=Selection(options["queues"], options["exclude_queues"]),
            name=options["name"],
            burst=options["burst"],
            max_jobs=options["max_jobs"],
            supervisor=options["supervised_by"],
        )
        close_all()  # system checks, or an app's ready(), may have opened what nobody here would ever close
        dispatcher = Dispatcher(settings, mode)
        try:
            code = _run(dispatcher)
        except (OperationalError, ProgrammingError) as exc:
            raise CommandError(f"The worker can't start on the database {settings.database!r}: {exc}") from exc
        if dispatcher.has_running_jobs:
            # Their threads would be asked to end in the middle of an interpreter that is going away.
            logging.shutdown()
            os._exit(code)
        sys.exit(code)


def _run(worker: Any) -> int:
    """Run a dispatcher or a supervisor, with signals that tell it to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: worker.stop())
    code: int = worker.run()
    return code


def _settings(options: dict[str, Any]) -> Settings:
    given = {name: options[name] for name in ("threads", "database", "grace") if options[name] is not None}
    try:
        return Settings.load().replace(**given)
    except InvalidSettings as exc:
        raise CommandError(str(exc)) from exc


def _queues(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not is_queue_name(name):
            raise ArgumentTypeError(f"{name!r} is not a queue's name")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _log_to_console(verbosity: int) -> None:
    """Show the worker's log lines where nobody else has said what happens to them; the project's LOGGING wins."""
    logger = logging.getLogger("dbqueue")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(LEVELS[verbosity])
