"""Workflows: what runs, with what, in which order, and what becomes of the rest when something fails."""

import datetime
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.db.models import F

import dbqueue
from dbqueue import chain, chord, group, signals
from dbqueue.exceptions import InvalidArguments, InvalidTask, JobCancelled, JobDoesNotExist, JobFailed, NotInGroup
from dbqueue.models import GROUP, OPEN, Attempt, Job, JobStatus, Workflow
from dbqueue.outcome import Outcome
from dbqueue.results import JobResult
from dbqueue.store import store_for
from dbqueue.testing import run_jobs
from dbqueue.workflow import Part, WorkflowResult

from .shop.models import Mark
from .shop.workflow_tasks import (
    become,
    become_after,
    broken,
    dig,
    give,
    grow,
    grow_later,
    grow_of,
    grow_wrongly,
    inc,
    note,
    nothing,
    only_one,
    thrice,
    told_all,
    told_flag,
    told_id,
    told_nothing,
    told_traceback,
    total,
    unwanted,
)

pytestmark = pytest.mark.django_db


def run(node: Any) -> Any:
    """Enqueue it, run all that becomes ready, and return the result."""
    result = node.enqueue()
    run_jobs(scheduled=True)
    assert_over(result)
    return result.get(0)


def assert_over(result: WorkflowResult) -> None:
    assert not Job.objects.filter(workflow_id=result.workflow_id, status__in=OPEN).exists()
    assert Workflow.objects.get(pk=result.workflow_id).finished_at is not None


def states(result: WorkflowResult) -> list[str]:
    """Of all rows but groups, in the order in which they were made."""
    rows = Job.objects.filter(workflow_id=result.workflow_id).exclude(task=GROUP)
    return list(rows.order_by("id").values_list("status", flat=True))


def shape(part: Part) -> Any:
    return [shape(child) for child in part.children] if isinstance(part, WorkflowResult) else part.task_name[-4:]


def failed(node: Any) -> WorkflowResult:
    result: WorkflowResult = node.enqueue()
    run_jobs()
    assert_over(result)
    return result


# What runs, and what it is given


@pytest.mark.parametrize(
    ("node", "value"),
    [
        (chain(inc.s(1)), 2),
        (inc.s(1) | inc.s() | inc.s(by=10), 13),
        (chain(inc.s(0), *[inc.s()] * 99), 100),
        (group(inc.s(n) for n in range(3)), [1, 2, 3]),
        (group(), []),
        (chord([inc.s(n) for n in range(4)], total.s()), 10),
        (chord([], total.s()), 0),
        (group([]) | note.s(), [[]]),
        (inc.s(1) | group() | note.s(), [[]]),
        (inc.s(1) | group(inc.s(), inc.s(by=5)) | total.s(), 10),
        (group(inc.s(1), inc.s(2)) | group(total.s(), note.s()), [5, [[2, 3]]]),
        (group(group(group(give.s(1), give.s(2)), give.s(3)), give.s(4)), [[[1, 2], 3], 4]),
        (group(group(group(group(give.s(7))))), [[[[7]]]]),
        (group(group(), group(give.s(1), group())), [[], [1, []]]),
        (chord([inc.s(1) | inc.s(), inc.s(2)], total.s() | inc.s() | inc.s(by=10)), 17),
        (chord([chord([give.s(1), give.s(2)], total.s()) | inc.s(), give.s(5)], total.s()), 9),
        (give.s(3) | chord([inc.s(), inc.s(by=2) | inc.s()], total.s()) | inc.s(), 11),
        (chord(group(give.s(1)), chord([total.s(), note.s()], note.s())), [[1, [[1]]]]),
        (give.s(1) | nothing.si() | note.s("own"), [None, "own"]),
        (give.s({"a": [1, "ü"]}) | note.s(), [{"a": [1, "ü"]}]),
        (give.s(1) | group(note.si(), note.s(2)), [[], [1, 2]]),
        (inc.s(1) | thrice.s() | inc.s(), 3),
    ],
    ids=str,
)
def test_results(node: Any, value: Any) -> None:
    assert run(node) == value
    assert set(Job.objects.values_list("status", flat=True)) == {JobStatus.SUCCESSFUL}


def test_a_thousand_members_in_their_order() -> None:
    assert run(group(give.s(n) for n in range(1000)) | total.s()) == 499_500
    assert Job.objects.get(task=GROUP).return_value == list(range(1000))


def test_steps_stand_in_the_table_from_the_start() -> None:
    result = (give.s(1) | group(inc.s(), inc.s()) | total.s()).enqueue()
    assert states(result) == [JobStatus.READY, *[JobStatus.WAITING] * 3]
    assert Job.objects.get(task=GROUP).status == JobStatus.WAITING
    [first] = run_jobs(limit=1)
    assert first.return_value == 1
    assert states(result) == [JobStatus.SUCCESSFUL, JobStatus.READY, JobStatus.READY, JobStatus.WAITING]
    assert Job.objects.filter(status=JobStatus.READY).first().args == [1]  # type: ignore[union-attr]


