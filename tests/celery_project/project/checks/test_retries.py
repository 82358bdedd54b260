"""Trying again: by the task itself, and by itself."""

import pytest
from celery.exceptions import MaxRetriesExceededError, Retry
from mail.tasks import MailboxFull, send_to_full_box
from orders.tasks import Burnt, OvenIsCold, heat, heat_once_more, ignite, toast, wait_for_flour, weigh, weigh_again


def test_retry_until_it_works(work, notes):
    result = heat.apply_async((2,), task_id="heat-1")
    work()
    assert notes("heat") == ["0", "1", "2"]
    assert result.id == "heat-1"


def test_three_retries_are_four_runs_and_then_its_own_error(work, notes):
    result = heat.delay(9)
    work()
    assert notes("heat") == ["0", "1", "2", "3"]
    with pytest.raises(OvenIsCold, match="cold"):
        result.get(timeout=10)


def test_retry_without_an_error_ends_in_its_own(work):
    result = wait_for_flour.delay()
    work()
    with pytest.raises(MaxRetriesExceededError):
        result.get(timeout=10)


def test_that_no_retry_is_left_can_be_caught(work):
    result = heat_once_more.delay()
    work()
    assert result.get(timeout=10) == "never"


def test_errors_that_are_tried_again(work, notes):
    result = ignite.delay(2)
    work()
    assert notes("ignite") == ["0", "1", "2"]
    assert result.state == "SUCCESS"


def test_errors_that_are_tried_again_have_an_end(work, notes):
    result = ignite.delay(9)
    work()
    assert notes("ignite") == ["0", "1", "2", "3"]
    with pytest.raises(OvenIsCold):
        result.get(timeout=10)


def test_retry_kwargs(work, notes):
    result = toast.delay(False)
    work()
    assert notes("toast") == ["0", "1", "2"]
    with pytest.raises(OvenIsCold):
        result.get(timeout=10)


def test_errors_that_are_not_tried_again(work, notes):
    result = toast.delay(True)
    work()
    assert notes("toast") == ["0"]
    with pytest.raises(Burnt):
        result.get(timeout=10)


def test_the_last_error_is_the_result(work, notes):
    result = send_to_full_box.delay("ann")
    work()
    assert notes("full") == ["0", "1"]
    with pytest.raises(MailboxFull, match="ann"):
        result.get(timeout=10)


def test_hooks_of_failure(work, notes):
    result = weigh.delay(-1)
    work()
    assert result.state == "FAILURE"
    assert notes("before_start") == ["orders.tasks.weigh"]
    assert notes("on_failure") == ["ValueError: -1 g of [-1]"]
    assert notes("after_return") == ["FAILURE"]
    assert notes("on_success") == []


def test_hooks_of_retry(work, notes):
    result = weigh_again.delay(5)
    work()
    assert result.state == "SUCCESS"
    assert notes("on_retry") == ["the scales swing"]
    assert notes("before_start") == ["orders.tasks.weigh_again"] * 2
    assert notes("after_return") == ["SUCCESS"]
    assert notes("on_success") == ["5"]


def test_called_directly_there_is_no_retry():
    with pytest.raises(OvenIsCold):
        heat(1)


def test_retry_is_an_exception_that_can_be_caught():
    assert issubclass(Retry, Exception)
