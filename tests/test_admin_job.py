"""The page of one job and what an operator does from there; actions on a selection, and the file."""

import csv
import datetime
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.core.signals import got_request_exception
from django.db import OperationalError, connection
from django.http import HttpRequest
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.views.debug import ExceptionReporter

import dbqueue
from dbqueue.admin import JobAdmin
from dbqueue.exceptions import CancelRequested, Discard
from dbqueue.models import Attempt, Job, JobStatus, LogLine, Worker
from dbqueue.outcome import Outcome
from dbqueue.queues import drain, pause
from dbqueue.redaction import HIDDEN
from dbqueue.store import SeenCall, store_for
from dbqueue.testing import run_jobs

from .shop import admin_tasks as tasks
from .test_admin import (
    ADD,
    HOSTILE,
    JOBS,
    a_claim,
    a_job,
    a_worker,
    client_who_may,
    detail,
    page,
    states,
    text_of,
    value_of,
)

pytestmark = pytest.mark.django_db

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def edit_of(job: Job) -> str:
    return f"{JOBS}{job.pk}/edit/"


def section(name: str, html: str) -> str:
    found = re.search(rf'id="{name}">(.*?)</(?:ol|div)>', html, re.S)
    assert found, f"the page has no {name}"
    return text_of(found[1])


