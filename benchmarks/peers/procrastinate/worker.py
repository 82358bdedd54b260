"""``python -m benchmarks.peers.procrastinate.worker``: what ``procrastinate worker`` does, on a pool of our own."""

import os

import uvloop
from psycopg_pool import AsyncConnectionPool

from .jobs import app

CONCURRENCY = 8

CONNECTIONS = CONCURRENCY + 2
"""One for each job that runs, and two for the worker's own questions."""


async def main() -> None:
    async with (
        AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS) as pool,
        app.open_async(pool),
    ):
        await app.run_worker_async(concurrency=CONCURRENCY)


if __name__ == "__main__":
    uvloop.run(main())
