"""The operator's pages, through Django's client: who may do what, what is written, and what a page costs."""

import datetime
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone
from pytest_django import Settings

from dbqueue.admin import JobAdmin, WorkerAdmin
from dbqueue.claim import Claim
from dbqueue.exceptions import NotStorable
from dbqueue.models import CANCELLABLE, FINAL, Attempt, Job, JobStatus, LogLine, Worker
from dbqueue.outcome import Outcome
from dbqueue.store import MOST_COUNTED, Store, store_for
from dbqueue.testing import run_jobs

from .shop import admin_tasks as tasks
from .shop import running_tasks
from .workers import ROOT

pytestmark = pytest.mark.django_db

JOBS = "/admin/dbqueue/job/"
ADD = f"{JOBS}add/"
WORKERS = "/admin/dbqueue/worker/"
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def operator(client: Client) -> Client:
    """Somebody who may do everything."""
    client.force_login(User.objects.create_superuser("operator"))
    return client


def client_who_may(*codenames: str) -> Client:
    user = User.objects.create_user("-".join(codenames) or "nobody", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="dbqueue", codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200, response.content
    return response.content.decode()


def status_of(client: Client, url: str, **query: str) -> int:
    return client.get(url, query).status_code


def text_of(html: str) -> str:
    """What a reader sees, with single spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def value_of(field: str, html: str) -> str:
    """What a page shows as a field's value, wherever this Django puts the field's help text."""
    found = re.search(rf'field-{field}\b.*?<div class="readonly">(.*?)</div>', html, re.S)
    assert found, f"the page has no field {field}"
    return text_of(found[1])


def a_worker(**values: Any) -> int:
    return store_for("default").register(
        **{"name": "w-1", "hostname": "h", "pid": 7, "queues": "", "threads": 3, **values}
    )


def a_claim() -> Claim:
    """Run what is ready, as a worker would begin to."""
    (claim,) = store_for("default").claim(a_worker(), 1)
    return claim


def a_job(status: JobStatus, message: str = "m") -> Job:
    """A job that came to its state by the store's own ways."""
    store = store_for("default")
    later = datetime.timedelta(days=1) if status is JobStatus.SCHEDULED else None
    job_id = int(tasks.fail_with.using(run_after=later).enqueue(message).id)
    match status:
        case JobStatus.RUNNING:
            a_claim()
        case JobStatus.SUCCESSFUL:
            store.finish([Outcome.succeeded(a_claim(), '{"answer": 42}')])
        case JobStatus.FAILED:
            store.finish([Outcome.failed(a_claim(), ValueError(message))])
        case JobStatus.CANCELLED:
            store.cancel([job_id])
        case JobStatus.BLOCKED:
            store.cancel([job_id])
            ids = [int(tasks.fail_with.using(concurrency=1).enqueue(message).id) for _ in range(2)]
            store.claim(a_worker(), 2)
            job_id = ids[1]
        case JobStatus.WAITING:
            store.cancel([job_id])
            job_id = (tasks.fail_with.si(message) | tasks.fail_with.si(message)).enqueue().last_id
    job = Job.objects.get(pk=job_id)
    assert job.status == status
    return job


def states() -> dict[int, str]:
    return dict(Job.objects.values_list("pk", "status"))


def detail(job: Job) -> str:
    return f"{JOBS}{job.pk}/change/"


def queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        page(client, url)
    return [query["sql"] for query in captured]


# Enqueue


def test_step_one_offers_the_registered_tasks(operator: Client) -> None:
    html = page(operator, ADD)

    assert f'<option value="{tasks.divide.name}"></option>' in html
    assert "can be enqueued." in html
    assert f'<a href="?task={tasks.divide.name}">divide</a>' in html
    assert "Divide and round." in html
    assert tasks.not_offered.name not in html


def test_step_two_shows_the_task_and_its_fields(operator: Client) -> None:
    html = page(operator, ADD, task=tasks.every_type.name)

    for name in tasks.every_type.signature.parameters:
        assert f'name="arg_{name}"' in html
    assert "&lt;script&gt;alert(&quot;documentation&quot;)&lt;/script&gt;" in html
    assert "<script>alert" not in html


def test_saving_enqueues_and_leads_to_the_job(operator: Client) -> None:
    data = {"arg_dividend": "7", "arg_divisor": "2.5", "arg_rounding": "up"}
    response = operator.post(
        f"{ADD}?task={tasks.divide.name}", {**data, "queue_name": "mail", "priority": "5", "run_after": ""}, follow=True
    )

    job = Job.objects.get()
    assert (job.task, job.args) == (tasks.divide.name, [])
    assert job.kwargs == {"dividend": 7, "divisor": "2.5", "rounding": "up"}
    assert (job.queue_name, job.priority, job.status) == ("mail", 5, JobStatus.READY)
    assert response.redirect_chain == [(detail(job), 302)]
    assert f'Enqueued: <a href="{detail(job)}">{job}</a>.' in response.content.decode()
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.object_id, entry.object_repr) == (ADDITION, str(job.pk), str(job))


