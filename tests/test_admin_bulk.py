"""Bulk operations on the pages, through Django's client."""

import datetime
import re
import threading

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dbqueue.conf import Settings
from dbqueue.models import BulkAction, BulkOperation, Job, JobStatus
from dbqueue.retention import Sweep
from dbqueue.search import Search
from dbqueue.store import Store, store_for

from .shop import tasks
from .test_admin import HOSTILE, JOBS, a_job, client_who_may, page, text_of

pytestmark = pytest.mark.django_db

BULK = f"{JOBS}bulk/"
OPERATIONS = "/admin/dbqueue/bulkoperation/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def store() -> Store:
    return store_for("default")


def test_the_list_leads_to_a_page_that_asks_once_more(operator: Client, store: Store) -> None:
    failed = [a_job(JobStatus.FAILED) for _ in range(3)]
    a_job(JobStatus.SUCCESSFUL)
    assert f"{BULK}?state=FAILED&amp;q=since%3A1h" in page(operator, JOBS, state="FAILED", q="since:1h")

    html = page(operator, BULK, state="FAILED", q="since:1h")
    assert "These jobs match: state Failed, enqueued since" in text_of(html) and "There are 3." in text_of(html)
    assert all(f"#{job.pk}</a> Failed" in html for job in failed)
    assert not BulkOperation.objects.exists()

    response = operator.post(f"{BULK}?state=FAILED", {"action": "retry"})

    operation = BulkOperation.objects.get()
    assert response["Location"] == f"{OPERATIONS}{operation.pk}/change/"
    assert (operation.action, operation.filter, operation.expected) == ("retry", {"state": "FAILED"}, 3)
    assert LogEntry.objects.count() == 1
    assert Job.objects.filter(status="FAILED").count() == 3
    while store.step_bulk():
        pass
    assert Job.objects.filter(status="READY").count() == 3
    assert "Done" in text_of(page(operator, f"{OPERATIONS}{operation.pk}/change/"))
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize(
    ("query", "posted", "said"),
    [
        ("", {"action": "burn"}, "burn is not one of the available choices"),
        ("", {"action": ""}, "This field is required"),
        ("", {"action": "move", "queue_name": "a,b"}, "without commas"),
        ("", {"action": "move", "queue_name": ""}, "without commas"),
        ("q=colour:red", {"action": "retry"}, "it may have id:"),
        ("state=ODD", {"action": "retry"}, "it must be one of"),
        ("queue=a%00b", {"action": "retry"}, "printable"),
    ],
)
def test_what_can_not_be_done_is_said_and_nothing_is(
    operator: Client, query: str, posted: dict[str, str], said: str
) -> None:
    response = operator.post(f"{BULK}?{query}", posted, follow=True)
    assert said in response.content.decode()
    assert not BulkOperation.objects.exists() and not LogEntry.objects.exists()


def test_who_may_do_something_may_do_that_and_nothing_else() -> None:
    a_job(JobStatus.FAILED)
    viewer = client_who_may("view_job")
    assert "bulk/" not in page(viewer, JOBS)
    assert viewer.get(BULK).status_code == viewer.post(BULK, {"action": "retry"}).status_code == 403
    assert client_who_may("retry_job").get(BULK).status_code == 403
    for codename, actions in {
        "retry_job": {"retry"},
        "cancel_job": {"cancel"},
        "change_job": {"run_now", "move"},
        "delete_job": {"delete"},
    }.items():
        client = client_who_may("view_job", codename)
        html = page(client, BULK)
        assert {action for action in BulkAction.values if f'value="{action}"' in html} == actions
        for action in set(BulkAction.values) - actions:
            assert client.post(BULK, {"action": action, "queue_name": "q"}).status_code == 200
        User.objects.filter(is_superuser=False).delete()
    assert not BulkOperation.objects.exists()


