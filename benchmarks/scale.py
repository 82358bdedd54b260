"""``python -m benchmarks.scale``: how long a claim takes as the tables grow, beside an almost empty table."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from django.db import connection

from .drain import empty
from .project import connect, on_postgresql
from .report import heading, table

COMMAND = "benchmarks.scale"

SIZES = (1, 100)
"""Jobs of one claim."""

CLAIMS = {1: 300, 100: 30}
"""Claims that are timed, by their size; each size takes a tenth of them before, untimed."""

READY = 3_700
"""READY jobs of the almost empty table, and behind the others: enough for all the claims."""

_INSERT = """
    INSERT INTO dbqueue_job (task, args, kwargs, queue_name, priority, status, run_after, backend, enqueued_at,
                             started_at, last_attempted_at, finished_at, worker_id, lease, attempt{columns})
    SELECT 'benchmarks.jobs.tasks.noop', '[]', '{{}}', {queue}, 0, '{status}', {run_after}, '', now(),
           {past}, {past}, {past}, {worker}, {lease}, {lease}{values}
    FROM generate_series(1, {number}) AS number
"""


class Scene(NamedTuple):
    """What the table is filled with before ``READY`` jobs are added, and which queues the worker leaves out.

    ``paused``: left out because somebody paused them.
    """

    title: str
    fill: Callable[[], None]
    excluded: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    holds_snapshot: bool = False


def insert(
    number: int, status: str = "READY", *, queue: str = "'default'", run_after: str = "NULL", **others: str
) -> None:
    """Insert rows by the server itself; ``queue`` and all that follow are SQL, where ``number`` counts from 1."""
    done = status == "SUCCESSFUL"
    values = {"past": "now() - interval '1 hour'" if done else "NULL", "worker": "1" if done else "NULL"}
    with connection.cursor() as cursor:
        cursor.execute(
            _INSERT.format(
                number=number,
                status=status,
                queue=queue,
                run_after=run_after,
                lease=int(done),
                columns="".join(f", {name}" for name in others),
                values="".join(f", {value}" for value in others.values()),
                **values,
            )
        )


def drain(jobs: int) -> None:
    """Let ``jobs`` jobs be claimed and finished, as a worker would."""
    from dbqueue.claim import Bookmark
    from dbqueue.outcome import Outcome
    from dbqueue.store import store_for

    insert(jobs)
    store, bookmark = store_for("default"), Bookmark()
    worker = register()
    while claims := store.claim(worker, 400, bookmark=bookmark):
        store.finish([Outcome.succeeded(claim, None) for claim in claims])


def register() -> int:
    from dbqueue.store import store_for

    return store_for("default").register(name="scale", hostname="scale", pid=1, queues="", threads=8)


@contextmanager
def snapshot() -> Iterator[None]:
    """Keep a snapshot of now: nothing that is removed from now on can be cleaned up."""
    with closing(connect()) as session, session.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM dbqueue_worker")
        yield


def scenes(share: float) -> list[Scene]:
    def of(number: int) -> int:
        return max(1, int(number * share))

    million, queues = of(1_000_000), of(1_000)
    return [
        Scene(f"{million:,} ready", lambda: insert(million)),
        Scene(
            f"{million:,} scheduled",
            lambda: insert(million, "SCHEDULED", run_after="now() + number * interval '1 minute'"),
        ),
        Scene(f"{10 * million:,} finished", lambda: insert(10 * million, "SUCCESSFUL")),
        Scene(f"a snapshot held while {million // 5:,} are done", lambda: drain(million // 5), holds_snapshot=True),
        Scene(f"{queues:,} queues of 100", lambda: insert(100 * queues, queue=f"'queue-' || number % {queues}")),
        Scene(
            f"{million // 10:,} ready in a queue left out",
            lambda: insert(million // 10, queue="'left out'"),
            excluded=("left out",),
        ),
        *_limited_scenes(million // 10),
    ]


def _limited_scenes(number: int) -> list[Scene]:
    """What others' limits, keys and times leave in the table."""
    later = "now() + number * interval '1 minute'"
    return [
        Scene(f"{number:,} ready in a paused queue", lambda: insert(number, queue="'mail'"), paused=("mail",)),
        Scene(
            f"{number:,} blocked under one key",
            lambda: insert(number, "BLOCKED", concurrency_key="'k'", options="""'{"concurrency": 3}'"""),
        ),
        Scene(
            f"{number:,} blocked in as many lines",
            lambda: insert(number, "BLOCKED", concurrency_key="'k' || number", options="""'{"serial": true}'"""),
        ),
        Scene(
            f"{number:,} that wait for a rate",
            lambda: insert(number, "SCHEDULED", run_after=later, rate_key="'k'", options="""'{"rate": [1, 60]}'"""),
        ),
        Scene(
            f"{number:,} scheduled, unique, that expire",
            lambda: insert(
                number,
                "SCHEDULED",
                run_after=later,
                unique_key="'k' || number",
                unique_scope="'started'",
                expires_at=later,
            ),
        ),
        Scene(
            f"{number:,} to be tried again",
            lambda: insert(number, "SCHEDULED", run_after=later, max_attempts="5", options="""'{"backoff": 60.0}'"""),
        ),
    ]


def measure(scene: Scene) -> list[dict[int, float]]:
    """Medians of a claim in milliseconds, by its size: of an almost empty table, and of the scene."""
    return [_timed(scene._replace(fill=lambda: None, holds_snapshot=False)), _timed(scene)]


def _timed(scene: Scene) -> dict[int, float]:
    from dbqueue.claim import Selection

    empty()
    with snapshot() if scene.holds_snapshot else _nothing():
        scene.fill()
        insert(READY)
        if not scene.holds_snapshot:
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE dbqueue_job")
        return _claims(Selection(exclude=scene.excluded, closed=dict.fromkeys(scene.paused, 0)))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _claims(selection: Any) -> dict[int, float]:
    from dbqueue.claim import Bookmark
    from dbqueue.store import store_for

    store, worker, bookmark, medians = store_for("default"), register(), Bookmark(), {}
    for size in SIZES:
        times = []
        for _ in range(CLAIMS[size] * 11 // 10):
            began = time.perf_counter()
            claims = store.claim(worker, size, selection, bookmark=bookmark)
            times.append(time.perf_counter() - began)
            if len(claims) != size:
                raise RuntimeError(f"a claim of {size} brought {len(claims)}")
        medians[size] = 1000 * statistics.median(times[-CLAIMS[size] :])
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a trial (default: %(default)s)")
    options = parser.parse_args()
    with on_postgresql(COMMAND):
        print(heading("Median time of a claim"), flush=True)
        titles = [
            "jobs a claim",
            *(f"{size}, {what}" for size in SIZES for what in ("almost empty, ms", "ms", "ratio")),
        ]
        rows = [titles]
        for scene in scenes(options.share):
            few, many = measure(scene)
            cells = [(few[size], many[size], many[size] / few[size]) for size in SIZES]
            rows.append([scene.title, *(f"{figure:.2f}" for cell in cells for figure in cell)])
            print(f"{scene.title}: done", file=sys.stderr, flush=True)
        print(table(rows))
        connection.close()


if __name__ == "__main__":
    main()
