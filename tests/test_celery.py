"""Celery's names: what matches, and what differs on purpose (docs/from-celery.md names these tests)."""

import datetime
import logging
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from dbqueue import registry
from dbqueue import signals as own
from dbqueue.compat.celery import (
    AsyncResult,
    Celery,
    GroupResult,
    Task,
    chain,
    chord,
    current_app,
    group,
    shared_task,
    signals,
    signature,
)
from dbqueue.compat.celery.app import route_of
from dbqueue.compat.celery.bridge import CoreTask
from dbqueue.compat.celery.exceptions import (
    MaxRetriesExceededError,
    NotRegistered,
    Retry,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeoutError,
)
from dbqueue.compat.celery.schedules import crontab
from dbqueue.compat.celery.settings import DEFAULTS, named
from dbqueue.compat.celery.utils.log import get_task_logger, task_logger
from dbqueue.exceptions import (
    InvalidArguments,
    InvalidTask,
    JobDoesNotExist,
    JobFailed,
    NotStorable,
    UnknownTask,
    WorkerLost,
    WouldNeverFinish,
)
from dbqueue.models import Job, JobStatus
from dbqueue.schedule import Cron
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop import celery_tasks as t
from .shop.models import Mark
from .workers import burst, eventually, settings_file, worker

pytestmark = pytest.mark.django_db


@contextmanager
def override_zone(name: str) -> Iterator[None]:
    """The process's own time zone, as Django sets it."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def labels() -> list[str]:
    return list(Mark.objects.order_by("id").values_list("label", flat=True))


def job_of(result: Any) -> Job:
    return Job.objects.get(external_id=result.id)


def done(result: Any) -> Any:
    run_jobs(scheduled=True)
    return result.get(timeout=0)


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What every signal of a task has told."""
    found: list[tuple[str, dict[str, Any]]] = []

    def note(signal_name: str, **told: Any) -> None:
        found.append((signal_name, told))

    names = [name for name in dir(signals) if name.startswith(("task_", "before_task", "after_task"))]
    for name in names:
        getattr(signals, name).connect(note, dispatch_uid="test")
    yield found
    for name in names:
        getattr(signals, name).disconnect(dispatch_uid="test")


# Declaring and calling


def test_tasks_have_dotted_names_or_their_own() -> None:
    assert t.add.name == "tests.shop.celery_tasks.add"
    assert registry.find("shop.named").queue_name == "mail"
    assert t.add(1, 2) == 3
    assert t.whoami(1)["direct"] is True
    assert t.by_class(4) == 8


def test_a_task_that_has_a_name_may_be_made_in_a_function() -> None:
    def double(x: int) -> int:
        return 2 * x

    for name in ("shop.made", "shop.made_too"):
        assert done(t.app.task(name=name)(double).delay(4)) == 8
    with pytest.raises(InvalidTask, match="top level of a module"):
        t.app.task(double)


def test_delay_and_apply_async() -> None:
    assert done(t.add.delay(1, 2)) == 3
    eta = timezone.now() + datetime.timedelta(hours=1)
    later = t.add.apply_async(
        (1,), {"y": 2}, eta=eta, expires=eta + datetime.timedelta(hours=1), queue="mail", priority=9
    )
    job = job_of(later)
    assert (job.status, job.run_after, job.queue_name, job.priority) == (JobStatus.SCHEDULED, eta, "mail", 9)
    as_text = t.add.apply_async((1, 2), countdown=0, eta="2036-01-02T03:04:05", expires="2036-01-03T00:00:00+00:00")
    found = job_of(as_text)
    assert found.run_after == datetime.datetime(2036, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert found.expires_at == datetime.datetime(2036, 1, 3, tzinfo=datetime.UTC)
    soon = t.add.apply_async(args=[1, 2], countdown=60)
    assert job_of(soon).status == JobStatus.SCHEDULED
    assert done(later) == 3
    assert done(t.by_class.delay(4)) == 8


def test_the_request_tells_of_the_call() -> None:
    result = t.whoami.apply_async((1,), {"a": 2}, task_id="my-own-id", headers={"tenant": 7}, queue="mail")
    assert result.id == "my-own-id"
    assert done(result) == {
        "id": "my-own-id",
        "name": t.whoami.name,
        "args": [1],
        "kwargs": {"a": 2},
        "retries": 0,
        "tenant": 7,
        "queue": "mail",
        "direct": False,
    }
    assert AsyncResult("my-own-id").state == "SUCCESS"


def test_a_request_is_told_of_crashes_and_keeps_what_code_puts_on_it() -> None:
    result = t.keeps.delay()
    assert done(result) == [5, 5, False, t.keeps.name]
    again = t.keeps.delay()
    Job.objects.filter(external_id=again.id).update(crashes=1)
    assert done(again) == [5, 5, True, t.keeps.name]


def test_enqueue_is_part_of_the_transaction() -> None:
    with transaction.atomic():
        gone = t.add.delay(1, 2)
        transaction.set_rollback(True)
    assert gone.state == "UNKNOWN"


def test_arguments_are_checked_at_the_call() -> None:
    with pytest.raises(InvalidArguments):
        t.add.delay(1)


def test_send_task_by_name() -> None:
    assert done(current_app.send_task("shop.named")) == "named"
    with pytest.raises(UnknownTask):
        t.app.send_task("nobody.knows")
    for call in (lambda: t.app.send_task("nobody.knows"), lambda: t.app.tasks["nobody.knows"]):
        with pytest.raises(KeyError, match=r"^No task is registered as 'nobody.knows'\.") as raised:
            call()
        assert isinstance(raised.value, NotRegistered)
    assert t.app.tasks[t.add.name] is t.add


def test_what_has_no_meaning_is_named_and_does_not_fail() -> None:
    with pytest.warns(UserWarning, match="no use for colour"):
        t.add.apply_async((1, 2), colour="red")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t.add.apply_async((1, 2), serializer="json", routing_key="x", retry=True)
    with pytest.warns(UserWarning, match="no use for flavour"):
        t.app.task(flavour="sweet")(module_level)


def test_a_warning_names_the_line_of_whoever_called() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: t.add.apply_async((1, 2), countdwn=3),
        lambda: t.add.s(1, 2).apply_async(countdwn=3),
        lambda: t.add.s(1, 2).set(countdwn=3).delay(),
        lambda: chain(t.add.s(1, 2), t.add.s(3).set(countdwn=3)).delay(),
        lambda: chain(t.add.s(1, 2), t.add.s(3)).apply_async(countdwn=3),
        lambda: t.app.task(countdwn=3)(module_level),
        lambda: t.add.update_state(task_id="another"),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="has no use for") as caught:
            call()
        assert {(one.filename, one.lineno) for one in caught} == {(__file__, call.__code__.co_firstlineno)}


def module_level() -> None: ...


class Flavoured(Task):
    flavour = "plain"