def hidden(name: str, html: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found
    return found[1]


# The list


@pytest.mark.parametrize("status", JobStatus)
def test_each_state_has_the_columns_that_tell_most(operator: Client, status: JobStatus) -> None:
    a_job(status)
    html = page(operator, JOBS, state=status)
    assert (">ValueError: m<" in html) == (status is JobStatus.FAILED)
    assert (">w-1<" in html) == (status is JobStatus.RUNNING)
    assert 'class="field-name"' in html


def test_the_list_of_failures_says_what_the_errors_said_to_who_may_read_it(operator: Client) -> None:
    secret = tasks.with_secrets.enqueue("fails", 1234, password="hush-hush", config={"token": "abcd-efgh"})
    tasks.fail_with.enqueue("x" * 500)
    tasks.fail_with.enqueue("two\nlines: of it")
    tasks.fail_with.using(queue_name="large").enqueue("y" * 5000)
    run_jobs()
    html = text_of(page(operator, JOBS, state="FAILED"))
    assert re.search(r"ValueError: fails •+ &#x27;•+&#x27; {&#x27;token&#x27;: &#x27;•+", html)
    assert f"ValueError: {'x' * 67}… " in html and "ValueError: two default" in html
    assert "ValueError large" in html  # nobody reads 5,000 characters of arguments to know what they hide
    assert "hush" not in html and "abcd" not in html and "1234" not in html
    html = page(client_who_may("view_job"), JOBS, state="FAILED")
    assert "ValueError" in html and "ValueError: " not in html
    assert secret.id in html


def test_a_part_of_a_secret_at_the_cut_of_a_traceback_is_not_shown(operator: Client) -> None:
    pin = "S3cret" * 400
    tasks.with_secrets.enqueue("fails", pin)  # type: ignore[arg-type]
    run_jobs()
    job = Job.objects.get()
    Attempt.objects.update(traceback=f"a line\nValueError: {pin}")
    assert "S3cret" not in page(operator, JOBS, state="FAILED")
    Attempt.objects.create(
        job=job,
        number=2,
        worker_id=1,
        started_at=job.enqueued_at,
        ended_at=job.enqueued_at,
        exception_class_path="builtins.ValueError",
        traceback="ValueError: 2",
    )
    assert "S3cret" not in page(operator, detail(job))


def test_of_old_tracebacks_the_end_is_shown_and_the_whole_for_who_asks(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    for number in (2, 3):
        Attempt.objects.create(
            job=job,
            number=number,
            worker_id=1,
            started_at=job.enqueued_at,
            ended_at=job.enqueued_at,
            exception_class_path="builtins.ValueError",
            traceback=f"it begins {number}\n" + "a line\n" * 1000 + f"ValueError: {number}",
        )
    html = page(operator, detail(job))
    assert "it begins 3" in html and "it begins 2" not in html
    assert "ValueError: 2" in html and html.count("a line") < 1300
    second = Attempt.objects.get(number=2)
    assert f'href="?traceback={second.pk}#attempts"' in html
    html = page(operator, detail(job), traceback=str(second.pk))
    assert "it begins 2" in html and "Only its end" not in html
    assert page(operator, detail(job), traceback="9" * 5000) and page(operator, detail(job), traceback="²")
    assert "it begins" not in page(client_who_may("view_job"), detail(job), traceback=str(second.pk))


def test_a_page_is_about_one_moment(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has happened since the job was read is told with the job as it is now, not beside what it was."""
    tasks.fail_with.enqueue("m")
    claim = a_claim()
    before = Job.objects.get()
    store_for("default").finish([Outcome.failed(claim, ValueError("m"))])
    monkeypatch.setattr(JobAdmin, "get_object", lambda *_args, **_kwargs: before)
    html = page(operator, detail(before))
    assert value_of("state", html) == "Failed"
    assert section("timeline", html).count("Attempt 1") == 1


def test_the_newest_line_of_a_log_stands_first(operator: Client) -> None:
    job = a_job(JobStatus.RUNNING)
    for number in range(3):
        LogLine.objects.create(job=job, attempt=1, made_at=job.enqueued_at, text=f"line {number}")
    html = page(operator, detail(job))
    assert html.index("line 2") < html.index("line 0")
    assert "Running for" in html and "Ran:" not in text_of(html)
    assert "Waiting for:" in text_of(page(operator, detail(a_job(JobStatus.READY))))


def test_a_worker_that_is_gone_is_named_by_its_id(operator: Client) -> None:
    job = a_job(JobStatus.RUNNING)
    Worker.objects.all().delete()
    assert f">#{job.worker_id}<" in page(operator, JOBS, state="RUNNING")


def test_a_traceback_begins_with_the_tasks_own_code(operator: Client) -> None:
    tasks.fail_with.enqueue("m")
    dbqueue.enqueue_many([tasks.divide.s(1, divisor="no number")])
    Job.objects.filter(task=tasks.divide.name).update(kwargs={"wrong": 1})
    run_jobs()
    own, bound = Attempt.objects.order_by("job_id").values_list("traceback", flat=True)
    assert re.match(r'Traceback \(most recent call last\):\n  File ".*admin_tasks.py"', own)
    assert "executor.py" in bound  # the task's code was never reached


# What happened, and why it waits


def test_the_timeline_tells_everything_in_its_order(operator: Client) -> None:
    store = store_for("default")
    tasks.fail_with.using(max_attempts=3).enqueue(HOSTILE)
    store.finish([Outcome.retried(a_claim(), ValueError(HOSTILE), 0)])
    store.promote()
    store.finish([Outcome.failed(a_claim(), LookupError("again"))])

    said = section("timeline", page(operator, detail(Job.objects.get())))

    expected = ("Enqueued", "Attempt 1 on w-1", "ValueError: ", "Waited", "Attempt 2 on w-1", "LookupError: again")
    assert re.search(".*".join((*expected, "Failed")), said)


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_in_any_state_has_a_timeline_that_ends_with_it(operator: Client, status: JobStatus) -> None:
    said = section("timeline", page(operator, detail(a_job(status))))
    assert re.match("Timeline [-0-9]+ [:0-9]+ Enqueued", said)
    if status in (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED):
        assert str(status.label) in said
    elif status is JobStatus.RUNNING:
        assert "Attempt 1" in said
    else:
        assert "Waits" in said


def test_a_job_says_why_it_waits(operator: Client) -> None:
    store = store_for("default")
    first, job = (Job.objects.get(pk=tasks.fail_with.enqueue("m").id) for _ in range(2))
    a_worker(queues="mail,video")
    assert "No living worker serves the queue default." in page(operator, detail(job))

    serving = a_worker(threads=3)
    html = page(operator, detail(job))
    assert "1 job of its queue is ahead of it." in html
    assert "0 of the 3 threads that serve this queue are busy." in html
    store.claim(serving, 1)
    html = page(operator, detail(job))
    assert "It is next in its queue." in html
    assert "1 of the 3 threads that serve this queue is busy." in html

    pause("default", f"because {HOSTILE}")
    html = page(operator, detail(job))
    assert "Its queue is paused: because &lt;script&gt;" in html
    drain("default")
    assert "Its queue is" not in page(operator, detail(job))
    later = Job.objects.get(pk=tasks.fail_with.enqueue("m").id)
    assert "Its queue is being drained, and it came later." in page(operator, detail(later))
    assert first.pk < job.pk < later.pk

    scheduled = Job.objects.get(pk=tasks.fail_with.using(run_after=HOUR).enqueue("m").id)
    assert re.search(r"Starts in (59 min|1 h)", page(operator, detail(scheduled)))


def test_a_job_that_waits_for_others_of_its_key_names_it(operator: Client) -> None:
    html = page(operator, detail(a_job(JobStatus.BLOCKED)))
    assert "Its concurrency limit is reached: of its key 1 run, 0 are ahead of it." in text_of(html)


def shown(html: str) -> dict[str, str]:
    """The fields of the job's times, by their labels."""
    rows = re.findall(r"<label>([^<]*):</label>\s*<div class=\"readonly\">(.*?)</div>", html, re.S)
    return {label: text_of(value) for label, value in rows}


def at(job: Job, **seconds: float) -> None:
    """Put its times so many seconds after its enqueue."""
    times = {name: job.enqueued_at + datetime.timedelta(seconds=number) for name, number in seconds.items()}
    Job.objects.filter(pk=job.pk).update(**times)


def test_of_several_attempts_each_time_says_which_is_meant(operator: Client) -> None:
    store = store_for("default")
    job = Job.objects.get(pk=tasks.fail_with.using(max_attempts=2).enqueue("m").id)
    store.finish([Outcome.retried(a_claim(), ValueError("m"), 100)])
    at(job, started_at=6.6, last_attempted_at=6.6, run_after=11)
    first = job.enqueued_at + datetime.timedelta(seconds=6.6)
    Attempt.objects.update(started_at=first, ended_at=first + datetime.timedelta(seconds=0.4))

    said = shown(page(operator, detail(job)))
    assert (said["First attempt waited"], said["Latest attempt ran"]) == ("6.6 s", "400 ms")
    assert "Next attempt due" in said and not {"Waited", "Started", "Run after", "Ran"} & set(said)

    store.run_now([job.pk])
    claim = a_claim()
    at(job, run_after=11, last_attempted_at=11.2)
    assert "Latest attempt running for" in shown(page(operator, detail(job)))
    store.finish([Outcome.succeeded(claim, "1")])
    at(job, finished_at=13.2)
    said = shown(page(operator, detail(job)))
    assert (said["First attempt waited"], said["Latest attempt ran"]) == ("6.6 s", "2.0 s")
    assert "Latest attempt due" in said and not {"Waited", "Started", "Run after", "Ran", "Next attempt due"} & set(
        said
    )


def test_a_wait_tells_how_much_of_it_was_after_the_jobs_time(operator: Client) -> None:
    job = a_job(JobStatus.SUCCESSFUL)
    at(job, started_at=5, last_attempted_at=5, finished_at=8)
    assert value_of("waited", page(operator, detail(job))) == "5.0 s"
    at(job, run_after=3)
    said = shown(page(operator, detail(job)))
    assert (said["Waited"], said["Ran"]) == ("5.0 s, 2.0 s of it after its time", "3.0 s")
    early = a_job(JobStatus.SCHEDULED)
    store_for("default").cancel([early.pk])
    at(early, finished_at=4)
    assert value_of("waited", page(operator, detail(early))) == "4.0 s"


@pytest.mark.parametrize("error", [CancelRequested(), KeyError("on the way out"), Discard("enough")])
def test_an_attempt_that_was_to_end_has_not_failed(operator: Client, error: BaseException) -> None:
    tasks.fail_with.enqueue("m")
    store_for("default").finish([Outcome.cancelled(a_claim(), error, "enough")])
    job = Job.objects.get()
    assert Attempt.objects.get().ended_at == job.finished_at
    at(job, started_at=0, last_attempted_at=0, finished_at=4)
    Attempt.objects.update(ended_at=job.enqueued_at + datetime.timedelta(seconds=4))
    html = page(operator, detail(job))
    assert "Attempt 1 Cancelled" in text_of(html)
    assert "dbqueue-error" not in html and '<details id="traceback-1">' in html
    assert re.search("Attempt 1 on w-1 .* Cancelled: enough$", section("timeline", html))


def test_an_attempt_that_failed_before_somebody_cancelled_has_failed(operator: Client) -> None:
    store = store_for("default")
    tasks.fail_with.using(max_attempts=2).enqueue("m")
    store.finish([Outcome.retried(a_claim(), ValueError("m"), 100)])
    job = Job.objects.get()
    store.cancel([job.pk])
    html = text_of(page(operator, detail(job)))
    assert "Attempt 1 Failed" in html and "State: Cancelled" in html


# Buttons


def test_a_scheduled_job_runs_now(operator: Client) -> None:
    job = a_job(JobStatus.SCHEDULED)
    assert "run_now_form" in page(operator, detail(job))
    assert client_who_may("view_job", "retry_job").post(f"{JOBS}{job.pk}/run_now/").status_code == 403
    assert operator.get(f"{JOBS}{job.pk}/run_now/").status_code == 405

    operator.post(f"{JOBS}{job.pk}/run_now/")

    job.refresh_from_db()
    assert (job.status, job.run_after) == (JobStatus.READY, None)
    assert LogEntry.objects.get().change_message == "Made ready before its time."
    assert "run_now_form" not in page(operator, detail(job))
    operator.post(f"{JOBS}{job.pk}/run_now/")
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("interrupts", [True, False])
def test_what_runs_is_asked_to_end_or_interrupted(operator: Client, interrupts: bool) -> None:
    job = a_job(JobStatus.RUNNING)
    assert 'name="interrupt"' in page(operator, detail(job))

    operator.post(f"{JOBS}{job.pk}/cancel/", {"interrupt": "yes"} if interrupts else {})

    job.refresh_from_db()
    assert job.cancel_requested_at is not None
    assert job.cancel_interrupts is interrupts
    assert "It has been asked to stop" in page(operator, detail(job))


# Clone and edit


def test_a_clone_starts_with_what_the_job_was_called_with(operator: Client) -> None:
    job = Job.objects.get(
        pk=tasks.with_secrets.using(queue_name="mail", priority=9).enqueue("ann", 5, config={"a": HOSTILE}).id
    )
    href = re.search(r'href="([^"]*add/\?[^"]*from=[^"]*)"', page(operator, detail(job)))
    assert href
    html = page(operator, href[1].replace("&amp;", "&"))

    assert 'name="queue_name" value="mail"' in html
    assert 'name="priority" value="9"' in html
    assert "ann</textarea>" in html
    assert "&lt;script&gt;" in html
    assert HOSTILE not in html
    assert not re.search(r'name="arg_pin"[^>]*>\s*5', html)


def test_a_clone_shows_nothing_to_who_may_not_see_it(operator: Client) -> None:
    job = Job.objects.get(pk=tasks.fail_with.enqueue("what it says").id)
    blind = client_who_may("view_job", "add_job")
    assert "from=" not in page(blind, detail(job))
    for client, task, source in (
        (blind, tasks.fail_with.name, str(job.pk)),
        (operator, tasks.divide.name, str(job.pk)),
        (client_who_may("add_job", "view_job_arguments"), tasks.fail_with.name, str(job.pk)),
        (operator, tasks.fail_with.name, "0"),
        (operator, tasks.fail_with.name, "x"),
    ):
        assert "what it says" not in page(client, ADD, task=task, **{"from": source})


@pytest.mark.parametrize("status", [JobStatus.READY, JobStatus.SCHEDULED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_arguments_are_changed_while_it_does_not_run(operator: Client, status: JobStatus) -> None:
    job = a_job(status, "before")
    html = page(operator, edit_of(job))
    assert "before</textarea>" in html

    response = operator.post(edit_of(job), {"arg_message": "after", "seen": hidden("seen", html)})

    assert response.headers["Location"] == detail(job)
    changed = Job.objects.get(pk=job.pk)
    assert (changed.args, changed.kwargs, changed.status) == ([], {"message": "after"}, status)
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.change_message) == (CHANGE, "Other arguments: message.")


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.SUCCESSFUL])
def test_what_runs_or_went_well_is_not_edited(operator: Client, status: JobStatus) -> None:
    job = a_job(status)
    assert "Edit arguments" not in page(operator, detail(job))
    assert operator.get(edit_of(job)).status_code == 302
    assert operator.post(edit_of(job), {"arg_message": "after", "seen": "x"}).status_code == 302
    assert Job.objects.get().args == job.args
    assert not LogEntry.objects.exists()


def test_an_edit_of_what_has_changed_meanwhile_changes_nothing(operator: Client) -> None:
    job = a_job(JobStatus.READY, "before")
    seen = hidden("seen", page(operator, edit_of(job)))
    Job.objects.filter(pk=job.pk).update(args=["by another"])

    response = operator.post(edit_of(job), {"arg_message": "after", "seen": seen}, follow=True)

    assert "Nothing was changed" in response.content.decode()
    assert Job.objects.get().args == ["by another"]
    assert not LogEntry.objects.exists()


def test_a_form_that_comes_back_with_an_error_has_not_seen_more_than_it_showed(operator: Client) -> None:
    job = a_job(JobStatus.READY, "before")
    seen = hidden("seen", page(operator, edit_of(job)))
    wrong = operator.post(edit_of(job), {"arg_message": "a\x00", "seen": seen})
    assert hidden("seen", wrong.content.decode()) == seen
    Job.objects.filter(pk=job.pk).update(args=["by another"])
    for message in ("a\x00", "after"):
        response = operator.post(edit_of(job), {"arg_message": message, "seen": seen}, follow=True)
        assert "Nothing was changed" in response.content.decode()
    assert Job.objects.get().args == ["by another"]


def test_the_row_is_compared_again_under_its_lock() -> None:
    store, job = store_for("default"), a_job(JobStatus.READY)
    assert not store.edit(job.pk, SeenCall(["another"], {}), [], {"message": "after"})
    assert store.edit(job.pk, SeenCall(job.args, job.kwargs), [], {"message": "after"})
    assert Job.objects.get().kwargs == {"message": "after"}


def test_what_the_task_does_not_take_any_more_is_dropped_and_said(operator: Client) -> None:
    job = Job.objects.get(pk=tasks.with_secrets.enqueue("ann", password="pw-1").id)
    Job.objects.update(task=tasks.takes_a_token.name, kwargs={"host": "a", "token": "hush", "gone": 1}, args=[])
    html = page(operator, edit_of(job))
    assert ">a</textarea>" in html.replace("\n", "")
    operator.post(edit_of(job), {"arg_host": "b", "seen": hidden("seen", html)})
    assert Job.objects.get().kwargs == {"host": "b", "token": "hush"}
    assert LogEntry.objects.get().change_message == "Other arguments: host, without gone."


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ("text", {}),
        ({"pin": 1}, {}),
        (None, None),
        ([], ["x"]),
        ([["\ud800"]], {}),
        ([], {"moment": "9999-12-31T23:59:59-12:00", "text": "\ud800"}),
    ],
)
@pytest.mark.parametrize("task", ["with_defaults", "with_secrets"])
def test_a_row_that_somebody_else_wrote_has_its_pages(operator: Client, task: str, args: Any, kwargs: Any) -> None:
    if connection.vendor == "postgresql" and "ud800" in json.dumps([args, kwargs]):
        pytest.skip("PostgreSQL holds no surrogates")
    name = getattr(tasks, task).name
    job = Job.objects.create(
        task=name, args=args or [], kwargs=kwargs or {}, status="FAILED", enqueued_at=store_for("default").clock()
    )
    page(operator, detail(job))
    page(operator, edit_of(job))
    page(operator, ADD, task=name, **{"from": str(job.pk)})
    assert select(operator, "export_selected", job).status_code == 200


