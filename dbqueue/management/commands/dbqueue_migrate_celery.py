"""``manage.py dbqueue_migrate_celery --check PATH``: what of a code base's use of Celery works here."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...compat.coverage import Verdict
from ...compat.report import check


class Command(BaseCommand):
    help = (
        "Read a code base, importing nothing of it, and say what of its use of Celery dbqueue.compat.celery "
        "covers, what "
        "behaves differently and why, and what is missing. Exits with 1 if something is missing."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check",
            required=True,
            metavar="PATH",
            help="A Python file, or a folder; hidden folders, virtual environments and node_modules are left out. "
            "With --verbosity 2 what is covered is listed too.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["check"])
        try:
            report = check(path)
        except OSError as exc:
            raise CommandError(str(exc)) from exc
        if not report.files and not report.unreadable:
            raise CommandError(f"PATH is {str(path)!r}; there is no Python file in it.")
        for line in report.lines(with_covered=options["verbosity"] > 1):
            self.stdout.write(line)
        if report.of(Verdict.MISSING):
            raise SystemExit(1)
