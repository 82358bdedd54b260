"""The pages of periodic jobs, through Django's client."""

import datetime
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

import dbqueue
from dbqueue import registry, scheduling
from dbqueue.definition import Task
from dbqueue.models import Job, Schedule, Source
from dbqueue.redaction import HIDDEN
from dbqueue.scheduling import Scheduling
from dbqueue.store import store_for

pytestmark = pytest.mark.django_db

SCHEDULES = "/admin/dbqueue/schedule/"
ADD = f"{SCHEDULES}add/"
ROME = "Europe/Rome"


def greet(name: str, *, times: int = 1) -> None: ...


@pytest.fixture(autouse=True)
def task() -> Iterator["Task[Any, Any]"]:
    made: Task[Any, Any] = Task(
        greet, name="greet", schedule=dbqueue.cron("0 5 * * *", "Europe/Berlin", args=["code"]), priority=3
    )
    registry.register(made)
    yield made
    registry._tasks.pop("greet", None)


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def of_the_code() -> Schedule:
    Scheduling(store_for("default")).step()
    return Schedule.objects.get(name="greet")


def client_who_may(*codenames: str) -> Client:
    user = User.objects.create_user("-".join(codenames), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="dbqueue", codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


def filled(**values: str) -> dict[str, str]:
    return {
        "name": "mine",
        "task": "greet",
        "cron": "*/5 * * * *",
        "timezone": ROME,
        "every": "",
        "args": '["Ann"]',
        "kwargs": '{"times": 2}',
        "misfire": "once",
        "overlap": "skip",
        "enabled": "on",
        "queue_name": "",
        "priority": "",
        **values,
    }


def change_page(schedule: Schedule) -> str:
    return f"{SCHEDULES}{schedule.pk}/change/"


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def errors(client: Client, **values: str) -> dict[str, list[str]]:
    """What the form says to such a schedule, which is not made."""
    response = client.post(ADD, filled(**values))
    assert response.status_code == 200
    assert not Schedule.objects.exists()
    found: dict[str, list[str]] = response.context["adminform"].form.errors
    return found


def test_a_schedule_is_made_and_its_jobs_come(operator: Client) -> None:
    assert "Europe/Rome" in page(operator, f"{ADD}?task=greet")

    assert operator.post(ADD, filled()).status_code == 302

    schedule = Schedule.objects.get()
    assert (schedule.source, schedule.task, schedule.args, schedule.kwargs) == (
        Source.ADMIN,
        "greet",
        ["Ann"],
        {"times": 2},
    )
    assert (schedule.cron, schedule.timezone, schedule.every, schedule.overlap) == ("*/5 * * * *", ROME, None, "skip")
    assert schedule.next_at is not None and schedule.next_at > store_for("default").clock()
    Scheduling(store_for("default")).step(schedule.next_at)
    job = Job.objects.get(schedule_id=schedule.pk)
    assert (job.args, job.kwargs, job.priority, job.slot) == (["Ann"], {"times": 2}, 3, schedule.next_at)
    html = page(operator, SCHEDULES)
    assert f"Every fifth minute of every hour, {ROME}" in html
    assert f"/admin/dbqueue/job/{job.pk}/change/" in html
    assert "dbqueue-ready" in html


def test_a_schedule_tells_its_next_five_runs_by_its_own_clock(operator: Client) -> None:
    operator.post(ADD, filled(cron="30 2 * * *"))
    schedule = Schedule.objects.get()
    # The night of 25 October 2026 has this half hour twice in Rome, and the job comes once.
    Schedule.objects.update(next_at=datetime.datetime(2026, 10, 24, 0, 30, tzinfo=datetime.UTC))
    html = page(operator, change_page(schedule))
    days = [f"<span>2026-10-{day}</span> <span>02:30:00</span></time> {ROME}" for day in (24, 25, 26, 27, 28)]
    assert [html.count(day) for day in days] == [1] * 5
    Schedule.objects.update(enabled=False)
    assert "2026-10-25" not in page(operator, change_page(schedule))


def test_schedules_are_filtered_by_what_they_are(operator: Client, of_the_code: Schedule) -> None:
    operator.post(ADD, filled(enabled=""))
    assert "greet" in page(operator, f"{SCHEDULES}?source__exact=code")
    listed = page(operator, f"{SCHEDULES}?enabled__exact=0")
    assert listed.count("field-in_words") == 1
    assert operator.get(f"{SCHEDULES}?args__contains=x").status_code == 400


def test_a_new_schedule_has_fields_for_its_tasks_arguments(operator: Client) -> None:
    assert "?task=greet" in operator.get(ADD).content.decode()
    assert "errorlist" in operator.get(ADD, {"task": "nobodys"}).content.decode()
    html = operator.get(ADD, {"task": "greet"}).content.decode()
    assert "greet(name: str, *, times: int = 1) -&gt; None" in html
    assert 'name="arg_name"' in html and 'name="args"' not in html
    typed = {**filled(), "arg_name": "Ann", "arg_times": "2"}
    for name in ("task", "args", "kwargs"):
        del typed[name]

    bad = operator.post(f"{ADD}?task=greet", {**typed, "arg_times": "two"}).content.decode()
    assert "Enter a whole number." in bad and not Schedule.objects.exists()
    assert operator.post(f"{ADD}?task=greet", typed).status_code == 302

    schedule = Schedule.objects.get()
    assert (schedule.task, schedule.args, schedule.kwargs) == ("greet", [], {"name": "Ann", "times": 2})
    assert schedule.next_at is not None
    assert "greet(name: str, *, times: int = 1)" in operator.get(change_page(schedule)).content.decode()


def test_the_list_names_a_task_once(operator: Client, of_the_code: Schedule) -> None:
    operator.post(ADD, filled(name="mine.alone"))
    html = page(operator, SCHEDULES)
    names = re.findall(r'<th class="field-named"><a [^>]*>(.*?)</a></th>', html)
    assert names == ["greet", 'mine.<wbr>alone<br><span class="dbqueue-quiet">greet</span>']
    assert "field-task_name" not in html


def test_a_name_that_nobody_types_has_no_help_for_it(operator: Client, of_the_code: Schedule) -> None:
    help_text = "Any name that is not used yet."
    assert help_text in page(operator, f"{ADD}?task=greet")
    operator.post(ADD, filled())
    mine = Schedule.objects.get(name="mine")
    assert help_text in page(operator, change_page(mine))
    for client, schedule in ((operator, of_the_code), (client_who_may("view_schedule"), mine)):
        html = page(client, change_page(schedule))
        assert schedule.name in html and help_text not in html


def test_what_is_chosen_is_scheduled_and_not_enqueued(operator: Client) -> None:
    html = page(operator, ADD)
    assert "can be scheduled." in html and "can be enqueued." not in html


def test_an_interval_needs_no_zone(operator: Client) -> None:
    operator.post(ADD, filled(cron="", every="300", enabled=""))
    schedule = Schedule.objects.get()
    assert (schedule.every, schedule.cron, schedule.timezone, schedule.next_at) == (300, "", "", None)
    assert "Every 5 min" in page(operator, SCHEDULES)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"cron": "61 * * * *"}, "cron", "cron is '61 * * * *': bad minute (0 to 59)."),
        ({"cron": ""}, "cron", "Give either a cron expression or a number of seconds."),
        ({"every": "60"}, "cron", "Give either a cron expression or a number of seconds."),
        ({"cron": "", "every": "0"}, "every", "every is 0 seconds; it must be a whole number from 1"),
        ({"timezone": "Europe/Rom"}, "timezone", "Select a valid choice."),
        ({"task": "os.system"}, "task", "Select a valid choice."),
        ({"args": "[1"}, "args", "This is not JSON"),
        ({"args": '{"a": 1}'}, "args", "This must be a list"),
        ({"args": "[]"}, "args", "'name' is missing"),
        ({"kwargs": '{"size": 1}'}, "args", "there is no argument 'size'"),
        ({"args": '["a\\u0000"]'}, "args", "NUL"),
        ({"kwargs": "[]"}, "kwargs", "This must be an object"),
        ({"queue_name": "a,b"}, "queue_name", "queue_name is 'a,b'"),
        ({"priority": "101"}, "priority", "less than or equal to 100"),
        ({"misfire": "never"}, "misfire", "Select a valid choice."),
        ({"name": "a\x07b"}, "name", "printable"),
        ({"name": ""}, "name", "This field is required."),
    ],
)
def test_what_a_worker_would_refuse_is_an_error_of_the_form(
    operator: Client, values: dict[str, str], field: str, words: str
) -> None:
    found = errors(operator, **values)
    assert list(found) == [field]
    assert words in found[field][0]


