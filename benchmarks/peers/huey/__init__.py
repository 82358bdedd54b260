"""Huey on Redis: two processes, blocking reads, no results, no periodic tasks, a unix socket.

In trials on two cores two processes were faster than 2 or 8 threads and than 1, 4 or 8 processes; one thread came near,
with one job at a time. Redis writes nothing to disk here, which is its fastest: a crash of it loses all jobs; and a
worker that dies takes those along that it runs. Many are enqueued by ``map()``, which sends them one by one: Huey has
no other call.
"""

from benchmarks.peers.peer import Peer

CONSUMER = "benchmarks.peers.huey.jobs.huey"

PEER = Peer(
    name="huey",
    folder="huey",
    jobs=30_000,
    worker=("-m", "huey.bin.huey_consumer", CONSUMER, "-k", "process", "-w", "2", "-n", "-q", "-g", "TERM"),
    unfinished="huey.redis.benchmark",
    modules=("huey", "redis"),
    distributions=("huey", "redis"),
    store="redis",
)
