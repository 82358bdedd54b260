"""Slots of cron expressions and intervals: a calendar and two days a year on which clocks change."""

import datetime
import itertools
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

import dbqueue
from dbqueue.definition import Task
from dbqueue.exceptions import InvalidTask
from dbqueue.schedule import Cron, Every, When

UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)

# (zone, the day in 2026 on which clocks go forward, and the one on which they go back)
CHANGES = [
    ("Europe/Berlin", "2026-03-29", "2026-10-25"),  # 02:00 -> 03:00, 03:00 -> 02:00
    ("America/New_York", "2026-03-08", "2026-11-01"),  # 02:00 -> 03:00, 02:00 -> 01:00
    ("Australia/Lord_Howe", "2026-10-04", "2026-04-05"),  # half an hour: 02:00 -> 02:30, 02:00 -> 01:30
    ("America/Santiago", "2026-09-06", "2026-04-04"),  # at midnight: 00:00 -> 01:00, 24:00 -> 23:00
]
FORWARD = [(zone, forward) for zone, forward, _ in CHANGES]
BACK = [(zone, back) for zone, _, back in CHANGES]


def moment(text: str, zone: str = "UTC") -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone))


def slots_from(when: When, begin: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    """All slots after ``begin``, up to ``end``."""

    def walk() -> Iterator[datetime.datetime]:
        slot = begin
        while True:
            slot = when.next_after(slot)
            yield slot

    return list(itertools.takewhile(lambda slot: slot <= end, walk()))


def slots_of_day(expression: str, zone: str, day: str) -> list[str]:
    """The slots of one local day as its clocks show them, each with its offset."""
    begin = moment(f"{day}T00:00", zone) - HOUR / 3600
    end = moment(day, zone) + DAY  # Python's local arithmetic: the next midnight by the clock
    local = [slot.astimezone(zoneinfo.ZoneInfo(zone)) for slot in slots_from(Cron(expression, zone), begin, end)]
    return [f"{slot:%H:%M%z}"[:-2] for slot in local if f"{slot:%Y-%m-%d}" == day]


# Daylight saving


@pytest.mark.parametrize(
    ("zone", "day", "expression", "runs_at"),
    [
        ("Europe/Berlin", "2026-03-29", "30 2 * * *", "03:00+02"),
        ("America/New_York", "2026-03-08", "30 2 * * *", "03:00-04"),
        ("Australia/Lord_Howe", "2026-10-04", "15 2 * * *", "02:30+11"),
        ("America/Santiago", "2026-09-06", "0 0 * * *", "01:00-03"),
    ],
)
def test_a_time_that_is_left_out_runs_after_the_gap(zone: str, day: str, expression: str, runs_at: str) -> None:
    assert slots_of_day(expression, zone, day) == [runs_at]


@pytest.mark.parametrize(
    ("zone", "day", "expression", "runs_at"),
    [
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", "02:30+02"),
        ("America/New_York", "2026-11-01", "30 1 * * *", "01:30-04"),
        ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", "01:45+11"),
        ("America/Santiago", "2026-04-04", "30 23 * * *", "23:30-03"),
    ],
)
def test_a_time_that_comes_twice_runs_the_first_time(zone: str, day: str, expression: str, runs_at: str) -> None:
    assert slots_of_day(expression, zone, day) == [runs_at]


@pytest.mark.parametrize(("zone", "day"), FORWARD + BACK)
def test_a_daily_job_of_any_time_has_one_slot_on_such_a_day(zone: str, day: str) -> None:
    for minute in range(0, 24 * 60, 15):
        expression = f"{minute % 60} {minute // 60} * * *"
        assert len(slots_of_day(expression, zone, day)) == 1, expression


@pytest.mark.parametrize(("zone", "day"), FORWARD + BACK)
@pytest.mark.parametrize("expression", ["*/15 * * * *", "0 * * * *", "0 */2 * * *", "*/20 2 * * *", "30 * * * 6,0"])
def test_jobs_of_a_wildcard_go_by_what_clocks_show(zone: str, day: str, expression: str) -> None:
    """Held against every minute of the days around it, taken one by one."""
    noon = moment(f"{day}T12:00", zone).astimezone(UTC)
    begin, end = noon - DAY, noon + DAY
    minutes = (begin + number * HOUR / 60 for number in range(1, 48 * 60 + 1))

    expected = [one for one in minutes if _matches(expression, one.astimezone(zoneinfo.ZoneInfo(zone)))]

    assert slots_from(Cron(expression, zone), begin, end) == expected


def _matches(expression: str, local: datetime.datetime) -> bool:
    """Of expressions made of *, */n and lists."""
    minute, hour, _, _, weekday = expression.split()
    shown = ((minute, local.minute), (hour, local.hour), (weekday, local.isoweekday() % 7))
    return all(any(_fits(part, value) for part in field.split(",")) for field, value in shown)


def _fits(part: str, value: int) -> bool:
    return value % int(part[2:] or 1) == 0 if part.startswith("*") else value == int(part)


@pytest.mark.parametrize(("zone", "day"), FORWARD + BACK)
@pytest.mark.parametrize("expression", ["30 2 * * *", "30 1,23 * * *", "*/15 * * * *", "0 */2 * * *"])
def test_the_next_slot_is_the_same_from_wherever_one_looks(zone: str, day: str, expression: str) -> None:
    when, noon = Cron(expression, zone), moment(f"{day}T12:00", zone).astimezone(UTC)
    slots = slots_from(when, noon - 2 * DAY, noon + 2 * DAY)
    for number in range(24 * 12):
        look = noon - DAY + number * HOUR / 7
        assert when.next_after(look) == next(slot for slot in slots if slot > look)


def test_slots_never_come_twice_through_years_of_changes() -> None:
    for zone, _, _ in CHANGES:
        slots = slots_from(Cron("30 1,2 * * *", zone), moment("2020-01-01"), moment("2027-01-01"))
        assert slots == sorted(set(slots))
        assert {f"{slot.astimezone(zoneinfo.ZoneInfo(zone)):%Y-%m-%d}" for slot in slots} >= {
            f"{datetime.date(2020, 1, 2) + number * DAY}" for number in range(2550)
        }


# Cron


@pytest.mark.parametrize(
    ("expression", "after", "slot"),
    [
        ("0 5 * * *", "2026-01-01T04:59:59.999999", "2026-01-01T05:00"),
        ("0 5 * * *", "2026-01-01T05:00", "2026-01-02T05:00"),
        ("0 0 29 2 *", "2026-01-01", "2028-02-29"),
        ("*/10 9-17 * * mon-fri", "2026-01-02T17:55", "2026-01-05T09:00"),
        ("0 0 L * *", "2026-02-01", "2026-02-28"),
        ("0 0 1 1 *", "2026-06-01", "2027-01-01"),
    ],
)
def test_next_slot_of_an_expression(expression: str, after: str, slot: str) -> None:
    assert Cron(expression, "UTC").next_after(moment(after)) == moment(slot)


def test_a_day_of_either_field_or_with_a_plus_of_both() -> None:
    either, both = Cron("0 5 1-7 * MON", "UTC"), Cron("0 5 1-7 * +mon", "UTC")
    begin, end = moment("2026-11-01"), moment("2027-02-01")
    assert [slot.day for slot in slots_from(both, begin, end)] == [2, 7, 4]  # the first Mondays
    assert len(slots_from(either, begin, end)) == 21 + 13 - 3
    assert slots_from(Cron("*/30 5 1-7 * +MON", "UTC"), begin, end)[::2] == slots_from(both, begin, end)
    assert slots_from(Cron("0 5 * * +MON", "UTC"), begin, end) == slots_from(Cron("0 5 * * MON", "UTC"), begin, end)
    assert "and on Monday" in either.in_words() and "if it's on Monday" in both.in_words()


def test_without_a_zone_it_is_the_settings_when_it_is_asked(settings: Settings) -> None:
    when = Cron("0 5 * * *")
    settings.TIME_ZONE = "Asia/Tokyo"
    assert when.next_after(moment("2026-01-01")) == moment("2026-01-01T20:00")
    settings.TIME_ZONE = "Europe/Berlin"
    assert when.next_after(moment("2026-01-01")) == moment("2026-01-01T04:00")


def test_an_interval_without_a_unit_is_told_how_to_say_it() -> None:
    every: Any = dbqueue.every
    with pytest.raises(
        ValueError, match=r"^every\(5\) has no unit: say every\(seconds=5\), or minutes, hours or days\.$"
    ):
        every(5)


def test_equal_expressions_are_equal() -> None:
    assert Cron(" 0  5 * * mon ", "UTC") == Cron("0 5 * * MON", "UTC") != Cron("0 5 * * MON", "Europe/Berlin")
    assert dbqueue.every(minutes=1) == dbqueue.every(seconds=60) != dbqueue.every(seconds=61)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("61 * * * *",), "cron is '61 * * * *': bad minute (0 to 59)."),
        (("0 24 * * *",), "cron is '0 24 * * *': bad hour (0 to 23)."),
        (("0 0 1 13 *",), "cron is '0 0 1 13 *': bad month (1 to 12, or JAN to DEC)."),
        (("* * * *",), "cron is '* * * *'; it must be five fields"),
        (("0 0 5 * * *",), "For seconds there is every()."),
        (("@daily",), "cron is '@DAILY'; it must be five fields"),
        (("",), "cron is ''; it must be five fields"),
        (("0 0 31 2 *",), "cron is '0 0 31 2 *': bad day-of-month (1 to 31 as far as the month has them, or L for its"),
        (("0 0 */31 2 1#5",), "cron is '0 0 */31 2 1#5', which never comes."),
        (("0 0 31 2 +MON",), "cron is '0 0 31 2 +MON', which never comes."),
        (("0 0 +1 * MON",), "cron is '0 0 +1 * MON': bad day-of-month ("),
        (("0 0 1 * ++MON",), "cron is '0 0 1 * ++MON': bad day-of-week (0 to 7, or SUN to SAT)."),
        (("0 0 1 * +",), "cron is '0 0 1 * +': bad day-of-week ("),
        ((5,), "cron is 5; it must be text"),
        (("0 5 * * *", "Europe/Berlim"), "timezone is 'Europe/Berlim'; it must be the name of a time zone"),
        (("0 5 * * *", "../etc/passwd"), "timezone is '../etc/passwd'"),
        (("0 5 * * *", "Europe"), "timezone is 'Europe'"),
        (("0 5 * * *", 3), "timezone is 3"),
    ],
)
def test_a_bad_expression_or_zone_is_named(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^(cron|timezone) is ") as caught:
        dbqueue.cron(*arguments)
    assert words in str(caught.value)


# Intervals


def test_slots_of_an_interval_are_its_multiples_since_1970() -> None:
    when = Every(7)
    assert when.next_after(moment("1970-01-01T00:00:00")) == moment("1970-01-01T00:00:07")
    assert when.next_after(moment("1970-01-01T00:00:06.999999")) == moment("1970-01-01T00:00:07")
    assert dbqueue.every(days=1).when.next_after(moment("2026-01-01T12:00")) == moment("2026-01-02")
    slot = when.next_after(moment("2026-05-05T05:05:05.5"))
    assert slot.timestamp() % 7 == 0 and slot.microsecond == 0


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "every is 0 seconds"),
        ({"seconds": -5}, "every is -5 seconds"),
        ({"days": 367}, "every is 31708800 seconds; it must be a whole number from 1 to 31622400"),
        ({"minutes": 0.5}, "minutes is 0.5; it must be a whole number"),
        ({"seconds": True}, "seconds is True"),
    ],
)
def test_a_bad_interval_is_named(parts: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dbqueue.every(**parts)


# The latest slots


@pytest.mark.parametrize("when", [Every(60), Cron("* * * * *", "Europe/Berlin"), Cron("30 2 * * *", "Europe/Berlin")])
@pytest.mark.parametrize("days", [0.0, 0.01, 0.7, 40.0])
@pytest.mark.parametrize("most", [1, 100])
def test_the_latest_slots_are_the_end_of_all(when: When, days: float, most: int) -> None:
    first = when.next_after(moment("2026-03-01T12:00"))
    until = first + days * DAY
    everything = [first, *slots_from(when, first, until)]
    assert when.latest(first, until, most) == everything[-most:]


# Declaration


def report(kind: str, *, copies: int = 1) -> None: ...


def test_a_task_has_its_schedules_by_name() -> None:
    daily = dbqueue.cron("0 5 * * *", args=("daily",))
    hourly = dbqueue.every(hours=1, kwargs={"kind": "hourly"}, name="hourly")
    other = dbqueue.every(hours=2, args=["other"])

    task: Task[Any, Any] = Task(report, name="report", schedule=[daily, hourly, other])

    assert task.schedules == {"report": daily, "report:hourly": hourly, "report:3": other}
    assert Task(report, name="report", schedule=daily).schedules == {"report": daily}
    assert Task(report, name="report").schedules == {}


def test_a_schedule_that_does_not_fit_its_task_is_refused() -> None:
    hourly = dbqueue.every(hours=1, args=["a"], name="x")
    not_storable: list[Any] = [{1, 2}]
    refused: list[tuple[Any, str]] = [
        ("0 5 * * *", "schedule of report is '0 5 \\* \\* \\*'; it must be what dbqueue.cron"),
        (["0 5 * * *"], "it must be what dbqueue.cron"),
        (Every(5), "it must be what dbqueue.cron"),
        (None, "schedule of report is None"),
        (dbqueue.every(hours=1), "can't be called with these arguments: 'kind' is missing"),
        (dbqueue.every(hours=1, args=["a"], kwargs={"pages": 3}), "there is no argument 'pages'"),
        (dbqueue.every(hours=1, args=not_storable), r"args\[0\] is <class 'set'>"),
        ([hourly, hourly], "Two schedules of report are named 'x'"),
    ]
    for schedule, words in refused:
        with pytest.raises(InvalidTask, match=words):
            Task(report, name="report", schedule=schedule)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"args": "ab"}, "args is 'ab'; it must be a list or a tuple"),
        ({"kwargs": {1: 2}}, "kwargs is {1: 2}; it must be a dict with text as its keys"),
        ({"name": "a\n"}, "name is 'a\\\\n'; it must be printable text"),
        ({"misfire": "never"}, "misfire is 'never'; it must be one of 'skip', 'once', 'all'"),
        ({"overlap": "wait"}, "overlap is 'wait'; it must be one of 'allow', 'skip'"),
        ({"enabled": 1}, "enabled is 1; it must be True or False"),
    ],
)
def test_a_bad_option_is_named(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dbqueue.every(hours=1, **options)
    with pytest.raises(ValueError, match=words):
        dbqueue.cron("0 5 * * *", **options)


def test_a_schedule_is_the_decorators_alone() -> None:
    task: Task[Any, Any] = Task(report, name="report")
    options: Any = {"schedule": dbqueue.every(hours=1)}
    with pytest.raises(InvalidTask, match="There is no option 'schedule'"):
        task.using(**options)
