"""What happens when Django starts: the checks are known, and each app's tasks are registered."""

from importlib.util import find_spec

import django
from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class DBQueueConfig(AppConfig):
    name = "dbqueue"
    verbose_name = "Task queue"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, conf  # noqa: F401  importing the checks registers them

        settings, _ = conf.read()
        autodiscover_modules(*settings.task_modules)
        if django.VERSION >= (6, 0) or find_spec("django_tasks"):
            from . import backend

            backend.ready()
