"""``durable=True``: a job that survives the rollback of the transaction in which it is enqueued."""

import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings

import dbqueue
from dbqueue.exceptions import InvalidArguments, InvalidTask, NotDurable
from dbqueue.models import Job, JobStatus
from dbqueue.testing import run_jobs

from .shop.models import Mark
from .shop.tasks import add, mark
from .workers import eventually, worker

in_no_test_transaction = pytest.mark.django_db(transaction=True)

needs_second_writer = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite has one writer, and inside a transaction that is the caller"
)

durable = add.using(durable=True)


def labels() -> set[str]:
    return set(Mark.objects.values_list("label", flat=True))


@in_no_test_transaction
@needs_second_writer
def test_it_survives_a_rollback_and_the_rest_does_not() -> None:
    connection.ensure_connection()
    session = connection.connection
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Mark.objects.create(label="the caller's")
        kept, lost = durable.enqueue(1, 2), add.enqueue(3, 4)
        raise ZeroDivisionError
    assert connection.connection is session and not connection.in_atomic_block
    assert list(Job.objects.values_list("pk", flat=True)) == [int(kept.id)]
    assert labels() == set() and lost.id != kept.id
    assert [result.id for result in run_jobs()] == [kept.id]


@in_no_test_transaction
@needs_second_writer
def test_a_worker_has_it_before_the_callers_commit() -> None:
    with worker(), transaction.atomic():
        result = durable.enqueue(1, 2)
        assert result.get(timeout=15) == 3


@in_no_test_transaction
@needs_second_writer
def test_the_callers_session_is_not_used_and_none_is_left() -> None:
    if connection.settings_dict["OPTIONS"].get("pool"):
        pytest.skip("a pool keeps sessions of its own")

    def sessions() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend'"
            )
            return int(cursor.fetchone()[0])

    with transaction.atomic():
        for number in range(5):
            durable.enqueue(number, 0)
    eventually(lambda: sessions() == 1)


@in_no_test_transaction
@needs_second_writer
def test_of_many_those_that_ask_for_it_survive_and_all_keep_their_order() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        results = dbqueue.enqueue_many([add.s(0, 0), durable.s(1, 0), add.s(2, 0), durable.s(3, 0)])
        raise ZeroDivisionError
    assert [result.args for result in results] == [[0, 0], [1, 0], [2, 0], [3, 0]]
    assert set(Job.objects.values_list("pk", flat=True)) == {int(results[1].id), int(results[3].id)}


@in_no_test_transaction
@needs_second_writer
def test_of_many_none_is_written_where_one_is_refused() -> None:
    wrong: Any = durable
    with transaction.atomic(), pytest.raises(InvalidArguments):
        dbqueue.enqueue_many([add.s(0, 0), durable.s(1, 0), wrong.s(2)])
    assert not Job.objects.exists()


@in_no_test_transaction
@needs_second_writer
def test_a_lock_of_the_callers_own_is_waited_for_a_while_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbqueue.durable.PATIENCE", 1)
    unique = add.using(unique=True)
    with transaction.atomic():
        mine = unique.enqueue(1, 2)
        with pytest.raises(NotDurable, match=r"waited 1 s for a lock, .* same unique key\?"):
            unique.using(durable=True).enqueue(1, 2)
    assert list(Job.objects.values_list("pk", flat=True)) == [int(mine.id)]


@in_no_test_transaction
@needs_second_writer
def test_without_autocommit_the_caller_is_in_a_transaction_too() -> None:
    transaction.set_autocommit(False)
    try:
        kept = durable.enqueue(1, 2)
        add.enqueue(3, 4)
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert list(Job.objects.values_list("pk", flat=True)) == [int(kept.id)]


@in_no_test_transaction
def test_on_sqlite_it_is_refused_at_once_inside_a_transaction() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("where there is a second writer it is allowed")
    began = time.monotonic()
    with transaction.atomic():
        Mark.objects.create(label="the caller's")
        for enqueue in (lambda: durable.enqueue(1, 2), lambda: dbqueue.enqueue_many([add.s(0, 0), durable.s(1, 2)])):
            with pytest.raises(NotDurable, match=r"one write lock.*Enqueue it before or after the transaction"):
                enqueue()
    assert time.monotonic() - began < 10  # and not after the patience of a connection, 30 or 60 s
    assert labels() == {"the caller's"} and not Job.objects.exists()


@in_no_test_transaction
def test_outside_of_a_transaction_it_is_like_any_job() -> None:
    results = [durable.enqueue(1, 2), *dbqueue.enqueue_many([durable.s(3, 4)])]
    run_jobs()
    assert [result.get(timeout=0) for result in results] == [3, 7]


@pytest.mark.django_db
def test_in_a_test_case_it_is_written_in_the_tests_transaction() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        durable.enqueue(1, 2)
        raise ZeroDivisionError
    assert not Job.objects.exists()
    result = durable.enqueue(1, 2)
    assert [ran.id for ran in run_jobs()] == [result.id]


@in_no_test_transaction
def test_nothing_was_left_by_the_test_before() -> None:
    assert not Job.objects.exists()


@in_no_test_transaction
@override_settings(DBQUEUE={"IMMEDIATE": True})
def test_where_jobs_run_inline_they_do_so_in_the_callers_transaction() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        results = [
            mark.using(durable=True).enqueue("gone"),
            *dbqueue.enqueue_many([mark.using(durable=True).s("gone too")]),
        ]
        assert [result.status for result in results] == [JobStatus.SUCCESSFUL] * 2
        raise ZeroDivisionError
    assert not Job.objects.exists() and labels() == set()


def test_bad_input() -> None:
    wrong: Any = add
    with pytest.raises(InvalidTask, match="durable is 1; it must be True or False"):
        wrong.using(durable=1)