def test_the_tree() -> None:
    result = (give.s(1) | group(inc.s() | inc.s(), group(inc.s())) | note.s()).enqueue()
    assert shape(result) == ["give", [[".inc", ".inc"], [".inc"]], "note"]
    assert result.progress == (0, 5)
    assert str(result.progress) == "0 of 5"
    run_jobs(limit=2)
    assert result.progress == (2, 5)
    run_jobs()
    assert result.progress == (5, 5)
    assert result.get() == result.return_value == [[3, [2]]]
    first, middle, last = result.children
    assert isinstance(middle, WorkflowResult) and middle.get() == [3, [2]] and middle.progress == (3, 3)
    assert first.return_value == 1 and last.return_value == [[3, [2]]]
    assert dbqueue.get_workflow(result.workflow_id) == result
    assert dbqueue.get_workflow(str(result.workflow_id)) == result
    assert dbqueue.get_result(result.id).get() == result.get()


# Failure


def test_a_failure_ends_all_that_would_come_after_it() -> None:
    result = failed(give.s(1) | broken.s() | inc.s() | group(inc.s(), inc.s() | inc.s()) | total.s())
    assert states(result) == [JobStatus.SUCCESSFUL, JobStatus.FAILED, *[JobStatus.CANCELLED] * 5]
    cause = Job.objects.get(task=broken.name).pk
    assert set(Job.objects.filter(status=JobStatus.CANCELLED).values_list("reason", flat=True)) == {
        f"job {cause} ({broken.name}) failed"
    }
    with pytest.raises(JobCancelled, match=f"job {cause} .*failed"):
        result.get(0)


def test_a_failure_ends_what_comes_after_it_however_far_it_is() -> None:
    """Further than LEVELS, which are followed one by one: of a chain, out of many groups, and up to what goes on."""
    inside: Any = broken.s() | inc.s()
    for _ in range(30):
        inside = group(inside)
    for node in (chain(broken.s(), *[inc.s()] * 30, group(inc.s(), inc.s()), total.s()), inside | note.s()):
        result = failed(node)
        assert set(states(result)) == {JobStatus.FAILED, JobStatus.CANCELLED}
        assert result.retry_failed() == 1
        assert set(states(result)) == {JobStatus.READY, JobStatus.WAITING}
        result.cancel()
    [told] = run(chain(broken.s(), *[inc.s()] * 30, inc.s().set(allow_failure=True), note.s()))
    assert told["error"] == "dbqueue.exceptions.JobCancelled"


@pytest.mark.parametrize("member", range(3))
def test_a_failed_member_ends_the_body_at_once_and_not_its_siblings(member: int) -> None:
    members: list[Any] = [give.s(0) | inc.s(), give.s(1), chain(give.s(2), inc.s(), inc.s())]
    members[member] = give.s(9) | broken.s() | inc.s()
    result = chord(members, total.s() | inc.s()).enqueue()
    while not Job.objects.filter(status=JobStatus.FAILED).exists():
        run_jobs(limit=1)
    body = Job.objects.get(task=total.name)
    assert body.status == JobStatus.CANCELLED
    run_jobs()
    assert_over(result)
    assert Job.objects.filter(status=JobStatus.FAILED).count() == 1
    # the member's own last step, the body, and what comes after that
    assert Job.objects.filter(status=JobStatus.CANCELLED).exclude(task=GROUP).count() == 3


def test_a_failure_deep_in_a_header() -> None:
    inner = chord([give.s(1), chord([give.s(2) | broken.s(), give.s(3)], total.s())], total.s())
    result = failed(chord([inner, give.s(4)], total.s()) | inc.s())
    assert Job.objects.filter(task=total.name, status=JobStatus.CANCELLED).count() == 3
    assert result.status == JobStatus.CANCELLED
    assert Job.objects.get(args=[4]).status == JobStatus.SUCCESSFUL


def test_what_is_discarded_or_cancelled_ends_what_comes_after_it_too() -> None:
    result = failed(give.s(1) | unwanted.s() | inc.s())
    assert states(result) == [JobStatus.SUCCESSFUL, JobStatus.CANCELLED, JobStatus.CANCELLED]
    assert "not wanted any more" in Job.objects.get(task=inc.name).reason

    waits = (give.s(1) | inc.s() | inc.s()).enqueue()
    middle = waits.children[1]
    assert isinstance(middle, JobResult) and middle.cancel()
    assert states(waits) == [JobStatus.READY, JobStatus.CANCELLED, JobStatus.CANCELLED]
    run_jobs()
    assert_over(waits)


