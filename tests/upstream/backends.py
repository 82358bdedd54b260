"""``DatabaseBackend`` in the shapes that Django's tests know: one that only collects, and one that runs at once."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connections

from dbqueue.backend import DatabaseBackend
from dbqueue.models import Job
from dbqueue.tasks_api import Task, TaskResult
from dbqueue.testing import run_jobs

R = TypeVar("R")


class DummyBackend(DatabaseBackend):
    """Shows its rows as Django's DummyBackend shows its list."""

    @property
    def results(self) -> "list[TaskResult[..., Any]]":
        return off_the_loop(self._all)

    def clear(self) -> None:
        Job.objects.filter(backend=self.alias).delete()

    def get_result(self, result_id: str) -> "TaskResult[..., Any]":
        find = super().get_result
        return off_the_loop(lambda: find(result_id))

    def _all(self) -> "list[TaskResult[..., Any]]":
        ids = Job.objects.filter(backend=self.alias).order_by("pk").values_list("pk", flat=True)
        return [self.get_result(str(pk)) for pk in ids]


class ImmediateBackend(DatabaseBackend):
    """Runs what it enqueued, the way a worker would, before ``enqueue`` returns."""

    def enqueue(  # type: ignore[override]  # the stubs say list where Django passes a tuple
        self, task: "Task[..., Any]", args: Iterable[Any], kwargs: dict[str, Any]
    ) -> "TaskResult[..., Any]":
        result = super().enqueue(task, args, kwargs)
        run_jobs()
        return self.get_result(result.id)


def off_the_loop(call: Callable[[], R]) -> R:
    """``call()``, on another thread where this one runs an event loop.

    Some of Django's async tests use a backend's sync methods, which is fine for a list in memory; on the thread of an
    event loop Django refuses every query.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()

    def call_and_close() -> R:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call_and_close).result()