def test_an_option_may_be_an_attribute_of_the_class() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = t.app.task(base=Flavoured, flavour="sweet", name="shop.flavoured")(module_level)
    assert getattr(made, "flavour", None) == "sweet"


# Retries


def test_retry_keeps_the_id_and_counts() -> None:
    result = t.by_hand.apply_async((2,), headers={"a": 1}, priority=4, queue="q")
    assert done(result) == 2
    assert labels() == [f"{result.id} {number}" for number in range(3)]
    job = Job.objects.get()
    assert (job.priority, job.queue_name, (job.options or {})["headers"]) == (4, "q", {"a": 1})


@pytest.mark.parametrize("how", ["worker", "immediate", "eager", "apply"])
def test_a_retry_may_have_other_arguments(how: str) -> None:
    day = datetime.date(2036, 1, 2)
    with override_settings(DBQUEUE={"IMMEDIATE": how == "immediate"}):
        call = t.one_by_one.s(["a", "b", "c"], day=day) | t.echo.s()
        t.app.conf.task_always_eager = how == "eager"
        try:
            result = call.apply() if how == "apply" else call.delay()
        finally:
            del t.app.conf["task_always_eager"]
        assert done(result) == ["2 retries"]
    assert labels() == [f"a 0 {day}", f"b 1 {day}", f"c 2 {day}", "echo ('2 retries',)"]


@pytest.mark.parametrize("how", ["worker", "eager"])
@pytest.mark.parametrize(
    ("call", "said", "expected"),
    [
        (((1,), {"y": 2}), {"args": [3]}, [3, 2, None]),
        (((1,), {"y": 2}), {"args": [3, 4]}, [3, 4, None]),
        (((1, 2), {}), {"kwargs": {"y": 5}}, [1, 5, None]),
        (((1, 2), {}), {"kwargs": {"x": 6}}, [6, 2, None]),
        (((1, 2), {}), {"args": [7], "kwargs": {}}, [7, 0, None]),
        (((), {"x": 1, "y": 2}), {"kwargs": {"x": 8}}, [8, 0, None]),
    ],
)
def test_what_a_retry_does_not_say_stays(how: str, call: Any, said: dict[str, Any], expected: list[Any]) -> None:
    args, kwargs = call
    said = {**said, "kwargs": {**said["kwargs"], "say": None}} if "kwargs" in said else said
    call = t.again_with.s(*args, **kwargs, say=said)
    found = done(call.apply() if how == "eager" else call.delay())
    assert found[:2] == expected[:2]


def test_arguments_of_a_retry_are_checked_as_at_a_call() -> None:
    for said, error in (
        ({"args": [1, 2, 3]}, InvalidArguments),
        ({"kwargs": {"z": 1}}, InvalidArguments),
        ({"args": "text"}, TypeError),
    ):
        result = t.again_with.delay(1, say=said)
        with pytest.raises(error):
            done(result)
        assert len(labels()) == 1
        Mark.objects.all().delete()
        assert t.again_with.apply((1,), {"say": said}).failed()
        Mark.objects.all().delete()
    t.boom.apply_async(link_error=t.again_with.s(say={"args": [1]}))
    run_jobs(scheduled=True)
    told = Job.objects.get(task=t.again_with.name, kwargs={"say": {"args": [1]}})
    assert "runs as an errback" in told.attempt_set.get().traceback


def test_three_retries_are_four_runs_and_then_the_error_itself() -> None:
    result = t.by_hand.delay(99)
    with pytest.raises(t.Flaky, match="try 3"):
        done(result)
    assert len(labels()) == 4
    assert result.state == "FAILURE" and "try 3" in str(result.traceback)


def test_a_call_of_retry_may_allow_more_than_the_task() -> None:
    assert done(t.longer_than_declared.delay()) == 3


def test_retry_without_an_error_ends_with_max_retries_exceeded() -> None:
    with pytest.raises(MaxRetriesExceededError):
        done(t.never_again.delay())


@pytest.mark.parametrize("fails", ["", "ValueError", "Ignore", "Retry"])
def test_a_retry_that_is_not_thrown_comes_when_the_code_has_ended(fails: str) -> None:
    assert done(t.goes_on.delay(fails)) == "done"
    assert labels() == ["try 0", "went on", "try 1"]
    assert t.goes_on.apply((fails,)).get() == "done" and labels()[3:] == labels()[:3]


def test_a_naive_eta_of_a_retry_is_of_utc() -> None:
    soon = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=1000)
    with override_zone("Pacific/Auckland"):
        assert 990 < (Retry(when=soon).delay or 0) <= 1000


def test_autoretry_with_three_retries_is_four_runs() -> None:
    result = t.automatic.delay()
    with pytest.raises(t.Flaky):
        done(result)
    assert labels() == ["automatic"] * 4


def test_dont_autoretry_for_beats_autoretry_for() -> None:
    with pytest.raises(t.Fatal):
        done(t.automatic.delay(fatal=True))
    assert labels() == ["automatic"]


def test_the_delay_doubles_up_to_a_bound_with_full_jitter() -> None:
    assert [t.automatic.countdown(n) for n in (0, 1, 2, 20)] == [1, 2, 4, 600]
    jittered = t.app.task(retry_backoff=10, retry_backoff_max=30)(module_level)
    found = [jittered.countdown(5) for _ in range(200)]
    assert min(found) < 10 and max(found) > 20 and all(0 <= one <= 30 for one in found)
    least = t.app.task(retry_backoff=0.5, retry_jitter=False, retry_kwargs={"countdown": 7})(module_level)
    assert [least.countdown(n) for n in (0, 3)] == [1, 8]
    assert t.app.task(retry_kwargs={"countdown": 7})(module_level).countdown(3) == 7


def test_the_errors_of_a_class_may_be_a_list() -> None:
    with pytest.raises(t.Flaky):
        done(t.listed.delay())
    assert labels() == ["listed"] * 2


# Results


@pytest.mark.django_db(transaction=True)
def test_states_and_values() -> None:
    result = t.add.delay(1, 2)
    assert (result.state, result.ready(), result.result) == ("PENDING", False, None)
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    run_jobs()
    assert (result.state, result.result, result.info, result.successful()) == ("SUCCESS", 3, 3, True)
    bad = t.boom.delay()
    run_jobs()
    assert bad.failed() and isinstance(bad.result, ValueError) and str(bad.result) == "boom"
    assert isinstance(bad.get(propagate=False), ValueError)
    with pytest.raises(ValueError, match="boom"):
        bad.get(timeout=0)


def test_a_wait_in_the_transaction_that_enqueued_is_refused() -> None:
    calls = [t.add.s(1, 2), t.add.s(1, 2) | t.add.s(3), group(t.add.s(1, 2)), chord([t.add.s(1, 2)], t.total.s())]
    for call in calls:
        with pytest.raises(WouldNeverFinish):
            call.delay().get(timeout=60)


