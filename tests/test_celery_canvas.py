"""Links, callbacks of errors, signals of publishing and eager calls, where Celery's ways are easily missed."""

import datetime
import decimal
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from dbqueue.compat.celery import AsyncResult, GroupResult, chain, chord, group, signals, signature
from dbqueue.compat.celery.values import encoded
from dbqueue.exceptions import InvalidTask, NotStorable
from dbqueue.models import Job
from dbqueue.testing import run_jobs

from .shop import celery_tasks as t
from .shop.models import Mark

pytestmark = pytest.mark.django_db


def labels() -> list[str]:
    return list(Mark.objects.order_by("id").values_list("label", flat=True))


def done(result: Any) -> Any:
    run_jobs(scheduled=True)
    return result.get(timeout=0)


@pytest.fixture
def eager() -> Iterator[None]:
    t.app.conf.task_always_eager = True
    yield
    del t.app.conf["task_always_eager"]


def jobs_of(task: Any) -> list[Job]:
    return list(Job.objects.filter(task=task.name).order_by("id"))


def test_a_step_has_an_eta_where_it_was_called_with_one_and_at_a_retry() -> None:
    tells = t.tells_its_eta
    soon = datetime.datetime.now(datetime.UTC)
    chain(
        tells.si("first"),
        tells.si("second", again=True),
        tells.si("third").set(countdown=0.001),
        group(tells.si("member").set(eta=soon)),
        tells.si("last"),
    ).delay()
    done(tells.apply_async(("alone",), countdown=0.001))
    assert sorted(labels()) == [
        "alone at its time",
        "first at no time",
        "last at no time",
        "member at its time",
        "second at its time",
        "second at no time",
        "third at its time",
    ]


# Links


def test_a_link_of_a_chord_comes_after_its_body() -> None:
    members = [t.add.s(1, 1), t.add.s(2, 2)]
    call = chord(members, t.total.s())
    call.link(t.echo.s("linked"))
    call.delay()
    run_jobs()
    assert labels() == ["echo (6, 'linked')"]
    assert [member.links for member in members] == [(), ()]


def test_a_link_of_a_group_comes_after_its_first_and_is_given_nothing() -> None:
    call = group(t.add.s(1, 1), t.add.s(2, 2))
    call.link(t.echo.s("linked"))
    call.delay()
    run_jobs()
    assert labels() == ["echo ('linked',)"]


def test_links_that_were_set_or_said_as_options_hold_inside_of_a_group() -> None:
    said = signature(t.add.name, (2, 2), options={"link": t.echo.s("said")})
    group(t.add.s(1, 1).set(link=t.echo.s("set")), said, t.boom.s().set(link_error=t.old_errback.s())).delay()
    run_jobs()
    [failed] = jobs_of(t.boom)
    assert sorted(labels()) == ["echo (2, 'set')", "echo (4, 'said')", f"old {failed.external_id}"]


def test_groups_in_groups_are_one_group() -> None:
    nested = group(group(t.add.s(1, 1), t.add.s(2, 2)), t.add.s(3, 3))
    results = nested.delay()
    total = chord(nested, t.total.s()).delay()
    run_jobs()
    assert isinstance(results, GroupResult) and results.get() == [2, 4, 6] and total.get() == 12
    assert nested.apply().get() == [2, 4, 6]


def test_a_group_of_one_gives_a_list() -> None:
    result = chain(t.add.s(1, 1), group(t.add.s(5)), t.total.s()).delay()
    run_jobs()
    assert result is not None and result.get() == 7


def test_calls_are_equal_if_all_that_they_say_is() -> None:
    assert t.add.s(1, 2) == signature(t.add.name, (1, 2))
    assert t.add.s(1) != t.add.s(2) and t.add.s(1) != t.add.si(1) and t.add.s(1) != 1
    called = t.add.s(1, 2).on_error(t.old_errback.s())
    called.link_error(t.old_errback.s())
    assert len(called.errbacks) == 1


def test_what_is_no_part_of_a_workflow_is_refused() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        t.add.s(1, 2) | None
    with pytest.raises(InvalidTask, match="can't be told of a failure"):
        t.boom.apply_async(link_error=chain(t.echo.si(1), t.echo.si(2)))
    with pytest.raises(InvalidTask, match="A signature is made of 5"):
        signature(5)
    assert signature({"task": t.add.name, "args": [1], "options": {"queue": "q"}}) == t.add.s(1).set(queue="q")
    assert not Job.objects.exists()


