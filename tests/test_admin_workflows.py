"""The pages of workflows, through Django's client."""

import pickle
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from dbqueue import WorkflowResult, group
from dbqueue.models import Job, JobStatus, Workflow
from dbqueue.redaction import HIDDEN
from dbqueue.store import Store
from dbqueue.testing import run_jobs

from .shop.workflow_tasks import become, broken, give, inc, total
from .test_admin import detail, page, text_of, value_of

pytestmark = pytest.mark.django_db

WORKFLOWS = "/admin/dbqueue/workflow/"


@pytest.fixture
def operator(client: Client) -> Client:
    """Somebody who may do everything."""
    client.force_login(User.objects.create_superuser("operator"))
    return client


def change(result: WorkflowResult) -> str:
    return f"{WORKFLOWS}{result.workflow_id}/change/"


def branch(client: Client, result: WorkflowResult, **said: Any) -> str:
    response = client.post(f"{WORKFLOWS}{result.workflow_id}/branch/", said, follow=True)
    return response.content.decode()


def steps(html: str) -> list[str]:
    found = re.search(r'<ul class="dbqueue-steps">(.*?)</ul>', html, re.S)
    assert found
    return [text_of(item) for item in re.findall(r"<li.*?</li>", found[1], re.S)]


def failed() -> WorkflowResult:
    result: WorkflowResult = (give.s(1) | group(inc.s(), broken.s() | inc.s()) | total.s()).enqueue()
    run_jobs()
    return result


def test_what_ended_by_a_failure_has_failed_and_what_somebody_cancelled_has_not(operator: Client) -> None:
    html = page(operator, change(failed()))
    assert 'class="dbqueue-state dbqueue-failed">Failed<' in html.partition('id="steps"')[0]
    assert "dbqueue-cross" in html
    result = (give.s(1) | inc.s()).enqueue()
    result.cancel()
    html = page(operator, change(result))
    assert 'class="dbqueue-state dbqueue-cancelled">Cancelled<' in html and ">Failed<" not in html


def test_the_list_and_the_tree(operator: Client) -> None:
    result = failed()
    assert "give | group(inc, broken | inc) | total" in page(operator, WORKFLOWS)
    html = page(operator, change(result))
    told = [re.sub(r"#\d+|tests\.shop\.workflow_tasks\.", "", step) for step in steps(html)]
    assert [" ".join(step.split()) for step in told] == [
        "give Successful",
        "group of 2 Cancelled Retry",
        "inc Successful",
        "broken Failed Retry",
        "inc Cancelled",
        "total Cancelled",
    ]
    assert html.count("<circle") == 6
    assert html.count("<line") == 6  # to both members, on in the second, from both to the group, and to the body
    assert "5 of 5 ended, 1 failed, 2 cancelled" in text_of(html)


def test_the_page_and_the_result_count_the_same_and_each_tells_of_the_others_state(operator: Client) -> None:
    result: WorkflowResult = (give.s(1) | broken.s() | inc.s()).enqueue()
    html = page(operator, change(result))
    assert (value_of("state", html), value_of("last_state", html)) == ("In progress", "Waiting")
    run_jobs()
    html = page(operator, change(result))
    assert (value_of("state", html), value_of("last_state", html)) == ("Failed", "Cancelled")
    assert result.status == JobStatus.CANCELLED
    progress = result.progress
    assert (progress.done, progress.total, progress.failed, progress.cancelled) == (3, 3, 1, 1)
    assert str(progress) == "3 of 3, 1 failed, 1 cancelled"
    assert value_of("how_far", html) == "3 of 3 ended, 1 failed, 1 cancelled"
    done, total = progress
    assert (done, total) == progress == pickle.loads(pickle.dumps(progress))
    other = give.s(1) | inc.s()
    result = other.enqueue()
    run_jobs()
    html = page(operator, change(result))
    assert value_of("state", html) == "Successful" and "field-last_state" not in html
    assert str(result.progress) == "2 of 2"


def test_a_tree_is_drawn_up_to_two_hundred_steps(operator: Client) -> None:
    assert "<circle" in page(operator, change(group(give.s(1) for _ in range(199)).enqueue()))
    assert "<text" not in page(operator, change(group(give.s(1) for _ in range(60)).enqueue()))
    assert page(operator, change(group(give.s(1) for _ in range(3)).enqueue())).count(">give</text>") == 3
    html = page(operator, change(group(give.s(1) for _ in range(200)).enqueue()))
    assert "<circle" not in html and len(steps(html)) == 201
    html = page(operator, change(group(give.s(1) for _ in range(1500)).enqueue()))
    assert len(steps(html)) == 1000 and "501 more steps" in html


