"""``manage.py dbqueue_import_beat``: turn django-celery-beat's periodic tasks into schedules."""

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import conf
from ...compat.beat import imported
from ...store import store_for


class Command(BaseCommand):
    help = "Turn django-celery-beat's periodic tasks into schedules of dbqueue, by name. It may be run again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            model: Any = apps.get_app_config("django_celery_beat").get_model("PeriodicTask")
        except LookupError as exc:
            raise CommandError("django_celery_beat is not in INSTALLED_APPS, so there is nothing to read.") from exc
        rows = model.objects.select_related("crontab", "interval", "solar", "clocked").order_by("name")
        found = list(imported(rows, store_for(conf.read()[0].database), dry_run=options["dry_run"]))
        for one in found:
            self.stdout.write(str(one))
        refused = sum(one.done == "refused" for one in found)
        nothing = ", nothing written" if options["dry_run"] else ""
        self.stdout.write(f"{len(found)} periodic tasks, {refused} refused{nothing}.")
        if refused:
            raise CommandError(f"{refused} could not be turned into schedules.", returncode=1)