def test_a_name_is_given_once_by_the_admin_and_may_be_one_of_the_code(operator: Client, of_the_code: Schedule) -> None:
    operator.post(ADD, filled(name="greet"))
    assert Schedule.objects.filter(name="greet").count() == 2
    again = operator.post(ADD, filled(name="greet"))
    assert "There is a schedule of this name already." in again.content.decode()


def test_a_schedule_of_the_code_is_overridden_and_given_back(operator: Client, of_the_code: Schedule) -> None:
    html = page(operator, change_page(of_the_code))
    assert 'name="task"' not in html and 'name="name"' not in html
    assert "give_back_form" not in html

    values = filled(args='["code"]', kwargs="{}", cron="0 6 * * *", timezone="Europe/Berlin", overlap="allow")
    assert operator.post(change_page(of_the_code), values).status_code == 302

    of_the_code.refresh_from_db()
    assert (of_the_code.cron, of_the_code.overrides) == ("0 6 * * *", ["cron", "every", "timezone"])
    assert of_the_code.next_at is not None
    assert of_the_code.next_at.astimezone(datetime.UTC).minute == 0
    assert "cron, every, timezone" in page(operator, SCHEDULES)
    Scheduling(store_for("default")).step()
    of_the_code.refresh_from_db()
    assert of_the_code.cron == "0 6 * * *"

    assert "give_back_form" in page(operator, change_page(of_the_code))
    assert operator.post(f"{SCHEDULES}{of_the_code.pk}/give_back/").status_code == 302

    of_the_code.refresh_from_db()
    assert (of_the_code.cron, of_the_code.overrides) == ("0 5 * * *", [])
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")][-1] == (
        "Given back to the code: cron, every, timezone."
    )