@pytest.mark.django_db(transaction=True)
def test_what_comes_after_a_failure_has_failed_with_it() -> None:
    of_chain = chain(t.add.s(1, 2), t.boom.s(), t.add.s(1), t.add.s(2)).delay()
    of_chord = chord([t.add.s(1, 2), t.add.s(1, 2) | t.boom.s()], t.total.s()).delay()
    run_jobs()
    for result in (of_chain, of_chord):
        assert isinstance(result, AsyncResult)
        assert result.failed() and result.state == "FAILURE" and "boom" in (result.traceback or "")
        with pytest.raises(ValueError, match="boom"):
            result.get(timeout=0)
    revoked = (t.add.s(1, 2) | t.add.s(3)).delay()
    t.app.control.revoke(revoked.id)
    assert revoked.state == "REVOKED"


def test_pending_never_means_unknown() -> None:
    for name in ("424242", "no-such-id"):
        assert AsyncResult(name).state == "UNKNOWN" and not AsyncResult(name).ready()
        with pytest.raises(JobDoesNotExist):
            AsyncResult(name).get(timeout=0)


def test_revoking_lasts() -> None:
    result = t.add.delay(1, 2)
    t.app.control.revoke(result.id)
    run_jobs()
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError):
        result.get(timeout=0)


def test_a_state_of_ones_own() -> None:
    result = t.tells_state.delay()
    assert done(result) == "done"
    progress = job_of(result).progress
    assert progress is not None and progress["told"] == {"state": "PROGRESS", "meta": {"done": 3}}
    Job.objects.filter(external_id=result.id).update(status=JobStatus.RUNNING)
    assert (result.state, result.info) == ("PROGRESS", {"done": 3})


def test_a_state_of_another_kind_of_end() -> None:
    error = {"exc_type": "KeyError", "exc_module": "builtins", "exc_message": ["own"], "more": 1}
    done_so, failed_so = t.tells_its_end.delay("SUCCESS", {"rows": 3}), t.tells_its_end.delay("FAILURE", error)
    unknown, inside = t.tells_its_end.delay("FAILURE", {"exc_type": "Odd", "exc_message": "x"}), None
    inside = t.tells_from_inside.delay()
    run_jobs()
    assert done_so.successful() and done_so.get(timeout=0) == {"rows": 3}
    assert failed_so.failed()
    with pytest.raises(KeyError, match="own"):
        failed_so.get(timeout=0)
    assert isinstance(unknown.result, JobFailed) and "Odd: x" in str(unknown.result)
    assert inside.state == "OUTER"


def test_a_retry_tells_why() -> None:
    result = t.later.delay()
    run_jobs()
    assert result.state == "RETRY" and isinstance(result.result, Retry) and "Flaky('why')" in str(result.result)


def test_the_state_of_another_job_is_not_told() -> None:
    with pytest.warns(UserWarning, match="no use for the task_id"):
        t.add.update_state(task_id="another", state="PROGRESS")


def test_ignore_reject_and_ignored_results() -> None:
    ignored, rejected, quiet = t.ignored.delay(), t.rejected.delay(), t.quiet.delay()
    run_jobs()
    assert (ignored.state, rejected.state) == ("REVOKED", "REVOKED")
    assert "nothing to do" in str(ignored.result)
    assert quiet.state == "SUCCESS" and quiet.get() is None


def test_without_a_result_backend_a_task_may_return_anything(caplog: pytest.LogCaptureFixture) -> None:
    result = t.returns_what_is_no_json.delay()
    run_jobs()
    assert result.successful() and result.get(timeout=0) is None
    assert labels()[1].startswith("on_success {") and "is not kept: Unsupported type" in caplog.text
    with override_settings(DBQUEUE={"MAX_RESULT_BYTES": 10}):
        large = t.echo.delay("more than ten bytes")
        run_jobs()
    assert large.successful() and "is not kept: The return value has" in caplog.text
    Mark.objects.all().delete()
    with an_app("other", backend="django-db"):
        kept = t.returns_what_is_no_json.delay()
        step = chain(t.returns_what_is_no_json.s(), t.echo.s())
    step_result = step.delay()
    with an_app("other", backend="django-db"):
        run_jobs()
    for failed in (kept, step_result):
        with pytest.raises(NotStorable):
            failed.get(timeout=0)
    # Nobody was told of a success.
    assert [label.split()[0] for label in labels()] == ["before_start", "on_failure", "after_return"] * 2


def test_an_expired_job_never_runs_and_says_so() -> None:
    result = t.add.apply_async((1, 2), expires=0.001)
    store = store_for("default")
    store.expire(now=store.clock() + datetime.timedelta(seconds=1))
    run_jobs()
    assert result.state == "REVOKED" and str(result.result) == "expired"


def test_an_expired_job_is_not_tried_again() -> None:
    revoked = []
    signals.task_revoked.connect(lambda expired, **told: revoked.append(expired), dispatch_uid="test")
    result = t.automatic.apply_async(expires=3600)
    run_jobs()
    Job.objects.update(expires_at=timezone.now())
    try:
        assert result.state == "RETRY"
        run_jobs(scheduled=True)
    finally:
        signals.task_revoked.disconnect(dispatch_uid="test")
    assert result.state == "REVOKED" and str(result.result) == "expired"
    assert labels() == ["automatic"] and revoked == [True]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_runs_is_pending_until_it_tells_or_is_tracked(settings: Any) -> None:
    plain, tracked, again = t.add.delay(1, 2), t.tracked.delay(), t.add.delay(1, 2)
    store = store_for("default")
    store.claim(store.register(name="w", hostname="h", pid=7, queues="", threads=3), 3)
    assert (plain.state, plain.info) == ("PENDING", None)
    assert (tracked.state, tracked.info) == ("STARTED", {"pid": 7, "hostname": "w"})
    Job.objects.filter(external_id=again.id).update(attempt=2)
    assert again.state == "RETRY"
    Job.objects.filter(external_id=again.id).update(crashes=1)
    assert again.state == "PENDING"
    t.app.conf.task_track_started = True
    try:
        assert plain.state == again.state == "STARTED"
    finally:
        del t.app.conf["task_track_started"]


# Hooks and signals


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("ok", ["before_start", "on_success ok", "after_return SUCCESS"]),
        ("fail", ["before_start", "on_failure no ValueError", "after_return FAILURE"]),
        (
            "retry",
            [
                *("before_start", "on_retry later"),
                *("before_start", "on_failure later ValueError", "after_return FAILURE"),
            ],
        ),
    ],
)
def test_hooks(how: str, expected: list[str]) -> None:
    t.hooked.delay(how)
    run_jobs(scheduled=True)
    assert labels() == expected


def test_signals(heard: list[tuple[str, dict[str, Any]]]) -> None:
    result = t.by_hand.delay(1)
    run_jobs(scheduled=True)
    assert [name for name, _ in heard] == [
        *("before_task_publish", "after_task_publish"),
        *("task_prerun", "task_retry", "task_postrun"),
        *("task_prerun", "task_success", "task_postrun"),
    ]
    told = heard[2][1]
    assert told["sender"] is t.by_hand and told["task_id"] == result.id and told["args"] == [1]
    assert heard[-2][1]["result"] == 1 and heard[-1][1]["state"] == "SUCCESS"
    heard.clear()
    t.boom.delay()
    run_jobs()
    failure = dict(heard)["task_failure"]
    assert str(failure["exception"]) == "boom" and "boom" in str(failure["einfo"])