def test_enqueue_and_add_another_returns_to_the_same_task(operator: Client) -> None:
    url = f"{ADD}?task={tasks.without_arguments.name}"
    response = operator.post(url, {"queue_name": "default", "priority": "0", "_addanother": "1"})

    assert response.headers["Location"] == url
    assert Job.objects.count() == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("arg_dividend", "seven", "Enter a whole number."),
        ("arg_dividend", "", "This field is required."),
        ("arg_divisor", "nan", "Enter a number."),
        (
            "arg_rounding",
            HOSTILE,
            "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; is not one of the available choices",
        ),
        ("queue_name", "a,b", "without commas"),
        ("priority", "1000", "less than or equal to 100"),
        ("run_after", "soon", "Enter a valid date/time."),
    ],
)
def test_bad_input_is_said_at_its_field_and_writes_nothing(operator: Client, field: str, value: str, said: str) -> None:
    data = {"arg_dividend": "7", "arg_divisor": "2", "arg_rounding": "up", "queue_name": "default", "priority": "0"}
    response = operator.post(f"{ADD}?task={tasks.divide.name}", {**data, field: value})

    html = response.content.decode()
    assert response.status_code == 200
    row = re.search(rf'<div class="form-row[^"]* field-{field}".*?(?=<div class="(form|submit)-row)', html, re.S)
    assert row is not None
    assert re.search(rf'class="errorlist".*{re.escape(said)}', row[0], re.S)
    assert HOSTILE not in html
    assert not Job.objects.exists()
    assert not LogEntry.objects.exists()


