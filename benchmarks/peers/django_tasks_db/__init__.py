"""django-tasks-db: two workers, each of which runs one job at a time; kept connections, a poll every 10 ms.

A worker knows no threads; more of it are more processes. Of 1, 2, 4 and 8, two were the fastest on two cores in trials.
It has no LISTEN. It has no call for many, either: they are enqueued one by one, in one transaction.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="django-tasks-db",
    folder="django_tasks_db",
    jobs=3_000,
    worker=("-m", "django", "db_worker", "--interval", "0.01", "--no-startup-delay", "-v", "0"),
    processes=2,
    unfinished="SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status IN ('READY', 'RUNNING')",
    modules=("django.tasks", "django_tasks_db"),
    distributions=("django-tasks-db",),
)
