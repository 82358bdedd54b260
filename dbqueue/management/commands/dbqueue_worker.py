"""``manage.py dbqueue_worker``: run jobs."""

import argparse
import atexit
import logging
import os
import signal
import sys
import threading
import uuid
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import django
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, Error, OperationalError, ProgrammingError, connections
from django.db.migrations.executor import MigrationExecutor

from ... import checks, conf
from ...claim import Selection
from ...conf import Settings, is_queue_name
from ...connections import close_all
from ...dispatcher import Dispatcher, Mode
from ...exceptions import InvalidSettings
from ...models import NAME_LENGTH, Worker
from ...queues import doubt_of, with_other_names
from ...supervisor import READY, Supervisor

LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}

LAST_WORDS = 5.0
"""Seconds for what registered with atexit, as a client that sends its last events there."""


class Command(BaseCommand):
    help = "Run jobs from the database until told to stop (SIGTERM or SIGINT; a second one ends at once)."

    _called_from_command_line: bool
    """Set by Django: whether this process is the worker, and not a program that called it."""

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
        # A supervisor tells each child its process id, by what name it will look for the child's row, and the file
        # descriptor on which it waits to hear that the child has started.
        parser.add_argument("--supervised-by", type=int, help=argparse.SUPPRESS)
        parser.add_argument("--token", type=uuid.UUID, help=argparse.SUPPRESS)
        parser.add_argument("--ready-to", type=int, help=argparse.SUPPRESS)

    def execute(self, *args: Any, **options: Any) -> str | None:
        token = checks.worker_settings.set(_changed(conf.read()[0], options))
        try:
            return super().execute(*args, **options)
        finally:
            checks.worker_settings.reset(token)

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        """Also the checks of the worker's database; a supervisor's children leave them to the supervisor."""
        usual = super().get_check_kwargs(options)
        settings = checks.worker_settings.get()
        return usual if settings is None or options["supervised_by"] else {**usual, "databases": [settings.database]}

    def check(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().check(*args, **kwargs)
        except OperationalError:
            # Some checks of Django ask the server. That it can't be reached, the start itself will say.
            super().check(*args, **{**kwargs, "databases": None})

    def handle(self, *args: Any, **options: Any) -> None:
        if getattr(self, "_called_from_command_line", False):
            _keep_streams_open()
        _log_to_console(options["verbosity"])
        settings = _settings(options)
        selection = Selection(with_other_names(options["queues"]), with_other_names(options["exclude_queues"]))
        _refuse(options, settings, selection)
        if options["supervised_by"] is None and (options["processes"] > 1 or options["reload"]):
            sys.exit(_run(Supervisor(settings, options["processes"], options["name"], reload=options["reload"])))
        mode = Mode(
            selection=selection,
            name=options["name"],
            burst=options["burst"],
            max_jobs=options["max_jobs"],
            supervisor=options["supervised_by"],
            token=options["token"],
        )
        close_all()  # system checks, or an app's ready(), may have opened what nobody here would ever close
        try:
            code = _run(Dispatcher(settings, mode, lambda: _tell_ready(options["ready_to"])))
        except (OperationalError, ProgrammingError) as exc:
            said = f"The worker can't start on the database {settings.database!r}: {str(exc).strip()}"
            raise CommandError(said + _advice(settings.database)) from exc
        if getattr(self, "_called_from_command_line", False):
            _leave(code)
        sys.exit(code)


def _run(worker: Any) -> int:
    """Run a dispatcher or a supervisor, with signals that tell it to stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: worker.stop())
    code: int = worker.run()
    return code


def _tell_ready(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):  # the supervisor has gone
            os.write(descriptor, READY)
        os.close(descriptor)


def _leave(code: int) -> None:
    """End this process, whatever its threads do.

    Python would wait for every thread that a job started and left, for ever if need be. And a job that outlived its
    grace would run on in the middle of an interpreter that is going away.
    """
    # On a thread, because what registered there may wait for such a thread too.
    last_words = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    last_words.start()
    last_words.join(LAST_WORDS)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody reads it any more, or a job has put something else in its place
            stream.flush()
    os._exit(code)


def _keep_streams_open() -> None:
    """A job that closes a stream would take it from the other jobs, and from the log, whose lines would fail."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # there is none, or it is of a kind that can't be changed
            stream.close = stream.flush  # type: ignore[method-assign]


def _settings(options: dict[str, Any]) -> Settings:
    try:
        return _changed(Settings.load(), options)
    except InvalidSettings as exc:
        raise CommandError(str(exc)) from exc


def _changed(settings: Settings, options: dict[str, Any]) -> Settings:
    """The settings with what the command line says. Raises CommandError."""
    given = {name: options[name] for name in ("threads", "database", "grace") if options[name] is not None}
    try:
        return settings.replace(**given)
    except InvalidSettings as exc:
        raise CommandError(str(exc)) from exc


def _refuse(options: dict[str, Any], settings: Settings, selection: Selection) -> None:
    """Raises CommandError for options that make no sense together, or that the worker's row can't hold."""
    is_supervisor = options["supervised_by"] is None and (options["processes"] > 1 or options["reload"])
    if is_supervisor and options["reload"] and (options["burst"] or options["max_jobs"]):
        raise CommandError("--reload keeps a worker running: it can't be used with --burst or --max-jobs.")
    # A supervisor numbers its children.
    longest = NAME_LENGTH - (len(f".{options['processes']}") if is_supervisor else 0)
    if len(options["name"]) > longest or not options["name"].isprintable():
        raise CommandError(f"--name is {options['name']!r}; it must be printable text of at most {longest} characters.")
    if len(str(selection)) > (most := Worker._meta.get_field("queues").max_length or 0):
        raise CommandError(f"--queues and --exclude-queues must not have more than {most} characters together.")
    if selection.include and not any(map(selection.serves, selection.include)):
        raise CommandError(f"--exclude-queues leaves nothing of --queues {','.join(selection.include)}.")
    if options["supervised_by"] is None:
        _warn_of_unknown_queues(settings, selection)


def _warn_of_unknown_queues(settings: Settings, selection: Selection) -> None:
    """A queue that was removed from the settings may still hold jobs, so a worker may serve it."""
    names, allowed = (*selection.include, *selection.exclude), _allowed_queues(settings)
    logger = logging.getLogger("dbqueue.worker")
    if not allowed:
        if doubt := _doubt_of(names, settings.database):
            logger.warning("%s", doubt)
    elif unknown := [name for name in names if name not in allowed]:
        logger.warning(
            "No new job can be in %s: the queues are %s (DBQUEUE['QUEUES'], and QUEUES of dbqueue's backends in TASKS)",
            ", ".join(map(repr, unknown)),
            ", ".join(map(repr, sorted(allowed))),
        )


def _doubt_of(names: Sequence[str], alias: str) -> str:
    """What is strange about these queues, as far as a database tells that may not answer yet, or have no tables."""
    try:
        return doubt_of(names, alias)
    except Error:
        return ""
    finally:
        close_all()  # a supervisor keeps no connection


def _allowed_queues(settings: Settings) -> set[str]:
    """The queues that jobs may be in; empty: any."""
    if not settings.queues:
        return set()
    allowed = set(settings.queues)
    for backend in _backends():
        if not backend.queues:
            return set()
        allowed |= backend.queues
    return allowed


def _backends() -> "list[Any]":
    """dbqueue's backends among those of ``TASKS``."""
    if django.VERSION < (6, 0) and not find_spec("django_tasks"):
        return []
    from ...backend import DatabaseBackend
    from ...tasks_api import task_backends

    return [backend for backend in task_backends.all() if isinstance(backend, DatabaseBackend)]


def _advice(alias: str) -> str:
    """What to do about a database whose tables are not those of this version; empty if they are."""
    try:
        executor = MigrationExecutor(connections[alias])
    except Error:
        return ""  # it does not answer, and the message says so
    if not executor.migration_plan(executor.loader.graph.leaf_nodes("dbqueue")):
        return ""
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
    return f"\nHave you run manage.py migrate{database}?"


def _queues(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not is_queue_name(name):
            raise ArgumentTypeError(f"{name!r} is not a queue's name")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _log_to_console(verbosity: int) -> None:
    """Show the worker's log lines, and those of Celery's loggers of tasks, where nobody else has said what happens to
    them; the project's LOGGING wins."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if _shown("dbqueue", handler, LEVELS[verbosity]):
        # django.tasks logs each failure too. Where nobody listens, Python itself would print that traceback again.
        for name in ("django.tasks", "django_tasks"):
            if not logging.getLogger(name).hasHandlers():
                logging.getLogger(name).addHandler(logging.NullHandler())
    _shown("celery.task", handler, LEVELS[verbosity])


def _shown(name: str, handler: logging.Handler, level: int) -> bool:
    """Let a logger have this handler, and this level, if it has no handler yet. Returns whether it had none."""
    logger = logging.getLogger(name)
    if logger.hasHandlers():
        return False
    logger.addHandler(handler)
    logger.setLevel(level)
    return True
