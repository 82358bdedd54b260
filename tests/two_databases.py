"""``python -m tests.two_databases FOLDER``: the admin with jobs in another database than the users.

A process of its own, because Django's databases can't be changed while it runs. Nothing routes the models: the alias in
the settings must do it.
"""

import os
import sys
from pathlib import Path
from unittest import mock


def configure(folder: Path) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings

    engine = {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"transaction_mode": "IMMEDIATE"}}
    settings.DATABASES = {alias: {**engine, "NAME": folder / f"{alias}.sqlite3"} for alias in ("default", "jobs")}
    settings.DBQUEUE = {"DATABASE": "jobs"}
    settings.ALLOWED_HOSTS = ["testserver"]
    django.setup()


def visit() -> str:
    """Enqueue, cancel and retry a job through the pages. Returns what is where then."""
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from dbqueue.admin import JobAdmin
    from dbqueue.models import Job
    from dbqueue.store import store_for

    from .shop.admin_tasks import without_arguments

    for alias in ("default", "jobs"):
        call_command("migrate", database=alias, verbosity=0)
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    jobs = "/admin/dbqueue/job/"
    saved = client.post(f"{jobs}add/?task={without_arguments.name}", {"queue_name": "default", "priority": "0"})
    page = saved.headers["Location"]
    (job,) = Job.objects.using("jobs")
    for operation, status in (("cancel", "CANCELLED"), ("retry", "READY")):
        client.post(f"{jobs}{job.pk}/{operation}/")
        job.refresh_from_db()
        assert job.status == status
        assert without_arguments.name in client.get(page).content.decode()
        assert f'value="{job.pk}"' in client.get(jobs).content.decode()
    store_for("jobs").register(name="far-away", hostname="h", pid=1, queues="", threads=1)
    assert "far-away" in client.get("/admin/dbqueue/worker/").content.decode()
    client.raise_request_exception = False
    with mock.patch.object(JobAdmin, "log_addition", side_effect=RuntimeError("no log today")):
        failed = client.post(f"{jobs}add/?task={without_arguments.name}", {"queue_name": "default", "priority": "0"})
    assert failed.status_code == 500  # and the job that it had inserted is not among those counted below
    here, there = (Job.objects.using(alias).count() for alias in ("jobs", "default"))
    return f"{here} job in 'jobs', {there} in 'default'; {LogEntry.objects.count()} log entries in 'default'"


if __name__ == "__main__":
    configure(Path(sys.argv[1]))
    print(visit())