def test_a_signal_may_be_connected_by_a_decorator_and_by_sender() -> None:
    found = []

    @signals.task_success.connect(sender=t.add)  # type: ignore[untyped-decorator]
    def note(sender: Any = None, result: Any = None, **kwargs: Any) -> None:
        found.append(result)

    try:
        t.add.delay(1, 2)
        t.named.delay()
        run_jobs()
        assert found == [3]
    finally:
        signals.task_success.disconnect(note, sender=t.add)


# Canvas


def test_chain_group_and_chord() -> None:
    assert done(chain(t.add.s(1, 2), t.add.s(3)).delay()) == 6
    assert done((t.add.s(1, 2) | t.add.s(3)).apply_async()) == 6
    assert done(chain(t.add.s(2), t.add.s(3)).delay(1)) == 6
    results = group(t.add.s(n, n) for n in range(3)).delay()
    assert isinstance(results, GroupResult) and done(results) == [0, 2, 4]
    assert results.successful() and len(results) == 3
    assert done(chord([t.add.s(n, n) for n in range(3)], t.total.s()).delay()) == 6
    assert done(chord([t.add.s(n, n) for n in range(3)])(t.total.s())) == 6
    assert done(chord([], t.total.s()).delay()) == 0
    assert done((group([t.add.s(1, 1), t.add.s(2, 2)]) | t.total.s()).delay()) == 6
    assert done(chain(t.add.s(1, 2), t.named.si(), t.named.si()).delay()) == "named"


def test_links_and_their_counterparts() -> None:
    linked = t.add.apply_async((1, 2), link=t.add.s(10), link_error=t.errback.s())
    assert done(linked) == 3
    assert [child.get(timeout=0) for child in linked.children] == [13]
    bad = t.boom.apply_async(link=t.add.s(1), link_error=[t.errback.s(), t.old_errback.s()])
    run_jobs()
    assert sorted(labels()) == sorted([f"{bad.id} ValueError('boom') True", f"old {bad.id}"])


def test_an_errback_of_a_body_is_told_of_its_header() -> None:
    header, body = [t.add.s(1, 1), t.boom.si()], t.total.s().on_error(t.old_errback.s())
    calls = [chord(header, body), group(header) | body, chord(header, t.total.s()).on_error(t.old_errback.s())]
    for call in calls:
        call()
    chord(header)(body)
    run_jobs()
    failed = Job.objects.filter(task=t.boom.name).order_by("id")
    assert labels() == [f"old {job.external_id}" for job in failed] and len(failed) == 4


def test_bad_options_are_named() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"countdown": "soon"}, "countdown is 'soon'"),
        ({"eta": "soon"}, "eta is 'soon'"),
        ({"expires": "soon"}, "expires is 'soon'"),
        ({"expires": 0}, "expires is"),
    ]
    for options, words in refused:
        with pytest.raises(InvalidTask, match=words):
            t.add.apply_async((1, 2), **options)
    with pytest.raises(InvalidTask, match="has no body"):
        chord([t.add.s(1, 2)])()
    for declared, words in (
        ({"max_retries": "x"}, "max_retries is 'x'"),
        ({"autoretry_for": ["OSError"]}, "'OSError'"),
    ):
        with pytest.raises(InvalidTask, match=words):
            shared_task(**declared)(module_level)
    with pytest.raises(TypeError, match="hours"):
        crontab(hours=3)  # type: ignore[call-arg]
    assert not Job.objects.exists()


def test_a_chain_has_its_error_told() -> None:
    (t.add.s(1, 2) | t.boom.s() | t.add.s(1)).on_error(t.old_errback.s()).delay()
    run_jobs()
    assert labels() == [f"old {Job.objects.get(task=t.boom.name).external_id}"]


def test_signatures_by_name_chunks_and_maps() -> None:
    assert done(signature("shop.named").delay()) == "named"
    assert done(t.add.chunks(zip(range(4), range(4), strict=True), 2).delay()) == [[0, 2], [4, 6]]
    assert done(t.add.starmap([(1, 2), (3, 4)]).delay()) == [3, 7]
    assert done(t.by_class.map([1, 2]).delay()) == [2, 4]


def test_a_task_replaces_itself() -> None:
    assert done(t.replaced.delay(1)) == 12


# Eager


@pytest.fixture
def eager() -> Iterator[None]:
    t.app.conf.task_always_eager = True
    t.app.set_current()
    yield
    del t.app.conf["task_always_eager"]


@pytest.mark.usefixtures("eager")
def test_eagerly_nothing_is_enqueued() -> None:
    assert t.add.delay(1, 2).get() == 3
    assert t.by_hand.delay(2).get() == 2
    assert chain(t.add.s(1, 2), t.add.s(3)).delay().get() == 6
    assert chord([t.add.s(n, n) for n in range(3)], t.total.s()).delay().get() == 6
    assert group(t.add.s(1, 2), t.add.s(3, 4)).delay().get() == [3, 7]
    result = t.boom.apply_async(link_error=t.old_errback.s())
    assert result.failed() and labels()[-1] == f"old {result.id}"
    with pytest.raises(ValueError, match="boom"):
        result.get()
    assert not Job.objects.exists()


@pytest.mark.usefixtures("eager")
def test_eager_errors_may_propagate() -> None:
    t.app.conf.task_eager_propagates = True
    try:
        with pytest.raises(ValueError, match="boom"):
            t.boom.delay()
    finally:
        del t.app.conf["task_eager_propagates"]


def test_apply_runs_here_and_now() -> None:
    assert t.add.apply((1, 2)).get() == 3
    assert t.boom.apply().state == "FAILURE"
    assert not Job.objects.exists()


# The app


def test_settings_with_the_prefix_are_read(settings: Any) -> None:
    settings.CELERY_TASK_DEFAULT_QUEUE = "elsewhere"
    settings.CELERY_TASK_ROUTES = {"shop.*": {"queue": "routed"}}
    settings.CELERY_BROKER_URL = "redis://"
    app = Celery("other")
    app.config_from_object("django.conf:settings", namespace="CELERY")
    try:
        assert app.read().task_default_queue == "elsewhere"
        assert app.conf.ignored() == ["broker_url"]
        assert route_of("shop.routed") == {"queue": "routed"} and route_of("other") == {}
        app.conf.task_routes = [("shop.*", {"queue": "first"}), ("*", "rest")]
        assert route_of("shop.routed") == {"queue": "first"} and route_of("other") == {"queue": "rest"}
        app.conf.task_routes = ([("shop.*", "first"), (re.compile("sh.p"), "second"), ("shop.routed", "exact")],)
        assert route_of("shop.routed") == {"queue": "exact"} and route_of("shap.x") == {"queue": "second"}
        app.conf.task_routes = {t.boom.name: None, "*": {"queue": "celery", "priority": 7}, t.add.name: "sums"}
        assert route_of(t.boom.name) == {}
        declared = CoreTask(t.named), CoreTask(t.whoami)
        assert [(one.queue_name, one.priority) for one in declared] == [("mail", 5), ("default", 7)]
        t.add.chunks([(1, 2)], 1).delay()
        t.named.map([1]).delay()
        assert [job.queue_name for job in Job.objects.order_by("id") if job.task != "dbqueue.group"] == ["sums", "mail"]
    finally:
        app.close()
        t.app.set_current()


