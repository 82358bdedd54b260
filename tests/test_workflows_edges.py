"""Workflows where something goes wrong in the middle: nothing stands still, nothing is lost, nothing comes twice."""

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dbqueue import Unique, chain, group
from dbqueue.claim import Selection
from dbqueue.exceptions import InvalidTask
from dbqueue.history import Tally
from dbqueue.models import GROUP, OPEN, Attempt, Job, JobStatus, Workflow
from dbqueue.outcome import Failure, Outcome
from dbqueue.services import completer as completer_module
from dbqueue.services.completer import Completer
from dbqueue.store import Store, store_for
from dbqueue.store.workflows import what_was_wrong
from dbqueue.testing import run_jobs

from .shop.edge_tasks import (
    TOO_FAR,
    add_members,
    flaky,
    flaky_inside,
    flaky_taker,
    large,
    length,
    many_lines,
    step_aside,
)
from .shop.models import Mark
from .shop.workflow_tasks import become, broken, give, inc, note, total

pytestmark = pytest.mark.django_db


@pytest.fixture
def store() -> Store:
    return store_for("default")


def a_worker(store: Store, threads: int = 9) -> int:
    return store.register(name="w", hostname="h", pid=1, queues="", threads=threads)


def states(*tasks: Any) -> list[str]:
    """Of the jobs of these tasks, or of all but groups, in the order in which they were made."""
    jobs = Job.objects.filter(task__in=[task.name for task in tasks]) if tasks else Job.objects.exclude(task=GROUP)
    return list(jobs.order_by("id").values_list("status", flat=True))


def assert_all_over() -> None:
    assert not Job.objects.filter(status__in=OPEN).exists()
    assert not Workflow.objects.filter(finished_at=None).exists()


# Times that nobody will see


@pytest.mark.parametrize("name", ["run_after", "expires"])
def test_a_time_out_of_range_is_refused_at_enqueue_for_every_step(name: str) -> None:
    late = inc.s().set(**{name: TOO_FAR})
    for node in (give.s(1) | late, give.s(1) | group(inc.s(), late) | note.s(), give.s(1).link(late)):
        with pytest.raises(InvalidTask, match=name):
            node.enqueue()
    assert not Job.objects.exists() and not Workflow.objects.exists()


def test_a_time_out_of_range_is_refused_where_a_job_asks_for_it() -> None:
    group(step_aside.s(kind="far"), add_members.s("far"), give.s(1)).enqueue()
    run_jobs()
    assert states() == [JobStatus.FAILED, JobStatus.FAILED, JobStatus.SUCCESSFUL]
    assert all("days=4000000" in attempt.traceback for attempt in Attempt.objects.all())
    assert_all_over()


@pytest.mark.parametrize("kept", ["wait", "expires_in"])
def test_a_row_that_says_such_a_time_all_the_same_harms_nobody(kept: str) -> None:
    (give.s(1) | inc.s()).enqueue()
    Job.objects.filter(task=inc.name).update(step={kept: TOO_FAR.total_seconds()})
    run_jobs(limit=1)
    job = Job.objects.get(task=inc.name)
    assert job.status == (JobStatus.SCHEDULED if kept == "wait" else JobStatus.READY)
    assert (job.run_after if kept == "wait" else job.expires_at).year == 9000  # type: ignore[union-attr]


# An error in dbqueue itself


def complete(store: Store, outcomes: Sequence[Outcome]) -> None:
    completer = Completer(store, lambda: None)
    for outcome in outcomes:
        completer.put(outcome)
    completer.run_once()
    assert not completer.pending


def test_an_outcome_that_can_not_be_written_fails_its_job_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (give.s(number) | inc.s()).enqueue()
    give.enqueue("plain")
    claims = store.claim(a_worker(store), 9)
    settle = type(store)._settle

    def broken(self: Store, ids: Sequence[int], now: Any) -> None:
        if any(job.status == JobStatus.SUCCESSFUL for job in self.jobs.filter(pk__in=[*ids], args=[1])):
            raise ZeroDivisionError("a bug")
        settle(self, ids, now)

    monkeypatch.setattr(type(store), "_settle", broken)
    complete(store, [Outcome.succeeded(claim, "1") for claim in claims])
    good, bad = JobStatus.SUCCESSFUL, JobStatus.FAILED
    assert states(give) == [good, bad, good, good]
    assert states(inc) == [JobStatus.READY, JobStatus.CANCELLED, JobStatus.READY]
    assert "a bug" in Attempt.objects.get().traceback


