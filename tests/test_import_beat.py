"""django-celery-beat's rows as schedules. The rows here have the attributes of its models; with the package itself it
was tried by hand (docs/from-celery.md)."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

import dbqueue
from dbqueue.compat.beat import imported
from dbqueue.models import Schedule, Source
from dbqueue.scheduling import Scheduling, change
from dbqueue.store import store_for

from .shop.tasks import add

pytestmark = pytest.mark.django_db

NIGHTLY = SimpleNamespace(
    minute="30", hour="5", day_of_week="mon-fri", day_of_month="*", month_of_year="*", timezone="Europe/Berlin"
)


def row(name: str, **values: Any) -> SimpleNamespace:
    given = {
        "name": name,
        "task": add.name,
        "args": "[1, 2]",
        "kwargs": "{}",
        "queue": None,
        "priority": None,
        "enabled": True,
        "one_off": False,
        "expires": None,
        "expire_seconds": None,
        "start_time": None,
        "exchange": None,
        "routing_key": None,
        "headers": "{}",
        "crontab": None,
        "interval": None,
        "solar": None,
        "clocked": None,
    }
    return SimpleNamespace(**{**given, **values})


def done(*rows: SimpleNamespace, dry_run: bool = False) -> list[str]:
    return [str(one) for one in imported(rows, store_for("default"), dry_run=dry_run)]


def every(number: int, period: str) -> SimpleNamespace:
    return SimpleNamespace(every=number, period=period)


def test_a_crontab_and_an_interval() -> None:
    said = done(
        row("nightly", crontab=NIGHTLY, queue="mail", priority=3),
        row("often", interval=every(5, "minutes"), enabled=False, queue="celery", expire_seconds=60),
    )
    assert said == ["nightly: added", "often: added (not kept: expire_seconds)"]
    nightly, often = Schedule.objects.order_by("name")
    assert (nightly.cron, nightly.timezone, nightly.queue_name, nightly.priority) == (
        *("30 5 * * MON-FRI", "Europe/Berlin"),
        *("mail", 3),
    )
    assert nightly.source == Source.ADMIN and nightly.next_at is not None and nightly.args == [1, 2]
    assert (often.every, often.enabled, often.queue_name, often.next_at) == (300, False, "default", None)


def test_a_crontab_is_read_as_celery_reads_it() -> None:
    first_monday = SimpleNamespace(**{**vars(NIGHTLY), "day_of_month": "1-7", "day_of_week": "monday"})
    assert done(row("first", crontab=first_monday)) == ["first: added"]
    assert Schedule.objects.get().cron == "30 5 1-7 * +MON"


def test_it_may_be_run_again() -> None:
    rows = [row("nightly", crontab=NIGHTLY), row("often", interval=every(1, "hours"))]
    assert done(*rows, dry_run=True) == ["nightly: added", "often: added"] and not Schedule.objects.exists()
    done(*rows)
    rows[1].args = "[3, 4]"
    assert done(*rows) == ["nightly: unchanged", "often: changed"]
    assert Schedule.objects.count() == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"solar": SimpleNamespace(event="sunset")}, "goes by the sun"),
        ({"clocked": SimpleNamespace()}, "run once at a time"),
        ({"interval": every(1, "days"), "one_off": True}, "runs once"),
        ({"interval": every(5, "microseconds")}, "microseconds"),
        ({"interval": every(1, "days"), "task": "nobody.knows"}, "No task is registered"),
        ({"interval": every(1, "days"), "args": "[1]"}, "can't be called with"),
        ({"interval": every(1, "days"), "args": "{"}, "Expecting"),
        ({"interval": every(1, "days"), "kwargs": "[1]"}, "its kwargs"),
    ],
)
def test_what_can_not_be_one_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    [told] = done(row("odd", **values))
    assert told.startswith("odd: refused") and said in told
    assert not Schedule.objects.exists()


def test_a_schedule_of_the_code_is_not_touched() -> None:
    Schedule.objects.create(name="nightly", source=Source.CODE, task=add.name, every=60)
    said = done(row("nightly", crontab=NIGHTLY))
    assert said == ["nightly: refused (a schedule that a worker has made of code has this name)"]
    assert Schedule.objects.get().every == 60


def test_what_the_code_declares_is_left_to_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the first of them has made it: otherwise there would be two."""
    monkeypatch.setattr(add, "schedules", {"nightly": dbqueue.every(minutes=1)})
    [said] = done(row("nightly", crontab=NIGHTLY))
    assert said.startswith("nightly: left out (a schedule of the code") and not Schedule.objects.exists()


def test_what_was_switched_off_stays_so_also_where_the_code_declares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entries stand in django-celery-beat's table too, so that they can be switched off."""
    monkeypatch.setattr(add, "schedules", {"nightly": dbqueue.every(minutes=1, args=[1, 2])})
    rows = [row("nightly", crontab=NIGHTLY, enabled=False)]
    assert done(*rows, dry_run=True)[0].startswith("nightly: switched off") and not Schedule.objects.exists()
    assert done(*rows)[0].startswith("nightly: switched off (a schedule of the code has this name")

    Scheduling(store_for("default")).step()  # a worker starts
    nightly = Schedule.objects.get()
    assert (nightly.source, nightly.every, nightly.enabled, nightly.overrides) == (Source.CODE, 60, False, ["enabled"])
    assert done(*rows)[0].startswith("nightly: left out") and not Schedule.objects.get().enabled

    change(store_for("default"), nightly.pk, {"enabled": True})
    assert done(*rows)[0].startswith("nightly: left out") and Schedule.objects.get().enabled


def test_what_a_worker_made_before_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add, "schedules", {"nightly": dbqueue.every(minutes=1, args=[1, 2])})
    Scheduling(store_for("default")).step()
    assert Schedule.objects.get().next_at is not None
    done(row("nightly", crontab=NIGHTLY, enabled=False))
    assert (Schedule.objects.get().enabled, Schedule.objects.get().next_at) == (False, None)


@pytest.mark.parametrize("bound", ["start_time", "expires"])
def test_what_has_a_beginning_or_an_end_comes_in_switched_off(bound: str) -> None:
    rows = [row("bounded", crontab=NIGHTLY, **{bound: timezone.now()})]
    assert done(*rows) == [
        f"bounded: added (not kept: {bound}; switched off, as {bound} would not be heeded: switch it on in the admin)"
    ]
    assert not Schedule.objects.get().enabled


def test_a_priority_is_at_most_the_highest() -> None:
    done(row("high", crontab=NIGHTLY, priority=200))
    assert Schedule.objects.get().priority == 100


def test_celerys_own_is_left_out() -> None:
    assert "left out" in done(row("celery.backend_cleanup", task="celery.backend_cleanup", crontab=NIGHTLY))[0]


def test_without_django_celery_beat_there_is_nothing_to_read() -> None:
    with pytest.raises(CommandError, match="not in INSTALLED_APPS"):
        call_command("dbqueue_import_beat")
