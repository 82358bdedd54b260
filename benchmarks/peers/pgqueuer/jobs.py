"""PgQueuer's jobs."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers import count

CHUNK = 1_000
"""Jobs of one statement."""


@asynccontextmanager
async def queuer() -> AsyncIterator[PgQueuer]:
    """What the worker runs."""
    made = PgQueuer(await _driver())

    @made.entrypoint("noop")
    async def noop(job: Job) -> None:
        """Nothing, but that it ran."""
        count.ran()

    @made.entrypoint("timed")
    async def timed(job: Job) -> None:
        """Nothing, but when it began."""
        count.began(int(job.payload))

    yield made


def set_up() -> None:
    async def install() -> None:
        queries = Queries(await _driver())
        await queries.install()
        await queries.optimize_autovacuum()

    _loop().run(install())


def enqueue_many(number: int) -> None:
    async def enqueue() -> None:
        for first in range(0, number, CHUNK):
            size = min(CHUNK, number - first)
            await queries.enqueue(["noop"] * size, [None] * size, [0] * size)

    queries = _queries()
    _loop().run(enqueue())


def enqueue_each(number: int) -> None:
    async def enqueue() -> None:
        for _ in range(number):
            await queries.enqueue("noop", None)

    queries = _queries()
    _loop().run(enqueue())


def enqueue_timed(number: int) -> None:
    _loop().run(_queries().enqueue("timed", str(number).encode()))


async def _driver() -> AsyncpgDriver:
    return AsyncpgDriver(await asyncpg.connect(os.environ["DATABASE_URL"]))


@functools.cache
def _loop() -> asyncio.Runner:
    """The producer's one loop: it calls from outside of any."""
    return asyncio.Runner()


@functools.cache
def _queries() -> Queries:
    return Queries(_loop().run(_driver()))