@pytest.mark.parametrize("args", [{"x": 1, "y": 2}, "ab", 5])
def test_arguments_are_a_list_or_a_tuple(args: Any) -> None:
    for call in (t.echo, t.echo.s(), group(t.echo.s())):
        with pytest.raises(TypeError, match="must be a list or tuple"):
            call.apply_async(args)
    with pytest.raises(TypeError, match="must be a mapping"):
        t.echo.apply_async((), [1])
    assert not Job.objects.exists()


# Callbacks of errors


def test_an_errback_has_arguments_of_its_own() -> None:
    result = t.boom.apply_async(
        task_id="the-id",
        link_error=[t.late_errback.s(1, 2), t.given_errback.s("word"), t.late_errback.si("a", 1, 2)],
    )
    run_jobs()
    assert sorted(labels()) == ["late a 1 2", "late the-id 1 2", "word the-id ValueError('boom')"]
    assert result.failed()


def test_an_errback_that_fails_often_is_a_job_each_time() -> None:
    group([t.boom.s(), t.boom.s()]).on_error(t.old_errback.s().set(task_id="mine")).delay()
    run_jobs()
    assert sorted(labels()) == sorted(f"old {job.external_id}" for job in jobs_of(t.boom))


def test_an_errback_with_links_of_its_own_is_refused() -> None:
    with pytest.raises(InvalidTask, match="of its own"):
        t.boom.apply_async(link_error=t.old_errback.s().set(link=t.echo.s()))
    assert not Job.objects.exists()


def test_links_and_errbacks_go_where_they_go_by_themselves() -> None:
    t.boom.apply_async(queue="elsewhere", priority=5, link=t.echo.s(), link_error=t.late_errback.s(1, 2))
    run_jobs()
    for task in (t.echo, t.late_errback):
        assert [(job.queue_name, job.priority) for job in jobs_of(task)] == [("default", 0)]


def test_an_errback_is_told_all_that_it_takes_also_where_it_has_defaults() -> None:
    t.boom.apply_async(link_error=t.open_errback.s())
    run_jobs()
    assert labels() == ["open boom ValueError('boom') True"]


# Ids


def test_ids_are_uuids_or_what_was_said() -> None:
    result = t.add.delay(1, 2)
    assert str(uuid.UUID(result.id)) == result.id
    named = uuid.uuid4()
    assert t.add.apply_async((1, 2), task_id=named).id == str(named)
    last = (t.add.s(1, 2) | t.add.s(3)).delay()
    several = group(t.add.s(1, 2), t.add.s(1, 3)).delay()
    assert isinstance(last, AsyncResult) and uuid.UUID(last.id) and all(uuid.UUID(one.id) for one in several)
    assert result == result.id and result != last
    with pytest.raises(ValueError, match="valid id, not None"):
        AsyncResult(None)  # type: ignore[arg-type]


# Signals of publishing


