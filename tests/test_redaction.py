"""What is sensitive among arguments: found, hidden, and nowhere to be read."""

import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from pytest_django import Settings

import dbqueue
from dbqueue.conf import Settings as OwnSettings
from dbqueue.definition import Task
from dbqueue.exceptions import InvalidArguments, InvalidSettings, InvalidTask, NotStorable, Retry
from dbqueue.models import Attempt, Job, LogLine
from dbqueue.redaction import HIDDEN, MISSING, Secrets, redacted, restored
from dbqueue.search import Search
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop import admin_tasks as tasks
from .test_admin import ADD, JOBS, a_worker, client_who_may, detail, page

SECRET = "hunter2 ünd\n\"more'"
"""With all that a literal of Python or JSON writes in another way."""

PIN = 90210
NESTED = "nested-s3cr3t"

WRITTEN = (SECRET, "hunter2", str(PIN), NESTED, "\\u00fcnd", "ünd")
"""None of which any page may have."""


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def assert_hidden(text: str) -> None:
    for written in WRITTEN:
        assert written not in text, f"{written!r} can be read"


def a_call(user: str = "ann") -> Job:
    result = tasks.with_secrets.enqueue(user, PIN, password=SECRET, config={"api_key": NESTED, "size": 3}, extra="free")
    return Job.objects.get(pk=result.id)


def test_names_and_patterns_say_what_is_hidden() -> None:
    task = tasks.with_secrets.name
    call = redacted(
        task, ["ann", PIN], {"password": SECRET, "config": {"api_key": [NESTED], "size": 3}, "extra": "free"}
    )

    assert call.args == ["ann", HIDDEN]
    assert call.kwargs == {"password": HIDDEN, "config": {"api_key": HIDDEN, "size": 3}, "extra": HIDDEN}
    told = call.secrets.scrub(f"{PIN} {SECRET} {SECRET!r} {json.dumps(SECRET)} {SECRET!a} {NESTED} 3 902101 freely")
    assert_hidden(told.replace("902101", ""))
    assert told.endswith(f"{HIDDEN} 3 902101 {HIDDEN}ly")
    assert call.secrets.scrub_value({"n": PIN, "m": 3, "l": [SECRET, None, True], "token": 1}) == {
        "n": HIDDEN,
        "m": 3,
        "l": [HIDDEN, None, True],
        "token": HIDDEN,
    }


def test_a_short_secret_is_hidden_where_it_is_a_word() -> None:
    assert (
        Secrets(["abc", 15]).scrub("abc abcd (abc) abc.txt 15 151")
        == f"{HIDDEN} abcd ({HIDDEN}) {HIDDEN}.txt {HIDDEN} 151"
    )
    assert Secrets([1.5, "a-b"]).scrub("1.5 a-bc") == f"{HIDDEN} {HIDDEN}c"
    assert Secrets([None, True, ""]).scrub("None True") == "None True"


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        (["u", 1, "too many"], {}, (["u", HIDDEN, HIDDEN], {})),
        ("no list", {}, ([HIDDEN], {})),
        ([], "no object", ([HIDDEN], {})),
    ],
)
def test_what_no_parameter_takes_is_hidden(args: Any, kwargs: Any, shown: Any) -> None:
    assert redacted(tasks.with_secrets.name, args, kwargs)[:2] == shown
    assert redacted(tasks.keywords.name, {"known": 1}, 5)[:2] == ([HIDDEN], {})


def test_of_a_task_that_nobody_knows_everything_is_hidden() -> None:
    call = redacted("nowhere.task", ["a"], {"b": 1})
    assert call[:2] == ([HIDDEN], {"b": HIDDEN})
    assert call.secrets.scrub("line 1 of a") == "line 1 of a"  # a worker that knew it has told what is to be told


