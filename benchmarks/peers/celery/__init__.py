"""Celery on Redis: two prefork processes, a prefetch of 128 each, no results, a unix socket.

Its guide asks for a multiplier of 64 or 128 where tasks are short. Gossip, mingle, heartbeats of workers and rate
limits are off. In trials neither ``-O default`` nor another prefetch was faster. Redis writes nothing to disk here,
which is its fastest: a crash of it loses all jobs. Many are enqueued by ``apply_async()`` on one producer: there is no
call for many.
"""

from benchmarks.peers.peer import Peer

POOL = ("--pool", "prefork", "--concurrency", "2")
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")

PEER = Peer(
    name="celery",
    folder="celery",
    jobs=6_000,
    worker=("-m", "celery", "-A", "benchmarks.peers.celery.jobs", "worker", *POOL, *QUIET),
    unfinished="celery unacked",
    modules=("celery", "redis"),
    distributions=("celery", "kombu", "redis"),
    store="redis",
)
