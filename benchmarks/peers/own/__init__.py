"""dbqueue: one process with 8 threads, all settings as they come.

Its jobs don't use Django's connections, so no thread has one; what is kept are the five of the worker's services. Many
jobs are enqueued by one ``enqueue_many()``.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="dbqueue",
    folder="own",
    jobs=100_000,
    worker=("-m", "django", "dbqueue_worker", "--threads", "8", "-v", "0"),
    unfinished="SELECT count(*) FROM dbqueue_job WHERE status NOT IN ('SUCCESSFUL', 'FAILED', 'CANCELLED')",
    modules=("dbqueue",),
    distributions=("django-dbqueue",),
)
