"""The pages that tell how the queue is doing, through Django's client: overview, queues, workers."""

import datetime
import re

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from dbqueue import queues
from dbqueue.admin import OverviewAdmin, QueuesAdmin
from dbqueue.console import charts
from dbqueue.models import Job, JobStatus, Overview, Queue, Worker, WorkerRequest
from dbqueue.store import Store, store_for

from .shop import tasks
from .test_admin import HOSTILE, JOBS, a_job, a_worker, client_who_may, page, text_of
from .test_history import counted

pytestmark = pytest.mark.django_db

OVERVIEW = "/admin/dbqueue/overview/"
LIVE = f"{OVERVIEW}live/"
QUEUES = "/admin/dbqueue/queue/"
CONTROL = f"{QUEUES}control/"
WORKERS = "/admin/dbqueue/worker/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def store() -> Store:
    return store_for("default")


def tile(html: str, name: str) -> str:
    found = re.search(rf'dbqueue-tile-{name}">(.*?)</li>', html, re.S)
    assert found, f"there is no tile {name}"
    return text_of(found[1])


def row_of(html: str, queue: str) -> str:
    for row in re.findall(r"<tr>(.*?)</tr>", html, re.S):
        if re.search(rf'<th scope="row">\s*<a [^>]*>{queue}</a>', row):
            return text_of(row)
    raise AssertionError(f"there is no row for {queue}")


# The overview


def test_the_overview_stands_first_where_the_pages_are_listed(operator: Client) -> None:
    def main(client: Client) -> str:
        return page(client, "/admin/dbqueue/").partition('id="content"')[2]

    assert re.search(r'href="([^"]*)"', main(operator))[1] == OVERVIEW  # type: ignore[index]
    assert OVERVIEW not in main(client_who_may("view_worker"))


def test_tiles_count_what_is_there_and_link_to_it(operator: Client, store: Store) -> None:
    a_worker(threads=3)
    a_job(JobStatus.RUNNING)
    for _ in range(2):
        tasks.add.enqueue(1, 2)
    tasks.add.using(run_after=datetime.timedelta(hours=1)).enqueue(1, 2)
    store.add_history(counted(4, outcome="FAILED", error="builtins.ValueError") | counted(7))

    html = page(operator, OVERVIEW)

    assert tile(html, "ready") == "2 Ready"
    assert tile(html, "running") == "1 Running"
    assert tile(html, "scheduled") == "1 Scheduled"
    assert tile(html, "failed") == "4 Failures in 24 hours"
    assert tile(html, "workers") == "2 Live workers 6 threads"
    assert f'href="{JOBS}?state=SCHEDULED"' in html