def test_times_of_a_step_are_counted_from_its_turn() -> None:
    hour, moment = datetime.timedelta(hours=1), datetime.timedelta(minutes=1)
    result = (give.s(1) | inc.s().set(run_after=hour, expires=2 * hour) | inc.s().set(expires=hour)).enqueue()
    Job.objects.update(enqueued_at=F("enqueued_at") - 5 * hour)
    assert not Job.objects.exclude(run_after=None, expires_at=None).exists()
    run_jobs()
    first, second, third = result.steps()
    assert first.finished_at is not None and second.run_after is not None and second.expires_at is not None
    assert second.status == JobStatus.SCHEDULED and third.status == JobStatus.WAITING
    assert hour - moment < second.run_after - first.finished_at < hour + moment
    assert second.expires_at - second.run_after == hour
    store = store_for("default")
    assert store.expire(now=second.expires_at - moment) == []
    run_jobs(scheduled=True, limit=1)
    [*_, third] = result.steps()
    assert third.status == JobStatus.READY and third.run_after is not None and third.expires_at is not None
    assert third.expires_at - third.run_after == hour
    assert store.expire(now=third.expires_at + moment) == [int(third.id)]
    assert_over(result)


def test_what_expires_ends_what_comes_after_it() -> None:
    result = (give.s(1).set(expires=datetime.timedelta(seconds=60)) | inc.s()).enqueue()
    store = store_for("default")
    assert store.expire(now=store.clock() + datetime.timedelta(seconds=61))
    assert states(result) == [JobStatus.CANCELLED, JobStatus.CANCELLED]
    assert_over(result)


def test_a_job_of_which_workers_die_ends_what_comes_after_it() -> None:
    result = (give.s(1).on_error(told_id.s()) | inc.s()).enqueue()
    store = store_for("default")
    worker = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [claim] = store.claim(worker, 1)
    store.forget(worker)
    assert store.rescue(1).failed == [claim.job_id]
    assert states(result) == [JobStatus.FAILED, JobStatus.CANCELLED]
    assert_over(result)
    run_jobs()
    assert Mark.objects.get().label == f"told {claim.job_id}"


def test_allow_failure_hands_the_failure_on() -> None:
    failure = {"error": "builtins.ValueError", "message": "ValueError: broken on purpose"}
    assert run(broken.s().set(allow_failure=True) | note.s()) == [failure]
    assert run(group(give.s(1), broken.s().set(allow_failure=True)) | note.s()) == [[1, failure]]
    # A failure before it cancels it, and that is handed on.
    [told] = run(broken.s() | inc.s() | inc.s().set(allow_failure=True) | note.s())
    assert told["error"] == "dbqueue.exceptions.JobCancelled" and "broken" in told["message"]
    [told] = run(unwanted.s().set(allow_failure=True) | note.s())
    assert told["message"] == "not wanted any more"


def test_a_group_whose_members_may_fail() -> None:
    result = group(broken.s(), give.s(1)).set(allow_failure=True) | note.s()
    [[first, second]] = run(result)
    assert first["error"] == "builtins.ValueError" and second == 1


# Links


def test_what_is_linked_comes_after_beside_the_rest() -> None:
    result = (inc.s(1).link(note.s("first"), broken.s()) | inc.s() | inc.s().link(note.s("last"))).enqueue()
    run_jobs()
    assert_over(result)
    assert result.get() == 4
    assert sorted(Mark.objects.values_list("label", flat=True)) == ["(2, 'first')", "(4, 'last')"]
    assert result.progress == (6, 6)
    assert run(group(inc.s(1).link(note.s()), grow.s(1).link(note.s()))) == [2, 1, 0]
    anything: Any = chain(give.s())
    with pytest.raises(InvalidTask, match="must be a signature"):
        give.s(1).link(anything)
    job = inc.s(1).link(note.s()).enqueue()
    run_jobs()
    assert job.get(0) == 2


def test_what_is_linked_does_not_come_after_a_failure() -> None:
    result = failed(broken.s().link(note.s()) | inc.s())
    assert states(result) == [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.CANCELLED]


# Callbacks


def test_callbacks_are_told_as_much_as_they_take() -> None:
    result = failed(group(broken.s(), give.s(1)).on_error(told_nothing.s(), told_id.s(), told_all.s("own")))
    run_jobs()
    pk = Job.objects.get(task=broken.name).pk
    assert sorted(Mark.objects.values_list("label", flat=True)) == [
        f"own: {pk} builtins.ValueError ValueError: broken on purpose",
        f"told {pk}",
        "told nothing",
    ]
    assert result.status == JobStatus.CANCELLED


def test_a_callback_comes_once_for_each_member_that_fails_and_never_for_others() -> None:
    failed(chord([broken.s(), broken.s() | inc.s(), give.s(1)], total.s()).on_error(told_id.s()))
    run_jobs()
    broke = Job.objects.filter(task=broken.name).values_list("pk", flat=True)
    assert sorted(Mark.objects.values_list("label", flat=True)) == sorted(f"told {pk}" for pk in broke)