def test_an_outcome_that_can_not_be_written_at_all_ends_no_worker(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (give.s(1) | inc.s()).enqueue()
    give.enqueue("plain")
    claims = store.claim(a_worker(store), 9)
    settle = type(store)._settle
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "_settle", lambda self, ids, now: 1 / 0)
        completer = Completer(store, lambda: None)
        for claim in claims:
            completer.put(Outcome.succeeded(claim, "1"))
        completer.run_once()
        assert states(give) == [JobStatus.RUNNING, JobStatus.SUCCESSFUL]
        assert completer.pending == 1 and "ZeroDivisionError" in caplog.text
    assert type(store)._settle is settle
    time.sleep(completer_module.TRY_AGAIN)
    completer.run_once()
    assert not completer.pending
    assert states(give, inc) == [JobStatus.SUCCESSFUL, JobStatus.READY, JobStatus.SUCCESSFUL]


# What is handed on is bounded


def test_what_all_who_come_after_are_given_together_is_bounded(settings: Any) -> None:
    settings.DBQUEUE = {"MAX_HANDED_ON_BYTES": 10_000}
    for number, kilobytes in ((2, 4), (1, 11)):  # what one alone is given may be as large as a result
        (large.s(kilobytes) | group(length.s() for _ in range(number))).enqueue()
    result = (large.s(4) | group(length.s() for _ in range(3)) | note.s()).enqueue()
    run_jobs()
    assert states(length) == [*[JobStatus.SUCCESSFUL] * 3, *[JobStatus.CANCELLED] * 3]
    giver = result.children[0].id
    reasons = set(Job.objects.filter(task=length.name, status=JobStatus.CANCELLED).values_list("reason", flat=True))
    assert reasons == {
        f"4002 bytes of job {giver} for 3 jobs: DBQUEUE['MAX_HANDED_ON_BYTES'] allows 10000 in all",
    }
    assert states(note) == [JobStatus.CANCELLED]
    assert_all_over()
    settings.DBQUEUE = {}
    assert result.retry_failed() == 3
    run_jobs()
    assert result.get(0) == [[4000] * 3]


def test_the_list_of_a_group_is_bounded(settings: Any) -> None:
    settings.DBQUEUE = {"MAX_HANDED_ON_BYTES": 10_000}
    (group(large.s(4) for _ in range(2)) | length.s()).enqueue()
    result = (group(large.s(4) for _ in range(3)) | length.s()).enqueue()
    run_jobs()
    assert states(length) == [JobStatus.SUCCESSFUL, JobStatus.CANCELLED]
    why = "its 3 results have 12006 bytes: DBQUEUE['MAX_HANDED_ON_BYTES'] allows 10000 in a list"
    assert Job.objects.filter(task=GROUP).latest("id").reason == why
    assert why in Job.objects.filter(task=length.name).latest("id").reason
    assert_all_over()
    settings.DBQUEUE = {}
    assert result.retry_failed() == 1
    run_jobs()
    assert result.get(0) == 3


def test_values_are_handed_on_as_they_are() -> None:
    values: list[Any] = [None, True, 0.5, 'ü\\"', {"a": [None, {}]}, [], {}]
    result = (group(give.s(value) for value in values) | group(note.s(), note.s("own", [1]))).enqueue()
    run_jobs()
    assert result.get(0) == [[values], [values, "own", [1]]]
    assert Job.objects.filter(task=note.name).latest("id").args == [values, "own", [1]]


# Many failures at once


@pytest.mark.parametrize("shape", ["tolerated", "each with a rest", "each a group"])
def test_statements_do_not_grow_with_the_failures_of_a_batch(store: Store, shape: str) -> None:
    if connection.vendor not in ("sqlite", "postgresql"):
        pytest.skip("the portable path writes such rows one by one")
    counts = []
    for number in (5, 50):
        members: dict[str, Any] = {
            "tolerated": (give.s(1).set(allow_failure=True) for _ in range(number)),
            "each with a rest": (give.s(1) | inc.s() for _ in range(number)),
            "each a group": (group(give.s(1)) for _ in range(number)),
        }
        result = (group(members[shape]) | note.s()).enqueue()
        claims = store.claim(a_worker(store, 50), 50)
        end = Outcome.succeeded if shape == "each a group" else Outcome.failed
        with CaptureQueriesContext(connection) as queries:
            ends: Any = ("1" if shape == "each a group" else ValueError("x") for _ in claims)
            store.finish([end(claim, value) for claim, value in zip(claims, ends, strict=True)])
        counts.append(len(queries))
        run_jobs()
        assert result.is_finished
    assert counts[0] == counts[1]


