"""Limits and unique keys under random operations: whatever happens, none is exceeded, and in the end all is done.

``PROPERTY_EXAMPLES=2000`` explores further, with other examples each time.
"""

import datetime
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dbqueue import Concurrency, Rate, Unique
from dbqueue.claim import Bookmark, Claim
from dbqueue.models import FINAL, QUEUED, Attempt, Job, JobStatus, Limit, Worker
from dbqueue.outcome import Outcome
from dbqueue.store import Store, store_for

from .shop.tasks import mark

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
LIMIT = 2
STARTS, WINDOW = 3, 3.0
"""What the rate allows: so many in any so many seconds."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pair": {"concurrency": Concurrency(LIMIT, key="pair:{label}")},
    "line": {"serial": "line:{label}"},
    "paced": {"rate": Rate("1/s", key="paced", burst=1)},
    "paced pair": {"concurrency": Concurrency(LIMIT, key="pair:{label}"), "rate": Rate("60/m", key="minute", burst=3)},
    "once": {"unique": Unique(until="finished")},
}
LABELS = st.sampled_from("ab")


class Limited(RuleBasedStateMachine):
    """Two workers, some keys, and a clock that the machine sets."""

    store: Store

    @initialize()
    def begin(self) -> None:
        for model in (Attempt, Job, Worker, Limit):
            model.objects.all().delete()
        self.store = store_for("default")
        self.now = START
        self.workers = [self._register(), self._register()]
        self.bookmarks = [Bookmark(), Bookmark()]
        self.claims: list[Claim] = []
        self.begun: dict[str, list[int]] = {}
        self.starts: list[datetime.datetime] = []

    @rule(kind=st.sampled_from(sorted(KINDS)), label=LABELS, number=st.integers(1, 4), priority=st.integers(-1, 1))
    def enqueue(self, kind: str, label: str, number: int, priority: int) -> None:
        for _ in range(number):
            mark.using(priority=priority, **KINDS[kind]).enqueue(label)

    @rule(worker=st.integers(0, 1), limit=st.integers(1, 5))
    def claim(self, worker: int, limit: int) -> None:
        claims = self.store.claim(self.workers[worker], limit, now=self.now, bookmark=self.bookmarks[worker])
        assert len(claims) <= limit
        self.claims += claims
        for claim in claims:
            if claim.rate_key == "minute":
                self.starts.append(self.now)
            if claim.concurrency_key and claim.concurrency_key.startswith("line"):
                self._must_be_first(claim)

    @rule(data=st.data(), how=st.sampled_from(("succeeded", "failed", "retried", "postponed", "released")))
    def end(self, data: st.DataObject, how: str) -> None:
        if not self.claims:
            return
        claim = self.claims.pop(data.draw(st.integers(0, len(self.claims) - 1)))
        if how == "released":
            self.store.release([claim])
            return
        outcome = {
            "succeeded": lambda: Outcome.succeeded(claim, None),
            "failed": lambda: Outcome.failed(claim, ValueError()),
            "retried": lambda: Outcome.retried(claim, ValueError(), 2),
            "postponed": lambda: Outcome.postponed(claim, 1),
        }[how]()
        assert self.store.finish([outcome], self.now) == []
        self.store.unblock([claim.concurrency_key] if claim.concurrency_key else [])

    @rule(worker=st.integers(0, 1))
    def die(self, worker: int) -> None:
        dead = self.workers[worker]
        self.store.unregister(dead, self.now)
        self.store.rescue(3, now=self.now)
        self.claims = [claim for claim in self.claims if claim.worker_id != dead]
        self.workers[worker] = self._register()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = list(Job.objects.filter(status__in=QUEUED).order_by("id").values_list("id", flat=True))
        if waiting:
            self.store.cancel([data.draw(st.sampled_from(waiting))], self.now)

    @rule(seconds=st.floats(0.1, 5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds * SECOND
        self._maintain()

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        running = Job.objects.filter(status=JobStatus.RUNNING).values_list("concurrency_key", flat=True)
        for key, number in Counter(filter(None, running)).items():
            assert number <= (1 if key.startswith("line") else LIMIT), key
        for first, last in zip(self.starts, self.starts[STARTS:], strict=False):
            assert (last - first).total_seconds() >= WINDOW * (1 - 1e-9)

    @invariant()
    def a_unique_job_is_there_once(self) -> None:
        held = Job.objects.filter(unique_scope="finished").exclude(status__in=FINAL).values_list("args", flat=True)
        assert all(number == 1 for number in Counter(map(str, held)).values())

    def teardown(self) -> None:
        """All that is left can be done, in the end."""
        if not hasattr(self, "store"):
            return
        for _ in range(200):
            self.store.finish([Outcome.succeeded(claim, None) for claim in self.claims], self.now)
            self.claims.clear()
            if not Job.objects.exclude(status__in=FINAL).exists():
                return
            self.now += 2 * SECOND
            self._maintain()
            self.claim(0, 5)
            self.no_limit_is_exceeded()
        raise AssertionError(list(Job.objects.exclude(status__in=FINAL).values_list("status", "task", "args")))

    def _maintain(self) -> None:
        self.store.promote(now=self.now)
        self.store.unblock(self.store.blocked_keys(), self.now)

    def _must_be_first(self, claim: Claim) -> None:
        """No job of the line that was enqueued before it waits any more."""
        before = Job.objects.filter(concurrency_key=claim.concurrency_key, pk__lt=claim.job_id)
        assert not before.exclude(status__in=FINAL).exists()

    def _register(self) -> int:
        return self.store.register(name="worker", hostname="host", pid=1, queues="", threads=2, now=self.now)


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_random_operations_exceed_no_limit_and_lose_no_job() -> None:
    examples = int(os.environ.get("PROPERTY_EXAMPLES", "100"))
    run_state_machine_as_test(
        Limited,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize="PROPERTY_EXAMPLES" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