def test_a_callback_comes_for_each_failure_also_of_what_replaced_a_job() -> None:
    result = failed(group(become.s("broken", 3).on_error(told_id.s()), give.s(1)))
    run_jobs()
    broke = Job.objects.filter(task=broken.name)
    assert sorted(Mark.objects.values_list("label", flat=True)) == sorted(f"told {job.pk}" for job in broke)
    assert len(broke) == 3 == result.retry_failed()
    run_jobs()
    assert Mark.objects.count() == 6


def test_a_single_call_may_have_a_callback() -> None:
    job = broken.s().on_error(told_id.si("me")).enqueue()
    assert isinstance(job, JobResult)
    with pytest.raises(JobFailed):
        run_jobs()
        job.get(0)
    assert Mark.objects.get().label == "told me"


def test_a_retry_calls_nobody_back_before_the_last_attempt() -> None:
    assert run(give.s(3) | thrice.s().on_error(told_nothing.s())) == 3
    assert not Mark.objects.filter(label="told nothing").exists()


def test_a_callback_has_the_times_and_the_name_that_were_said_of_it() -> None:
    hour = datetime.timedelta(hours=1)
    told = told_id.s().set(run_after=hour, expires=2 * hour, external_id="theirs")
    job = broken.s().on_error(told).enqueue()
    run_jobs()
    failed_at = dbqueue.get_result(job.id).finished_at
    callback = Job.objects.get(task=told_id.name)
    assert callback.status == JobStatus.SCHEDULED and callback.external_id == "theirs"
    assert failed_at is not None and callback.run_after is not None and callback.expires_at is not None
    assert abs(callback.run_after - failed_at - hour) < datetime.timedelta(minutes=1)
    assert callback.expires_at - callback.run_after == hour


# At run time


@pytest.mark.parametrize(
    ("kind", "value"), [("signature", 15), ("chain", 115), ("group", [5, 6, 7]), ("empty", []), ("again", "the last")]
)
def test_a_job_is_replaced_and_keeps_its_place(kind: str, value: Any) -> None:
    assert run(give.s(4) | inc.s() | become_after.s(kind) | note.s("after")) == [value, "after"]
    assert run(group(become.s(kind, 5), give.s(2))) == [value, 2]


@pytest.mark.parametrize(
    ("kind", "value"), [("signature", 15), ("chain", 115), ("group", [5, 6, 7]), ("again", "the last")]
)
def test_a_job_outside_of_workflows_is_replaced(kind: str, value: Any) -> None:
    job = become.enqueue(kind, 5)
    run_jobs()
    assert job.get(0) == value
    assert Job.objects.get(pk=int(job.id)).workflow_id is not None


def test_what_replaces_a_job_and_fails_ends_what_comes_after_it_and_calls_back() -> None:
    result = failed(become.s("failure", 1).on_error(told_id.s()) | inc.s())
    run_jobs()
    assert states(result)[:2] == [JobStatus.CANCELLED, JobStatus.CANCELLED]
    broke = Job.objects.get(task=broken.name)
    assert Mark.objects.get().label == f"told {broke.pk}"
    assert result.retry_failed() == 1
    run_jobs()
    assert Job.objects.get(pk=broke.pk).attempt == 2


def test_members_are_added_at_run_time() -> None:
    assert run(group(grow.s(3)) | note.s()) == [[3, 0, 1, 2, 0, 0, 1, 0]]
    # also from the middle of a chain inside of the group, and by what replaces a member
    assert run(group(give.s(1) | grow.s(), give.s(8)) | note.s()) == [[1, 8, 0]]


@pytest.mark.parametrize("deep", [1, 3, 40])
def test_the_group_around_a_step_is_found_in_few_queries(deep: int, django_assert_max_num_queries: Any) -> None:
    """In a chain, before a group in it, and in what replaces again and again; beside it, links don't count."""
    store = store_for("default")
    chained = chain(give.s(1).link(note.s()), *[inc.s()] * deep, group(inc.s(), group(inc.s())), total.si([1]))
    result = group(give.s(0), chained).enqueue()
    [outer, inner, innermost] = Job.objects.filter(task=GROUP).order_by("id").values_list("pk", flat=True)
    head = Job.objects.get(task=give.name, args=[1])
    with django_assert_max_num_queries(7):
        assert store.enclosing_group(head.pk) == outer == result.last_id
    members = Job.objects.filter(group_id__in=[inner, innermost]).exclude(task=GROUP)
    assert {pk: store.enclosing_group(pk) for pk in members.values_list("pk", flat=True)} == dict(
        members.values_list("pk", "group_id")
    )
    assert store.enclosing_group(Job.objects.get(task=note.name).pk) is None
    result.cancel()
    assert store.enclosing_group(head.pk) == outer


