"""Declaring and calling."""

import datetime

import pytest
from bakery.celery import app, debug_task
from celery import Task
from celery.result import AsyncResult
from django.utils import timezone
from mail import tasks as mail
from orders import tasks as orders_tasks
from orders.models import Order
from orders.tasks import add, bake, deliver, feed_sourdough, knead, look_at_ovens, slice_bread, who
from reports import tasks as reports


def test_delay(work):
    result = add.delay(2, y=3)
    work()
    assert result.get(timeout=10) == 5


def test_a_call_is_a_call():
    assert add(2, 3) == 5
    assert who(x=1)["direct"] is True


def test_apply_runs_here_and_now():
    result = add.apply(args=(2, 3))
    assert (result.get(), result.state, result.successful()) == (5, "SUCCESS", True)
    assert reports.fail.apply().state == "FAILURE"


def test_apply_async_with_args_and_kwargs(work):
    result = add.apply_async(args=[2], kwargs={"y": 3})
    work()
    assert result.get(timeout=10) == 5


@pytest.mark.parametrize("options", [{"countdown": 5}, {"queue": "slow"}, {"priority": 3}, {"retry": False}])
def test_apply_async_with_options(work, options):
    result = add.apply_async((2, 3), **options)
    work()
    assert result.get(timeout=10) == 5


def test_eta_and_expires(work):
    now = timezone.now()
    results = [
        add.apply_async((2, 3), eta=now + datetime.timedelta(seconds=2)),
        add.apply_async((2, 3), expires=600),
        add.apply_async((2, 3), expires=now + datetime.timedelta(hours=1)),
    ]
    work()
    assert [result.get(timeout=10) for result in results] == [5, 5, 5]


def test_a_task_id_of_ones_own(work):
    result = add.apply_async((2, 3), task_id="bread-1")
    work()
    assert (result.id, result.task_id, str(result)) == ("bread-1", "bread-1", "bread-1")
    assert AsyncResult("bread-1").get(timeout=10) == 5


def test_what_a_bound_task_is_told(work):
    result = who.apply_async(kwargs={"x": 1}, headers={"tenant": "mill"}, task_id="who-1")
    work()
    assert result.get(timeout=10) == {
        "id": "who-1",
        "name": "orders.tasks.who",
        "task": "orders.tasks.who",
        "retries": 0,
        "tenant": "mill",
        "kwargs": {"x": 1},
        "direct": False,
    }


def test_names():
    assert add.name == "orders.tasks.add"
    assert knead.name == "bakery.knead"
    assert slice_bread.name == "orders.slice"
    for name in ("orders.tasks.add", "bakery.knead", "orders.slice", "mail.tasks.send", "mail.confirm"):
        assert name in app.tasks
    assert app.tasks["orders.tasks.add"].name == add.name


def test_options_can_be_read():
    assert (bake.soft_time_limit, bake.time_limit) == (60, 120)
    assert deliver.acks_late
    assert knead.queue == "dough"
    assert (mail.confirm.max_retries, mail.send_to_full_box.default_retry_delay) == (5, 1)
    assert debug_task.ignore_result is True
    assert isinstance(add, Task)


def test_arguments_are_checked_when_it_is_called():
    with pytest.raises(TypeError):
        add.delay(1)
    with pytest.raises(TypeError):
        add.apply_async((1, 2, 3))


def test_a_chain_of_states_of_an_order(work, order):
    for task, state in ((knead, "kneaded"), (bake, "baked"), (deliver, "delivered")):
        task.delay(order.pk)
        work()
        order.refresh_from_db()
        assert order.state == state
    result = reports.close_day.delay()
    work()
    assert result.get(timeout=10) == 1


def test_after_the_commit(work, order, notes, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        mail.confirm_after_commit(order.pk)
        assert notes("confirm") == []
    work()
    assert notes("confirm") == [f"{order.pk} by mail.confirm"]


def test_current_task(work, order):
    result = mail.confirm.delay(order.pk)
    work()
    assert result.get(timeout=10) is True


def test_a_task_begins_others(work, notes):
    mail.weekly_letter.delay("all")
    work()
    assert notes("mail") == ["ann: the week, for all", "bob: the week, for all"]


def test_ignored_results(work, notes):
    result = look_at_ovens.delay()
    work()
    assert notes("ovens") == [""]
    assert result.state == "SUCCESS"


def test_options_of_declarations(work):
    results = [
        mail.urgent.delay("ann"),
        mail.newsletter.delay("bob"),
        mail.archive.delay(2024),
        mail.lookup.delay("ann"),
    ]
    results += [reports.expire_soon.delay(), reports.count_flour.delay("rye"), feed_sourdough.delay(grams=5)]
    work()
    assert [result.get(timeout=10) for result in results] == ["urgent: ann", "bob", 2024, 1, True, "rye", None]


def test_callbacks_of_success_and_failure(work, notes):
    add.apply_async((2, 3), link=orders_tasks.note_result.s(prefix="linked: "))
    reports.fail.apply_async(("burnt",), link_error=orders_tasks.note_failure.s())
    mail.lookup.apply_async(("nobody",), link_error=mail.on_bounce.s())
    work()
    assert notes("note_result") == ["linked: 5"]
    assert notes("note_failure") == ["RuntimeError: burnt"]
    assert notes("bounce") == ["'nobody'"]


def test_a_class_based_task(work, notes):
    result = slice_bread.delay(3, slices=4)
    work()
    assert result.get(timeout=10) == 12
    assert notes("before_start") == ["orders.slice"]
    assert notes("on_success") == ["12"]
    assert notes("after_return") == ["SUCCESS"]
    assert slice_bread.run(1) == 10


def test_a_class_with_a_call_of_its_own(work, notes):
    result = orders_tasks.rise.apply_async((2,), task_id="rise-1")
    work()
    assert result.get(timeout=10) == [2, "rise-1", False]
    assert notes("begin") == notes("end") == ["orders.tasks.rise"]


def test_all_orders_are_baked(work, orders):
    result = orders_tasks.bake_all.delay(orders)
    work()
    assert result.get(timeout=10) == 3
    assert set(Order.objects.values_list("state", flat=True)) == {"baked"}
