"""Signatures, and what is made of them."""

import contextlib

import pytest
from celery import chain, chord, group, signature
from django.conf import settings
from orders import tasks as orders_tasks
from orders.models import Order
from orders.tasks import add, double, note_result, total
from reports import tasks as reports


def test_a_signature(work):
    made = add.s(2, 3)
    assert (made.task, tuple(made.args), made.kwargs) == ("orders.tasks.add", (2, 3), {})
    result = made.delay()
    work()
    assert result.get(timeout=10) == 5


def test_a_partial_signature(work):
    results = [
        add.s(3).delay(2),
        add.s(y=3).apply_async((2,)),
        add.signature((2, 3)).apply_async(),
        add.s(2).clone((1,)).delay(),
    ]
    work()
    assert [result.get(timeout=10) for result in results] == [5, 5, 5, 3]


def test_an_immutable_signature(work):
    result = chain(add.s(2, 3), add.si(1, 1))()
    work()
    assert result.get(timeout=10) == 2


def test_options_of_a_signature(work):
    result = add.s(2, 3).set(queue="slow", countdown=1).delay()
    work()
    assert result.get(timeout=10) == 5


def test_by_name(work):
    results = [reports.by_name(4), signature(add.s(2, 3)).delay()]
    work()
    assert [result.get(timeout=10) for result in results] == [16, 5]


def test_a_chain(work, order):
    result = orders_tasks.make(order.pk)
    work()
    assert result.get(timeout=10) == 6
    order.refresh_from_db()
    assert order.state == "baked"


def test_a_chain_by_pipes(work, order):
    result = orders_tasks.make_and_deliver(order.pk)
    work()
    assert result.get(timeout=10) == order.pk
    order.refresh_from_db()
    assert order.state == "delivered"


def test_what_comes_after_a_failure_does_not_run(work, notes):
    # In eager mode Celery raises it here.
    with contextlib.suppress(RuntimeError):
        chain(reports.fail.si("burnt"), note_result.s())()
    work()
    assert notes("note_result") == []


def test_a_group(work, orders):
    result = orders_tasks.make_many(orders)
    work()
    assert result.get(timeout=10) == [1, 2, 3]
    assert (result.ready(), result.successful(), result.failed(), result.completed_count()) == (True, True, False, 3)
    assert [one.get(timeout=10) for one in result.results] == [1, 2, 3]
    assert len(result) == 3


def test_a_group_with_a_failure(work):
    result = group(add.s(1, 1), reports.fail.s())()
    work()
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    with pytest.raises(RuntimeError):
        result.get(timeout=10)


def test_a_chord(work, orders):
    result = orders_tasks.count_loaves(orders)
    work()
    assert result.get(timeout=10) == 6


def test_a_group_in_a_chain(work, orders):
    result = orders_tasks.count_and_double(orders)
    work()
    assert result.get(timeout=10) == 12


def test_a_group_by_pipes(work, notes):
    result = reports.book([1, 2, 3])
    work()
    assert result.get(timeout=10) == "3 pages"
    assert notes("page") == ["1 bread", "2 bread", "3 bread"]


def test_chords_in_chords(work):
    inner = [chord([add.s(number, 1), add.s(number, 2)], total.s()) for number in (1, 2)]
    result = chord(inner, total.s())()
    work()
    assert result.get(timeout=10) == 5 + 7


def test_a_chord_of_chains(work):
    result = chord([add.s(1, 1) | double.s(), add.s(2, 2) | double.s()])(total.s())
    work()
    assert result.get(timeout=10) == 12


def test_the_largest_of_squares(work):
    result = (group(reports.square.s(number) for number in (3, -4, 2)) | reports.largest.s()).delay()
    work()
    assert result.get(timeout=10) == 16


def test_a_chain_with_a_callback(work, notes):
    done = chain(add.s(1, 1), double.s())
    done.link(note_result.s(prefix="in the end: "))
    done.delay()
    work()
    assert notes("note_result") == ["in the end: 4"]


def test_a_callback_of_a_failure_in_a_chain(work, notes):
    with contextlib.suppress(RuntimeError):
        chain(reports.fail.si("burnt"), double.s()).on_error(orders_tasks.note_failure.s()).apply_async()
    work()
    assert notes("note_failure") == ["RuntimeError: burnt"]


def test_chunks(work):
    result = reports.squares_in_chunks(range(5)).apply_async()
    work()
    assert result.get(timeout=10) == [[0, 1], [4, 9], [16]]


def test_map_and_starmap(work):
    results = [reports.square.map([1, 2, 3]).delay(), add.starmap([(1, 2), (3, 4)]).delay()]
    work()
    assert [result.get(timeout=10) for result in results] == [[1, 4, 9], [3, 7]]


@pytest.mark.skipif(
    settings.CELERY_TASK_ALWAYS_EAGER, reason="in eager mode Celery refuses to wait for the replacement"
)
def test_replaced(work, order):
    result = orders_tasks.bake_or_knead.delay(order.pk)
    work()
    assert result.get(timeout=10) == 3
    assert Order.objects.get(pk=order.pk).state == "baked"