@pytest.mark.parametrize("times", [0, 1, 3, 40])
def test_a_job_that_was_replaced_again_and_again_adds_to_the_group_around_it(times: int) -> None:
    assert run(group(dig.s(times) | inc.s(), give.s(2)) | note.s()) == [[1, 2, "added"]]
    failed(dig.s(times) | inc.s())
    assert Attempt.objects.get().exception_class_path == f"{NotInGroup.__module__}.NotInGroup"


def test_an_async_task_adds_members() -> None:
    assert run(give.s(2) | group(grow_later.s(), give.s()) | note.s()) == [[2, 2, 0, 1]]
    failed(group(grow_wrongly.s()))
    assert "await context.aadd(" in Attempt.objects.get().traceback


def test_nothing_is_added_outside_of_a_group() -> None:
    for node in (chain(grow.s(2)), give.s(1) | grow.s(), chord([give.s(2)], grow_of.s())):
        result = node.enqueue()
        run_jobs()
        job = Job.objects.filter(status=JobStatus.FAILED).latest("id")
        assert job.attempt_set.get().exception_class_path == f"{NotInGroup.__module__}.NotInGroup"
        assert result.status in (JobStatus.FAILED, JobStatus.CANCELLED)


# Ending, and trying again


def test_a_workflow_is_cancelled() -> None:
    result = (give.s(1) | group(inc.s(), inc.s()) | total.s()).enqueue()
    run_jobs(limit=2)
    assert result.cancel()
    assert states(result) == [*[JobStatus.SUCCESSFUL] * 2, *[JobStatus.CANCELLED] * 2]
    assert_over(result)
    assert not result.cancel()


@pytest.fixture
def few_parameters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As few to a statement as SQLite has for a workflow that is thirty times as large."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    before = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1100)
    monkeypatch.setattr("dbqueue.store.sqlite.MOST_PARAMETERS", 1000)
    yield
    connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


@pytest.mark.usefixtures("few_parameters")
def test_more_steps_than_a_statement_has_parameters() -> None:
    number = 1200
    result = (broken.s() | group(give.si(1) for _ in range(number)) | note.s()).enqueue()
    run_jobs()
    assert_over(result)
    cancelled = Job.objects.filter(status=JobStatus.CANCELLED)
    assert cancelled.count() == number + 2
    assert result.retry_failed() == 1 and not cancelled.exists()
    assert result.cancel() and cancelled.count() == number + 3
    assert len(result.steps()) == number + 2 and len(result.children[1].children) == number  # type: ignore[union-attr]
    assert store_for("default").delete_workflow(result.workflow_id) == number + 3
    assert run(give.s(1) | group(give.si(1) for _ in range(number)) | total.s()) == number
    members = (broken.s().set(allow_failure=True) for _ in range(number))
    assert len(run(give.s(1) | group(members) | note.s())[0]) == number


def test_a_branch_is_cancelled_and_what_comes_after_it() -> None:
    result = chord([group(give.s(1), give.s(2)), give.s(3)], note.s()).enqueue()
    header = result.children[0]
    assert isinstance(header, WorkflowResult)
    branch = header.children[0]
    assert isinstance(branch, WorkflowResult) and branch.cancel()
    assert states(result) == [JobStatus.CANCELLED, JobStatus.CANCELLED, JobStatus.READY, JobStatus.CANCELLED]


def test_to_cancel_a_group_or_a_replaced_job_is_to_cancel_what_is_inside() -> None:
    result = (group(give.s(1), give.s(2) | inc.s()) | total.s()).enqueue()
    assert dbqueue.get_result(Job.objects.get(task=GROUP).pk).cancel()
    assert set(states(result)) == {JobStatus.CANCELLED}
    assert_over(result)

    job = become.enqueue("chain", 1)
    run_jobs(limit=1)
    assert dbqueue.get_result(job.id).status == JobStatus.WAITING
    assert job.cancel()
    assert Job.objects.filter(task=inc.name, status=JobStatus.CANCELLED).count() == 3
    assert not Job.objects.filter(status__in=OPEN).exists()

    results = [become.enqueue("chain", 1), group(become.s("chain", 1)).enqueue()]
    run_jobs(limit=2)
    waiting = Job.objects.filter(task=become.name, status=JobStatus.WAITING)
    assert store_for("default").cancel(list(waiting.values_list("pk", flat=True))) > len(results)
    assert not Job.objects.filter(status__in=OPEN).exists()


@pytest.mark.parametrize("is_step", [False, True])
def test_a_job_that_somebody_wants_to_end_is_not_replaced(is_step: bool) -> None:
    pk = int((group(become.s("chain", 1)).enqueue().children[0] if is_step else become.enqueue("chain", 1)).id)
    store = store_for("default")
    worker = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [claim] = store.claim(worker, 1)
    assert store.request_cancel([pk]) == ([], [pk])
    assert store.finish([Outcome.replaced(claim, (inc.s(1) | inc.s()).plan())]) == []
    assert Job.objects.get(pk=pk).status == JobStatus.CANCELLED
    assert not Job.objects.filter(task=inc.name).exists()
    assert not Job.objects.filter(status__in=OPEN).exists()