def test_saving_without_a_change_overrides_nothing(operator: Client, of_the_code: Schedule) -> None:
    form = operator.get(change_page(of_the_code)).context["adminform"].form
    values = {name: "" if (value := form[name].value()) is None else str(value) for name in form.fields}
    assert operator.post(change_page(of_the_code), {**values, "enabled": "on"}).status_code == 302
    before = of_the_code.next_at
    of_the_code.refresh_from_db()
    assert (of_the_code.overrides, of_the_code.next_at) == ([], before)


def test_saving_does_not_undo_what_a_worker_did_meanwhile(operator: Client, of_the_code: Schedule) -> None:
    """The page was loaded before the slot."""
    assert of_the_code.next_at is not None
    Scheduling(store_for("default")).step(of_the_code.next_at)
    values = filled(args='["code"]', kwargs="{}", cron="0 5 * * *", timezone="Europe/Berlin", overlap="skip")
    operator.post(change_page(of_the_code), values)

    schedule = Schedule.objects.get()
    assert schedule.last_slot == of_the_code.next_at
    assert schedule.next_at is not None and schedule.next_at > of_the_code.next_at


def test_run_now_by_button_and_by_action(operator: Client, of_the_code: Schedule) -> None:
    assert "run_form" in page(operator, change_page(of_the_code))
    assert operator.post(f"{SCHEDULES}{of_the_code.pk}/run/").status_code == 302
    operator.post(SCHEDULES, {"action": "run_selected", "_selected_action": [str(of_the_code.pk)]})

    jobs = list(Job.objects.filter(schedule_id=of_the_code.pk, slot=None).order_by("id"))
    assert [job.args for job in jobs] == [["code"], ["code"]]
    before = of_the_code.next_at
    of_the_code.refresh_from_db()
    assert of_the_code.next_at == before
    assert [entry.change_message for entry in LogEntry.objects.order_by("id")] == [
        f"Run now: job #{job.pk}." for job in jobs
    ]