def test_a_job_that_is_claimed_between_two_statements_is_not_edited() -> None:
    store, job = store_for("default"), a_job(JobStatus.READY)
    seen = SeenCall(job.args, job.kwargs)
    a_claim()
    assert not store.edit(job.pk, seen, [], {"message": "after"})
    assert Job.objects.get().args == job.args


def test_bad_arguments_are_said_at_their_field(operator: Client) -> None:
    job = Job.objects.get(pk=dbqueue.enqueue(tasks.divide.name, 7, "2").id)
    html = page(operator, edit_of(job))
    sent = {"arg_dividend": "seven", "arg_divisor": "2", "arg_rounding": "up", "seen": hidden("seen", html)}
    assert "Enter a whole number." in operator.post(edit_of(job), sent).content.decode()
    assert Job.objects.get().args == [7, "2"]


def test_a_secret_that_is_not_typed_stays(operator: Client) -> None:
    job = Job.objects.get(
        pk=tasks.with_secrets.enqueue("ann", 5, password="pw-1", config={"token": "t-1", "a": 1}, extra=[1]).id
    )
    html = page(operator, edit_of(job))
    assert "pw-1" not in html
    assert "t-1" not in html
    config = json.dumps({"token": HIDDEN, "a": 2})
    operator.post(edit_of(job), {"arg_user": "bob", "arg_config": config, "seen": hidden("seen", html)})

    job.refresh_from_db()
    assert job.kwargs == {
        "user": "bob",
        "pin": 5,
        "password": "pw-1",
        "config": {"token": "t-1", "a": 2},
        "extra": [1],
    }
    assert LogEntry.objects.get().change_message == "Other arguments: user, config."


