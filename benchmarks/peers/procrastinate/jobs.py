"""Procrastinate's jobs."""

import os

from procrastinate import App, PsycopgConnector

from benchmarks.peers import count

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))


@app.task(name="noop")
async def noop() -> None:
    """Nothing, but that it ran."""
    count.ran()


@app.task(name="timed")
async def timed(number: int) -> None:
    """Nothing, but when it began."""
    count.began(number)


def set_up() -> None:
    app.open()
    app.schema_manager.apply_schema()


def enqueue_many(number: int) -> None:
    app.open()
    noop.batch_defer(*[{}] * number)


def enqueue_each(number: int) -> None:
    app.open()
    for _ in range(number):
        noop.defer()


def enqueue_timed(number: int) -> None:
    app.open()
    timed.defer(number=number)
