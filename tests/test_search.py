"""What an operator types and chooses, as a value: read, told in words, kept in a row, applied."""

import datetime
import json
import re
from typing import Any

import pytest

from dbqueue import registry
from dbqueue.models import Job, JobStatus
from dbqueue.outcome import Outcome
from dbqueue.search import Search
from dbqueue.store import store_for

from .shop import tasks
from .test_admin import a_claim, a_job

HALF_AN_HOUR = datetime.timedelta(minutes=30)
NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", Search()),
        ("42", Search(id=42)),
        ("id:42", Search(id=42)),
        ("shop.tasks", Search(named="shop.tasks")),
        ("state:failed queue:mail", Search(state="FAILED", queue="mail")),
        ("error:builtins.ValueError worker:7", Search(error="builtins.ValueError", worker=7)),
        (
            "since:2h before:30m",
            Search(after=NOW - datetime.timedelta(hours=2), until=NOW - datetime.timedelta(minutes=30)),
        ),
        ("before:1000", Search(below=1000)),
        ("before:0 #7", Search(below=0, id=7)),
        ("since:2026-11-22T10:30", Search(after=datetime.datetime(2026, 11, 22, 16, 30, tzinfo=datetime.UTC))),
        ('args.name:"two words" task:a.b', Search(arguments=(("name", "two words"),), task="a.b")),
    ],
)
def test_what_is_typed_is_read(text: str, search: Search) -> None:
    found = Search.parse(text, NOW)
    assert found == search
    assert Search.from_json(found.as_json()) == found
    assert found.in_words()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour:red", "'colour:red'; it may have id:, state:"),
        ("state:broken", "'broken'; it must be one of scheduled"),
        ("worker:x", "worker is 'x'; it must be a whole number"),
        ("id:99999999999999999999", "from 0 to 9223372036854775807"),
        ("queue:", "'queue:', and after the colon nothing"),
        ("state:failed state:cancelled", "to be both FAILED and CANCELLED"),
        ("12 13", "to be both 12 and 13"),
        ("since:yesterday", "'yesterday'; it must be as 30m"),
        ("since:2026-13-45", "'2026-13-45'; it must be"),
        ("since:999999999w", "it must be"),
        ("since:9999-12-31T23:59", "it must be"),
        ("before:0001-01-01", "it must be"),
        ('"open', "can't be read"),
        ("args.:x", "it may have"),
        ("a\x00b", "printable"),
    ],
)
def test_what_can_not_be_read_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Search.parse(text, NOW)


def test_two_searches_are_one_unless_they_disagree() -> None:
    both = Search(state="FAILED", queue="a").both(Search(queue="a", id=0))
    assert both == Search(state="FAILED", queue="a", id=0)
    with pytest.raises(ValueError, match="queue is to be both a and b"):
        Search(queue="a").both(Search(queue="b"))


def test_words_tell_all_that_is_asked_for() -> None:
    words = Search(state="FAILED", queue="mail", error="E", below=9, arguments=(("x", "1"),)).in_words()
    assert words == "state Failed, queue mail, the last attempt failed with E, before job 9, x = 1"
    assert Search().in_words() == "all jobs"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("value", "typed", "found"),
    [
        (42, "42", True),
        ("42", "42", True),
        ("a b", '"a b"', True),
        (None, "null", True),
        (43, "42", False),
        (True, "true", True),
    ],
)
def test_an_argument_is_found_by_keyword_and_by_position(value: Any, typed: str, found: bool) -> None:
    by_keyword, by_place = tasks.give_back.enqueue(value=value), tasks.give_back.enqueue(value)
    jobs = store_for("default").jobs

    def ids(text: str) -> set[str]:
        return {str(pk) for pk in Search.parse(text, NOW).apply(jobs).values_list("pk", flat=True)}

    assert ids(f"args.value:{typed}") == ({by_keyword.id} if found else set())
    # Where the task is known, so are its parameters' places.
    named = ids(f"args.value:{typed} task:{tasks.give_back.name}")
    assert named == ({by_keyword.id, by_place.id} if found else set())
    assert ids("args.range:1 args.contains:2 args.a__regex:3") == set()


@pytest.mark.django_db
def test_an_error_is_found_by_its_class() -> None:
    failed = a_job(JobStatus.FAILED)
    a_job(JobStatus.SUCCESSFUL)
    found = Search(error="builtins.ValueError").apply(store_for("default").jobs)
    assert list(found) == [failed]
    assert not Search(error="builtins.KeyError").apply(Job.objects.all()).exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e999", '"\\ud800"', '"\\u0000"', "[" * 900, '{"a":' * 600, "1" * 5000],
    ids=lambda v: v[:9],
)
def test_a_value_that_no_database_holds_finds_nothing(value: str) -> None:
    tasks.add.enqueue(1, 2)
    search = Search(arguments=(("x", value),))
    assert not search.apply(Job.objects.all()).exists()


def test_arguments_are_told_without_their_values_where_more_people_read() -> None:
    assert Search(arguments=(("x", "1"),)).in_words(with_values=False) == "x = …"


@pytest.mark.django_db
def test_a_part_of_a_tasks_name_is_found_whatever_its_case() -> None:
    job = tasks.give_back.enqueue(1)
    found = Search.parse("GIVE_b", NOW).apply(store_for("default").jobs)
    assert [str(pk) for pk in found.values_list("pk", flat=True)] == [job.id]


@pytest.mark.django_db
def test_of_what_has_failed_the_last_error_counts() -> None:
    """As on the overview, which counts each failure by what it was in the end."""
    store, job = store_for("default"), a_job(JobStatus.FAILED)
    store.retry([job.pk])
    store.finish([Outcome.failed(a_claim(), KeyError("no"))])

    def found(**said: Any) -> bool:
        return bool(Search(**said).apply(store.jobs).exists())

    assert found(state="FAILED", error="KeyError") and not found(state="FAILED", error="ValueError")
    assert found(error="ValueError")


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["GIVE_b", "args.value:42", f"args.value:42 task:{tasks.give_back.name}"])
def test_what_is_written_down_finds_the_same_where_no_task_is_known(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    store = store_for("default")
    tasks.give_back.enqueue(value=42)
    tasks.give_back.enqueue(42)
    here = Search.parse(text, NOW)
    expected = set(here.apply(store.jobs).values_list("pk", flat=True))
    read = Search.from_json(json.loads(json.dumps(here.resolved().as_json())))
    monkeypatch.setattr(registry, "_tasks", {})
    assert set(here.apply(store.jobs)) == set()
    assert expected and set(read.apply(store.jobs).values_list("pk", flat=True)) == expected


@pytest.mark.django_db
def test_what_has_become_sensitive_since_it_was_written_down_is_not_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.give_back.enqueue(value=42)
    kept = Search.parse("args.value:42", NOW).resolved()
    assert kept.apply(Job.objects.all()).exists()
    monkeypatch.setattr(tasks.give_back, "sensitive", ("value",))
    assert not kept.apply(Job.objects.all()).exists()
