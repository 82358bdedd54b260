"""What receivers of signals hear."""

import pytest
from celery import signals
from django.conf import settings
from mail.tasks import confirm
from orders.tasks import add, heat
from reports.tasks import fail


def of_tasks(heard):
    return [one for one in heard if one[0] in ("prerun", "postrun", "success", "failure", "retry")]


def test_around_a_task(work, heard):
    add.delay(2, 3)
    work()
    assert of_tasks(heard) == [
        ("prerun", "orders.tasks.add", [2, 3]),
        ("success", "orders.tasks.add", 5),
        ("postrun", "orders.tasks.add", "SUCCESS"),
    ]


def test_around_a_failure(work, heard):
    fail.delay("burnt")
    work()
    assert of_tasks(heard) == [
        ("prerun", "reports.tasks.fail", ["burnt"]),
        ("failure", "reports.tasks.fail", "burnt"),
        ("postrun", "reports.tasks.fail", "FAILURE"),
    ]


def test_around_a_retry(work, heard):
    heat.delay(1)
    work()
    kinds = [kind for kind, _, _ in of_tasks(heard)]
    assert kinds.count("prerun") == kinds.count("postrun") == 2
    assert kinds.count("retry") == kinds.count("success") == 1


def test_a_receiver_of_one_task(work):
    told = []

    @signals.task_success.connect(sender=add)
    def note(sender=None, result=None, **extra):
        told.append(result)

    add.delay(2, 3)
    fail.delay()
    work()
    signals.task_success.disconnect(note, sender=add)
    add.delay(4, 5)
    work()
    assert told == [5]


@pytest.mark.skipif(settings.CELERY_TASK_ALWAYS_EAGER, reason="in eager mode nothing is published")
def test_of_publishing(heard, order):
    confirm.delay(order.pk)
    add.delay(2, 3)
    found = [one for one in heard if one[0] in ("publishing", "published")]
    assert found == [
        ("publishing", "mail.confirm", None),
        ("published", "mail.confirm", None),
        ("publishing", "orders.tasks.add", None),
    ]


def test_signals_of_workers_can_be_heard():
    told = []

    def note(**extra):
        told.append(True)

    for signal in (signals.worker_ready, signals.worker_process_init, signals.worker_shutdown):
        signal.connect(note, weak=False)
        signal.send(sender=None)
        signal.disconnect(note)
    assert told == [True, True, True]