def test_a_step_that_is_given_back_and_was_to_end_ends_what_comes_after_it() -> None:
    result = (give.s(1) | inc.s()).enqueue()
    store = store_for("default")
    worker = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    claims = store.claim(worker, 1)
    assert result.cancel()
    assert store.release(claims) == 1
    assert states(result) == [JobStatus.CANCELLED, JobStatus.CANCELLED]
    assert_over(result)


def test_what_failed_is_tried_again_and_the_rest_goes_on() -> None:
    node = give.s(3) | group(thrice.s().set(max_attempts=1), inc.s() | inc.s()) | total.s() | inc.s()
    result = failed(node)
    for _ in range(2):
        assert result.status == JobStatus.CANCELLED
        assert result.retry_failed() == 1
        assert Workflow.objects.get().finished_at is None
        run_jobs()
    assert_over(result)
    assert result.get() == 9
    assert result.retry_failed() == 0


def test_one_of_two_failures_that_is_tried_again_leaves_the_body_cancelled() -> None:
    result = failed(group(thrice.s(1).set(max_attempts=1), broken.s()) | note.s())
    store = store_for("default")
    Mark.objects.create(label="thrice")
    first = Job.objects.get(task=thrice.name).pk
    assert store.retry([first]) == 1
    assert Job.objects.get(task=note.name).status == JobStatus.WAITING
    run_jobs()
    assert Job.objects.get(pk=first).status == JobStatus.SUCCESSFUL
    assert_over(result)
    assert Job.objects.get(task=note.name).status == JobStatus.CANCELLED


def test_a_step_whose_turn_never_came_is_not_run_without_what_comes_before_it() -> None:
    failed(give.s(1) | broken.s() | inc.s() | inc.s())
    last = Job.objects.filter(task=inc.name).latest("id").pk
    store = store_for("default")
    assert store.retry([last]) == 0
    assert Job.objects.get(pk=last).status == JobStatus.CANCELLED


def test_a_step_that_was_cancelled_before_its_turn_is_given_the_result_that_came_since() -> None:
    result = (give.s(1) | inc.s() | inc.s()).enqueue()
    middle = result.children[1]
    assert isinstance(middle, JobResult)
    middle.cancel()
    run_jobs()
    assert result.retry_failed() == 1
    run_jobs()
    assert result.get(0) == 3


def test_a_group_that_was_cancelled_while_its_members_ran_goes_on_with_their_results() -> None:
    result = (group(give.s(1), group(give.s(2), give.s(3))) | note.s()).enqueue()
    store = store_for("default")
    worker = store.register(name="w", hostname="h", pid=1, queues="", threads=3)
    claims = store.claim(worker, 3)
    assert result.cancel()
    assert store.finish([Outcome.succeeded(claim, "1") for claim in claims]) == []
    assert result.status == JobStatus.CANCELLED
    assert result.retry_failed() == 1
    run_jobs()
    assert result.get(0) == [[1, [1, 1]]]
    assert_over(result)

    alone = group(give.s(1)).enqueue()
    [claim] = store.claim(worker, 1)
    assert alone.cancel() and store.finish([Outcome.succeeded(claim, "1")]) == []
    assert alone.retry_failed() == 0 and alone.get(0) == [1]


def test_async_code_cancels_asks_and_tries_again() -> None:
    async def operate() -> None:
        result = await (give.s(1) | inc.s()).aenqueue()
        assert await result.acancel()
        assert await result.aprogress() == (2, 2)
        assert await result.aretry_failed() == 1
        assert await result.aprogress() == (0, 2)

    async_to_sync(operate)()
    assert len(run_jobs()) == 2