def test_what_replaces_a_job_stands_below_it(operator: Client) -> None:
    result: WorkflowResult = group(become.s("chain", 1)).enqueue()
    run_jobs()
    html = page(operator, change(result))
    assert re.findall(r"dbqueue-depth-(\d)", html) == ["0", "1", "2", "2"]


def test_a_group_says_what_it_is_and_shows_no_members_result(operator: Client) -> None:
    result: WorkflowResult = group(give.s("a secret of theirs"), give.s(2)).enqueue()
    run_jobs()
    html = page(operator, detail(Job.objects.get(pk=result.last_id)))
    said = text_of(html)
    assert "This is a group of a workflow: no code of its own runs, and its end is that of its members." in said
    assert f'<a href="{change(result)}">The workflow with its members</a>' in html
    assert "It is not shown here: each member's task tells" in said.replace("&#x27;", "'")
    assert "does not know the task" not in said and "a secret of theirs" not in said and HIDDEN not in said
    assert "not been tried" not in said and 'id="attempts"' not in html
    assert not [name for name in ("result", "attempts", "worker_name", "started", "ran") if f"field-{name}" in html]


def test_a_branch_is_tried_again(operator: Client) -> None:
    result = failed()
    broke = Job.objects.get(task=broken.name)
    assert "1 job retried." in branch(operator, result, retry=broke.pk)
    broke.refresh_from_db()
    assert broke.status == JobStatus.READY
    assert Job.objects.get(task=total.name).status == JobStatus.WAITING
    [entry] = LogEntry.objects.all()
    assert entry.object_id == str(result.workflow_id)
    run_jobs()
    assert "1 job retried." in branch(operator, result, retry="all")
    assert "0 jobs" in branch(operator, result, retry=Job.objects.get(task=give.name).pk)
    for typed in ("x", "0", "9" * 18, "9" * 5000, "²", ""):
        assert "no step" in branch(operator, result, retry=typed)
    other = give.enqueue(1)
    assert "no step" in branch(operator, result, retry=other.id)


def test_a_branch_is_ended(operator: Client) -> None:
    result: WorkflowResult = (give.s(1) | group(inc.s(), inc.s() | inc.s()) | total.s()).enqueue()
    first = Job.objects.filter(task=inc.name).first()
    assert first is not None
    assert "asked to stop" in branch(operator, result, cancel=first.pk)
    states = list(Job.objects.order_by("id").values_list("task", "status"))
    assert [status for task, status in states if task == inc.name] == ["CANCELLED", "WAITING", "WAITING"]
    assert states[-1][1] == "CANCELLED"
    assert 'name="cancel" value="all"' in page(operator, change(result))
    branch(operator, result, cancel="all")
    assert set(Job.objects.values_list("status", flat=True)) == {"CANCELLED"}
    assert "ended already" in branch(operator, result, cancel="all")


def test_the_last_step_is_a_step_as_any_other(operator: Client) -> None:
    result: WorkflowResult = (give.s(1) | inc.s() | inc.s()).enqueue()
    assert f'name="cancel" value="{result.last_id}"' in page(operator, change(result))
    assert "asked to stop" in branch(operator, result, cancel=result.last_id)
    assert list(Job.objects.order_by("id").values_list("status", flat=True)) == ["READY", "WAITING", "CANCELLED"]
    run_jobs()
    assert "1 job retried." in branch(operator, result, retry=result.last_id)
    run_jobs()
    assert result.get(0) == 3


def test_only_what_may_be_is_offered_and_done(operator: Client, client: Client, django_user_model: Any) -> None:
    result = failed()
    user = django_user_model.objects.create_user("reader", is_staff=True)
    client.force_login(user)
    assert client.get(change(result)).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_job"))
    html = client.get(change(result)).content.decode()
    assert "dbqueue-steps" in html and 'name="retry"' not in html
    for said in ({"retry": result.last_id}, {"cancel": result.last_id}):
        assert client.post(f"{WORKFLOWS}{result.workflow_id}/branch/", said).status_code == 403
    assert Job.objects.get(task=broken.name).attempt == 1


def test_a_step_tells_of_its_workflow_and_what_it_waits_for(operator: Client) -> None:
    result: WorkflowResult = (give.s(1) | inc.s() | group(inc.s(), inc.s()) | total.s()).enqueue()
    first, second = Job.objects.order_by("id")[:2]
    html = page(operator, detail(second))
    assert f"It waits for job {first.pk} ({give.name}), which is: Ready." in text_of(html)
    assert f"{WORKFLOWS}{result.workflow_id}/change/" in html
    run_jobs(limit=2)
    last = Job.objects.get(task=total.name)
    assert "which is: Waiting" in text_of(page(operator, detail(last)))