def test_a_guess_is_not_told_to_be_right(operator: Client) -> None:
    for pin in (5, 6):
        job = Job.objects.get(pk=tasks.with_secrets.enqueue("ann", pin, config={"token": "t"}).id)
        seen = hidden("seen", page(operator, edit_of(job)))
        operator.post(edit_of(job), {"arg_user": "ann", "arg_pin": "5", "arg_config": '{"token": "t"}', "seen": seen})
    said = set(LogEntry.objects.values_list("change_message", flat=True))
    assert said == {"Other arguments: pin."}


def test_an_edit_needs_two_permissions() -> None:
    job = a_job(JobStatus.READY)
    for codenames in (("view_job", "change_job"), ("view_job", "view_job_arguments")):
        client = client_who_may(*codenames)
        assert "Edit arguments" not in page(client, detail(job))
        assert client.get(edit_of(job)).status_code == 403
        assert client.post(edit_of(job), {"arg_message": "x"}).status_code == 403
    both = client_who_may("view_job", "change_job", "view_job_arguments")
    assert "Edit arguments" in page(both, detail(job))
    assert both.get(edit_of(job)).status_code == 200
    assert both.get(f"{JOBS}999/edit/").headers["Location"] == JOBS


# A selection


def select(client: Client, action: str, *jobs: Job, **more: str) -> Any:
    data = {"action": action, "_selected_action": [str(job.pk) for job in jobs], **more}
    return client.post(JOBS, data, follow=True)


