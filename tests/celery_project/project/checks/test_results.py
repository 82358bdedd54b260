"""What is known of a task."""

import pytest
from celery import states
from celery.exceptions import TaskError
from celery.result import AsyncResult
from django.conf import settings
from mail.tasks import send_by_name, status
from orders.tasks import add, bake_all, refuse, skip
from reports import health
from reports.tasks import fail, tomorrow


def test_success(work):
    result = add.delay(2, 3)
    work()
    found = AsyncResult(result.id)
    assert (found.state, found.status, found.result, found.info) == ("SUCCESS", "SUCCESS", 5, 5)
    assert (found.ready(), found.successful(), found.failed(), found.traceback) == (True, True, False, None)
    assert found.get(timeout=1) == 5
    assert found.state in states.READY_STATES


def test_failure(work):
    result = fail.delay("burnt")
    work()
    found = AsyncResult(result.id)
    assert (found.state, found.ready(), found.successful(), found.failed()) == ("FAILURE", True, False, True)
    assert isinstance(found.result, RuntimeError) and str(found.result) == "burnt"
    assert "RuntimeError" in found.traceback
    with pytest.raises(RuntimeError, match="burnt"):
        found.get(timeout=1)
    assert str(found.get(timeout=1, propagate=False)) == "burnt"


def test_the_page_of_a_task(work, orders):
    good, bad, states_of_its_own = add.delay(2, 3), fail.delay("burnt"), skip.delay("no flour")
    work()
    assert status(good.id) == {"state": "SUCCESS", "status": "SUCCESS", "ready": True, "result": 5}
    assert status(bad.id) == {
        "state": "FAILURE", "status": "FAILURE", "ready": True, "error": "burnt", "has_traceback": True,
    }  # fmt: skip
    found = status(states_of_its_own.id)
    assert (found["state"], found["info"]) == ("SKIPPED", {"why": "no flour"})


def test_progress_and_then_a_result(work, orders):
    result = bake_all.delay(orders)
    work()
    assert status(result.id)["result"] == 3


def test_refused(work):
    result = refuse.delay()
    work()
    assert not result.successful()


def test_a_task_by_its_name(work, notes):
    send_by_name("ann")
    work()
    # In eager mode Celery sends it to the broker all the same.
    assert notes("mail") == ([] if settings.CELERY_TASK_ALWAYS_EAGER else ["ann: by name"])


def test_ids_and_equality(work):
    result = add.delay(2, 3)
    work()
    assert AsyncResult(result.id) == AsyncResult(result.id)
    assert AsyncResult(result.id).id == result.id == result.task_id


def test_forget(work):
    result = add.delay(2, 3)
    work()
    AsyncResult(result.id).forget()
    assert AsyncResult(result.id).state != "SUCCESS"


def test_revoked_after_its_end(work):
    result = add.delay(2, 3)
    work()
    health.stop(result.id)
    assert AsyncResult(result.id).state == "SUCCESS"


def test_no_worker_answers():
    assert health.workers() == []
    assert health.busy() == {}


def test_registered():
    names = health.registered()
    assert len(names) >= 40
    assert {"bakery.celery.debug_task", "orders.tasks.add", "orders.slice", "mail.confirm"} <= set(names)


def test_errors_have_a_common_class():
    assert issubclass(TaskError, Exception)


def test_none_is_a_result_too(work, notes):
    result = tomorrow.delay()
    work()
    assert result.get(timeout=10) is None
    assert notes("tomorrow") == ["True"]