def test_a_step_links_to_those_before_and_after_it(operator: Client) -> None:
    result: WorkflowResult = (give.s(1) | group(inc.s(), inc.s() | inc.s()) | total.s()).enqueue()
    first = Job.objects.get(task=give.name)
    one, two, three = Job.objects.filter(task=inc.name).order_by("id")
    last = Job.objects.get(task=total.name)

    def linked(field: str, job: Job) -> set[int]:
        found = re.search(rf'field-{field}\b.*?<div class="readonly">(.*?)</div>', page(operator, detail(job)), re.S)
        assert found
        return {int(pk) for pk in re.findall(r"/job/(\d+)/change/", found[1])}

    heads = {step.pk for step in (one, two, three) if step.after_id == first.pk}
    tails = {step.pk for step in (one, two, three) if step.group_id is not None}
    assert len(heads) == len(tails) == 2
    assert (linked("after_these", first), linked("before_these", first)) == (set(), heads)
    for pk in tails:
        assert linked("before_these", Job.objects.get(pk=pk)) == {last.pk}
    assert (linked("after_these", last), linked("before_these", last)) == (tails, set())
    assert result.workflow_id


def test_a_step_is_neither_retried_before_its_turn_nor_deleted_alone(operator: Client) -> None:
    result = failed()
    html = page(operator, detail(Job.objects.get(task=total.name)))
    assert "retry_form" not in html and "deletelink" not in html
    html = page(operator, detail(Job.objects.get(task=broken.name)))
    assert "retry_form" in html and "deletelink" not in html
    ids = list(Job.objects.values_list("pk", flat=True))
    answer = operator.post(
        "/admin/dbqueue/job/",
        {"action": "retry_selected", "_selected_action": ids},
        follow=True,
    ).content.decode()
    assert "1 job retried." in answer and "Left alone" in answer
    assert Job.objects.filter(status=JobStatus.READY).count() == 1
    assert Workflow.objects.get(pk=result.workflow_id).finished_at is None


def test_who_deletes_too_late_is_told(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    result = failed()
    monkeypatch.setattr(Store, "delete_workflow", lambda *_args: None)  # as where somebody has retried it since
    url = f"{WORKFLOWS}{result.workflow_id}/delete/"
    response = operator.post(url, {"post": "yes"}, follow=True)
    assert "Nothing was deleted: the workflow has been retried meanwhile." in response.content.decode()
    assert Workflow.objects.exists() and not LogEntry.objects.exists()


def test_a_workflow_is_deleted_with_its_jobs(operator: Client) -> None:
    result = failed()
    url = f"{WORKFLOWS}{result.workflow_id}/delete/"
    assert "6" in text_of(page(operator, url))
    assert operator.post(url, {"post": "yes"}).status_code == 302
    assert not Job.objects.exists() and not Workflow.objects.exists()


@pytest.mark.parametrize(("may", "may_not"), [("retry", "cancel"), ("cancel", "retry")])
def test_who_may_do_one_thing_to_a_branch_may_not_do_the_other(client: Client, may: str, may_not: str) -> None:
    result = failed()
    other: WorkflowResult = (give.s(1) | inc.s()).enqueue()
    user = User.objects.create_user("half", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=("view_job", f"{may}_job")))
    client.force_login(user)
    for one in (result, other):
        html = page(client, change(one))
        assert f'name="{may_not}"' not in html
        url = f"{WORKFLOWS}{one.workflow_id}/branch/"
        before = dict(Job.objects.values_list("pk", "status"))
        assert client.post(url, {may_not: "all"}).status_code == 403
        assert dict(Job.objects.values_list("pk", "status")) == before
    allowed = result if may == "retry" else other
    assert client.post(f"{WORKFLOWS}{allowed.workflow_id}/branch/", {may: "all"}).status_code == 302
    assert dict(Job.objects.values_list("pk", "status")) != before


def test_a_tree_is_read_once_for_a_page(operator: Client) -> None:
    result: WorkflowResult = group(inc.s(1) for _ in range(5)).enqueue()
    with CaptureQueriesContext(connection) as captured:
        page(operator, change(result))
    read = [query["sql"] for query in captured if '"dbqueue_job"."position"' in query["sql"]]
    assert len(read) == 1
