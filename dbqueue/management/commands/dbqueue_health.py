"""``manage.py dbqueue_health``: say whether a worker lives.

From the command line ``dbqueue/apps.py`` answers before it comes to this; a program that calls the command comes here.
"""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ...health import HELP, add_arguments, check


class Command(BaseCommand):
    help = HELP
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        answer = check(worker=options["worker"], max_age=options["max_age"], database=options["database"])
        self.stdout.write(json.dumps(answer))
        if not answer["healthy"]:
            sys.exit(1)