def test_what_only_enqueue_can_refuse_is_an_error_of_the_form(
    operator: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, data = f"{ADD}?task={tasks.without_arguments.name}", {"queue_name": "mail", "priority": "0"}
    settings.DBQUEUE = {"QUEUES": ["default"]}

    assert "Select a valid choice. mail is not one of the available choices." in text_of(
        operator.post(url, data).content.decode()
    )

    # A task of django.tasks has its backend's queues, so the form can't offer them as a choice.
    monkeypatch.setattr(tasks.without_arguments, "backend", "default")
    html = operator.post(url, data).content.decode()
    assert "The queue &#x27;mail&#x27; is not among DBQUEUE[&#x27;QUEUES&#x27;]: &#x27;default&#x27;." in html
    assert not Job.objects.exists()


def test_settings_that_cannot_be_used_are_an_error_of_the_form(operator: Client, settings: Settings) -> None:
    settings.DBQUEUE = {"THREADS": "many"}

    data = {"queue_name": "mail", "priority": "0"}
    html = operator.post(f"{ADD}?task={tasks.without_arguments.name}", data).content.decode()

    assert "DBQUEUE[&#x27;THREADS&#x27;] is &#x27;many&#x27;" in html
    assert not Job.objects.exists()


@pytest.mark.parametrize("name", ["os.system", "tests.shop.nowhere.task", HOSTILE, tasks.not_offered.name, "\x00"])
def test_a_name_that_is_not_offered_is_refused_in_words(operator: Client, name: str) -> None:
    for response in (
        operator.get(ADD, {"task": name}),
        operator.post(f"{ADD}?{urlencode({'task': name})}", {"queue_name": "default", "priority": "0"}),
        operator.post(ADD, {"task": name, "queue_name": "default", "priority": "0"}),
    ):
        assert response.status_code == 200
        html = response.content.decode()
        assert 'class="errorlist"' in html
        assert 'id="choose_task"' in html
        assert HOSTILE not in html
    assert not Job.objects.exists()


def test_a_log_entry_that_fails_takes_the_job_with_it(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotStorable("no log today")

    monkeypatch.setattr(JobAdmin, "log_addition", refuse)

    with pytest.raises(NotStorable):
        operator.post(f"{ADD}?task={tasks.without_arguments.name}", {"queue_name": "default", "priority": "0"})

    assert not Job.objects.exists()


# Permissions


def test_each_page_and_button_has_its_permission() -> None:
    failed, ready = a_job(JobStatus.FAILED), a_job(JobStatus.READY)
    viewer, nobody = client_who_may("view_job"), client_who_may()

    for url in (JOBS, ADD, detail(failed)):
        assert status_of(nobody, url) == 403
    for job in (failed, ready):
        html = page(viewer, detail(job))
        assert "retry_form" not in html
        assert "cancel_form" not in html
    assert re.findall(r'<option value="(\w+)"', page(viewer, JOBS)) == ["export_selected"]
    assert status_of(viewer, ADD) == 403
    assert viewer.post(ADD, {"task": tasks.without_arguments.name}).status_code == 403


@pytest.mark.parametrize(
    ("operation", "status", "other"),
    [("retry", JobStatus.FAILED, "cancel_job"), ("cancel", JobStatus.READY, "retry_job")],
)
def test_an_operation_needs_its_own_permission(operation: str, status: JobStatus, other: str) -> None:
    job = a_job(status)
    url = f"{JOBS}{job.pk}/{operation}/"
    without, with_it = client_who_may("view_job", other), client_who_may("view_job", f"{operation}_job")

    assert without.post(url).status_code == 403
    assert without.post(JOBS, {"action": f"{operation}_selected", "_selected_action": [job.pk]}).status_code == 302
    assert states() == {job.pk: status}
    assert f'id="{operation}_form"' not in page(without, detail(job))
    assert f'id="{operation}_form"' in page(with_it, detail(job))
    assert f'value="{operation}_selected"' in page(with_it, JOBS)
    assert f'value="{operation}_selected"' not in page(without, JOBS)

    assert with_it.post(url).headers["Location"] == detail(job)
    assert states() != {job.pk: status}


def test_an_operation_is_posted_with_a_token(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())

    for operation in ("retry", "cancel"):
        assert operator.get(f"{JOBS}{job.pk}/{operation}/").status_code == 405
        assert strict.post(f"{JOBS}{job.pk}/{operation}/").status_code == 403

    assert states() == {job.pk: JobStatus.FAILED}


def test_a_job_is_not_edited_and_a_worker_is_only_looked_at(operator: Client) -> None:
    job, worker = a_job(JobStatus.READY), a_worker()

    assert operator.post(detail(job), {"queue_name": "mail"}).status_code == 403
    assert operator.post(f"{WORKERS}{worker}/change/", {"name": "x"}).status_code == 403
    assert status_of(operator, f"{WORKERS}add/") == 403
    assert status_of(operator, f"{WORKERS}{worker}/delete/") == 403


# Retry, cancel, delete


@pytest.mark.parametrize(
    ("operation", "leaves", "reaches", "done", "left"),
    [
        (
            "retry",
            {JobStatus.FAILED, JobStatus.CANCELLED},
            JobStatus.READY,
            "2 jobs retried.",
            "Left alone: 1 Ready, 1 Running, 1 Scheduled, 1 Successful.",
        ),
        (
            "cancel",
            {JobStatus.READY, JobStatus.SCHEDULED},
            JobStatus.CANCELLED,
            "2 jobs cancelled. 1 running job was asked to stop.",
            "Left alone: 1 Cancelled, 1 Failed, 1 Successful.",
        ),
    ],
)
def test_an_action_changes_what_it_may_and_says_what_it_left(
    operator: Client, operation: str, leaves: set[JobStatus], reaches: JobStatus, done: str, left: str
) -> None:
    made = [JobStatus.RUNNING, JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED]
    jobs = [a_job(status) for status in [*made, JobStatus.SCHEDULED, JobStatus.READY]]

    selected = [job.pk for job in jobs]
    data = {"action": f"{operation}_selected", "_selected_action": selected}
    html = operator.post(JOBS, data, follow=True).content.decode()

    assert f"{done} {left}" in html
    assert states() == {job.pk: reaches if job.status in leaves else job.status for job in jobs}
    entries = LogEntry.objects.filter(action_flag=CHANGE)
    assert {entry.object_id for entry in entries} == {
        str(job.pk) for job in jobs if job.status in leaves or (operation == "cancel" and job.status == "RUNNING")
    }


def test_an_operation_on_a_page_that_is_out_of_date_changes_nothing(operator: Client) -> None:
    job = a_job(JobStatus.SUCCESSFUL)

    html = operator.post(f"{JOBS}{job.pk}/retry/", follow=True).content.decode()

    assert "0 jobs retried. Left alone: 1 Successful." in html
    assert states() == {job.pk: JobStatus.SUCCESSFUL}
    assert not LogEntry.objects.exists()


def test_an_operation_on_a_job_that_is_gone_leads_to_the_list(operator: Client) -> None:
    for job_id in (1, 10**30):
        response = operator.post(f"{JOBS}{job_id}/cancel/", follow=True)
        assert response.redirect_chain == [(JOBS, 302)]
        assert f"No job has the id {job_id}." in response.content.decode()


def test_an_action_on_more_than_it_may_change_does_nothing(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.console.jobs.MOST_AT_ONCE", 2)
    jobs = [a_job(JobStatus.READY) for _ in range(3)]

    data = {"action": "cancel_selected", "_selected_action": [jobs[0].pk], "select_across": "1"}
    html = operator.post(JOBS, data, follow=True).content.decode()

    assert "More than 2 jobs are selected: nothing was done." in html
    assert set(states().values()) == {JobStatus.READY}


def test_what_fails_while_logging_takes_the_change_with_it(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotStorable("no log today")

    job = a_job(JobStatus.READY)
    monkeypatch.setattr(type(LogEntry.objects), "log_actions", refuse)

    with pytest.raises(NotStorable):
        operator.post(f"{JOBS}{job.pk}/cancel/")

    assert states() == {job.pk: JobStatus.READY}


def test_only_a_job_that_has_ended_is_deleted_with_its_history(operator: Client) -> None:
    jobs = [a_job(status) for status in (JobStatus.FAILED, JobStatus.RUNNING, JobStatus.READY)]
    assert status_of(client_who_may("view_job", "retry_job"), f"{JOBS}{jobs[0].pk}/delete/") == 403

    for job in jobs:
        response = operator.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"})
        assert response.status_code == (302 if job.status in FINAL else 403)

    assert states() == {job.pk: job.status for job in jobs if job.status not in FINAL}
    assert not Attempt.objects.exists()
    assert LogEntry.objects.get().action_flag == DELETION
    assert '"delete_selected"' not in page(operator, JOBS)


def test_the_store_deletes_only_what_has_ended() -> None:
    jobs = [a_job(status) for status in (JobStatus.SUCCESSFUL, JobStatus.RUNNING)]

    assert store_for("default").delete([job.pk for job in jobs]) == 1
    assert states() == {jobs[1].pk: JobStatus.RUNNING}


# One job


def test_a_successful_job_shows_its_call_and_its_result(operator: Client) -> None:
    text = text_of(page(operator, detail(a_job(JobStatus.SUCCESSFUL, HOSTILE))))

    assert "State: Successful" in text
    assert f"Task: {tasks.fail_with.name}" in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text
    assert "&quot;answer&quot;: 42" in text
    assert re.search(r"Attempt 1 Successful Started .+ on w-1, took \d+", text)


def test_every_attempt_shows_its_error_and_its_traceback(operator: Client) -> None:
    store, job = store_for("default"), a_job(JobStatus.FAILED, HOSTILE)
    store.retry([job.pk])
    store.finish([Outcome.failed(a_claim(), LookupError("another"))])
    store.retry([job.pk])
    a_claim()

    html = page(operator, detail(job))

    text = text_of(html)
    assert re.search("Attempt 3 Running .+ Attempt 2 Failed .+ Attempt 1 Failed", text)
    assert "LookupError: another" in text
    assert "ValueError: &lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in html
    assert HOSTILE not in html


def test_an_old_history_is_cut(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.console.life.MOST_ATTEMPTS", 1)
    store, job = store_for("default"), a_job(JobStatus.FAILED)
    store.retry([job.pk])
    store.finish([Outcome.failed(a_claim(), LookupError("another"))])

    text = text_of(page(operator, detail(job)))

    assert "Attempt 2" in text
    assert "Attempt 1" not in text
    assert "1 older attempt is not shown." in text


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_in_any_state_has_a_page_with_the_buttons_that_apply(operator: Client, status: JobStatus) -> None:
    html = page(operator, detail(a_job(status)))

    assert f'class="dbqueue-state dbqueue-{status.lower()}">{status.label}<' in html
    assert ("retry_form" in html) == (status in {JobStatus.FAILED, JobStatus.CANCELLED})
    assert ("cancel_form" in html) == (status in CANCELLABLE | {JobStatus.RUNNING})
    assert ("deletelink" in html) == (status in FINAL)


def test_a_long_value_is_cut(operator: Client) -> None:
    job = a_job(JobStatus.READY, "x" * 1_000_000)

    assert len(page(operator, detail(job))) < 100_000


def test_a_worker_whose_row_is_gone_is_named_by_its_id(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    Worker.objects.all().delete()

    assert f"on #{job.worker_id}," in text_of(page(operator, detail(job)))


def test_an_id_that_is_none_leads_away(operator: Client) -> None:
    for job_id in ("0", "abc", str(10**30)):
        assert operator.get(f"{JOBS}{job_id}/change/").status_code == 302


# The list


def test_the_list_shows_states_in_words_and_escapes_everything(operator: Client) -> None:
    Job.objects.create(task=HOSTILE, queue_name=HOSTILE, enqueued_at=timezone.now())

    html = page(operator, JOBS)

    assert '<span class="dbqueue-state dbqueue-ready">Ready</span>' in html
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") >= 2


def listed(client: Client, **query: str) -> list[int]:
    return [int(pk) for pk in re.findall(r'name="_selected_action" value="(\d+)"', page(client, JOBS, **query))]


def test_filters_and_search_find_exactly(operator: Client) -> None:
    failed = a_job(JobStatus.FAILED).pk
    mailed = int(tasks.without_arguments.using(queue_name="mail").enqueue().id)
    plain = int(tasks.without_arguments.enqueue().id)

    assert listed(operator) == [plain, mailed, failed]
    assert listed(operator, state="FAILED") == [failed]
    assert listed(operator, queue="mail") == [mailed]
    assert listed(operator, queue="nobody's") == []
    assert listed(operator, task=tasks.fail_with.name) == [failed]
    assert listed(operator, task="nobody's", state="READY") == []
    assert listed(operator, q=f" {failed} ") == [failed]
    assert listed(operator, q=str(10**30)) == []
    assert listed(operator, q=tasks.without_arguments.name) == [plain, mailed]
    assert listed(operator, q="tests.shop.admin_tasks.f") == [failed]
    assert listed(operator, q="without_arg") == [plain, mailed]
    assert listed(operator, q="%") == []


def test_a_name_that_no_database_can_look_for_finds_nothing(operator: Client) -> None:
    a_job(JobStatus.READY)

    for parameter in ("state", "queue", "task"):
        assert listed(operator, **{parameter: "\x00"}) == []
    page(operator, JOBS, q="\x00")


def test_only_the_pages_own_filters_may_be_asked_for(operator: Client) -> None:
    for lookup in ("kwargs__icontains", "return_value", "attempt_set__traceback__contains", "worker__name"):
        assert status_of(operator, JOBS, **{lookup: "x"}) == 400


def test_a_queue_that_no_filter_offers_is_linked(operator: Client) -> None:
    tasks.without_arguments.using(queue_name="a&b=ü").enqueue()

    html = page(operator, JOBS)

    assert f'<a href="{JOBS}?queue=a%26b%3D%C3%BC">a&amp;b=ü</a>' in html
    assert len(listed(operator, queue="a&b=ü")) == 1


def test_the_page_of_an_unfinished_job_looks_again_by_itself(operator: Client) -> None:
    for status in (JobStatus.READY, JobStatus.RUNNING, JobStatus.SCHEDULED):
        assert "data-every=" in page(operator, detail(a_job(status)))
        Job.objects.all().delete()
    for status in FINAL:
        assert "data-every=" not in page(operator, detail(a_job(status)))
    assert "data-every=" not in page(operator, ADD, task=tasks.divide.name)


def test_without_script_a_page_loads_itself_only_for_who_asks(operator: Client) -> None:
    url, reloads = detail(a_job(JobStatus.READY)), 'http-equiv="refresh"'
    assert reloads not in page(operator, url)
    assert reloads in page(operator, url, follow="1")
    Job.objects.all().delete()
    assert reloads not in page(operator, detail(a_job(JobStatus.FAILED)), follow="1")


def test_a_job_that_waits_for_no_worker_says_so(operator: Client) -> None:
    said, job = "No worker is alive", a_job(JobStatus.READY)
    assert said in page(operator, detail(job))

    store = store_for("default")
    worker_id = a_worker()
    assert said not in page(operator, detail(job))
    Worker.objects.filter(pk=worker_id).update(heartbeat_at=store.clock() - datetime.timedelta(days=1))
    assert said in page(operator, detail(job))

    assert said not in page(operator, detail(a_job(JobStatus.SCHEDULED)))
    due = tasks.fail_with.using(run_after=datetime.timedelta(seconds=-1)).enqueue("m")
    assert said in page(operator, f"{JOBS}{due.id}/change/")
    store.cancel([job.pk])
    assert said not in page(operator, detail(job))


def test_a_long_list_is_counted_to_a_point_and_says_so(operator: Client) -> None:
    now = timezone.now()
    Job.objects.bulk_create((Job(task="t", enqueued_at=now) for _ in range(MOST_COUNTED + 1)), batch_size=1000)

    html = page(operator, JOBS)
    assert f" {MOST_COUNTED:,}+ jobs" in text_of(html)
    assert f"{MOST_COUNTED:,}+: the count and the pages stop here." in text_of(html)
    assert "stop here" not in page(operator, JOBS, state="FAILED")
    assert page(operator, JOBS, p=str(MOST_COUNTED // 100))
    # The list, and each tab but that of what went well.
    counts = [sql for sql in queries(operator, JOBS) if "COUNT(*)" in sql]
    assert len(counts) == len(JobStatus)
    counted = next(sql for sql in counts if "status" not in sql)
    assert f"LIMIT {MOST_COUNTED + 1}" in counted


def test_a_page_costs_the_same_however_many_rows(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    urls = [JOBS, f"{JOBS}?state=FAILED", f"{JOBS}?q=tests.shop", detail(job), WORKERS, f"{WORKERS}?state=all", ADD]
    page(operator, JOBS)
    before = {url: len(queries(operator, url)) for url in urls}

    store = store_for("default")
    for _ in range(15):
        a_job(JobStatus.FAILED)
        store.retry([job.pk])
        store.finish([Outcome.failed(a_claim(), ValueError("again"))])

    assert {url: len(queries(operator, url)) for url in urls} == before


def test_the_list_reads_neither_arguments_nor_results(operator: Client) -> None:
    a_job(JobStatus.SUCCESSFUL)

    read = " ".join(sql for sql in queries(operator, JOBS) if "dbqueue_job" in sql)

    for column in ("args", "kwargs", "return_value"):
        assert f'"{column}"' not in read
    assert '"task"' in read


# Workers


def test_the_list_of_workers_shows_the_living_unless_asked(operator: Client) -> None:
    store, now = store_for("default"), timezone.now()
    a_worker(name="fresh", queues="mail,-slow")
    a_worker(name="silent", now=now - datetime.timedelta(seconds=45))
    store.unregister(a_worker(name="ended"))
    a_worker(name="vanished", now=now - datetime.timedelta(days=2))
    Worker.objects.filter(name="vanished").update(stopped_at=now, lost=True)

    def shown(**query: str) -> dict[str, str]:
        rows = re.findall(
            r'field-name.*?">(\w+)</a>.*?dbqueue-state dbqueue-(\w+)"', page(operator, WORKERS, **query), re.S
        )
        return dict(rows)

    assert shown() == {"fresh": "alive", "silent": "silent"}
    assert shown(state="stopped") == {"ended": "stopped"}
    assert shown(state="lost") == {"vanished": "lost"}
    assert shown(state="all") == {"fresh": "alive", "silent": "silent", "ended": "stopped", "vanished": "lost"}
    text = text_of(page(operator, WORKERS))
    assert "mail but slow" in text
    assert re.search(r"Silent 4\d\.\d s ago", text)


def test_a_worker_has_a_page(operator: Client) -> None:
    text = text_of(page(operator, f"{WORKERS}{a_worker()}/change/"))

    assert "Name: w-1 " in text
    assert "Queues: all " in text
    text = text_of(page(operator, f"{WORKERS}{a_worker(queues='-slow,-mail')}/change/"))
    assert "Queues: all but slow, mail " in text


def test_a_job_whose_workers_died_says_so_and_can_be_retried(operator: Client) -> None:
    job, fine = a_job(JobStatus.RUNNING), a_job(JobStatus.SUCCESSFUL)
    Worker.objects.update(stopped_at=timezone.now())
    assert store_for("default").rescue(1).failed == [job.pk]

    html = page(operator, detail(job))

    assert value_of("crashes", html) == "1"
    assert "Failed" in text_of(html) and "WorkerLost: worker lost" in text_of(html)
    assert "Crashes" not in text_of(page(operator, detail(fine)))
    assert value_of("refused", page(operator, f"{WORKERS}{job.worker_id}/change/")) == "0"
    operator.post(f"{JOBS}{job.pk}/retry/")
    job.refresh_from_db()
    assert (job.status, job.crashes) == (JobStatus.READY, 0)


# Other sites, other databases


def test_another_admin_site_has_links_of_its_own(operator: Client, settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.test_admin"
    job = a_job(JobStatus.FAILED)

    html = page(operator, f"/other/dbqueue/job/{job.pk}/change/")
    assert f'action="/other/dbqueue/job/{job.pk}/retry/"' in html
    for there in (html, page(operator, "/other/dbqueue/job/add/"), page(operator, "/other/dbqueue/job/")):
        assert '"/admin/' not in there
    response = operator.post(f"/other/dbqueue/job/{job.pk}/retry/")
    assert response.headers["Location"] == f"/other/dbqueue/job/{job.pk}/change/"
    url = f"/other/dbqueue/job/add/?task={tasks.without_arguments.name}"
    response = operator.post(url, {"queue_name": "default", "priority": "0"})
    assert response.headers["Location"].startswith("/other/")


def test_jobs_in_another_database_are_enqueued_shown_and_retried_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.two_databases", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "1 job in 'jobs', 0 in 'default'; 3 log entries in 'default'"


other = admin.AdminSite(name="other")
other.register(Job, JobAdmin)
other.register(Worker, WorkerAdmin)
urlpatterns = [path("other/", other.urls), path("admin/", admin.site.urls)]


def test_enqueueing_what_is_there_already_says_so(operator: Client) -> None:
    for _ in range(2):
        page = operator.post(
            f"{ADD}?task={tasks.only_once.name}", {"queue_name": "default", "priority": "0"}, follow=True
        )

    job, text = Job.objects.get(), text_of(page.content.decode())
    assert f"the task is unique, and {job} is there already." in text and "Enqueued: tests" not in text
    assert LogEntry.objects.filter(action_flag=ADDITION).count() == 1


def test_who_was_slower_is_told_and_stays_where_the_job_is(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(JobStatus.FAILED)
    monkeypatch.setattr(Store, "delete", lambda *_args: 0)  # as where somebody has retried it since the look
    response = operator.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(detail(job), 302)]
    assert "Nothing was deleted: the job has been retried meanwhile." in response.content.decode()
    assert not LogEntry.objects.exists()


def test_the_page_that_deletes_a_job_tells_its_log_as_a_number(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    now = timezone.now()
    LogLine.objects.bulk_create(LogLine(job=job, attempt=1, made_at=now, text="x" * 9) for _ in range(300))
    html = page(operator, f"{JOBS}{job.pk}/delete/")
    assert "Attempts: 1" in text_of(html) and "Log lines: 300" in text_of(html)
    assert html.count("log line ") == 0
    operator.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"})
    assert not Job.objects.exists() and not LogLine.objects.exists()


def test_the_page_of_a_job_that_tells_of_itself(operator: Client) -> None:
    result = running_tasks.report.using(max_attempts=3, expires=datetime.timedelta(hours=1)).enqueue(3)
    run_jobs()
    html = page(operator, detail(Job.objects.get(pk=result.id)))

    assert '<progress value="3" max="3"></progress> 3 / 3 at 3' in html
    assert "line 2 of 3" in html
    assert "1 of 3" in html
    assert "Expires at" in html


def test_cancelling_what_runs_asks_it_to_end(operator: Client) -> None:
    job = a_job(JobStatus.RUNNING)

    operator.post(f"{JOBS}{job.pk}/cancel/")

    job.refresh_from_db()
    assert job.status == JobStatus.RUNNING
    assert "Asked to stop" in page(operator, detail(job))