def test_an_operation_is_cancelled_by_who_may_do_it(operator: Client, store: Store) -> None:
    a_job(JobStatus.FAILED)
    operation = store.start_bulk(BulkAction.RETRY, Search(queue=HOSTILE), user_id=1, user_name="x")
    url = f"{OPERATIONS}{operation.pk}/"
    assert HOSTILE not in page(operator, f"{url}change/")
    viewer = client_who_may("view_bulkoperation")
    assert "cancel_form" not in page(viewer, f"{url}change/")
    assert viewer.post(f"{url}cancel/").status_code == 403
    assert operator.get(f"{url}cancel/").status_code == 405
    assert "cancel_form" in page(operator, f"{url}change/")
    operator.post(f"{url}cancel/")
    store.step_bulk()
    operation.refresh_from_db()
    assert operation.cancel_requested_at is not None and operation.finished_at is not None
    assert "Cancelled" in text_of(page(operator, f"{url}change/"))
    assert "ended already" in operator.post(f"{url}cancel/", follow=True).content.decode()
    assert page(operator, OPERATIONS)


def test_operations_that_ended_long_ago_go(store: Store) -> None:
    now = store.clock()
    old, young, unfinished = (
        store.start_bulk(BulkAction.RETRY, Search(), user_id=1, user_name="x", now=now - datetime.timedelta(days=days))
        for days in (31, 29, 99)
    )
    for operation in (old, young):
        BulkOperation.objects.filter(pk=operation.pk).update(finished_at=operation.created_at)
    sweep = Sweep(store, Settings.load())
    while sweep.step():
        pass
    assert set(BulkOperation.objects.values_list("pk", flat=True)) == {young.pk, unfinished.pk}


def test_tabs_count_what_has_an_index_and_keep_the_filters(operator: Client) -> None:
    a_job(JobStatus.FAILED)
    tasks.add.using(queue_name="mail").enqueue(1, 2)
    html = page(operator, JOBS, state="FAILED")
    assert 'href="?state=READY">Ready <span class="dbqueue-quiet">1<' in html
    assert 'href="?state=SUCCESSFUL">Successful</a>' in html
    html = page(operator, JOBS, queue="mail")
    assert 'href="?queue=mail&amp;state=FAILED">Failed</a>' in html  # nobody has counted those of the queue
    assert page(operator, JOBS, state="READY").count('aria-current="true"') == 1


def test_states_come_in_the_order_that_tells_most(operator: Client, store: Store) -> None:
    first, second = a_job(JobStatus.FAILED), a_job(JobStatus.FAILED)
    early, late = tasks.add.enqueue(1, 2), tasks.add.enqueue(1, 2)
    html = page(operator, JOBS, state="READY")
    assert html.index(f"/job/{early.id}/change/") < html.index(f"/job/{late.id}/change/")
    html = page(operator, JOBS)
    assert html.index(f"/job/{late.id}/change/") < html.index(f"/job/{early.id}/change/")
    html = page(operator, JOBS, state="FAILED")
    assert html.index(f"/job/{second.pk}/change/") < html.index(f"/job/{first.pk}/change/")


def test_an_error_filters_the_list(operator: Client) -> None:
    failed = a_job(JobStatus.FAILED)
    assert f"/job/{failed.pk}/change/" in page(operator, JOBS, state="FAILED", error="builtins.ValueError")
    assert f"/job/{failed.pk}/change/" not in page(operator, JOBS, state="FAILED", error="builtins.KeyError")


def test_a_search_that_can_not_be_read_says_so_on_the_list(operator: Client) -> None:
    a_job(JobStatus.FAILED)
    html = page(operator, JOBS, q="colour:red")
    assert "it may have id:" in html and "0 jobs" in html


def test_the_list_and_what_is_done_to_all_of_it_are_about_the_same_jobs(operator: Client) -> None:
    a_job(JobStatus.SUCCESSFUL)
    query = "?state=FAILED&q=state:successful"
    assert "to be both FAILED and SUCCESSFUL" in page(operator, f"{JOBS}{query}")
    operator.post(f"{BULK}{query}", {"action": "delete"})
    assert not BulkOperation.objects.exists()


