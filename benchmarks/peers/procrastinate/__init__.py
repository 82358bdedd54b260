"""Procrastinate: one process, 8 at once, LISTEN/NOTIFY, psycopg 3 without Django, on uvloop.

Jobs are coroutines, which it runs on its event loop; others would go through a thread. The worker is given a pool of
its own, as its guide allows: the one that it makes asks the server whether a connection lives each time it takes one.
16 at once were no faster in trials. Many are enqueued by one ``batch_defer()``.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="procrastinate",
    folder="procrastinate",
    jobs=4_000,
    worker=("-m", "benchmarks.peers.procrastinate.worker"),
    unfinished="SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
    modules=("procrastinate", "psycopg_pool", "uvloop"),
    distributions=("procrastinate",),
)