def test_who_listens_hears_of_the_jobs_that_a_cancel_was_about(
    heard: list[int], django_capture_on_commit_callbacks: Any
) -> None:
    result = (group(give.s(1) | inc.s(), give.s(2)) | total.s() | inc.s()).enqueue()
    with django_capture_on_commit_callbacks(execute=True):
        assert result.children[0].cancel()
        assert heard == []
    jobs = Job.objects.exclude(task=GROUP).order_by("id")
    assert heard == list(jobs.values_list("pk", flat=True))[:3]
    assert set(jobs.values_list("status", flat=True)) == {JobStatus.CANCELLED}


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The ids that job_cancelled told."""
    found: list[int] = []

    def hear(job_id: int, **told: Any) -> None:
        found.append(job_id)

    signals.job_cancelled.connect(hear)
    yield found
    signals.job_cancelled.disconnect(hear)


# Deleting


def test_steps_are_deleted_with_their_workflow_alone() -> None:
    result = (give.s(1) | inc.s()).enqueue()
    store = store_for("default")
    assert store.delete_workflow(result.workflow_id) is None
    run_jobs()
    ids = list(Job.objects.values_list("pk", flat=True))
    assert store.delete(ids) == 0
    later = store.clock().replace(year=2999)
    cutoffs = dict.fromkeys((JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED), later)
    assert not store.prune(cutoffs).deleted
    assert store.delete_workflow(result.workflow_id) == 2
    assert not Job.objects.exists() and not Workflow.objects.exists()


def test_pruning_forgets_a_workflow_and_then_its_jobs() -> None:
    result = failed(give.s(1) | broken.s() | inc.s())
    store = store_for("default")
    later = store.clock().replace(year=2999)
    cutoffs = dict.fromkeys((JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED), later)
    assert store.prune_workflows(later) == 1
    assert store.retry([int(child.id) for child in result.steps()]) == 0
    assert sum(store.prune(cutoffs).deleted.values()) == 3


# Inline


@pytest.mark.parametrize(
    ("node", "value"),
    [
        (inc.s(1) | inc.s() | inc.s(), 4),
        (chord([inc.s(0), inc.s(1)], total.s()), 3),
        (chain(become.s("chain", 1)), 111),
        (group(grow.s(2)) | total.s(), 3),
    ],
)
def test_with_immediate_all_of_it_runs_at_once(node: Any, value: int, settings: Any) -> None:
    settings.DBQUEUE = {"IMMEDIATE": True}
    assert node.enqueue().get(0) == value
    assert not Job.objects.filter(status__in=OPEN).exists()


def test_with_immediate_who_is_told_of_a_failure_is_so_at_once(settings: Any) -> None:
    settings.DBQUEUE = {"IMMEDIATE": True}
    later = told_nothing.s().set(run_after=datetime.timedelta(hours=1))
    job = broken.s().on_error(told_id.s(), later).enqueue()
    assert job.status == JobStatus.FAILED
    assert Mark.objects.get().label == f"told {job.id}"
    group(give.s(1), broken.s() | inc.s()).on_error(told_all.s("own")).enqueue()
    assert Mark.objects.filter(label__startswith="own: ").count() == 1
    assert Job.objects.get(status__in=OPEN).task == told_nothing.name  # it is not due


# What is refused


def test_what_is_no_id_of_a_workflow() -> None:
    for given, said in (("x", "'x' is not the id of a workflow: ids are whole numbers"), (10**30, "is not the id")):
        with pytest.raises(JobDoesNotExist, match=said):
            dbqueue.get_workflow(given)
    with pytest.raises(JobDoesNotExist, match="No workflow has the id 7"):
        dbqueue.get_workflow(7)


def test_delay_is_enqueue_by_another_name() -> None:
    results = [give.s(1).delay(), group(give.s(1), give.s(2)).delay(), (give.s(1) | inc.s()).delay()]
    run_jobs()
    assert [result.get(0) for result in results] == [1, [1, 2], 2]


def test_what_can_not_be_a_workflow_is_refused() -> None:
    anything: Any = 1
    for make, said in (
        (lambda: chain(anything), "holds 1"),
        (lambda: group(give), "must hold signatures"),
        (lambda: chain().enqueue(), "empty"),
        (lambda: chain(only_one.s()).enqueue(), "only_one is unique, and a step of a workflow can't be"),
        (lambda: chain(inc.s(1), only_one.s()).enqueue(), "only_one is unique, and a step of a workflow can't be"),
        (lambda: chain(inc.s(1), inc.s().set(unique=True)).enqueue(), "inc is unique, and a step"),
        (lambda: chain(inc.s(1), group(inc.s(), only_one.s())).enqueue(), "only_one is unique, and a step"),
        (lambda: give.s(1).on_error(give), "must be a signature"),
        (lambda: dbqueue.enqueue_many([give.s(1).on_error(told_id.s())]), "enqueue_many"),
        (lambda: dbqueue.enqueue_many([give.s(1).link(note.s())]), "enqueue_many"),
        (lambda: give.s(1).on_error(told_id.s().on_error(note.s())).enqueue(), "of its own"),
        (lambda: give.s(1).on_error(told_id.s().link(note.s())).enqueue(), "of its own"),
        (lambda: give.s(1).on_error(told_id.s().set(run_after=datetime.timedelta.max)).enqueue(), "must end in the"),
        (lambda: group(give.s(1)).set(allow_failure=1), "True or False"),
        (lambda: group(give.s(1)).set(colour="red"), "colour"),
    ):
        with pytest.raises(InvalidTask, match=said):
            make()
    deep: Any = give.s(1)
    with pytest.raises(InvalidTask, match="nested 101 deep"):
        for _ in range(101):
            deep = group(deep)
    assert not Job.objects.exists() and not Workflow.objects.exists()


def test_a_call_that_will_not_fit_is_refused_at_enqueue() -> None:
    for node in (
        give.s(1) | nothing.s(),
        give.s(1) | inc.s(1, 2),
        give.s(1).on_error(inc.s(1, 2, 3)),
        group(give.s(1), inc.s()),
    ):
        with pytest.raises(InvalidArguments):
            node.enqueue()
    assert not Job.objects.exists() and not Workflow.objects.exists()


def test_a_step_is_retried_by_its_own_result() -> None:
    result = (give.s(1) | broken.s() | note.s()).enqueue()
    run_jobs()
    first, failed, last = result.steps()
    assert not last.retry() and not first.retry()
    assert failed.retry()
    last.refresh()
    assert (failed.status, last.status) == (JobStatus.READY, JobStatus.WAITING)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (give.s(1) | inc.s(1, 2), "it takes 2 arguments by position, and has 3."),
        (give.s(1) | nothing.s(), "it takes no arguments by position, and has 1."),
        (give.s(1) | inc.s(x=2), "'x' is given by position and by name."),
        (chord([give.s(1)], inc.s(1, 2)), "and has 3."),
        (give.s(1).link(inc.s(1, 2)), "and has 3."),
    ],
)
def test_a_call_that_is_given_a_result_is_told_of_it(node: Any, why: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        node.enqueue()
    assert str(caught.value).endswith(
        f"{why} The first argument is the result of the step before; .si(…) leaves it out."
    )
    with pytest.raises(InvalidArguments, match=r"has 3\.$"):
        (give.s(1) | inc.si(1, 2, 3)).enqueue()  # type: ignore[call-arg]


def test_options_are_inherited_where_nothing_else_is_said() -> None:
    node = (give.s(1).set(queue_name="own") | inc.s()).set(queue_name="all", priority=5)
    node.enqueue()
    assert list(Job.objects.order_by("id").values_list("queue_name", "priority")) == [("own", 5), ("all", 5)]
    Job.objects.all().delete()
    become.using(queue_name="mail", priority=7).enqueue("chain", 1)
    run_jobs()
    assert set(Job.objects.values_list("queue_name", "priority")) == {("mail", 7)}


def test_links_and_callbacks_have_the_options_of_their_call() -> None:
    headers = {"trace": "a"}
    call = broken.s().link(note.s(), note.si().set(priority=3)).on_error(told_id.s(), told_nothing.s())
    chain(call.set(headers=headers)).set(queue_name="mail", priority=7).enqueue()
    run_jobs()
    found = Job.objects.order_by("id").values_list("task", "queue_name", "priority", "options__headers")
    told = [(task.rpartition(".")[2], *rest) for task, *rest in found]
    assert told == [
        ("broken", "mail", 7, headers),
        ("note", "mail", 7, headers),
        ("note", "mail", 3, headers),
        ("told_id", "mail", 7, headers),
        ("told_nothing", "mail", 7, headers),
    ]


def test_what_was_said_last_of_a_chain_or_group_holds() -> None:
    inner = chain(give.s(1).set(priority=9), inc.s()).set(priority=1).set(priority=2, queue_name="mail")
    group(inner | inc.s(), give.s(3)).set(priority=5).on_error(told_id.s()).set(priority=6).enqueue()
    found = Job.objects.exclude(task=GROUP).order_by("id")
    assert list(found.values_list("priority", flat=True)) == [9, 2, 6, 6]
    assert [row.step["on_error"][0]["priority"] for row in found if row.step] == [9, 2, 6, 6]


def test_a_callback_is_told_what_it_asks_for_and_no_default_is_filled() -> None:
    broken.s().on_error(told_flag.s(), told_flag.s(True), told_traceback.s()).enqueue()
    run_jobs()
    pk = Job.objects.get(task=broken.name).pk
    assert sorted(Mark.objects.values_list("label", flat=True)) == [
        f"told {pk} False",
        f"told {pk} True",
        f"told {pk} builtins.ValueError Traceback",
    ]


def test_callbacks_of_an_older_version_are_called_and_what_can_not_be_read_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also while old web processes still enqueue: no row may keep the end of a job from being written."""
    result = broken.s().on_error(told_id.s()).on_error(told_id.s()).enqueue()
    job = Job.objects.get(pk=result.id)
    assert job.step is not None
    old, unreadable = job.step["on_error"]
    for name in ("external_id", "wait", "expires_in"):
        del old[name]
    del unreadable["args"]
    job.save()
    run_jobs(limit=1)
    result.refresh()
    assert result.status == JobStatus.FAILED
    [callback] = Job.objects.exclude(pk=result.id)
    assert (callback.task, callback.args[0]) == (told_id.name, result.id)
    assert "can't be read, and is left out: KeyError('args')" in caplog.text