def test_more_than_can_be_counted_is_said_to_be_more(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dbqueue.console.base", "dbqueue.store.census"):
        monkeypatch.setattr(f"{module}.MOST_COUNTED", 3)
    monkeypatch.setattr("dbqueue.store.census.Census.line.__defaults__", (3,))
    monkeypatch.setattr("dbqueue.store.census.Census.count.__defaults__", (3,))
    for _ in range(5):
        tasks.add.enqueue(1, 2)
    assert tile(page(operator, OVERVIEW), "ready") == "3+ Ready"


def test_it_warns_of_work_that_nobody_will_do(operator: Client) -> None:
    assert "Warning" not in page(operator, OVERVIEW)
    tasks.add.using(queue_name="mail").enqueue(1, 2)
    assert "Jobs wait, and no worker is alive" in page(operator, OVERVIEW)
    worker = a_worker(queues="default")
    assert "Jobs wait in the queue mail, and no worker serves it." in page(operator, OVERVIEW)
    Worker.objects.filter(pk=worker).update(queues="-other")
    assert "Warning" not in page(operator, OVERVIEW)
    Worker.objects.filter(pk=worker).update(asked="quiet")
    assert "Jobs wait in the queue mail, and no worker serves it." in page(operator, OVERVIEW)
    Worker.objects.filter(pk=worker).update(asked="")
    queues.pause("mail", "late")
    assert "Jobs wait in the queue mail: it is paused." in page(operator, OVERVIEW)
    queues.drain("mail")
    assert "Jobs wait in the queue mail: it is drained." in page(operator, OVERVIEW)
    Worker.objects.update(heartbeat_at=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    assert "Jobs wait, and no worker is alive" in page(operator, OVERVIEW)


def test_it_warns_of_work_whose_time_came_long_ago(operator: Client) -> None:
    tasks.add.using(run_after=datetime.timedelta(hours=-1)).enqueue(1, 2)
    assert "Jobs wait, and no worker is alive" in page(operator, OVERVIEW)


def test_the_tile_and_the_table_count_the_same_failures(operator: Client, store: Store) -> None:
    then = store.clock() - datetime.timedelta(hours=23, minutes=55)
    store.add_history(counted(5, outcome="FAILED", error="a.B"), now=then)
    html = page(operator, OVERVIEW)
    assert tile(html, "failed") == "5 Failures in 24 hours"
    assert "<td>5</td>" in html
    assert '<th scope="col">Times failed</th>' in html and "is counted each time" in html


def test_a_steady_rate_looks_steady_and_bars_tell_the_time_of_the_page() -> None:
    now = datetime.datetime(2026, 1, 1, 12, 5, tzinfo=datetime.UTC)
    points = charts.points([], charts.RANGES["7d"], now)
    points[-2].finished, points[-1].finished = 6000, 500
    before, last = charts.ended(points).bars
    assert before.height == last.height == charts.HEIGHT
    with timezone.override("Asia/Kathmandu"):
        assert charts.ended(points).bars[-1].said == "2026-01-01 17:45: 500 succeeded"


def test_charts_show_what_was_written_and_nothing_older(operator: Client, store: Store) -> None:
    now = store.clock()
    store.add_history(counted(60, run=0.1), now=now)
    store.add_history(counted(5, outcome="FAILED", error="builtins.KeyError"), now=now)
    store.add_history(counted(1000), now=now - datetime.timedelta(hours=2))

    html = page(operator, OVERVIEW)
    assert "60 succeeded, 5 failed; peak" in html
    assert html.count('<rect class="dbqueue-finished"') == html.count('<rect class="dbqueue-failed"') == 1
    assert "1,060 succeeded" in page(operator, OVERVIEW, range="24h")
    assert "1,060 succeeded" in page(operator, OVERVIEW, range="7d")
    assert "60 succeeded, 5 failed" in page(operator, OVERVIEW, range="nonsense")


def test_failures_are_grouped_and_link_to_their_jobs(operator: Client, store: Store) -> None:
    store.add_history(
        counted(3, outcome="FAILED", task="shop.a", error="builtins.KeyError")
        | counted(9, outcome="FAILED", task="shop.b", error=HOSTILE)
    )
    html = page(operator, OVERVIEW)
    assert HOSTILE not in html
    assert re.search(r"<td>9</td>.*<td>3</td>", html, re.S)
    assert "state=FAILED&amp;task=shop.a&amp;error=builtins.KeyError" in html


def test_a_group_of_failures_is_retried_by_who_may(operator: Client, store: Store) -> None:
    store.add_history(counted(2, outcome="FAILED", error="builtins.ValueError"))
    link = re.search(r'href="([^"]*/job/bulk/[^"]*)"', page(operator, OVERVIEW))
    assert link
    asked = page(operator, link[1].replace("&amp;", "&"))
    assert '<option value="retry" selected>' in asked
    assert "the last attempt failed with builtins.ValueError" in text_of(asked)
    assert "/job/bulk/" not in page(client_who_may("view_job", "cancel_job"), OVERVIEW)


def test_the_script_fetches_what_the_page_shows(operator: Client) -> None:
    whole, part = page(operator, OVERVIEW), page(operator, LIVE)
    assert part.count("data-part=") == whole.count("data-part=") >= 7
    assert "<html" not in part
    assert "no-store" in operator.get(LIVE)["Cache-Control"]


def test_who_may_not_see_jobs_may_not_see_how_they_are(client: Client) -> None:
    for url in (OVERVIEW, LIVE):
        assert client.get(url).status_code == 302
        assert client_who_may("view_worker").get(url).status_code == 403
        User.objects.all().delete()
    assert "Overview" in page(client_who_may("view_job"), OVERVIEW)


def test_an_overview_asks_the_same_however_much_there_is(operator: Client, store: Store) -> None:
    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            page(operator, OVERVIEW)
        return [query["sql"] for query in queries]

    tasks.add.enqueue(1, 2)
    few = len(statements())
    for _ in range(50):
        tasks.add.enqueue(1, 2)
    for minutes in range(30):
        store.add_history(counted(), now=store.clock() - datetime.timedelta(minutes=minutes))
    assert len(statements()) == few


def test_another_site_has_the_pages_too(operator: Client, settings: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.urls.urlpatterns", urlpatterns)
        from django.urls import clear_url_caches, set_urlconf

        clear_url_caches()
        set_urlconf(None)
        try:
            html = page(operator, "/other/dbqueue/overview/")
            assert "/other/dbqueue/overview/live/" in html
            # This site has no page for jobs.
            assert 'dbqueue-tile-ready">' in html and "/job/" not in html.split("dbqueue-tiles")[1].split("</ul>")[0]
            assert "/other/dbqueue/queue/control/" in page(operator, "/other/dbqueue/queue/")
        finally:
            patch.undo()
            clear_url_caches()


other = admin.AdminSite("other")
other.register(Overview, OverviewAdmin)
other.register(Queue, QueuesAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("other/", other.urls)]


# Charts


def test_a_point_a_stretch_the_last_being_now(store: Store) -> None:
    now = store.clock()
    for chosen in charts.RANGES.values():
        points = charts.points([], chosen, now)
        assert len(points) == chosen.points
        assert points[-1].begins_at <= now < points[-1].begins_at + datetime.timedelta(seconds=chosen.resolution)
        assert points[0].begins_at > now - chosen.length - datetime.timedelta(seconds=chosen.resolution)


def test_lines_have_gaps_where_nothing_was_measured() -> None:
    chosen = charts.RANGES["1h"]
    points = charts.points([], chosen, datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC))
    for index in (1, 2, 40):
        points[index].runs = [0] * 5 + [1]
    chart = charts.ran(points)
    assert [len(line.pieces) for line in chart.lines] == [2, 2]
    assert charts.waited(points).lines[0].pieces == []


def test_a_single_failure_beside_a_million_is_seen() -> None:
    chosen = charts.RANGES["1h"]
    points = charts.points([], chosen, datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC))
    points[5].finished, points[5].failed = 1_000_000, 1
    failed = [bar for bar in charts.ended(points).bars if bar.kind == "failed"]
    assert [bar.height >= 2 and bar.y >= 0 for bar in failed] == [True]


# Queues


def test_a_queue_tells_its_line_and_who_serves_it(operator: Client, store: Store) -> None:
    a_worker(queues="mail")
    for _ in range(3):
        tasks.add.using(queue_name="mail").enqueue(1, 2)
    Job.objects.update(enqueued_at=store.clock() - datetime.timedelta(minutes=2))
    tasks.add.using(queue_name="lost").enqueue(1, 2)
    store.add_history(counted(8, queue_name="mail") | counted(2, queue_name="mail", outcome="FAILED", error="e"))

    html = page(operator, QUEUES)

    assert row_of(html, "mail").startswith("mail 3 2 min 0 s 0 1 10 2 4 ms")
    assert row_of(html, "lost").startswith("lost No worker serves it. 1 ")
    assert row_of(html, "default").startswith("default 0 - 0 0 0 0 -")


def test_a_queue_is_paused_drained_and_resumed(operator: Client) -> None:
    operator.post(CONTROL, {"action": "pause", "name": "mail", "reason": HOSTILE})
    assert queues.closed() == {"mail": HOSTILE}
    html = page(operator, QUEUES)
    assert HOSTILE not in html
    assert "It is paused. <script>" in row_of(html, "mail").replace("&lt;", "<").replace("&gt;", ">")
    operator.post(CONTROL, {"action": "resume", "name": "mail"})
    assert queues.closed() == {}
    operator.post(CONTROL, {"action": "drain", "name": "mail", "reason": ""})
    assert "It is being drained" in row_of(page(operator, QUEUES), "mail")
    said = LogEntry.objects.order_by("id").values_list("object_id", "change_message")
    assert [(name, message.split(":")[0].split(".")[0]) for name, message in said] == [
        ("mail", "Paused"),
        ("mail", "Resumed"),
        ("mail", "Drained"),
    ]


@pytest.mark.parametrize(
    ("posted", "said"),
    [
        ({"action": "burn", "name": "mail"}, "&#x27;burn&#x27;; it must be"),
        ({"action": "pause", "name": "a,b"}, "without commas"),
        ({"action": "pause", "name": "mail", "reason": "x" * 501}, "at most 500"),
        ({}, "it must be"),
    ],
)
def test_what_can_not_be_done_to_a_queue_is_said(operator: Client, posted: dict[str, str], said: str) -> None:
    response = operator.post(CONTROL, posted, follow=True)
    assert said in response.content.decode()
    assert not LogEntry.objects.exists()
    assert queues.closed() == {}


def test_who_may_only_look_closes_no_queue() -> None:
    viewer = client_who_may("view_queue")
    assert "<form method" not in page(viewer, QUEUES).split('id="queues"')[1]
    assert viewer.post(CONTROL, {"action": "pause", "name": "mail"}).status_code == 403
    assert client_who_may("control_queue").get(QUEUES).status_code == 403
    assert client_who_may("control_queue", "view_queue").get(CONTROL).status_code == 405
    assert queues.closed() == {}


# Workers


def asked(worker: int) -> str:
    return Worker.objects.get(pk=worker).asked


def act(client: Client, action: str, *workers: int) -> int:
    data = {"action": action, "_selected_action": [str(pk) for pk in workers]}
    return client.post(WORKERS, data).status_code


def test_workers_are_quieted_stopped_and_let_go_on(operator: Client) -> None:
    first, second = a_worker(name="w-1"), a_worker(name="w-2")
    act(operator, "quiet_selected", first)
    assert (asked(first), asked(second)) == (WorkerRequest.QUIET, "")
    assert "Quiet" in page(operator, WORKERS)
    act(operator, "claim_again_selected", first)
    assert asked(first) == ""
    act(operator, "stop_selected", first, second)
    assert (asked(first), asked(second)) == (WorkerRequest.STOP, WorkerRequest.STOP)
    assert LogEntry.objects.count() == 4


def test_a_worker_is_quieted_stopped_and_let_go_on_from_its_page(operator: Client, store: Store) -> None:
    worker = a_worker()
    url = f"{WORKERS}{worker}/"
    for name, wanted in (("quiet", WorkerRequest.QUIET), ("claim_again", ""), ("stop", WorkerRequest.STOP)):
        assert f'action="{url}{name}/"' in page(operator, f"{url}change/")
        assert operator.get(f"{url}{name}/").status_code == 405
        assert operator.post(f"{url}{name}/").headers["Location"] == f"{url}change/"
        assert asked(worker) == wanted
        assert f'action="{url}{name}/"' not in page(operator, f"{url}change/")  # it has been asked
    assert LogEntry.objects.count() == 3
    assert "No worker has the id" in operator.post(f"{WORKERS}{worker + 9}/stop/", follow=True).content.decode()
    store.unregister(worker)
    assert "<button" not in page(operator, f"{url}change/").partition('id="content"')[2].partition("fieldset")[0]
    assert "has ended already" in operator.post(f"{url}quiet/", follow=True).content.decode()

    viewer = client_who_may("view_worker")
    assert viewer.post(f"{url}quiet/").status_code == 403
    other = a_worker()
    assert f"{WORKERS}{other}/quiet/" not in page(viewer, f"{WORKERS}{other}/change/")


def test_who_may_only_look_asks_nothing_of_a_worker() -> None:
    worker = a_worker()
    act(client_who_may("view_worker"), "stop_selected", worker)
    assert asked(worker) == ""
    assert not LogEntry.objects.exists()


def test_a_worker_shows_what_it_runs(operator: Client) -> None:
    job = a_job(JobStatus.RUNNING)
    html = page(operator, f"{WORKERS}{job.worker_id}/change/")
    assert f"/admin/dbqueue/job/{job.pk}/change/" in html
    assert "1 of 3" in text_of(page(operator, WORKERS))


def test_of_very_many_queues_the_page_shows_the_first_lines_and_says_so(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbqueue.console.queues.MOST_QUEUES", 2)
    monkeypatch.setattr("dbqueue.store.census.Census.busy_queues.__defaults__", (2,))
    tasks.add.using(queue_name="a").enqueue(1, 2)
    assert "Only the lines" not in operator.get(QUEUES).content.decode()
    for name in ("b", "c"):
        tasks.add.using(queue_name=name).enqueue(1, 2)
    html = operator.get(QUEUES).content.decode()
    assert "first 2 queues" in html
    assert row_of(html, "b")
    with pytest.raises(AssertionError):
        row_of(html, "c")


def test_of_very_many_queues_the_overview_says_that_it_looks_at_some(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbqueue.console.overview.MOST_QUEUES", 3)
    a_worker(queues="a,b,c")
    for name in ("a", "b", "c"):
        tasks.add.using(queue_name=name).enqueue(1, 2)
    assert "Warning" not in page(operator, OVERVIEW)
    tasks.add.using(queue_name="z").enqueue(1, 2)
    html = page(operator, OVERVIEW)
    assert "Jobs wait in the queue z, and no worker serves it." in html
    tasks.add.using(queue_name="zz").enqueue(1, 2)
    assert "Jobs wait in more than 3 queues" in page(operator, OVERVIEW)