def test_a_failure_that_is_handed_on_is_told_in_all_of_its_lines() -> None:
    result = (many_lines.s().set(allow_failure=True) | note.s()).enqueue()
    run_jobs()
    [told] = result.get(0)
    assert told == {"error": "builtins.ValueError", "message": "ValueError: first line\nsecond line\na note"}


def raised(make: Callable[[], None]) -> str:
    try:
        make()
    except BaseException as exc:
        return Failure.of(exc).traceback
    raise AssertionError


def test_what_was_wrong_is_read_from_any_traceback() -> None:
    def chained(text: str, cause: type[Exception] = KeyError) -> None:
        try:
            raise cause("a\nb")
        except cause:
            raise LookupError(text)  # noqa: B904

    def grouped() -> None:
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

    assert what_was_wrong(raised(lambda: chained("c\n\nd"))) == "LookupError: c\n\nd"
    assert what_was_wrong(raised(grouped)) == "ExceptionGroup: several (2 sub-exceptions)"
    assert what_was_wrong(raised(lambda: compile("1 +", "x", "exec"))) == "SyntaxError: invalid syntax"  # type: ignore[arg-type]
    assert what_was_wrong("only this\n") == "only this"
    assert what_was_wrong("") == ""


# What was replaced


def test_what_was_replaced_is_not_released_again(store: Store) -> None:
    result = (flaky.s().set(allow_failure=True) | step_aside.s() | note.s("end")).enqueue()
    run_jobs(limit=2)
    assert store.retry([Job.objects.get(task=flaky.name).pk]) == 1
    run_jobs()
    assert Mark.objects.filter(label__startswith="aside").count() == 1
    assert states(flaky, step_aside, give) == [JobStatus.SUCCESSFUL] * 3
    assert result.get(0) == [["inside"], "end"]
    assert_all_over()


def test_what_was_replaced_is_not_brought_back_by_what_stands_before_it(store: Store) -> None:
    (flaky.s().set(allow_failure=True) | step_aside.s(kind="flaky") | note.s("end")).enqueue()
    run_jobs()
    assert states(step_aside, flaky_inside, note) == ["CANCELLED", "CANCELLED", "FAILED"]
    assert store.retry([Job.objects.get(task=flaky.name).pk]) == 1
    assert states(step_aside, note) == [JobStatus.CANCELLED] * 2
    run_jobs()
    assert_all_over()
    assert store.retry([Job.objects.get(task=flaky_inside.name).pk]) == 1
    run_jobs()
    assert states(step_aside, note, flaky_inside) == [JobStatus.SUCCESSFUL] * 3


def test_what_is_linked_does_not_come_after_a_failure_that_is_tolerated(store: Store) -> None:
    link = note.s("linked").link(note.s("linked to that")).set(allow_failure=True)
    result = (flaky.s().set(allow_failure=True).link(link, note.s("also")) | give.s()).enqueue()
    run_jobs()
    assert result.get(0)["error"] == "builtins.ValueError"
    assert states(note) == [JobStatus.CANCELLED] * 3
    assert not Mark.objects.filter(label__contains="linked").exists()
    assert_all_over()
    assert store.retry([Job.objects.get(task=flaky.name).pk]) == 1
    run_jobs()
    assert states(note) == [JobStatus.SUCCESSFUL] * 3


# Since when a step waits


def test_a_step_waits_from_its_turn_on(store: Store) -> None:
    (give.s(1) | inc.s()).enqueue()
    Job.objects.update(enqueued_at=store.clock() - datetime.timedelta(hours=5))
    run_jobs(limit=1)
    since = store.line(None).since
    assert since is not None and store.clock() - since < datetime.timedelta(minutes=1)
    urgent = give.using(priority=50).enqueue(2)
    worker = a_worker(store)
    [first] = store.claim(worker, 1, Selection(ageing=60))
    assert str(first.job_id) == urgent.id
    [second] = store.claim(worker, 1)
    tally = Tally()
    tally.note([Outcome.succeeded(second, "2")])
    [sums] = tally.take().values()
    assert sums.wait_seconds < 60