def test_the_pattern_is_a_setting() -> None:
    task = tasks.keywords.name
    with override_settings(DBQUEUE={"SENSITIVE": "^iban$"}):
        assert redacted(task, [], {"known": 1, "IBAN": "x", "password": "y"}).kwargs["IBAN"] == HIDDEN
        assert redacted(task, [], {"known": 1, "IBAN": "x", "password": "y"}).kwargs["password"] == "y"
    with override_settings(DBQUEUE={"SENSITIVE": ""}):
        assert redacted(task, [], {"known": 1, "password": "y"}).kwargs["password"] == "y"
    with override_settings(DBQUEUE={"SENSITIVE": "("}), pytest.raises(InvalidSettings, match="regular expression"):
        OwnSettings.load()


@pytest.mark.parametrize("sensitive", [("nothing",), "pin", 5, [1]])
def test_what_is_no_parameter_can_not_be_sensitive(sensitive: Any) -> None:
    with pytest.raises(InvalidTask, match=r"sensitive of .* must be a list of names among .*'user', 'pin'"):
        Task(tasks.with_secrets.func, name="other", sensitive=sensitive)


def test_what_is_hidden_comes_back_from_the_same_place_only() -> None:
    original = {"a": [1, {"token": "t"}], "b": "x"}
    assert restored({"a": [2, {"token": HIDDEN}], "c": 1}, original) == {"a": [2, {"token": "t"}], "c": 1}
    elsewhere: Any
    for elsewhere in (
        {"c": HIDDEN},
        {"a": [1, 2, HIDDEN]},
        {"b": {"token": HIDDEN}},
        {"a": [{"token": HIDDEN}]},  # the item before it was taken out: another's place
        {"b": f"{HIDDEN} "},
        {HIDDEN: 1},
    ):
        with pytest.raises(LookupError):
            restored(elsewhere, original)
    with pytest.raises(LookupError):
        restored(HIDDEN, MISSING)


def test_forms_of_a_secret() -> None:
    """In a group of exceptions, in a literal within a literal, as another kind of number, as a key."""
    secrets = Secrets(["-----BEGIN-----\nMIIEvQIBADANBg\nx", 'it\'s "so"', 90210])
    assert "MIIE" not in secrets.scrub("    | -----BEGIN-----\n    | MIIEvQIBADANBg\n")
    assert "so" not in secrets.scrub(repr({"r": repr({"p": 'it\'s "so"'})}))
    assert secrets.scrub_value({"a": 90210.0, "b": 9021.0}) == {"a": HIDDEN, "b": 9021.0}
    call = redacted(tasks.with_secrets.name, ["ann"], {"rest_of": {"sk_live_1": "v"}})
    assert call.secrets.scrub("{'sk_live_1': 1}") == f"{{'{HIDDEN}': 1}}"


def test_a_secret_that_was_stripped_is_one() -> None:
    assert Secrets(["  SpacedSecret88\n"]).scrub("with SpacedSecret88.") == f"with {HIDDEN}."


@pytest.mark.django_db
def test_the_page_that_deletes_a_job_does_not_tell_its_log(client: Client) -> None:
    job = a_call("fails")
    run_jobs()
    LogLine.objects.create(job=job, attempt=1, made_at=job.enqueued_at, text="told in its log")
    assert "told in its log" not in page(client_who_may("view_job", "delete_job"), f"{JOBS}{job.pk}/delete/")
    assert "told in its log" not in repr(LogLine.objects.get())
    assert "sealed" not in repr(tasks.with_secrets.s("ann", password="sealed"))


def test_a_token_that_can_not_be_one_is_not_printed() -> None:
    with override_settings(DBQUEUE={"METRICS_TOKEN": "almost-a-tökén"}), pytest.raises(InvalidSettings) as refused:
        OwnSettings.load()
    assert "almost" not in str(refused.value)


def test_what_nobody_can_look_into_is_hidden_whole() -> None:
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    call = redacted(tasks.with_secrets.name, [deep], {})
    assert call[:2] == ([HIDDEN], {})
    assert call.secrets.scrub("anything") == HIDDEN
    assert call.secrets.scrub("") == ""