def test_settings_without_a_namespace_are_the_old_ones_or_those_of_a_module() -> None:
    class Old:
        CELERY_ALWAYS_EAGER = True
        CELERY_DEFAULT_QUEUE = "old"
        DEBUG = True

    class Module:
        task_default_queue = "new"
        task_time_limit = 5
        other = 1

    for source, queue in ((Old, "old"), (Module, "new")):
        app = Celery("other")
        try:
            app.config_from_object(source)
            assert app.read().task_default_queue == queue
            assert app.conf.task_always_eager is (source is Old)
            assert app.conf.ignored() == []
        finally:
            app.close()


@contextmanager
def an_app(*args: Any, **options: Any) -> Iterator[Celery]:
    """One that is the current one for a while."""
    app = Celery(*args, **options)
    try:
        yield app
    finally:
        app.close()
        t.app.set_current()


def test_settings_are_read_when_one_is_asked_for_and_dicts_are_the_apps_own(settings: Any) -> None:
    settings.CELERY_BEAT_SCHEDULE = {"nightly": {"task": t.named.name, "schedule": 60}}
    settings.CELERY_TASK_ALWAYS_EAGER = True
    with an_app("other") as app, an_app("third") as third:
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.add_periodic_task(10, t.named, name="added")
        app.conf.task_default_queue = "said"
        assert not app.conf.found  # to say something needs no settings
        app.conf.beat_schedule["by code"] = {"task": t.named.name, "schedule": 30}
        assert sorted(app.conf.beat_schedule) == ["added", "by code", "nightly"]
        assert (app.conf.task_always_eager, app.conf["task_default_queue"]) == (True, "said")
        assert sorted(registry.find(t.named.name).schedules) == ["added", "by code", "nightly"]
        third.conf.beat_schedule["mine"] = {}
        with an_app("fourth") as fourth:
            assert third.conf.beat_schedule == {"mine": {}} and fourth.conf.beat_schedule == {}
        third.conf.beat_schedule.clear()


def test_settings_that_can_not_be_read_say_so_each_time() -> None:
    with an_app("other") as app:
        app.config_from_object("tests.shop.nowhere_at_all")
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError):
                _ = app.conf.task_always_eager
        app.config_from_object({"task_always_eager": True})
        assert app.conf.task_always_eager


@pytest.mark.parametrize(
    ("source", "namespace"),
    [
        ({"task_default_queue": "q", "timezone": "Asia/Tokyo"}, None),
        ({"CELERY_TASK_DEFAULT_QUEUE": "q", "CELERY_TIMEZONE": "Asia/Tokyo", "DEBUG": True}, "CELERY"),
        ({"CELERY_TASK_DEFAULT_QUEUE": "q", "CELERY_TIMEZONE": "Asia/Tokyo", "DEBUG": True}, "CELERY_"),
    ],
)
def test_a_dict_is_read_and_a_namespace_may_end_with_its_underscore(source: Any, namespace: str | None) -> None:
    kinds: list[dict[str, Any]] = [{"config_source": source, "namespace": namespace}, {"namespace": namespace}]
    for options in kinds:
        with an_app("other", **options) as app:
            if "config_source" not in options:
                app.config_from_object(source)
            assert (app.conf.task_default_queue, app.conf.timezone) == ("q", "Asia/Tokyo")
            assert app.conf.ignored() == []


def test_an_app_is_given_settings() -> None:
    with an_app("other", timezone="Asia/Tokyo", include=["tests.shop.included"], changes={"task_time_limit": 5}) as app:
        assert (app.conf.timezone, app.conf.task_time_limit) == ("Asia/Tokyo", 5)
        assert "shop.included" not in Task.known
        app.finalize()
        assert done(app.send_task("shop.included")) == "included"
    with an_app("other", set_as_current=False) as app:
        assert current_app.main == "shop"


def test_a_worker_has_the_modules_of_imports() -> None:
    code = (
        "import django; from dbqueue.compat.celery import Celery, Task; from django.conf import settings;"
        "settings.CELERY_IMPORTS = ('tests.shop.included',); app = Celery('x');"
        "app.config_from_object('django.conf:settings', namespace='CELERY'); django.setup();"
        "assert 'shop.included' in Task.known"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_old_names_of_settings_are_those_of_celery() -> None:
    names = {"CELERY_ACKS_LATE": "task_acks_late", "CELERY_TRACK_STARTED": "task_track_started"}
    names |= {"CELERY_DEFAULT_RATE_LIMIT": "task_default_rate_limit", "CELERY_IMPORTS": "imports"}
    names |= {"CELERY_DEFAULT_PRIORITY": "task_default_priority", "CELERY_ALWAYS_EAGER": "task_always_eager"}
    for old, new in names.items():
        assert named(old, "CELERY_") == named(old, "") == new and new in DEFAULTS


def test_the_class_of_an_apps_tasks_is_that_of_shared_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (t.Hooked, "tests.shop.celery_tasks:Hooked", "tests.shop.celery_tasks.Hooked"):
        with an_app("other", task_cls=kind) as app:
            assert app.Task is t.Hooked
            made = app.task(name="shop.of_app")(module_level), shared_task(name="shop.shared")(module_level)
            assert all(isinstance(one, t.Hooked) for one in made)
    monkeypatch.setattr("dbqueue.compat.celery.app._apps", [])
    monkeypatch.setattr("dbqueue.registry._waiting", [])
    early, plain = shared_task(module_level), shared_task(base=Task, name="shop.plain")(module_level)
    with an_app("other", task_cls=t.Hooked):
        registry.ready()
        assert isinstance(early, t.Hooked) and not isinstance(plain, t.Hooked)


def test_a_base_that_is_not_of_this_package_is_named() -> None:
    with pytest.raises(InvalidTask, match=r"The base of .*module_level is .*must be a class made of"):
        shared_task(base=CoreTask)(module_level)


def test_tasks_know_their_app_and_their_name() -> None:
    assert t.named.app is t.app and t.add.app is t.app
    assert t.add.__name__ == "add" and t.by_class.__name__ == "ByClass"
    assert shared_task(Inside.method).name == f"{__name__}.method"


class Inside:
    @staticmethod
    def method() -> None: ...


def test_reading_the_current_app_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.compat.celery.app._apps", [])
    assert current_app.conf.task_default_queue == "default"
    with an_app("first") as app:
        assert current_app.main == "first" and t.add.app is app


def test_of_two_limits_the_shorter_one_counts(settings: Any) -> None:
    with an_app("other") as app:
        app.conf.update(task_soft_time_limit=60, task_time_limit=300)

        def limits(core: Any) -> tuple[float | None, float | None]:
            return core.options.timeout, core.options.hard_timeout

        short, long, plain = (
            CoreTask(app.task(name="shop.limited", **options)(module_level))
            for options in ({"time_limit": 30}, {"soft_time_limit": 600}, {})
        )
        assert [limits(one) for one in (short, long, plain)] == [(30, 30), (300, 300), (60, 300)]
        assert limits(plain.with_options(soft_time_limit=600)) == (300, 300)
        assert limits(plain.with_options(time_limit=30)) == (30, 30)
        assert limits(plain.with_options(time_limit=500)) == (60, 500)


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        *((None, None), (0, None), ("0/m", None), ("100/m", "100/m"), (5, "5/s"), ("10", "10/s"), ("2.0/h", "2/h")),
        *((0.5, "30/m"), ("0.5/s", "30/m"), ("0.01/s", "36/h"), ("1.5/m", "90/h"), ("0.1/h", "1/h")),
    ],
)
def test_rates_are_those_that_celery_reads(said: Any, rate: str | None) -> None:
    found = CoreTask(t.app.task(name="shop.rated", rate_limit=said)(module_level)).options.rate
    assert (found and found.rate) == rate