@pytest.fixture
def published() -> Iterator[list[tuple[Any, ...]]]:
    """What receivers were told, one of which adds a header."""
    found: list[tuple[Any, ...]] = []

    def before(sender: Any = None, headers: Any = None, body: Any = None, **told: Any) -> None:
        headers["correlation"] = f"of {sender}"
        found.append(("before", sender, headers["id"], list(body[0])))

    def after(sender: Any = None, headers: Any = None, body: Any = None, **told: Any) -> None:
        found.append(("after", sender, headers["id"], headers["correlation"]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    yield found
    signals.before_task_publish.disconnect(before)
    signals.after_task_publish.disconnect(after)


def test_headers_that_a_receiver_adds_travel_with_the_job(published: list[tuple[Any, ...]]) -> None:
    result = t.correlation.apply_async((1,), headers={"tenant": 7})
    name = t.correlation.name
    assert published == [("before", name, result.id, [1]), ("after", name, result.id, f"of {name}")]
    [job] = jobs_of(t.correlation)
    assert (job.options or {})["headers"] == {"tenant": 7, "correlation": f"of {name}"}
    run_jobs()
    assert result.get() == f"of {name}"


def test_each_call_of_a_workflow_is_published(published: list[tuple[Any, ...]]) -> None:
    step = t.correlation.s()
    last = chain(t.add.s(1, 2), group(step, step), t.correlation.s().set(link=step)).apply_async(
        headers={"tenant": 7}, link_error=t.old_errback.s()
    )
    assert last is not None
    names = [t.add.name, *[t.correlation.name] * 4]
    assert [(kind, name) for kind, name, _, _ in published] == [
        *(("before", name) for name in names),
        *(("after", name) for name in names),
    ]
    assert [one[2] for one in published[:5]] == [one[2] for one in published[5:]]
    run_jobs()
    assert last.get() == f"of {t.correlation.name}"
    tenants = [(job.options or {})["headers"].get("tenant") for job in [*jobs_of(t.add), *jobs_of(t.correlation)]]
    assert tenants == [7, 7, 7, 7, None]


def test_an_errback_has_the_headers_of_what_failed(published: list[tuple[Any, ...]]) -> None:
    t.boom.apply_async(link_error=t.correlation.s())
    run_jobs()
    [told] = jobs_of(t.correlation)
    assert told.return_value == f"of {t.boom.name}"


def test_a_sender_may_be_a_name() -> None:
    found = []

    def note(sender: Any = None, **told: Any) -> None:
        found.append(sender)

    made_anew = "".join(["tests.shop.celery_tasks", ".add"])
    signals.after_task_publish.connect(note, sender=made_anew)
    t.add.delay(1, 2)
    t.boom.delay()
    signals.after_task_publish.disconnect(note, sender="".join(["tests.shop", ".celery_tasks.add"]))
    t.add.delay(1, 2)
    assert found == [t.add.name]


# Values


def test_values_that_json_does_not_hold_come_back_as_they_were() -> None:
    moment = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
    values = [moment, moment.date(), moment.time(), decimal.Decimal("1.50"), uuid.UUID(int=5), b"\x00\xff", {"a": [1]}]
    result = chain(t.kinds_of_values.s(*values, named=decimal.Decimal(1)), t.echo.s()).delay()
    run_jobs()
    assert labels()[0] == str(["datetime", "date", "time", "Decimal", "UUID", "bytes", "dict", "Decimal"])
    assert result is not None
    assert result.get() == [{"values": values, "named": decimal.Decimal(1)}]
    before = result.parent
    assert isinstance(before, AsyncResult)
    assert before.args == values and before.kwargs == {"named": decimal.Decimal(1)}
    with pytest.raises(NotStorable):
        t.echo.delay({1, 2})


def test_keys_become_text_as_json_has_it() -> None:
    value = {2: "a", 1.5: "b", True: "c", None: {2: "d"}}
    assert done(t.echo.delay(value)) == [json.loads(json.dumps(value))]
    with pytest.raises(NotStorable):
        t.echo.delay({(1, 2): "a"})


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (t.add.s(1), 6),
        (t.add.si(1, 2), 3),
        (t.add.s(1).set(queue="mail", link=t.echo.s("linked")), 6),
        (t.add.s(1) | t.add.s(2), 8),
        (group(t.add.s(1), t.add.s(2) | t.add.s(3)), [6, 10]),
        (chord([t.add.s(1), t.add.s(2)], t.total.s()), 13),
        (t.add.s(1) | group(t.add.s(1), t.add.s(2)), [7, 8]),
    ],
)
def test_a_signature_may_be_an_argument(callback: Any, expected: Any) -> None:
    found = signature(json.loads(json.dumps(encoded(callback))))
    assert repr(found) == repr(callback) and done(found.delay(5)) == expected
    called = done(t.calls_back.delay(callback, 5))
    run_jobs()
    result = AsyncResult(called)
    found = GroupResult.restore(called) or result
    assert found.get(timeout=0) == expected
    assert labels() == ["echo (6, 'linked')"] * (2 if getattr(callback, "links", ()) else 0)


# Eager


def test_an_eager_result_knows_its_call() -> None:
    result = t.add.apply((1, 2), link=t.echo.s())
    assert (result.name, result.args, result.kwargs, result.retries) == (t.add.name, [1, 2], {}, 0)
    assert result.date_done is not None and result.maybe_throw() == 3 and labels() == ["echo (3,)"]


