"""``python -m tests migrate``: manage.py of the tests' settings, for the worker processes that tests start."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
execute_from_command_line([sys.argv[0], *sys.argv[1:]])
