"""What happens when Django starts: the checks are known, and each app's tasks are registered."""

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import django
from django.apps import AppConfig
from django.core.exceptions import AppRegistryNotReady
from django.utils.module_loading import autodiscover_modules

if TYPE_CHECKING:
    from .results import JobResult


class DBQueueConfig(AppConfig):
    name = "dbqueue"
    verbose_name = "Task queue"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _answer_a_probe()

    def ready(self) -> None:
        from . import checks, conf, entrance, registry  # noqa: F401  importing the checks registers them

        entrance.run_inline = _run_inline
        registry.ready()
        settings, _ = conf.read()
        autodiscover_modules(*settings.task_modules)
        if django.VERSION >= (6, 0) or find_spec("django_tasks"):
            from . import backend

            backend.ready()


def _run_inline(
    insert: "Callable[[], list[JobResult[Any]]]", entered: "Callable[[JobResult[Any]], None]"
) -> "list[JobResult[Any]]":
    from .inline import run_at_once  # what runs jobs is loaded where jobs are run

    return run_at_once(insert, entered)


def _answer_a_probe() -> None:
    """Answer ``manage.py dbqueue_health`` here and end the process.

    A command runs only after the models and tasks of every app were imported: seconds in a large project, for a probe
    that comes every few seconds. Django makes the apps' configs before it imports the first model, so here an answer is
    still quick. Help, and a database whose backend needs models, are left to the command.
    """
    if sys.argv[1:2] != ["dbqueue_health"] or {"-h", "--help"} & set(sys.argv):
        return
    from . import health

    with suppress(AppRegistryNotReady):
        sys.exit(health.main(sys.argv[2:]))