def test_a_step_under_a_rate_goes_behind_those_who_were_promised_a_start(store: Store) -> None:
    (give.s(1) | inc.s().set(rate="1/h")).enqueue()
    run_jobs(limit=1)
    assert Job.objects.get(task=inc.name).run_after is None


# Groups that grow


def test_an_empty_group_that_is_added_ends_nothing_before_the_rest_is_there() -> None:
    result = (group(add_members.s("empty first")) | note.s()).enqueue()
    run_jobs()
    assert result.get(0) == [["empty first", [], "late"]]
    assert_all_over()


def test_an_empty_group_of_one_outcome_ends_nothing_before_the_rest_of_its_batch_is_there(store: Store) -> None:
    result = (group(give.s(1), give.s(2)) | note.s()).enqueue()
    first, second = store.claim(a_worker(store), 2)
    members = {Job.objects.get(task=GROUP).pk: [give.s("late").plan()]}
    added = Outcome.succeeded(second, "2")._replace(added=members)
    assert store.finish([Outcome.replaced(first, group().plan()), added]) == []
    run_jobs()
    assert result.get(0) == [[[], 2, "late"]]
    assert_all_over()


@pytest.mark.parametrize("whole", [True, False])
def test_what_somebody_wants_to_end_grows_no_further(store: Store, whole: bool) -> None:
    result = group(add_members.s("again"), give.s(1)).enqueue()
    [claim] = store.claim(a_worker(store), 1)
    assert (result if whole else result.children[0]).cancel()
    members = {Job.objects.get(task=GROUP).pk: [add_members.s("again").plan()]}
    assert store.finish([Outcome.succeeded(claim, "1")._replace(added=members)]) == []
    run_jobs(limit=5)
    assert states(add_members) == [JobStatus.SUCCESSFUL]
    assert_all_over()


def test_a_group_grows_after_a_member_has_failed_which_may_be_tried_again() -> None:
    result = (group(flaky.s(), add_members.s("one")) | note.s("end")).enqueue()
    run_jobs()
    assert states(note) == [JobStatus.CANCELLED, JobStatus.SUCCESSFUL]
    assert result.retry_failed() == 1
    run_jobs()
    assert result.get(0) == [["flaky", "one", ["added"]], "end"]


# Trying again


@pytest.mark.parametrize("allows", [False, True])
def test_what_somebody_has_cancelled_is_not_revived_by_a_retry_of_something_else(store: Store, allows: bool) -> None:
    result = (flaky.s() | give.s().set(allow_failure=allows) | note.s("unwanted") | note.s("after that")).enqueue()
    assert result.children[2].cancel()
    run_jobs()
    assert store.retry([Job.objects.get(task=flaky.name).pk]) == 1
    assert states() == ["READY", "WAITING", "CANCELLED", "CANCELLED"]
    run_jobs()
    assert_all_over()
    assert not Mark.objects.filter(label__contains="unwanted").exists()
    # Who asks for all means that one, too.
    assert result.retry_failed() == 1
    run_jobs()
    assert states()[2:] == [JobStatus.SUCCESSFUL] * 2


def test_a_cancelled_workflow_is_tried_again_as_a_whole() -> None:
    result = (give.s(1) | group(inc.s(), step_aside.s(kind="flaky")) | group(note.s()) | note.s("end")).enqueue()
    run_jobs(limit=3)
    assert result.cancel()
    assert_all_over()
    assert result.retry_failed() == 1
    run_jobs()
    result.retry_failed()
    run_jobs()
    assert result.get(0) == [[[[2, "inside"]]], "end"]


def test_a_tolerated_failure_that_was_handed_on_is_not_tried_again(store: Store) -> None:
    result = (flaky.s().set(allow_failure=True) | note.s()).enqueue()
    listed = (group(broken.s().set(allow_failure=True), give.s(1)) | note.s()).enqueue()
    run_jobs()
    assert (result.retry_failed(), listed.retry_failed()) == (0, 0)
    # Nobody has looked at this one yet.
    last = (give.s(1) | broken.s().set(allow_failure=True)).enqueue()
    unheard = (group(broken.s().set(allow_failure=True), broken.s()) | note.s()).enqueue()
    run_jobs()
    assert (last.retry_failed(), unheard.retry_failed()) == (1, 2)


