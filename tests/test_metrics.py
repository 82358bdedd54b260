"""What a monitoring system reads."""

import datetime

import pytest
from django.test import Client
from django.urls import include, path
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from dbqueue import queues
from dbqueue.models import JobStatus
from dbqueue.store import Store, store_for

from .shop import tasks
from .test_admin import a_job, a_worker
from .test_history import counted

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_metrics")]

TOKEN = "only for this test"

urlpatterns = [path("ops/", include("dbqueue.urls"))]


@pytest.fixture(autouse=True)
def token(settings: Settings) -> None:
    settings.DBQUEUE = {"METRICS_TOKEN": TOKEN}


@pytest.fixture
def store() -> Store:
    return store_for("default")


def asked(client: Client, url: str, token: str | None = TOKEN) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = client.get(f"/ops/{url}", headers=headers)
    return response.status_code, response.content.decode()


def samples(client: Client) -> dict[tuple[str, ...], float]:
    status, text = asked(client, "metrics")
    assert status == 200
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_is_told(client: Client, store: Store) -> None:
    a_job(JobStatus.RUNNING)
    tasks.add.using(queue_name="mail").enqueue(1, 2)
    tasks.add.using(run_after=datetime.timedelta(hours=1)).enqueue(1, 2)
    queues.pause("mail")
    a_worker(threads=5)
    store.add_history(counted(3, wait=0.003, run=0.1) | counted(2, outcome="FAILED", error="a.E", run=2.0))
    store.add_history(counted(1, outcome="FAILED", error="b.E", run=2.0))

    told = samples(client)

    assert told["dbqueue_jobs", "state=ready"] == 1
    assert told["dbqueue_jobs", "state=scheduled"] == 1
    assert told["dbqueue_jobs", "state=running"] == 1
    assert told["dbqueue_queue_ready", "queue=mail"] == 1
    assert told["dbqueue_queue_wait_seconds", "queue=mail"] >= 0
    assert told["dbqueue_queue_closed", "queue=mail"] == 1
    assert told["dbqueue_workers",] == 2
    assert told["dbqueue_threads",] == 8
    assert told["dbqueue_attempts_total", "outcome=successful", "queue=q", "task=t"] == 3
    assert told["dbqueue_attempts_total", "outcome=failed", "queue=q", "task=t"] == 3
    assert told["dbqueue_run_seconds_count", "queue=q"] == 6
    assert told["dbqueue_run_seconds_sum", "queue=q"] == pytest.approx(6.3)
    assert told["dbqueue_run_seconds_bucket", "le=0.128", "queue=q"] == 3
    assert told["dbqueue_wait_seconds_bucket", "le=0.002", "queue=q"] == 0
    assert told["dbqueue_wait_seconds_bucket", "le=+Inf", "queue=q"] == 6


def test_counters_never_go_back(client: Client, store: Store) -> None:
    from dbqueue.conf import Settings as DBQueueSettings
    from dbqueue.retention import Sweep

    store.add_history(counted(3), now=store.clock() - datetime.timedelta(days=1000))
    sweep = Sweep(store, DBQueueSettings())
    while sweep.step():
        pass
    assert samples(client)["dbqueue_attempts_total", "outcome=successful", "queue=q", "task=t"] == 3


def test_it_is_well_where_a_worker_lives(client: Client) -> None:
    assert asked(client, "healthz") == (503, "No worker is alive.\n")
    a_worker()
    assert asked(client, "healthz") == (200, "Live workers: 1.\n")


@pytest.mark.parametrize("url", ["metrics", "healthz"])
def test_only_who_has_the_token_is_answered(client: Client, settings: Settings, url: str) -> None:
    a_worker()
    assert asked(client, url)[0] == 200
    assert asked(client, url, "wrong")[0] == asked(client, url, None)[0] == asked(client, url, "wröng")[0] == 401
    assert client.post(f"/ops/{url}", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405
    settings.DBQUEUE = {}
    assert asked(client, url)[0] == asked(client, url, "")[0] == 403
