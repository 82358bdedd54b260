"""dj-queue: one process with 8 threads, kept connections, a large prefetch, LISTEN/NOTIFY, and a poll every 10 ms.

Its guide asks for a positive ``CONN_MAX_AGE``. ``prefetch_multiplier`` lets the worker claim ahead of its threads: in
trials 250 gave half as many jobs again as 4. In mode "async" the worker is a thread of the one process, not a child of
it, and as fast. ``--only-work``: nothing here is scheduled or recurs. Successful jobs are kept, its default: without
that it was several times slower. Many are enqueued by the backend's ``enqueue_all()``.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="dj-queue",
    folder="dj_queue",
    jobs=8_000,
    worker=("-m", "django", "dj_queue", "--only-work", "-v", "0"),
    unfinished=(
        "SELECT (SELECT count(*) FROM dj_queue_ready_executions) + (SELECT count(*) FROM dj_queue_claimed_executions)"
    ),
    modules=("django.tasks", "dj_queue"),
    distributions=("dj-queue",),
)