def test_what_failed_after_a_tolerated_failure_is_given_that_one_again() -> None:
    result = (flaky.s().set(allow_failure=True).link(note.s()) | flaky_taker.s()).enqueue()
    run_jobs()
    assert result.retry_failed() == 1
    run_jobs()
    assert result.get(0) == {"error": "builtins.ValueError", "message": "ValueError: first"}
    assert states(flaky, note) == [JobStatus.FAILED, JobStatus.CANCELLED]
    assert_all_over()


@pytest.mark.parametrize("kind", ["note", "flaky"])
def test_a_job_that_was_cancelled_after_it_was_replaced_can_be_tried_again(store: Store, kind: str) -> None:
    job = step_aside.enqueue(kind=kind)
    run_jobs(limit=1)
    assert job.cancel()
    assert_all_over()
    for _ in range(2):
        assert store.retry([int(job.id)]) == 1
        job.refresh()
        assert job.status == JobStatus.WAITING
        run_jobs()
        if kind == "note":
            break
    assert job.get(0) == (["inside"] if kind == "note" else "inside")
    assert_all_over()


def test_one_that_was_cancelled_while_what_replaces_it_ran_has_its_result_when_it_is_tried_again(store: Store) -> None:
    job = step_aside.enqueue(kind="flaky")
    run_jobs(limit=1)
    [claim] = store.claim(a_worker(store), 1)
    assert job.cancel() and store.finish([Outcome.succeeded(claim, "1")]) == []
    assert store.retry([int(job.id)]) == 1
    job.refresh()
    assert job.get(0) == 1


# Unique jobs


@pytest.mark.skipif(not connection.features.supports_partial_indexes, reason="a database without unique keys")
@pytest.mark.parametrize("until", ["finished", datetime.timedelta(hours=1)])
def test_a_unique_job_that_is_replaced_keeps_others_out(until: Any) -> None:
    once = step_aside.using(unique=Unique(until=until))
    job = once.enqueue()
    run_jobs(limit=1)
    again = once.enqueue()
    assert again.duplicate and again.id == job.id
    run_jobs()
    assert job.get(0) == ["inside"]
    assert once.enqueue().duplicate == (until != "finished")


TOLERATED = inc.s().set(allow_failure=True)
PASSED_OVER: dict[str, Any] = {
    "a step": TOLERATED,
    "two steps": TOLERATED | TOLERATED,
    "a group": group(TOLERATED, TOLERATED),
    "a group of chains": group(TOLERATED | TOLERATED, TOLERATED),
}


@pytest.mark.parametrize("shape", PASSED_OVER)
@pytest.mark.parametrize("ends_well", [True, False])
@pytest.mark.parametrize("order", [1, -1])
def test_what_allows_failure_and_is_cancelled_before_its_turn_lets_nobody_past(
    store: Store, shape: str, ends_well: bool, order: int
) -> None:
    (give.s(1) | PASSED_OVER[shape] | note.s()).enqueue()
    [claim] = store.claim(a_worker(store), 9)
    for pk in Job.objects.filter(task=inc.name).order_by("id").values_list("pk", flat=True)[::order]:
        store.request_cancel([pk])
    assert states(note) == [JobStatus.WAITING]
    store.finish([Outcome.succeeded(claim, "1") if ends_well else Outcome.failed(claim, ValueError())])
    if "group" in shape and not ends_well:
        assert states(note) == [JobStatus.CANCELLED]
        assert_all_over()
        return
    [last] = store.claim(a_worker(store), 9)
    assert last.task == note.name
    error = {"error": "dbqueue.exceptions.JobCancelled", "message": ""}
    assert last.args == [[error, error] if "group" in shape else error]
    store.finish([Outcome.succeeded(last, "[]")])
    assert_all_over()


BROKEN_OFF: dict[str, Any] = {
    "a step": give.s(1) | inc.s(),
    "a group": group(give.s(1), give.s(2)),
    "what replaces a job": become.s("broken", 1),
}