def test_a_selection_is_run_now_and_moved(operator: Client) -> None:
    jobs = [a_job(status) for status in (JobStatus.FAILED, JobStatus.SCHEDULED)]

    html = select(operator, "run_selected_now", *jobs).content.decode()
    assert "1 job made ready. Left alone: 1 Failed." in html

    html = select(operator, "move_selected", *jobs, to_queue="other").content.decode()
    assert "1 job moved to other. Left alone: 1 Failed." in html
    assert dict(Job.objects.values_list("pk", "queue_name")) == {jobs[0].pk: "default", jobs[1].pk: "other"}
    assert LogEntry.objects.count() == 2
    for bad, said in (("", "Type the queue to move them to"), ("a,b", "is no queue to move jobs to")):
        assert said in select(operator, "move_selected", *jobs, to_queue=bad).content.decode()
    with override_settings(DBQUEUE={"QUEUES": ["default"]}):
        html = select(operator, "move_selected", *jobs, to_queue="nowhere").content.decode()
        assert "It must be one of default." in html
    assert LogEntry.objects.count() == 2


def test_a_selection_is_deleted_when_that_is_confirmed(operator: Client) -> None:
    jobs = [a_job(status) for status in (JobStatus.FAILED, JobStatus.RUNNING)]

    html = select(operator, "delete_selected_jobs", *jobs).content.decode()
    assert 'id="delete_form"' in html
    assert len(states()) == 2

    html = select(operator, "delete_selected_jobs", *jobs, confirmed="yes").content.decode()
    assert "1 job deleted. Left alone: 1 Running." in html
    assert states() == {jobs[1].pk: JobStatus.RUNNING}
    assert LogEntry.objects.get().action_flag == DELETION


