"""What travels with a job beside its arguments: headers, and a name that somebody else has for it."""

from typing import Any

import pytest
from django.test import Client

from dbqueue import enqueue_many, group
from dbqueue.exceptions import InvalidTask
from dbqueue.models import Job
from dbqueue.testing import run_jobs

from .shop.models import Mark
from .shop.tasks import add
from .shop.workflow_tasks import relay, tell_headers

pytestmark = pytest.mark.django_db


def told() -> list[str]:
    return sorted(Mark.objects.values_list("label", flat=True))


def test_headers_come_with_every_attempt() -> None:
    tell_headers.using(headers={"tenant": 7, "tags": ["a", "ü"]}, max_attempts=2, backoff=0).enqueue(fail=True)
    run_jobs(scheduled=True)
    assert told() == ['{"tags": ["a", "\\u00fc"], "tenant": 7}'] * 2


def test_a_job_without_headers_has_none() -> None:
    tell_headers.enqueue()
    run_jobs()
    assert told() == ["{}"]


def test_headers_are_inherited_by_what_a_job_calls_for() -> None:
    relay.using(headers={"tenant": 7}).enqueue()
    group(tell_headers.s(), tell_headers.s().set(headers={"own": 1})).set(headers={"all": 2}).enqueue()
    run_jobs()
    assert told() == ['{"all": 2}', '{"own": 1}', '{"tenant": 7}']


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("headers", [1], "must be a dict"),
        ("headers", {1: 2}, "headers"),
        ("headers", {"a": object()}, "headers"),
        ("external_id", "", "1 to 255 characters"),
        ("external_id", "a\x00b", "printable"),
        ("external_id", 7, "printable"),
    ],
)
def test_what_can_not_be_kept_is_refused(option: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidTask, match=said):
        add.using(**{option: value})


def test_a_job_is_found_by_a_name_of_ones_own() -> None:
    one = add.using(external_id="order-7").enqueue(1, 2)
    enqueue_many([add.using(external_id="order-8").s(1, 2), add.s(3, 4)])
    assert str(Job.objects.get(external_id="order-7").pk) == one.id
    assert Job.objects.filter(external_id="order-8").count() == 1


def test_headers_are_shown_to_who_may_see_calls_and_secrets_to_nobody(admin_client: Client) -> None:
    job = add.using(headers={"tenant": "seven", "api_key": "hush-hush"}).enqueue(1, 2)
    html = admin_client.get(f"/admin/dbqueue/job/{job.id}/change/").content.decode()
    assert "seven" in html and "hush-hush" not in html