def test_eagerly_errors_are_told_and_may_be_raised() -> None:
    failed = t.boom.apply(link_error=[t.old_errback.s(), t.given_errback.s("word")])
    assert labels() == [f"old {failed.id}", f"word {failed.id} ValueError('boom')"]
    for call in (t.boom.s(), chain(t.boom.s(), t.echo.s()), group(t.boom.s())):
        with pytest.raises(ValueError, match="boom"):
            call.apply(throw=True)
    with pytest.raises(ValueError, match="boom"):
        t.boom.apply(throw=True)
    t.app.conf.task_eager_propagates = True
    try:
        assert t.boom.apply(throw=False).failed()
        with pytest.raises(ValueError, match="boom"):
            t.boom.apply()
    finally:
        del t.app.conf["task_eager_propagates"]


@pytest.mark.parametrize(
    "call",
    [
        chain(t.add.s(1, 2), t.boom.s(), t.echo.s()).on_error(t.late_errback.s(1, 2)),
        group(t.add.s(1, 2), t.boom.s()).on_error(t.late_errback.s(1, 2)),
        chord([t.add.s(1, 2), t.boom.s()], t.echo.s()).on_error(t.late_errback.s(1, 2)),
        chord([t.boom.s()], t.echo.s().on_error(t.late_errback.s(1, 2))),
        chain(t.boom.s(), group(t.echo.s())).on_error(t.late_errback.s(1, 2)),
    ],
)
def test_eagerly_the_errbacks_of_a_workflow_are_told_once(call: Any) -> None:
    with suppress(ValueError):
        call.apply()
    assert len(labels()) == 1 and labels()[0].startswith("late ") and not Job.objects.exists()


@pytest.mark.usefixtures("eager")
def test_eagerly_calls_are_checked_and_errors_of_steps_are_raised(django_assert_num_queries: Any) -> None:
    for call in (t.add.delay, t.add.s(1).delay):
        with pytest.raises(TypeError, match="missing a required argument"):
            call()
    calls = chain(t.boom.s(), t.echo.s()), chord([t.boom.s()], t.echo.s()), chain(t.named.si(), t.boom.s(), t.echo.s())
    for steps in calls:
        with pytest.raises(ValueError, match="boom"):
            steps.delay()
    assert chain(t.named.si(), t.boom.si()).delay().failed()
    assert t.replaced.delay(1).get() == 12
    with django_assert_num_queries(0):
        assert group(t.add.s(1, 2)).delay().parent is None
    assert chain(t.ignored.si(), t.echo.s()).delay().state == "IGNORED" and not labels()


def test_a_class_of_tasks_may_enqueue_otherwise() -> None:
    """As with Celery its apply_async() is asked of each call, however that is made."""
    calls = [
        (t.whose.s("x"), ["acme", "x"]),
        (chain(t.named.si(), t.whose.s()), ["acme", "named"]),
        (chain(t.whose.si(), t.named.si() | t.whose.si("y")), ["acme", "y"]),
        (group(t.whose.s("a"), t.whose.s("b")), [["acme", "a"], ["acme", "b"]]),
        (chord([t.whose.s("a")], t.whose.s()), ["acme", [["acme", "a"]]]),
    ]
    for call, expected in calls:
        assert done(call.delay()) == expected
        assert done(call.clone().apply_async(task_id=None)) == expected
    assert done(t.whose.delay("x")) == ["acme", "x"]
    assert set(Job.objects.filter(task=t.whose.name).values_list("queue_name", flat=True)) == {"acme"}
    assert Job.objects.filter(task=t.add.name).count() == Job.objects.filter(task=t.whose.name).count()
    linked = t.add.apply_async((1, 2), link=t.whose.s())
    run_jobs()
    assert linked.children[0].get(timeout=0) == ["acme", 3]


def test_a_class_of_tasks_may_let_a_call_out_but_no_step() -> None:
    assert t.whose.s(leave_out=True).delay() is None
    with pytest.raises(InvalidTask, match="no step can be left out"):
        chain(t.named.si(), t.whose.si(leave_out=True)).delay()


def test_a_retry_of_a_class_is_that_of_automatic_ones_too() -> None:
    with pytest.raises(t.Flaky):
        done(t.retries_itself.delay())
    assert labels() == ["own retry 1.0", "own retry 2.0", "own retry 4.0"]