@pytest.mark.parametrize(
    ("action", "needs"),
    [
        ("run_selected_now", "change_job"),
        ("move_selected", "change_job"),
        ("delete_selected_jobs", "delete_job"),
    ],
)
def test_an_action_needs_its_permission(action: str, needs: str) -> None:
    job = a_job(JobStatus.FAILED if "delete" in action else JobStatus.SCHEDULED)
    before = Job.objects.values().get()
    viewer = client_who_may("view_job", "retry_job", "cancel_job", "add_job")
    select(viewer, action, job, to_queue="x", confirmed="yes")
    assert Job.objects.values().get() == before
    assert action not in page(viewer, JOBS)

    select(client_who_may("view_job", needs), action, job, to_queue="x", confirmed="yes")
    assert Job.objects.values().first() != before


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_a_spreadsheet_calculates_nothing(operator: Client, formula: str) -> None:
    job = a_job(JobStatus.CANCELLED)
    Job.objects.filter(pk=job.pk).update(reason=formula, return_value=formula)
    response = select(operator, "export_selected", job)

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(response.content.decode(), newline=""))
    assert row["reason"] == f"'{formula}"
    assert (row["id"], row["status"], row["args"]) == (str(job.pk), "CANCELLED", '["m"]')


def test_the_file_tells_the_last_error_and_costs_the_same_for_many(operator: Client) -> None:
    jobs = [a_job(JobStatus.FAILED) for _ in range(5)]
    costs = []
    for selected in (jobs[:1], jobs):
        with CaptureQueriesContext(connection) as captured:
            response = select(operator, "export_selected", *selected)
        costs.append(len(captured))
        rows = list(csv.DictReader(io.StringIO(response.content.decode())))
        assert [row["error"] for row in rows] == ["builtins.ValueError"] * len(selected)
    assert costs[0] == costs[1]