def test_run_now_says_why_it_can_not(operator: Client, of_the_code: Schedule) -> None:
    Schedule.objects.update(args=[])
    response = operator.post(f"{SCHEDULES}{of_the_code.pk}/run/", follow=True)
    assert "is missing" in response.content.decode()
    assert not Job.objects.exists()
    assert operator.post(f"{SCHEDULES}12345/run/", follow=True).status_code == 200


def test_actions_switch_schedules_off_and_on(operator: Client, of_the_code: Schedule) -> None:
    selected = {"_selected_action": [str(of_the_code.pk)]}
    operator.post(SCHEDULES, {"action": "disable_selected", **selected})
    of_the_code.refresh_from_db()
    assert (of_the_code.enabled, of_the_code.next_at, of_the_code.overrides) == (False, None, ["enabled"])
    operator.post(SCHEDULES, {"action": "enable_selected", **selected})
    of_the_code.refresh_from_db()
    assert of_the_code.enabled and of_the_code.next_at
    operator.post(SCHEDULES, {"action": "give_back_selected", **selected})
    of_the_code.refresh_from_db()
    assert of_the_code.overrides == []
    assert len(LogEntry.objects.all()) == 3


def test_a_job_leads_to_its_schedule(operator: Client, of_the_code: Schedule) -> None:
    operator.post(f"{SCHEDULES}{of_the_code.pk}/run/")
    job = Job.objects.get()
    Job.objects.update(schedule_id=of_the_code.pk)
    assert change_page(of_the_code) in operator.get(f"/admin/dbqueue/job/{job.pk}/change/").content.decode()


def signs(user: str, *, token: str = "") -> None: ...


@pytest.fixture
def signing() -> Iterator[Schedule]:
    registry.register(Task(signs, name="signs"))
    when = store_for("default").clock()
    yield Schedule.objects.create(
        name="signing", task="signs", every=60, args=["Zaphod"], kwargs={"token": "hush!"}, next_at=when
    )
    registry._tasks.pop("signs", None)


def test_a_secret_of_a_schedule_stays_and_is_not_shown(operator: Client, signing: Schedule) -> None:
    html = operator.get(change_page(signing)).content.decode()
    assert "hush!" not in html
    assert HIDDEN in html
    sent = filled(
        name="signing",
        task="signs",
        cron="",
        timezone="",
        every="60",
        args='["bob"]',
        kwargs=f'{{"token": "{HIDDEN}"}}',
    )
    assert operator.post(change_page(signing), sent).status_code == 302
    signing.refresh_from_db()
    assert (signing.args, signing.kwargs) == (["bob"], {"token": "hush!"})

    # Another task might tell it.
    html = operator.post(change_page(signing), {**sent, "task": "greet"}).content.decode()
    assert "type it anew" in html
    signing.refresh_from_db()
    assert signing.task == "signs"


def test_who_may_not_see_calls_changes_a_schedule_without_them(signing: Schedule) -> None:
    viewer, changer = client_who_may("view_schedule"), client_who_may("view_schedule", "change_schedule")
    reader = client_who_may("view_schedule", "view_job_arguments")
    shown = reader.get(change_page(signing)).content.decode()
    assert "Zaphod" in shown
    assert "hush!" not in shown
    assert "Zaphod" not in viewer.get(change_page(signing)).content.decode()
    assert "Zaphod" not in changer.get(change_page(signing)).content.decode()
    sent = filled(name="signing", task="signs", cron="", timezone="", every="30", args="", kwargs="")
    assert changer.post(change_page(signing), sent).status_code == 302
    signing.refresh_from_db()
    assert (signing.every, signing.args, signing.kwargs) == (30, ["Zaphod"], {"token": "hush!"})


