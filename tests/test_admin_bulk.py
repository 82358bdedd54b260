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
from pytest_django import Settings as DjangoSettings

from dbqueue import enqueue_many, group, signals
from dbqueue.conf import Settings
from dbqueue.console.filters import window_of
from dbqueue.models import BulkAction, BulkOperation, Job, JobStatus
from dbqueue.retention import Sweep
from dbqueue.search import Search
from dbqueue.store import Store, store_for

from .shop import tasks
from .shop import workflow_tasks as flow
from .shop.models import Receipt
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


def test_the_hint_tells_what_finds_arguments_by_position(operator: Client) -> None:
    assert "args.NAME: (with task: also what was given by position)" in page(operator, JOBS)


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


def test_a_list_of_a_time_begins_there_and_says_where_it_stopped(
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

    assert shown("before:50d since:53d") == (ids[47:50], True)
    old, goes_on = shown("before:50d")
    assert old == ids[50 - len(old) : 50] and len(old) >= 10 - 3 and goes_on
    assert shown("since:4d") == (ids[96:], True)
    assert shown(f"since:4d before:{ids[9]}") == ([], False)
    assert shown("before:200d") == ([], False)
    assert shown("before:99d since:200d") == (ids[:1], False)
    assert "There are 3." in text_of(page(operator, BULK, queue="default", q="before:50d since:53d"))


def test_a_list_of_a_time_finds_jobs_whose_times_are_out_of_order(
    operator: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a clock that was wrong for a while: the middle one of three parts has times of a week ago."""
    for room in ("dbqueue.store.census.NEAR", "dbqueue.console.filters.NEAR"):
        monkeypatch.setattr(room, 2)
    ids = [int(tasks.add.enqueue(1, 2).id) for _ in range(30)]
    wrong = range(ids[10], ids[20])
    Job.objects.filter(pk__in=wrong).update(enqueued_at=store.clock() - datetime.timedelta(days=7))

    def shown(search: str) -> tuple[list[int], bool]:
        html = page(operator, JOBS, queue="default", q=search)
        return [pk for pk in ids if f"/job/{pk}/change/" in html], "Look further back" in html

    assert shown("since:1d") == (ids[:10] + ids[20:], False)
    assert shown("before:1d") == (list(wrong), False)
    assert "There are 20." in text_of(page(operator, BULK, queue="default", q="since:1d"))
    monkeypatch.setattr("dbqueue.console.filters.WINDOW", 15)
    assert shown("since:1d") == (ids[20:], True)
    assert shown(f"since:1d before:{ids[15]}") == (ids[:10], False)


def test_a_list_of_a_time_finds_all_of_many_jobs_with_one_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of one call, beside whose rows others enqueued later, and got smaller ids than most of them."""
    monkeypatch.setattr("dbqueue.console.filters.WINDOW", 5000)
    enqueue_many(tasks.add.s(1, 2) for _ in range(6000))
    now, first = store.clock(), store.oldest_id()
    for ids, hours in ((range(5000), 4), (range(2900, 3100), 2)):
        rows = Job.objects.filter(pk__gte=first + ids.start, pk__lt=first + ids.stop)
        rows.update(enqueued_at=now - datetime.timedelta(hours=hours))
    search = Search(queue="default", until=now - datetime.timedelta(hours=3))
    window = window_of(search, store)
    assert window is not None and window.goes_on
    assert search.apply(store.jobs, window.ids).filter(pk__gte=first + 3100).count() == 1900


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


@pytest.mark.django_db(transaction=True)
def test_jobs_that_another_table_refers_to_are_not_deleted_and_the_page_says_so(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    url = f"{JOBS}{job.pk}/"
    Receipt.objects.create(job=job)
    selected = {"action": "delete_selected_jobs", "_selected_action": job.pk, "confirmed": "yes"}
    html = operator.post(JOBS, selected, follow=True).content.decode()
    assert "Nothing was done, as something refers to it" in html
    html = operator.post(f"{url}delete/", {"post": "yes"}, follow=True).content.decode()
    assert "Nothing was done, as something refers to it" in html
    assert Job.objects.filter(pk=job.pk).exists() and not LogEntry.objects.exists()


def test_who_cancels_a_group_is_told_of_all_that_was_and_so_is_who_listens(operator: Client) -> None:
    result = group(flow.inc.s(number) for number in range(10)).enqueue()
    heard: list[int] = []

    def listen(job_id: int, **kwargs: object) -> None:
        heard.append(job_id)

    signals.job_cancelled.connect(listen)
    try:
        html = operator.post(f"{JOBS}{result.last_id}/cancel/", follow=True).content.decode()
    finally:
        signals.job_cancelled.disconnect(listen)
    assert "11 jobs cancelled." in html
    assert sorted(heard) == sorted(Job.objects.filter(task=flow.inc.name).values_list("pk", flat=True))


def test_all_that_match_are_moved_to_no_queue_that_the_settings_do_not_name(
    operator: Client, settings: DjangoSettings
) -> None:
    settings.DBQUEUE = {"QUEUES": ["default", "mail"]}
    tasks.add.enqueue(1, 2)
    html = operator.post(BULK, {"action": "move", "queue_name": "nowhere"}).content.decode()
    assert "It must be one of default, mail." in html and not BulkOperation.objects.exists()
    selected = {"action": "move_selected", "_selected_action": Job.objects.get().pk, "to_queue": "nowhere"}
    assert "It must be one of default, mail." in operator.post(JOBS, selected, follow=True).content.decode()
    operator.post(BULK, {"action": "move", "queue_name": "mail"})
    assert BulkOperation.objects.get().queue_name == "mail"


def test_every_page_is_given_up_after_a_while(operator: Client) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL can be told how long a statement may take")
    job = a_job(JobStatus.FAILED)
    workflow = (flow.give.s(1) | flow.inc.s()).enqueue().workflow_id
    pages = [
        JOBS,
        BULK,
        *(f"{JOBS}{job.pk}/{name}/" for name in ("change", "edit", "delete")),
        *(f"/admin/dbqueue/{name}/" for name in ("overview", "overview/live", "queue", "worker", "workflow")),
        f"/admin/dbqueue/workflow/{workflow}/change/",
    ]
    for url in pages:
        with CaptureQueriesContext(connection) as captured:
            assert operator.get(url).status_code == 200
        sent = [query["sql"] for query in captured]
        begin = next(number for number, sql in enumerate(sent) if "set_config('statement_timeout', '5000'" in sql)
        assert not [sql for sql in sent[:begin] if "dbqueue_" in sql], url
    with CaptureQueriesContext(connection) as captured:
        assert operator.post(f"{BULK}?state=FAILED", {"action": "retry"}).status_code == 302
    sent = [query["sql"] for query in captured]
    counting = next(number for number, sql in enumerate(sent) if "COUNT(*)" in sql and "dbqueue_job" in sql)
    writing = next(number for number, sql in enumerate(sent) if sql.startswith('INSERT INTO "dbqueue_bulk'))
    limits = [number for number, sql in enumerate(sent) if "set_config('statement_timeout'" in sql]
    assert limits[0] < counting < limits[1] < writing


@pytest.mark.django_db(transaction=True)
def test_a_hurry_ends_with_its_page_also_inside_of_a_transaction(store: Store) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL can be told how long a statement may take")
    with store.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '7s'")
        with store.in_a_hurry(5):
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("5s",)
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("7s",)


NO_IDS = ["abc", "9" * 30, "9" * 5000, "\0", "-5", "1.5", "٣"]


@pytest.mark.parametrize("typed", NO_IDS, ids=lambda typed: typed[:9])
def test_what_is_no_id_is_selected_by_nobody(operator: Client, typed: str) -> None:
    job = a_job(JobStatus.FAILED)
    workflow = (flow.give.s(1) | flow.inc.s()).enqueue().workflow_id
    before = dict(Job.objects.values_list("pk", "status"))
    for url, action in (
        (JOBS, "cancel_selected"),
        (JOBS, "delete_selected_jobs"),
        (JOBS, "export_selected"),
        ("/admin/dbqueue/worker/", "stop_selected"),
        ("/admin/dbqueue/schedule/", "run_selected"),
    ):
        assert operator.post(url, {"action": action, "_selected_action": typed}, follow=True).status_code == 200
    url = f"/admin/dbqueue/workflow/{workflow}/branch/"
    assert "has no step" in operator.post(url, {"retry": typed}, follow=True).content.decode()
    assert dict(Job.objects.values_list("pk", "status")) == before
    both = {"action": "retry_selected", "_selected_action": [typed, job.pk]}
    assert "1 job retried." in operator.post(JOBS, both, follow=True).content.decode()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"state": "bogus"}, "it must be one of SCHEDULED"),
        ({"queue": "\0"}, "must be printable text"),
        ({"q": "\0"}, "must be printable text"),
        ({"state": "bogus", "q": "x"}, "it must be one of SCHEDULED"),
        ({"q": "id:" + "9" * 5000}, "must be a whole number from 0 to"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_once(operator: Client, query: dict[str, str], said: str) -> None:
    html = page(operator, JOBS, **query)
    assert html.count('<li class="error">') == 1 and said in html
    assert "9" * 100 not in text_of(html) and "set_int_max_str_digits" not in html


def test_a_filter_is_asked_for_once(operator: Client) -> None:
    with CaptureQueriesContext(connection) as captured:
        page(operator, JOBS, state="FAILED", queue="mail", q="since:2h")
    lists = [query["sql"] for query in captured if "LIMIT 100" in query["sql"] or "COUNT(*)" in query["sql"]]
    assert lists
    for sql in lists:
        assert sql.count('"dbqueue_job"."queue_name" =') <= 1 and sql.count('"dbqueue_job"."status" =') <= 1, sql


def test_what_more_people_read_tells_no_value(operator: Client) -> None:
    """The name of an operation: in its row, in the admin's log and in what is said about it."""
    a_job(JobStatus.FAILED, "the value")
    asked = f"{BULK}?state=FAILED&q=args.message:%22the+value%22"
    assert "the value" in page(operator, asked)
    html = operator.post(asked, {"action": "retry"}, follow=True).content.decode()
    operation = BulkOperation.objects.get()
    assert operation.filter["arguments"] == [["message", "the value"]]
    for told in (operation.described, LogEntry.objects.get().object_repr, LogEntry.objects.get().change_message, html):
        assert "the value" not in told
    assert "message = …" in operation.described


@pytest.mark.django_db(transaction=True)
def test_an_operation_and_its_log_entry_come_together_or_not_at_all(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no log today")

    monkeypatch.setattr("dbqueue.console.bulk.LogEntry.objects.log_actions", refuse)
    with pytest.raises(RuntimeError):
        operator.post(f"{BULK}?state=FAILED", {"action": "retry"})
    assert not BulkOperation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_selection_and_its_log_entries_come_together_or_not_at_all(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(JobStatus.FAILED)
    selected = {"action": "retry_selected", "_selected_action": job.pk}
    with monkeypatch.context() as patched:
        # What comes last, after the rows were changed.
        patched.setattr("dbqueue.console.operations._states", lambda store, ids: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            operator.post(JOBS, selected)
    job.refresh_from_db()
    assert job.status == JobStatus.FAILED and not LogEntry.objects.exists()
    assert "1 job retried." in operator.post(JOBS, selected, follow=True).content.decode()
    job.refresh_from_db()
    assert job.status == JobStatus.READY and LogEntry.objects.count() == 1