@pytest.mark.parametrize("before", BROKEN_OFF)
def test_who_comes_after_a_step_that_was_cancelled_early_does_not_wait_for_ever_for_what_failed(
    store: Store, before: str
) -> None:
    result = (BROKEN_OFF[before] | total.s().set(allow_failure=True) | note.s()).enqueue()
    worker = a_worker(store)
    claims = store.claim(worker, 9)
    store.request_cancel([Job.objects.get(task=total.name).pk])
    assert states(note) == [JobStatus.WAITING]
    if before == "what replaces a job":
        store.finish([Outcome.replaced(claims[0], (broken.si() | give.si(1)).plan())])
        claims = store.claim(worker, 9)
    store.finish([Outcome.failed(claims[0], ValueError())])
    assert states(note) == [JobStatus.READY]
    run_jobs()
    assert result.status == JobStatus.SUCCESSFUL


def cancel(store: Store, *tasks: Any) -> None:
    store.request_cancel(
        sorted(Job.objects.filter(task__in=[task.name for task in tasks]).values_list("pk", flat=True))
    )


@pytest.mark.parametrize(
    "members", [(give.si(2) | TOLERATED,), (give.si(2) | TOLERATED, TOLERATED), (group(give.si(2)) | TOLERATED,)]
)
def test_a_group_does_not_end_before_what_stands_before_a_member_that_was_passed_over(
    store: Store, members: Any
) -> None:
    (give.si(1) | group(*members) | note.s()).enqueue()
    worker = a_worker(store)
    [first] = store.claim(worker, 9)
    cancel(store, inc)
    store.finish([Outcome.succeeded(first, "1")])
    assert states(note) == [JobStatus.WAITING]
    [second] = store.claim(worker, 9)
    store.finish([Outcome.succeeded(second, "2")])
    assert states(note) == [JobStatus.READY]
    run_jobs()
    assert_all_over()


@pytest.mark.parametrize("how", ["one batch", "singly", "cancelled"])
def test_a_list_has_the_failure_of_a_member_that_was_cancelled_for_a_cause(store: Store, how: str) -> None:
    (group(give.s(1) | TOLERATED, give.s(2).set(allow_failure=True)) | note.s()).enqueue()
    if how == "cancelled":
        cancel(store, give)
    else:
        first, second = sorted(store.claim(a_worker(store), 9))
        outcomes = [Outcome.failed(first, ValueError("x")), Outcome.succeeded(second, "2")]
        for batch in [outcomes] if how == "one batch" else [[outcome] for outcome in outcomes]:
            store.finish(batch)
    [[one, two]] = Job.objects.get(task=note.name).args
    assert one["error"] == "dbqueue.exceptions.JobCancelled"
    assert two == 2 or two["error"] == "dbqueue.exceptions.JobCancelled"


@pytest.mark.parametrize("has_body", [True, False])
def test_what_somebody_wanted_to_end_decides_nothing_before_the_rest_of_its_batch(store: Store, has_body: bool) -> None:
    members = group(give.s(1), give.s(2).set(allow_failure=True, max_attempts=3))
    (members | note.s() if has_body else members).enqueue()
    adds, comes_back = sorted(store.claim(a_worker(store), 9))
    in_group = Job.objects.get(task=GROUP).pk
    store.request_cancel([comes_back.job_id])
    store.finish(
        [
            Outcome.succeeded(adds, "1")._replace(added={in_group: [give.s(3).plan()]}),
            Outcome.retried(comes_back, ValueError(), 0),
        ]
    )
    assert Job.objects.get(pk=in_group).status == JobStatus.WAITING
    assert Workflow.objects.get().finished_at is None
    run_jobs()
    listed: Any = Job.objects.get(pk=in_group).return_value
    assert [value for value in listed if not isinstance(value, dict)] == [1, 3]
    assert_all_over()


def test_to_cancel_a_long_chain_takes_few_statements(store: Store) -> None:
    result = chain(give.s(1), *[TOLERATED] * 100).enqueue()
    [claim] = store.claim(a_worker(store), 9)
    with CaptureQueriesContext(connection) as cancelled:
        result.cancel()
    assert len(cancelled) < 300  # where each failure is handed on by a statement of its own: MySQL
    with CaptureQueriesContext(connection) as ended:
        store.finish([Outcome.succeeded(claim, "1")])
    assert len(ended) < 1500
    assert_all_over()