def test_all_that_a_longer_list_shows_can_be_changed(operator: Client) -> None:
    a_job(JobStatus.FAILED)
    for query in ("?state=FAILED&all=", "?state=FAILED&p=1", "?e=1"):
        link = re.search(r'href="([^"]*/bulk/[^"]*)"', page(operator, f"{JOBS}{query}"))
        assert link
        assert "There are 1." in page(operator, link[1].replace("&amp;", "&"))


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("FAILED", {"retry", "delete"}),
        ("SUCCESSFUL", {"delete"}),
        ("RUNNING", {"cancel"}),
        ("READY", {"cancel", "move"}),
        ("SCHEDULED", {"cancel", "move", "run_now"}),
    ],
)
def test_only_what_fits_the_state_is_offered(operator: Client, state: str, offered: set[str]) -> None:
    html = page(operator, BULK, state=state)
    assert {action for action in BulkAction.values if f'value="{action}"' in html} == offered
    assert ('name="queue_name"' in html) == ("move" in offered)


def test_what_would_change_nothing_is_refused_with_a_sentence(operator: Client) -> None:
    a_job(JobStatus.FAILED)
    said = "Cancel leaves alone what is Failed: nothing would be changed."
    assert said in operator.post(f"{BULK}?state=FAILED", {"action": "cancel"}).content.decode()
    assert said in page(operator, BULK, state="FAILED", action="cancel")
    html = page(client_who_may("view_job", "retry_job"), BULK, state="READY")
    assert (
        "Nothing that you may do changes what is Ready." in html and 'type="submit"' not in html.split("bulk_form")[1]
    )
    assert not BulkOperation.objects.exists()
    html = operator.post(f"{BULK}?state=FAILED&q=fail_with", {"action": "retry"}, follow=True).content.decode()
    assert (
        "Started. Workers will retry all jobs that match: state Failed, task name contains &quot;fail_with&quot;."
        in html
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("args.message:m", "found only together with task:NAME"),
        ("args.message:m task:tests.shop.admin_tasks.fail_with", ""),
        ("task:fail_with", "No task fail_with is registered here: task: wants the whole name"),
        ("task:tests.shop.admin_tasks.fail_with", ""),
        ("fail_with", ""),
    ],
)
def test_a_search_that_misses_something_says_so(operator: Client, query: str, said: str) -> None:
    a_job(JobStatus.FAILED)
    html = text_of(page(operator, JOBS, q=query))
    assert said in html
    assert said or ("only together" not in html and "No task" not in html)


def test_a_wrong_filter_is_told_once(operator: Client) -> None:
    assert page(operator, JOBS, state="bogus").count("it must be one of") == 1
    assert page(operator, JOBS, q="state:bogus").count("it must be one of") == 1


def test_each_state_is_explained(operator: Client) -> None:
    html = page(operator, JOBS, state="BLOCKED")
    assert html.count('<li title="') == len(JobStatus)
    assert "Over a concurrency limit" in text_of(html)


def test_what_is_no_filter_does_not_widen_what_is_done(operator: Client) -> None:
    a_job(JobStatus.FAILED)
    for query in ("status=FAILED", "worker=2", "since=2h"):
        response = operator.post(f"{BULK}?{query}", {"action": "delete"}, follow=True)
        assert "which is no filter: nothing was done" in response.content.decode()
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize("query", ["state=ODD", "state=ODD&q=7", "o=5", "queue=default&o=5.1"])
def test_no_address_makes_the_database_sort_or_search_all_jobs(operator: Client, query: str) -> None:
    a_job(JobStatus.FAILED)
    with CaptureQueriesContext(connection) as captured:
        page(operator, f"{JOBS}?{query}")
    listing = [query["sql"] for query in captured if "dbqueue_job" in query["sql"]]
    assert not [sql for sql in listing if 'priority" ASC' in sql or "ODD" in sql]