def test_a_rate_that_is_none_is_named() -> None:
    with pytest.raises(InvalidTask, match="rate is 'often'"):
        CoreTask(Task.from_function(module_level, name="shop.rated", rate_limit="often"))


def test_without_settings_the_names_can_be_imported() -> None:
    names = "app.control", "control", "result", "canvas", "schedules", "signals", "exceptions", "app.task"
    imports = ";".join(f"import dbqueue.compat.celery.{name}" for name in names)
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", imports], check=True, env=environment)


def test_a_periodic_task_that_can_not_be_is_checked_and_stops_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    with an_app("other") as app:

        @app.on_after_configure.connect
        def add(sender: Celery, **kwargs: Any) -> None:
            sender.add_periodic_task(0.5, t.named, name="often")
            sender.add_periodic_task(10, signature("nobody.knows"), name="gone")
            sender.add_periodic_task(10, t.named, name="good")
            sender.conf.beat_schedule["own"] = {"task": "celery.backend_cleanup", "schedule": 60}
            sender.conf.beat_schedule["text"] = "no entry"

        @app.on_after_finalize.connect
        def fail(sender: Celery, **kwargs: Any) -> None:
            sender.add_periodic_task(10, chain(t.named.s(), t.named.si()))

        said = [one.msg for one in run_checks() if one.id in ("dbqueue.W043", "dbqueue.E002")]
        assert list(registry.find("shop.named").schedules) == ["good"]
        own.worker_ready.send(sender=None, worker_id=1, name="w", queues="")
    expected = ["A periodic task is chain", "['often']: A schedule is 0.5", "'nobody.knows'", "['text']: it is 'no"]
    assert len(said) == 4 and all(any(words in message for message in said) for words in expected)
    assert all(message in caplog.text for message in said)


def test_beat_schedule_becomes_schedules() -> None:
    t.app.conf.beat_schedule = {
        "nightly": {"task": t.add.name, "schedule": crontab(hour=5, minute=30, day_of_week="mon-fri"), "args": (1, 2)},
        "often": {"task": t.add.name, "schedule": 30.0, "kwargs": {"x": 1, "y": 2}},
        "other": {"task": t.named.name, "schedule": datetime.timedelta(minutes=5)},
    }
    try:
        found = registry.find(t.add.name).schedules
        assert sorted(found) == ["nightly", "often"]
        assert str(found["nightly"].when).startswith("30 5 * * MON-FRI")
        assert found["often"].kwargs == {"x": 1, "y": 2}
    finally:
        del t.app.conf["beat_schedule"]


def test_periodic_tasks_are_known_by_their_calls() -> None:
    app = Celery("other")
    try:
        for schedule, call in ((10, t.echo.s("a")), (10, t.echo.s("b")), (20, t.echo.s("b")), (30, t.named)):
            app.add_periodic_task(schedule, call)
        app.add_periodic_task(5, t.echo.s("own").set(queue="q"), args=("first",), name="x", priority=3)
        name, found = t.echo.name, registry.find(t.echo.name).schedules
        assert found.keys() == {"x", f"{name}('a')", f"{name}('b')"}
        assert str(found[f"{name}('b')"].when) == "every 20 s" and found["x"].args == ["first", "own"]
        assert (found["x"].queue_name, found["x"].priority) == ("q", 3)
        assert sorted(registry.find("shop.named").schedules) == ["shop.named()"]
        with pytest.raises(InvalidTask, match="A periodic task is chain"):
            app.add_periodic_task(10, chain(t.add.s(1, 2), t.add.s(3)))
    finally:
        app.close()
        t.app.set_current()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("words", ["", "one: 1", "one\ntwo: 2", "\n\nat last", "  kept"])
def test_all_lines_of_an_error_come_back(words: str) -> None:
    result = t.wordy.delay(words)
    run_jobs()
    assert repr(result.result) == repr(LookupError(words))


@pytest.mark.django_db(transaction=True)
def test_what_stands_before_and_after() -> None:
    last = chain(t.add.s(1, 2), group(t.add.s(1) | t.add.s(2), t.add.s(3)), t.total.s(), t.add.s(5)).delay()
    assert isinstance(last, AsyncResult)
    run_jobs()
    total = last.parent
    assert isinstance(total, AsyncResult) and last.get() == total.get() + 5 == 17
    several = total.parent
    assert isinstance(several, GroupResult) and several.get() == [6, 6]
    first = several.parent
    assert isinstance(first, AsyncResult) and first.get() == 3 and first.parent is None
    assert [child.id for child in first.children] == [several.id] and total.children == [last]


@pytest.mark.django_db(transaction=True)
def test_a_group_is_there_without_being_saved() -> None:
    made = group(t.add.s(n, n) for n in range(3)).apply_async()
    made.save()
    found = GroupResult.restore(made.id)
    assert found is not None and found.results == made.results and not found.ready()
    run_jobs()
    assert found.get() == [0, 2, 4] and found.completed_count() == 3
    at_the_end = chain(t.add.s(1, 2), group(t.add.s(1), t.add.s(2))).delay()
    assert isinstance(at_the_end, GroupResult)
    run_jobs()
    assert at_the_end.get() == [4, 5]
    assert GroupResult.restore(at_the_end.results[0].id) is None and GroupResult.restore("nobody") is None


