"""PgQueuer: one process, one asyncpg connection, LISTEN/NOTIFY, batches of 250, on uvloop.

Its guide asks for a larger ``batch_size`` where jobs are short, a plain connection for the worker, and its own
autovacuum settings on its tables; all three are here. In trials 250 to 1,000 were alike, 10 (its default) and 2,000
slower, and several queue managers on one loop, as in its own benchmark, no faster than one. Its tables stay "durable",
its default and what the others here have. The worker is started by ``pgqueuer.run()``, as its command ``pgq run`` does:
with typer 0.29 that command of 1.6.0 fails before it starts. A finished job's row is deleted, and logged in another
table. Many jobs are enqueued by ``enqueue()`` with lists, 1,000 in each.
"""

from benchmarks.peers.peer import Peer

PEER = Peer(
    name="pgqueuer",
    folder="pgqueuer",
    jobs=80_000,
    worker=("-m", "benchmarks.peers.pgqueuer.worker"),
    unfinished="SELECT count(*) FROM pgqueuer",
    modules=("pgqueuer", "asyncpg", "uvloop"),
    distributions=("pgqueuer", "asyncpg"),
)