def test_who_may_not_see_arguments_gives_them_to_no_other_task(signing: Schedule) -> None:
    changer = client_who_may("view_schedule", "change_schedule")
    sent = filled(name="signing", task="greet", cron="", timezone="", every="60", args="", kwargs="")
    assert "may not see the arguments" in changer.post(change_page(signing), sent).content.decode()
    signing.refresh_from_db()
    assert signing.task == "signs"

    Schedule.objects.filter(pk=signing.pk).update(args=["too", "many", "of", "them"])
    html = changer.post(change_page(signing), {**sent, "task": "signs"}).content.decode()
    assert "be called with" in html
    assert "hush!" not in html


def test_a_schedule_that_somebody_has_changed_meanwhile_is_not_overwritten(
    operator: Client, of_the_code: Schedule
) -> None:
    html = operator.get(change_page(of_the_code)).content.decode()
    found = re.search(r'name="seen" value="(\w+)"', html)
    assert found
    Schedule.objects.filter(pk=of_the_code.pk).update(args=["by another"])
    sent = filled(cron="0 6 * * *", timezone="Europe/Berlin", kwargs="", seen=found[1])
    assert "has changed this schedule meanwhile" in operator.post(change_page(of_the_code), sent).content.decode()
    of_the_code.refresh_from_db()
    assert of_the_code.args == ["by another"]

    before = {"args": ["code"], "enabled": True}
    assert scheduling.change(store_for("default"), of_the_code.pk, {"enabled": False}, before=before) is None
    assert scheduling.change(store_for("default"), of_the_code.pk, {"enabled": False}, before={"enabled": True})


def test_who_saves_too_late_is_told(operator: Client, of_the_code: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "change", lambda *_args, **_kwargs: None)  # as where it has been deleted since
    html = page(operator, change_page(of_the_code))
    typed = {**filled(cron="0 6 * * *"), "seen": re.search(r'name="seen" value="([^"]*)"', html)[1]}  # type: ignore[index]
    response = operator.post(change_page(of_the_code), typed, follow=True)
    assert response.status_code == 200
    assert "Nothing was saved: the schedule has been deleted or changed meanwhile." in response.content.decode()
    assert not LogEntry.objects.exists()


def test_only_rows_of_the_admin_are_deleted(operator: Client, of_the_code: Schedule) -> None:
    operator.post(ADD, filled())
    mine = Schedule.objects.get(name="mine")
    assert operator.post(f"{SCHEDULES}{of_the_code.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operator.post(f"{SCHEDULES}{mine.pk}/delete/", {"post": "yes"}).status_code == 302
    both = {"action": "delete_selected", "post": "yes", "_selected_action": [str(of_the_code.pk)]}
    operator.post(SCHEDULES, both)
    assert list(Schedule.objects.all()) == [of_the_code]


def test_permissions(of_the_code: Schedule) -> None:
    run, back = f"{SCHEDULES}{of_the_code.pk}/run/", f"{SCHEDULES}{of_the_code.pk}/give_back/"
    viewer, runner = client_who_may("view_schedule"), client_who_may("view_schedule", "run_schedule")
    changer = client_who_may("change_schedule")

    for url in (run, back):
        assert viewer.post(url).status_code == 403
    assert "run_form" not in page(viewer, change_page(of_the_code))
    assert viewer.post(change_page(of_the_code), filled()).status_code == 403
    assert viewer.get(ADD).status_code == 403
    assert runner.post(run).status_code == 302
    assert runner.post(back).status_code == 403
    assert changer.post(back).status_code == 302
    assert changer.post(run).status_code == 403
    assert runner.get(run).status_code == 405
    viewer.post(SCHEDULES, {"action": "run_selected", "_selected_action": [str(of_the_code.pk)]})
    assert Job.objects.count() == 1


def test_a_row_that_nobody_can_read_is_shown(operator: Client) -> None:
    schedule = Schedule.objects.create(name="broken", task="gone.task", cron="soon", timezone="Nowhere")
    assert "soon Nowhere" in page(operator, SCHEDULES)
    html = page(operator, change_page(schedule))
    assert "gone.task" in html
    response = operator.post(change_page(schedule), filled(task="gone.task"))
    assert "No task is registered as" in response.content.decode()