def test_many_secrets_are_hidden_in_a_moment() -> None:
    secrets = Secrets([*range(1000, 21_000), *(f"secret {number:05}" for number in range(2000))])
    text = "12345 and secret 00042 and 999 " * 3000
    assert secrets.scrub(text) == f"{HIDDEN} and {HIDDEN} and 999 " * 3000


def test_an_error_of_a_key_does_not_tell(db: None) -> None:
    with pytest.raises(InvalidArguments, match="The key of unique is") as refused:
        tasks.with_secrets.using(unique=dbqueue.Unique(key="{password}")).enqueue("ann", password=f"{SECRET}\n")
    assert_hidden(str(refused.value))


def test_an_error_of_enqueue_does_not_tell(db: None) -> None:
    with pytest.raises(NotStorable) as refused:
        tasks.with_secrets.enqueue("ann", password=f"{SECRET}\x00")
    assert_hidden(str(refused.value))
    assert "sensitive" in str(refused.value)

    with pytest.raises(NotStorable, match=r"'user'.*NUL"):
        tasks.with_secrets.enqueue(user="x\x00", password=SECRET)


# Each place where it might be read


@pytest.mark.django_db
@pytest.mark.parametrize("user", ["ann", "fails"])
def test_no_page_and_no_file_shows_it(operator: Client, user: str) -> None:
    job = a_call(user)
    run_jobs()
    job.refresh_from_db()
    assert job.status == ("FAILED" if user == "fails" else "SUCCESSFUL")

    html = page(operator, detail(job))
    assert_hidden(html)
    assert HIDDEN in html
    assert "size" in html
    assert_hidden(page(operator, JOBS))
    assert_hidden(page(operator, ADD, task=job.task, **{"from": str(job.pk)}))
    file = operator.post(JOBS, {"action": "export_selected", "_selected_action": [job.pk]}).content.decode()
    assert_hidden(file)
    assert HIDDEN in file
    if user == "fails":
        assert_hidden(page(operator, f"{JOBS}{job.pk}/edit/"))
        assert_hidden(Attempt.objects.get().traceback)


@pytest.mark.django_db
def test_no_line_of_log_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dbqueue")
    a_call("fails")
    broken_backoff.enqueue(SECRET)
    a_call()
    tasks.with_secrets.using(max_attempts=2).enqueue("fails", PIN, password=SECRET)
    run_jobs()

    assert "failed" in caplog.text
    assert HIDDEN in caplog.text
    assert_hidden(caplog.text)
    assert "could not be told" in caplog.text
    assert_hidden(repr(tasks.with_secrets.enqueue("ann", PIN, password=SECRET)))
    (claim,) = store_for("default").claim(a_worker(), 1)
    assert_hidden(repr(claim))
    assert str(claim.job_id) in repr(claim)


class RetryWithOthers(Retry):
    """As an adapter makes it that lets a run say the arguments of the next one."""

    call = ("[]", json.dumps({"token": SECRET}))


@dbqueue.task(max_attempts=2)
def asks_for_another(token: str) -> None:
    raise RetryWithOthers(f"{token} is old; now {SECRET}", delay=0) from ValueError(SECRET)


@pytest.mark.django_db
def test_the_arguments_of_the_next_attempt_are_hidden_in_the_failure_of_this_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = "the older one"
    for max_attempts in (2, 1):
        asks_for_another.using(max_attempts=max_attempts).enqueue(old)
    run_jobs()
    for told in (caplog.text, *Attempt.objects.values_list("traceback", flat=True)):
        assert HIDDEN in told and old not in told
        assert_hidden(told)


def test_secrets_of_two_calls_are_hidden_as_those_of_one() -> None:
    both = Secrets(["abcd", 7]) | Secrets(["abcdef", 8])
    assert both.scrub("abcdef abcd 7 8 78") == f"{HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN} 78"
    unreadable = redacted("x", None, None).secrets
    for secrets in (Secrets(["abcd"]) | unreadable, unreadable | Secrets(["abcd"])):
        assert secrets.scrub("free") == HIDDEN