@pytest.mark.django_db(transaction=True)
def test_options_of_a_composed_call_are_those_of_its_beginning() -> None:
    def waiting() -> dict[str, list[bool]]:
        jobs = Job.objects.exclude(task="dbqueue.group").order_by("id")
        return {
            "later": [job.run_after is not None for job in jobs],
            "expires": [job.expires_at is not None or bool((job.step or {}).get("expires_in")) for job in jobs],
        }

    named = chain(t.add.s(1, 2), t.add.s(3)).apply_async(countdown=60, expires=90, task_id="the-chain")
    assert waiting() == {"later": [True, False], "expires": [True, False]}
    assert named.id == "the-chain" and named.state == "PENDING" and AsyncResult("the-chain").parent is not None
    Job.objects.all().delete()
    group([t.add.s(1, 2), t.add.s(3, 4) | t.add.s(5)]).set(countdown=60).delay()
    assert waiting()["later"] == [True, True, False]
    Job.objects.all().delete()
    chord([t.add.s(1, 2)], t.total.s()).apply_async(countdown=60, task_id="the-chord")
    assert waiting()["later"] == [True, False] and AsyncResult("the-chord").state == "PENDING"
    with pytest.warns(UserWarning, match="A chain has no use for colour"):
        chain(t.add.s(1, 2), t.add.s(3)).apply_async(colour="red")
    with pytest.warns(UserWarning, match="A group has no use for task_id"):
        group(t.add.s(1, 2), t.add.s(3, 4)).apply_async(task_id="the-group")


@pytest.mark.django_db(transaction=True)
def test_on_commit_means_in_the_transaction() -> None:
    with transaction.atomic():
        assert t.add.delay_on_commit(1, 2) is None  # type: ignore[func-returns-value]
        t.add.apply_async_on_commit((3, 4), countdown=60)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        t.add.delay_on_commit(5, 6)
        _ = 1 / 0
    assert [job.args for job in Job.objects.order_by("id")] == [[1, 2], [3, 4]]


def test_settings_that_a_test_overrides_are_read_again() -> None:
    app = Celery("other")
    try:
        app.config_from_object("django.conf:settings", namespace="CELERY")
        assert not app.read().task_always_eager
        with override_settings(CELERY_TASK_ALWAYS_EAGER=True):
            assert t.add.delay(1, 2).get() == 3 and not Job.objects.exists()
        assert t.add.delay(1, 2).state == "PENDING" and not app.conf.said
    finally:
        app.close()


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ({}, "* * * * *"),
        ({"minute": 0, "hour": [13, 5]}, "0 5,13 * * *"),
        ({"minute": range(0, 60, 20), "hour": iter([8, 7])}, "0,20,40 7,8 * * *"),
        ({"minute": "*/15", "hour": "22-2"}, "*/15 22-23,0-2 * * *"),
        ({"minute": 0, "hour": "20-4/3"}, "0 20-23/3,2 * * *"),
        ({"minute": "7-7/2", "hour": "8-12/3"}, "7 8-12/3 * * *"),
        ({"day_of_week": "Sunday"}, "* * * * sun"),
        ({"day_of_week": "fri - monday"}, "* * * * 5-6,0-1"),
        ({"month_of_year": "november-february,6"}, "* * * 11-12,1-2,6 *"),
        ({"day_of_month": "1-7", "day_of_week": "mon"}, "* * 1-7 * +mon"),
        ({"day_of_month": "*/2", "day_of_week": "mon"}, "* * */2 * mon"),
    ],
)
def test_a_crontab_means_what_it_does_with_celery(fields: dict[str, Any], expression: str) -> None:
    found = crontab(**fields)
    assert found.expression == expression
    when = found.periodic("UTC").when
    assert isinstance(when, Cron) and when.expression == expression.upper()
    assert crontab.from_string(" ".join(found.fields)) == found


@pytest.mark.parametrize("fields", [{"hour": "25-3"}, {"hour": "5-3/0"}, {"day_of_week": "noday"}, {"minute": ""}])
def test_a_crontab_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cron is"):
        crontab(**fields).periodic()
    with pytest.raises(ValueError, match="must be five fields"):
        crontab.from_string("* * * *")


# Checks


def test_what_means_nothing_is_named_once(settings: Any) -> None:
    t.app.conf.broker_url = "redis://"
    t.app.conf.beat_schedule = {
        "gone": {"task": "nobody.knows", "schedule": 60},
        "odd": {"task": t.add.name, "schedule": 0.5},
        "good": {"task": t.add.name, "schedule": crontab(minute=5), "args": (1, 2)},
        "few": {"task": t.add.name, "schedule": 60},
        "never": {"task": t.add.name},
        "typo": {"task": t.add.name, "schedule": 60, "kwarg": {"x": 1}},
    }
    t.app.conf.task_routes = [{"a.*": {"queue": "a", "exchange": "b"}, "b": "c"}, "proj.Router"]
    signals.task_received.connect(module_level, dispatch_uid="test")
    try:
        routes = [message.msg for message in run_checks() if message.id == "dbqueue.W041"]
        found = {message.id: message.msg for message in run_checks()}
        said = [message.msg for message in run_checks() if message.id == "dbqueue.E002"]
    finally:
        signals.task_received.disconnect(dispatch_uid="test")
        del t.app.conf["broker_url"], t.app.conf["beat_schedule"], t.app.conf["task_routes"]
    assert len(routes) == 2 and "'a.*' has exchange" in routes[0] and "'proj.Router' is a router" in routes[1]
    assert "BROKER_URL" in found["dbqueue.I001"]
    assert "task_received" in found["dbqueue.W040"]
    expected = ["'nobody.knows'", "is 0.5", "'x' and 'y' are missing", "and a 'schedule'", "it has kwarg"]
    assert len(said) == 5 and all(words in message for message, words in zip(said, expected, strict=True))
    ids = ("dbqueue.I001", "dbqueue.E002", "dbqueue.W041")
    assert not [message for message in run_checks() if message.id in ids]


