"""``manage.py dbqueue_prune``: delete ended jobs that are old, as the workers do by themselves."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from ...conf import Settings
from ...exceptions import InvalidSettings
from ...retention import Sweep
from ...store import store_for

OPTIONS = {"database": "database", "successful_days": "keep_successful_days", "failed_days": "keep_failed_days"}
"""The setting that each option stands in for."""


class Command(BaseCommand):
    help = "Delete jobs that ended long ago, with their attempts, and the rows of workers that stopped as long ago."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", help="Alias of the database (default: DBQUEUE['DATABASE']).")
        parser.add_argument(
            "--successful-days",
            type=float,
            metavar="N",
            help="Delete what succeeded more than N days ago (default: DBQUEUE['KEEP_SUCCESSFUL_DAYS']).",
        )
        parser.add_argument(
            "--failed-days",
            type=float,
            metavar="N",
            help="Delete what failed, or was cancelled, more than N days ago (default: DBQUEUE['KEEP_FAILED_DAYS']).",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only count the jobs that would be deleted.")

    def handle(self, *args: Any, **options: Any) -> None:
        given = {OPTIONS[name]: options[name] for name in OPTIONS if options[name] is not None}
        try:
            settings = Settings.load().replace(**given)
        except InvalidSettings as exc:
            raise CommandError(str(exc)) from exc
        try:
            sweep = Sweep(store_for(settings.database), settings, dry_run=options["dry_run"])
            while sweep.step():
                pass
        except (OperationalError, ProgrammingError) as exc:
            said = f"Can't prune the database {settings.database!r}: {str(exc).strip()}"
            raise CommandError(f"{said}\nIs it up, and have you run manage.py migrate?") from exc
        said = "Would delete" if options["dry_run"] else "Deleted"
        self.stdout.write(f"{said} from the database {settings.database!r}: {sweep}")