def never_waits(failures: int, exc: BaseException) -> float:
    raise LookupError(f"after {exc}")


@dbqueue.task(max_attempts=2, backoff=never_waits)
def broken_backoff(token: str) -> None:
    raise ValueError(f"not with {token}")


@pytest.mark.django_db
def test_rows_of_before_are_shown_without_it(operator: Client) -> None:
    """What a worker wrote that did not know yet that an argument is sensitive."""
    job = a_call("fails")
    run_jobs()
    Attempt.objects.update(traceback=f"ValueError: {SECRET}")
    LogLine.objects.create(job=job, attempt=1, made_at=job.enqueued_at, text=f"with {NESTED}")
    Job.objects.update(
        reason=f"because of {PIN}",
        progress={"done": 1, "total": 2, "message": SECRET},
        unique_key=f"k:{NESTED}",
        concurrency_key=f"c:{NESTED}",
        rate_key=f"r:{NESTED}",
    )
    html = page(operator, detail(job))
    assert_hidden(html)
    assert html.count(HIDDEN) >= 8
    Job.objects.update(task="nowhere.task", return_value=SECRET, status="SUCCESSFUL")
    html = page(operator, detail(job))
    assert "does not know the task" in html
    assert f"c:{NESTED}" not in html
    assert "hunter2" not in html[html.index("field-positional_arguments") :]


@pytest.mark.django_db
def test_a_digest_of_what_is_hidden_is_hidden(operator: Client) -> None:
    """Who knows the other arguments could try all PINs."""
    result = tasks.with_secrets.using(unique=True).enqueue("ann", PIN)
    key = Job.objects.get(pk=result.id).unique_key
    assert key is not None
    assert key not in page(operator, f"{JOBS}{result.id}/change/")
    open_key = Job.objects.get(pk=tasks.only_once.enqueue().id)
    assert str(open_key.unique_key) in page(operator, detail(open_key))


@pytest.mark.django_db
def test_defaults_are_hidden_too(operator: Client) -> None:
    html = page(operator, ADD, task=f"{__name__}.with_hidden_defaults")
    assert "sk_default" not in html
    assert "4711" not in html
    operator.post(f"{ADD}?task={__name__}.with_hidden_defaults", {"queue_name": "default", "priority": "0"})
    assert Job.objects.get().kwargs == {}  # the code's default holds
    with pytest.raises(InvalidArguments) as refused:
        dbqueue.enqueue(f"{__name__}.with_hidden_defaults", wrong=1)
    assert "sk_default" not in str(refused.value)
    assert HIDDEN in str(refused.value)


@dbqueue.task
def with_hidden_defaults(config: dict[str, str] = {"api_key": "sk_default"}, token: int = 4711) -> None:  # noqa: B006
    ...


@pytest.mark.django_db
def test_what_the_task_tells_of_itself_is_without_it() -> None:
    tells.enqueue(SECRET)
    run_jobs()

    job = Job.objects.get()
    assert_hidden(LogLine.objects.get().text)
    assert_hidden(json.dumps(job.progress, ensure_ascii=False))
    assert_hidden(job.reason)
    assert HIDDEN in job.reason


@dbqueue.task(takes_context=True)
def tells(context: dbqueue.Context, token: str) -> None:
    context.log("It is %s", token)
    context.progress(1, message=f"at {token}")
    raise dbqueue.Discard(f"not with {token}")