def test_who_begins_an_operation_sees_what_becomes_of_it() -> None:
    a_job(JobStatus.FAILED)
    client = client_who_may("view_job", "retry_job")
    response = client.post(f"{BULK}?state=FAILED", {"action": "retry"}, follow=True)
    assert response.status_code == 200
    assert "In progress" in response.content.decode()
    BulkOperation.objects.update(problem="no", finished_at=BulkOperation.objects.get().created_at, last_id=1000)
    assert ">100 %" not in " ".join(page(client, f"{OPERATIONS}{BulkOperation.objects.get().pk}/change/").split())
    assert client_who_may("view_job").get(OPERATIONS).status_code == 403


def test_a_list_without_an_index_looks_back_so_far_and_leads_further(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbqueue.console.filters.WINDOW", 3)
    found = [tasks.add.using(queue_name="mail").enqueue(1, 2).id for _ in range(5)]
    first, behind = found[0], int(found[1])

    html = page(operator, JOBS, queue="mail", q="since:1d")
    assert [f"/job/{pk}/change/" in html for pk in found] == [False, False, True, True, True]
    assert f"?queue=mail&amp;q=since%3A1d+before%3A{behind + 1}" in html
    html = page(operator, JOBS, queue="mail", q=f"since:1d before:{behind + 1}")
    assert f"/job/{first}/change/" in html and f"/job/{behind}/change/" in html

    html = page(operator, JOBS, queue="mail", q='since:1d before:0s args.x:"a  before:2"')
    assert "since%3A1d+before%3A0s" in html  # a time is not the link's to take away
    assert "a++before%3A2%22" in html or "before%3A2%22" in html

    for indexed in ({}, {"state": "READY"}, {"q": first}, {"q": "before:3"}):
        assert "Look further back" not in page(operator, JOBS, **indexed)
    assert "Only the newest were counted" in page(operator, BULK, queue="mail")


def test_a_list_of_a_time_begins_there_and_ends_there(
    operator: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred days, a job every day, of which the list looks through ten at once."""
    monkeypatch.setattr("dbqueue.console.filters.WINDOW", 10)
    for room in ("dbqueue.store.census.NEAR", "dbqueue.console.filters.NEAR"):
        monkeypatch.setattr(room, 2)
    now = store.clock()
    ids = []
    for age in range(100, 0, -1):
        ids.append(int(tasks.add.enqueue(1, 2).id))
        Job.objects.filter(pk=ids[-1]).update(enqueued_at=now - datetime.timedelta(days=age, hours=-1))

    def shown(search: str) -> tuple[list[int], bool]:
        html = page(operator, JOBS, queue="default", q=search)
        return [pk for pk in ids if f"/job/{pk}/change/" in html], "Look further back" in html

    assert shown("before:50d since:53d") == (ids[47:50], False)
    old, goes_on = shown("before:50d")
    assert old == ids[50 - len(old) : 50] and len(old) >= 10 - 3 and goes_on
    assert shown("since:4d") == (ids[96:], False)
    assert shown("before:200d") == ([], False)
    assert shown("before:99d since:200d") == (ids[:1], False)
    assert "There are 3." in text_of(page(operator, BULK, queue="default", q="before:50d since:53d"))


@pytest.mark.django_db(transaction=True)
def test_a_list_that_takes_too_long_is_given_up(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here because somebody has locked the table, which looks the same to a statement that waits for it."""
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL can be told how long a statement may take")
    monkeypatch.setattr("dbqueue.console.base.PATIENCE", 0.2)
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        with store_for("default").atomic(), connections["default"].cursor() as cursor:
            cursor.execute("LOCK TABLE dbqueue_job IN ACCESS EXCLUSIVE MODE")
            locked.set()
            done.wait(30)
        connections.close_all()

    somebody = threading.Thread(target=lock)
    somebody.start()
    try:
        assert locked.wait(30)
        response = operator.get(JOBS)
    finally:
        done.set()
        somebody.join()

    assert response.status_code == 503
    assert "did not find this within 0.2 seconds" in text_of(response.content.decode())
    assert page(operator, JOBS)
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
