"""django-ox: one process, 8 at once, kept connections, a poll every 10 ms.

``--concurrency`` is its number of threads. Its worker warns where connections are not kept; of the two ways that it
names, ``CONN_MAX_AGE`` was faster in trials than Django's pool, and one process faster than two with four threads each.
It has no LISTEN, so what an idle worker's job waits for is mostly the poll. Many jobs are enqueued by its
``enqueue_many()``, in statements of 1,000 rows.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="django-ox",
    folder="django_ox",
    jobs=4_000,
    worker=("-m", "django", "ox_worker", "--concurrency", "8", "--interval", "0.01", "-v", "0"),
    unfinished="SELECT count(*) FROM django_ox_oxtask WHERE status IN ('READY', 'RUNNING', 'WAITING')",
    modules=("django.tasks", "django_ox"),
    distributions=("django-ox",),
)