@pytest.mark.django_db
def test_a_form_never_sends_it_back(operator: Client) -> None:
    url = f"{ADD}?task={tasks.with_secrets.name}"
    first = page(operator, url)
    assert "4711" not in first  # the code's default
    typed = {"arg_pin": str(PIN), "arg_password": SECRET, "arg_rest": json.dumps({"x": NESTED})}
    response = operator.post(url, {**typed, "arg_user": "", "queue_name": "default", "priority": "0"})

    assert response.status_code == 200
    assert_hidden(response.content.decode())
    assert not Job.objects.exists()

    operator.post(url, {**typed, "arg_user": "ann", "queue_name": "default", "priority": "0"})
    assert Job.objects.get().kwargs == {
        "user": "ann",
        "pin": PIN,
        "password": SECRET,
        "x": NESTED,
    }


@pytest.mark.django_db
def test_a_mask_that_is_sent_is_refused_where_nothing_stands_behind_it(operator: Client) -> None:
    url = f"{ADD}?task={tasks.with_secrets.name}"
    sent = {"arg_user": "ann", "arg_config": json.dumps({"api_key": HIDDEN}), "queue_name": "default", "priority": "0"}
    assert "type it anew" in operator.post(url, sent).content.decode()
    assert not Job.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    [
        f"task:{tasks.with_secrets.name} args.pin:{PIN}",
        f"args.password:{NESTED}",
        f'args.config:\'{{"api_key": "{NESTED}", "size": 3}}\'',
        f"args.config:{json.dumps(json.dumps(json.dumps({'api_key': NESTED})))}",
        f"task:{tasks.with_secrets.name} args.extra:free",
        f"task:{tasks.divide.name} args.no_parameter:1",
    ],
)
def test_nobody_finds_out_by_searching(operator: Client, query: str) -> None:
    a_call()
    assert "Nobody may search for sensitive arguments" in page(operator, JOBS, q=query)
    assert not Search.parse(query, store_for("default").clock()).apply(Job.objects.all()).exists()


@pytest.mark.django_db
def test_a_search_over_all_tasks_leaves_out_those_that_hide_it(operator: Client) -> None:
    hidden = a_call()
    Job.objects.filter(pk=hidden.pk).update(args=[], kwargs={"user": "u", "pin": PIN})
    unknown = Job.objects.create(task="nowhere.task", kwargs={"pin": PIN}, enqueued_at=store_for("default").clock())
    gone = Job.objects.create(task=tasks.divide.name, kwargs={"pin": PIN}, enqueued_at=store_for("default").clock())
    open_one = Job.objects.get(pk=tasks.keywords.enqueue(1, pin=PIN).id)
    found = Search.parse(f"args.pin:{PIN}", store_for("default").clock()).apply(Job.objects.all())
    assert set(found) == {open_one}
    assert unknown not in found
    assert gone not in found


@pytest.mark.django_db
def test_who_may_not_see_calls_sees_none(settings: Settings) -> None:
    job = Job.objects.get(pk=tasks.fail_with.enqueue("what it says").id)
    run_jobs()
    Job.objects.update(
        reason="it reasons",
        progress={"done": 1, "total": 2, "message": "it proceeds"},
        unique_key="it is unique",
        rate_key="it rates",
        concurrency_key="it concurs",
    )
    LogLine.objects.create(job=job, attempt=1, made_at=job.enqueued_at, text="it logs")
    viewer, reader = client_who_may("view_job"), client_who_may("view_job", "view_job_arguments")
    for told in ("it reasons", "it proceeds", "it is unique", "it rates", "it concurs", "it logs"):
        assert told in page(reader, detail(job)), told
        assert told not in page(viewer, detail(job)), told

    assert "what it says" in page(reader, detail(job))
    assert "what it says" not in page(viewer, detail(job))
    assert ">ValueError</strong>" in page(viewer, detail(job))
    assert "may not see what jobs are called with" in page(viewer, detail(job))
    assert "may not see" in page(viewer, JOBS, q="args.message:x")
    export = {"action": "export_selected", "_selected_action": [job.pk]}
    assert "what it says" in reader.post(JOBS, export).content.decode()
    file = viewer.post(JOBS, export).content.decode()
    assert "what it says" not in file
    assert "it reasons" not in file