def test_an_error_is_found_without_its_module(operator: Client) -> None:
    job = a_job(JobStatus.FAILED)
    run_jobs()
    for query in ("error:ValueError", "error:builtins.ValueError"):
        assert detail(job) in page(operator, JOBS, q=query)
    assert detail(job) not in page(operator, JOBS, q="error:Value")


TYPED, STORED = (f"what was {word}" for word in ("typed", "stored"))
"""Put together, as a report also quotes this file."""


@contextmanager
def reports() -> Iterator[list[str]]:
    """What Django's error reports, those of AdminEmailHandler, say of requests that fail meanwhile."""
    made: list[str] = []

    def report(request: HttpRequest, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        made.extend((reporter.get_traceback_text(), reporter.get_traceback_html()))

    got_request_exception.connect(report)
    try:
        yield made
    finally:
        got_request_exception.disconnect(report)


def test_an_error_report_tells_neither_what_was_typed_nor_what_is_stored(
    client: Client, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.raise_request_exception = False
    url = f"{JOBS}{tasks.with_secrets.enqueue('ann', 1234, password=STORED).id}"
    seal = re.search(r'name="seen" value="([^"]*)"', page(operator, f"{url}/edit/"))
    assert seal

    def gone(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    store = type(store_for("default"))
    monkeypatch.setattr(store, "enqueue", gone)
    monkeypatch.setattr(store, "edit", gone)
    monkeypatch.setattr("dbqueue.console.life.timeline", gone)
    monkeypatch.setattr("dbqueue.scheduling.plan", gone)
    schedule = {"name": "s", "task": tasks.with_secrets.name, "cron": "0 5 * * *", "misfire": "once"}
    with reports() as made:
        for address, typed in (
            (f"{ADD}?task={tasks.with_secrets.name}", {"arg_user": "ann", "queue_name": "default", "priority": "0"}),
            (f"{url}/edit/", {"arg_user": "ann", "seen": seal[1]}),
            (
                "/admin/dbqueue/schedule/add/",
                {
                    **schedule,
                    "overlap": "allow",
                    "enabled": "on",
                    "kwargs": json.dumps({"user": "a", "password": TYPED}),
                },
            ),
        ):
            assert operator.post(address, {**typed, "arg_password": TYPED}).status_code == 500, address
        assert operator.get(f"{url}/change/").status_code == 500
    assert len(made) == 8
    for told in made:
        assert "server closed the connection" in told
        assert TYPED not in told and STORED not in told


def test_what_the_form_does_not_offer_is_not_edited_either(operator: Client) -> None:
    job_id = int(tasks.not_offered.enqueue().id)
    url = f"{JOBS}{job_id}/"
    html = page(operator, f"{url}change/")
    assert f"{url}edit/" not in html
    response = operator.get(f"{url}edit/", follow=True)
    assert response.redirect_chain and "does not offer" in response.content.decode()


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_only_what_runs_is_offered_to_be_interrupted(operator: Client, status: JobStatus) -> None:
    html = page(operator, f"{JOBS}{a_job(status).pk}/change/")
    assert ('name="interrupt"' in html) is (status == JobStatus.RUNNING)