def test_settings_that_no_app_reads_are_warned_of(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CELERY_TASK_ALWAYS_EAGER = True
    assert not [message for message in run_checks() if message.id == "dbqueue.W042"]
    monkeypatch.setattr("dbqueue.compat.celery.app._apps", [])
    [said] = [message for message in run_checks() if message.id == "dbqueue.W042"]
    assert "CELERY_TASK_ALWAYS_EAGER is set" in said.msg


def test_the_zone_of_crontabs_is_checked() -> None:
    t.app.conf.update(timezone="Mars/X", beat_schedule={"a": {"task": t.named.name, "schedule": crontab(minute=5)}})
    try:
        [said] = [message.msg for message in run_checks() if message.id == "dbqueue.E002"]
    finally:
        del t.app.conf["timezone"], t.app.conf["beat_schedule"]
    assert "timezone is 'Mars/X'" in said


@pytest.mark.django_db(transaction=True)
def test_workers_and_revoked_tasks_tell_by_celerys_names() -> None:
    found = []

    def note(signal_name: str = "", sender: Any = None, **told: Any) -> None:
        found.append((signal_name, getattr(sender, "hostname", sender)))
        if signal_name == "worker_ready":
            apps.append(sender.app)
        if "request" in told:
            revoked.append((told["request"].id, told["request"].args, told["request"].task))

    revoked: list[Any] = []
    apps: list[Any] = []
    watched = [signals.worker_init, signals.worker_ready, signals.worker_shutdown, signals.task_revoked]
    for signal in watched:
        signal.connect(note, dispatch_uid="test")
    try:
        own.worker_ready.send(sender=None, worker_id=1, name="w", queues="")
        gone = t.add.delay(1, 2)
        t.app.control.revoke(gone.id)
        own.worker_stopping.send(sender=None, worker_id=1, name="w", reason="")
    finally:
        for signal in watched:
            signal.disconnect(dispatch_uid="test")
    assert found == [
        *(("worker_init", "w"), ("worker_ready", "w")),
        *(("task_revoked", t.add), ("worker_shutdown", "w")),
    ]
    assert revoked == [(gone.id, [1, 2], t.add.name)] and apps == [t.app]


def test_inspect_reads_the_workers_rows() -> None:
    inspect = t.app.control.inspect()
    assert inspect.ping() is None and inspect.active() is None
    store = store_for("default")
    worker = store.register(name="w", hostname="h", pid=7, queues="mail", threads=3)
    result = t.named.apply_async(countdown=60)
    running = t.add.apply_async((1, 2), queue="mail")
    store.claim(worker, 1)
    active = inspect.active()
    assert active is not None
    [one] = active["w"]
    assert (one["id"], one["hostname"], one["worker_pid"], one["acknowledged"]) == (running.id, "w", 7, True)
    assert one["delivery_info"]["redelivered"] is False
    scheduled = inspect.scheduled()
    assert scheduled is not None and [one["request"]["id"] for one in scheduled["w"]] == [result.id]
    stats, queues = inspect.stats(), inspect.active_queues()
    assert stats is not None and stats["w"]["pool"]["max-concurrency"] == 3
    assert queues == {"w": [{"name": "mail"}]}
    registered = inspect.registered()
    assert registered is not None and t.add.name in registered["w"]
    assert t.app.control.ping() == [{"w": {"ok": "pong"}}]
    assert t.app.control.purge() == 1 and result.state == "REVOKED"


# With a real worker


@pytest.mark.django_db(transaction=True)
def test_a_worker_runs_them() -> None:
    with worker(DBQUEUE_TASK_MODULES="tasks,celery_tasks"):
        assert t.add.delay(1, 2).get(timeout=30) == 3
        assert t.by_hand.delay(1).get(timeout=30) == 1
        assert chord([t.add.s(n, n) for n in range(3)], t.total.s()).delay().get(timeout=30) == 6
        with pytest.raises(ValueError, match="boom"):
            t.boom.delay().get(timeout=30)


@pytest.mark.django_db(transaction=True)
def test_of_a_worker_that_dies_and_of_a_hard_limit_the_signal_tells() -> None:
    """As with Celery the task's own hooks hear of the limit, too."""
    dead, stuck = t.dies.delay(), None
    with worker(
        "--processes", "2", "--threads", "1", DBQUEUE_TASK_MODULES="tasks,celery_tasks", DBQUEUE_MAX_CRASHES="1"
    ):
        with pytest.raises(WorkerLost):
            dead.get(timeout=30)
        eventually(lambda: labels() == ["before_start", "failed True WorkerLost True"])
        Mark.objects.all().delete()
        stuck = t.gets_stuck.delay()
        with pytest.raises(SoftTimeLimitExceeded):
            stuck.get(timeout=30)
        hooks = ["on_failure The task's hard_timeout is over. DeadlineExceeded", "after_return FAILURE"]
        eventually(lambda: labels() == ["before_start", *hooks, "failed True DeadlineExceeded True"])


@pytest.mark.django_db(transaction=True)
def test_the_default_queue_may_be_called_as_celery_calls_it() -> None:
    first, other = t.add.apply_async((1, 2), queue="celery"), t.named.delay()
    burst("--queues", "celery", DBQUEUE_TASK_MODULES="tasks,celery_tasks")
    assert (first.state, other.state) == ("SUCCESS", "PENDING")
    burst("--exclude-queues", "celery", DBQUEUE_TASK_MODULES="tasks,celery_tasks")
    assert other.state == "SUCCESS"


def told_by_a_worker(*arguments: str, **environment: str) -> list[str]:
    """The lines of get_task_logger() that a worker prints."""
    t.tell.delay()
    output = burst(*arguments, DBQUEUE_TASK_MODULES="tasks,celery_tasks", **environment)
    return [line for line in output.splitlines() if "told at" in line]


@pytest.mark.django_db(transaction=True)
def test_a_logger_of_a_task_is_shown_as_the_workers_own() -> None:
    [line] = told_by_a_worker()
    assert line.endswith(" INFO told at info")
    assert told_by_a_worker("--verbosity", "0") == []
    assert len(told_by_a_worker("--verbosity", "2")) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["celery.task", "tests", "tests.shop.celery_tasks"])
@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_what_logging_says_of_a_logger_of_a_task_holds(tmp_path: Path, name: str, level: str) -> None:
    said = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"format": "own: %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {name: {"handlers": ["own"], "level": level}},
    }
    told = told_by_a_worker(**settings_file(tmp_path, f"LOGGING = {said!r}"))
    assert told == (["own: told at info"] if level == "INFO" else [])


def test_a_logger_of_a_task_is_below_celerys_unless_something_is_said_of_it_or_above_it() -> None:
    name = "loggers_of_a_test"
    top = logging.getLogger(name)
    assert get_task_logger(f"{name}.free").parent is task_logger
    assert get_task_logger(f"{name}.free.below").parent is logging.getLogger(f"{name}.free")
    top.setLevel(logging.ERROR)
    assert get_task_logger(f"{name}.bound").parent is top
    assert get_task_logger("celery").parent is logging.root
    assert get_task_logger("celery.task") is task_logger


@pytest.mark.django_db(transaction=True)
def test_async_code_has_ways_of_its_own() -> None:
    async def view() -> list[Any]:
        for call in (t.add.delay, t.add.s(1, 2).delay, chain(t.add.s(1, 2), t.add.s(3)).delay):
            with pytest.raises(SynchronousOnlyOperation, match=r"await adelay\(\) or aapply_async\(\)"):
                call(*((1, 2) if call == t.add.delay else ()))
        calls = chain(t.add.s(1, 2), t.add.s(3)), group(t.add.s(1, 2))
        made = [await t.add.adelay(1, 2), await t.add.aapply_async((1, 2), queue="mail")]
        return [*made, *[await call.adelay() for call in calls], await t.add.s(1, 2).aapply_async(countdown=60)]

    made = async_to_sync(view)()
    run_jobs(scheduled=True)
    assert [result.get(timeout=0) for result in made] == [3, 3, 6, [3], 3]
