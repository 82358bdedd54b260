"""Typed fields from a task's signature: what each hint takes, what it refuses, and what the task receives for it."""

import datetime
import json
import re
from typing import Any

import pytest
from django import forms
from django.test import override_settings

from dbqueue import registry
from dbqueue.definition import Task
from dbqueue.forms import OPTIONS, ChooseTaskForm, EnqueueForm, enqueue_form
from dbqueue.forms.arguments import type_hints
from dbqueue.forms.enqueue import choices
from dbqueue.models import Job

from .shop import admin_tasks as tasks
from .shop.models import Mark


def untouched(task: Task[..., Any], initial: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a browser sends for the form if nobody touches it."""
    sent = {}
    for field in enqueue_form(task)(initial=initial):
        if isinstance(field.field, forms.BooleanField):
            if field.value():
                sent[field.name] = "on"
        elif isinstance(field.field, forms.ChoiceField):
            choices: Any = field.field.choices
            offered = [key for key, _ in choices]
            sent[field.name] = field.value() if field.value() in offered else offered[0]
        else:
            sent[field.name] = field.field.widget.format_value(field.value()) or ""
    return sent


def submitted(task: Task[..., Any], **changes: str) -> EnqueueForm:
    """The form with changes: fields by name, arguments by their parameter."""
    data = untouched(task)
    for name, value in changes.items():
        data[name if name in (*OPTIONS, "unique_key") else f"arg_{name}"] = value
    return enqueue_form(task)(data)


def call(task: Task[..., Any], **changes: str) -> tuple[list[Any], dict[str, Any]]:
    form = submitted(task, **changes)
    assert form.is_valid(), form.errors.as_json()
    return list(form.call_args), form.call_kwargs


def errors(task: Task[..., Any], **changes: str) -> dict[str, str]:
    """The errors by field, the arguments' by their parameter."""
    found = submitted(task, **changes).errors
    return {name.removeprefix("arg_"): " ".join(map(str, messages)) for name, messages in found.items()}


EVERY_TYPE = {
    "whole": "-3",
    "real": "2.50",
    "price": "0.10",
    "text": " two\r\nlines ",
    "flag": "on",
    "day": "2030-12-31",
    "clock": "23:59",
    "moment": "2030-12-31T23:59:01",
    "span": "1 02:03:04",
    "key": "C5A1D1F0-0000-4000-8000-000000000001",
    "level": "high",
    "digit": "'1'",
    "colour": "GREEN",
    "size": "LARGE",
    "order": "77",
    "numbers": "[1, 2]",
    "table": "{}",
    "anything": "null",
    "unhinted": '"text"',
}


def test_each_type_arrives_as_documented() -> None:
    args, kwargs = call(tasks.every_type, **EVERY_TYPE)

    assert args == []
    assert kwargs == {
        "whole": -3,
        "real": 2.5,
        "price": "0.10",
        "text": " two\nlines ",
        "flag": True,
        "day": "2030-12-31",
        "clock": "23:59:00",
        "moment": "2030-12-31T23:59:01-06:00",
        "span": "P1DT02H03M04S",
        "key": "c5a1d1f0-0000-4000-8000-000000000001",
        "level": "high",
        "digit": "1",
        "colour": "#0f0",
        "size": 2,
        "order": 77,
        "numbers": [1, 2],
        "table": {},
        "anything": None,
        "unhinted": "text",
    }
    assert json.loads(json.dumps(kwargs)) == kwargs


def test_an_unticked_box_is_false() -> None:
    assert call(tasks.every_type, **{**EVERY_TYPE, "flag": ""})[1]["flag"] is False


@override_settings(USE_TZ=False)
def test_a_datetime_without_time_zones_has_no_offset() -> None:
    assert call(tasks.every_type, **EVERY_TYPE)[1]["moment"] == "2030-12-31T23:59:01"


def test_every_argument_without_default_is_asked_for() -> None:
    found = errors(tasks.every_type)

    assert set(found) == set(EVERY_TYPE) - {"flag"}
    assert set(found.values()) == {"This field is required."}


@pytest.mark.parametrize(
    ("parameter", "typed", "said"),
    [
        ("whole", "1.5", "Enter a whole number."),
        ("whole", "1" * 5000, "Enter a whole number."),
        ("real", "nan", "Enter a number."),
        ("real", "1e999", "Enter a number."),
        ("price", "Infinity", "Enter a number."),
        ("text", "a\x00b", "Null characters are not allowed."),
        ("day", "2030-02-30", "Enter a valid date."),
        ("clock", "25:00", "Enter a valid time."),
        ("moment", "tomorrow", "Enter a valid date/time."),
        ("span", "soon", "Enter a valid duration."),
        ("key", "c5a1", "Enter a valid UUID."),
        ("level", "middle", "Select a valid choice. middle is not one of the available choices."),
        ("digit", "2", "Select a valid choice. 2 is not one of the available choices."),
        ("colour", "#f00", "Select a valid choice. #f00 is not one of the available choices."),
        ("numbers", '{"a": 1}', "This must be a list, as [1, 2]."),
        ("numbers", "null", "This must be a list, as [1, 2]."),
        ("table", "[]", 'This must be an object, as {"a": 1}.'),
        ("anything", "hello", "This is not JSON: Expecting value: line 1 column 1 (char 0)."),
        ("anything", "[" * 100_000, "This is nested too deeply."),
        ("anything", '{"a": [NaN]}', "which JSON can't hold"),
        ("anything", '["\\u0000"]', "NUL character"),
        ("anything", '["\\ud800"]', "lone surrogate"),
    ],
)
def test_what_a_field_refuses_is_said_at_the_field(parameter: str, typed: str, said: str) -> None:
    found = errors(tasks.every_type, **{**EVERY_TYPE, parameter: typed})

    assert list(found) == [parameter]
    assert said in found[parameter]


def test_untouched_defaults_are_left_out() -> None:
    assert call(tasks.with_defaults) == ([], {})


def test_a_default_typed_anew_is_left_out() -> None:
    assert call(tasks.with_defaults, whole=" 5", numbers="[1,2]", real="1.0") == ([], {})


def test_changed_defaults_are_passed() -> None:
    kwargs = call(tasks.with_defaults, whole="6", text="", flag="", colour="RED", numbers="[true, 2]")[1]

    assert kwargs == {"whole": 6, "text": "", "flag": False, "colour": "#f00", "numbers": [True, 2]}


def test_a_default_that_is_equal_to_python_only_is_passed() -> None:
    """[1, 2] and [True, 2] are equal to Python; what the task receives is not."""
    assert call(tasks.with_defaults, numbers="[true, 2]") == ([], {"numbers": [True, 2]})


def test_an_emptied_field_means_the_default() -> None:
    assert call(tasks.with_defaults, whole="", real="", moment="", numbers="", day="") == ([], {})


def test_a_default_that_json_cannot_hold_is_shown_as_help() -> None:
    field = enqueue_form(tasks.with_defaults).base_fields["arg_sentinel"]

    assert field.initial is None
    assert "&lt;class &#x27;object&#x27;&gt;" in field.help_text


def test_optional_arguments_may_be_none() -> None:
    assert call(tasks.optional) == ([], {"whole": None})
    assert call(tasks.optional, whole="3", text="", level="", anything="null") == (
        [],
        {"whole": 3, "text": None, "level": None, "anything": None},
    )
    assert call(tasks.optional, flag="False", anything="[]")[1] == {"whole": None, "flag": False, "anything": []}


def test_positional_only_and_variadic_arguments_are_placed() -> None:
    assert call(tasks.placed, first="1") == ([1], {})
    assert call(tasks.placed, first="1", second="2031-01-01", word="v") == ([1, "2031-01-01"], {"word": "v"})
    assert call(tasks.placed, first="1", rest="[3, 4]") == ([1, "2030-01-01", 3, 4], {})
    assert call(tasks.unstorable_default) == ([], {})


def test_a_place_whose_default_cannot_be_stored_needs_a_value() -> None:
    assert list(errors(tasks.unstorable_default, rest="[1]")) == ["first"]


def test_keywords_are_an_object() -> None:
    assert call(tasks.keywords, known="1", more='{"a": [1]}') == ([], {"known": 1, "a": [1]})
    assert errors(tasks.keywords, known="1", more='{"known": 2}') == {"more": "These have fields of their own: known."}


def test_a_hint_that_cannot_be_evaluated_costs_only_its_own_field() -> None:
    assert type_hints(tasks.half_known.func) == {"whole": int, "return": int}
    assert call(tasks.half_known, whole="1", other="[1]") == ([], {"whole": 1, "other": [1]})


def test_parameters_named_like_options_are_kept_apart() -> None:
    form = submitted(tasks.named_like_options, priority="9")
    form.data = {**form.data, "arg_queue_name": "q", "arg_priority": "1", "arg_task": "os.system"}

    assert form.is_valid(), form.errors
    assert form.call_kwargs == {"queue_name": "q", "priority": 1, "task": "os.system"}
    assert form.cleaned_data["priority"] == 9


def test_the_context_is_no_argument_and_the_options_start_at_the_tasks_own() -> None:
    data = untouched(tasks.with_context)

    options = {"queue_name": "mail", "priority": "7", "run_after": "", "max_attempts": "1", "unique_key": ""}
    assert data == {"arg_word": "", **options}


@pytest.mark.parametrize(
    ("option", "typed", "said"),
    [
        ("queue_name", "a,b", "without commas"),
        ("queue_name", "", "This field is required."),
        ("queue_name", "a" * 101, "1 to 100 characters"),
        ("priority", "101", "less than or equal to 100"),
        ("priority", "-101", "greater than or equal to -100"),
        ("priority", "", "This field is required."),
        ("max_attempts", "0", "greater than or equal to 1"),
        ("unique_key", "k" * 256, "at most 255 characters"),
        ("run_after", "tomorrow", "Enter a valid date/time."),
        ("run_after", "9999-12-31T23:59:59", "This date is out of range."),
    ],
)
def test_what_an_option_refuses_is_said_at_the_option(option: str, typed: str, said: str) -> None:
    found = errors(tasks.without_arguments, **{option: typed})

    assert list(found) == [option]
    assert said in found[option]


@override_settings(DBQUEUE={"QUEUES": ["mail", "default"]})
def test_restricted_queues_are_a_choice() -> None:
    assert list(errors(tasks.without_arguments, queue_name="other")) == ["queue_name"]
    assert call(tasks.without_arguments, queue_name="mail") == ([], {})


@override_settings(DBQUEUE={"QUEUES": ["default"]})
def test_a_task_whose_own_queue_is_not_allowed_offers_none_in_its_place() -> None:
    assert untouched(tasks.with_context)["queue_name"] == ""


@pytest.mark.django_db
def test_enqueue_makes_the_job_that_the_form_says() -> None:
    form = submitted(tasks.keywords, known="1", priority="-5", queue_name="mail", run_after="2030-01-01T00:00")
    assert form.is_valid(), form.errors

    result = form.enqueue()

    job = Job.objects.get(pk=result.id)
    assert (job.task, job.args, job.kwargs) == (tasks.keywords.name, [], {"known": 1})
    assert (job.queue_name, job.priority) == ("mail", -5)
    assert job.run_after == datetime.datetime(2030, 1, 1, 6, tzinfo=datetime.UTC)


@pytest.mark.django_db
def test_a_key_that_is_typed_is_taken_as_it_is() -> None:
    results = []
    for known in ("1", "2"):
        form = submitted(tasks.keywords, known=known, unique_key="{known}", max_attempts="3")
        assert form.is_valid(), form.errors
        results.append(form.enqueue())

    assert results[0].id == results[1].id
    assert results[1].duplicate
    assert results[0].max_attempts == 3


@pytest.mark.django_db
def test_what_a_job_was_called_with_fills_the_form_so_that_it_is_called_so_again() -> None:
    calls: list[tuple[Task[Any, Any], tuple[Any, ...], dict[str, Any]]] = [
        (tasks.with_defaults, (7,), {"text": "a\nb", "flag": False, "colour": "#f00", "numbers": [3], "real": 2.5}),
        (tasks.with_defaults, (), {"moment": "2031-05-06T07:08:09+00:00", "day": "2031-01-31", "sentinel": {"a": 1}}),
        (tasks.optional, (None,), {"text": None, "level": None, "anything": [1]}),
        (tasks.placed, (1, "2031-02-03", 5, 6), {"word": "x"}),
        (tasks.keywords, (), {"known": 1, "other": [None]}),
        (tasks.divide, (), {"dividend": 7, "divisor": "2.50", "rounding": "up"}),
    ]
    for task, args, kwargs in calls:
        job = Job(task=task.name, args=list(args), kwargs=kwargs, max_attempts=4)
        again = enqueue_form(task)(untouched(task, enqueue_form(task).shown(job)))
        assert again.is_valid(), (task, again.errors)

        def passed(args: Any, kwargs: Any, task: Task[Any, Any] = task) -> dict[str, Any]:
            bound = task.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return json.loads(json.dumps(bound.arguments, default=str))  # type: ignore[no-any-return]

        expected = passed(args, kwargs)
        if "moment" in kwargs:
            form_zone = datetime.datetime.fromisoformat(again.call_kwargs["moment"])
            assert form_zone == datetime.datetime.fromisoformat(kwargs["moment"])
            expected["moment"] = again.call_kwargs["moment"]
        assert passed(again.call_args, again.call_kwargs) == expected
        assert again.cleaned_data["max_attempts"] == 4


def test_what_does_not_fit_its_field_is_not_shown_there() -> None:
    job = Job(task=tasks.divide.name, args=["seven"], kwargs={"divisor": "x", "rounding": "sideways"})
    assert enqueue_form(tasks.divide).shown(job) | {"queue_name": "", "priority": 0, "max_attempts": 1} == {
        "arg_dividend": "",
        "arg_divisor": "",
        "arg_rounding": "",
        "queue_name": "",
        "priority": 0,
        "max_attempts": 1,
    }


@pytest.mark.django_db
def test_a_row_is_named_by_its_key() -> None:
    mark = Mark.objects.create(label="one")
    form = submitted(tasks.about_a_mark, mark=str(mark.pk))
    assert form.is_valid(), form.errors
    assert form.call_kwargs == {"mark": mark.pk}

    assert errors(tasks.about_a_mark, mark=str(mark.pk + 1)) == {"mark": "There is no mark with this id."}
    assert call(tasks.about_a_mark, mark="") == ([], {})


def test_only_registered_tasks_can_be_chosen() -> None:
    chosen = ChooseTaskForm({"task": tasks.divide.name})
    assert chosen.is_valid()
    assert chosen.cleaned_data["task"] is tasks.divide

    for name, said in (
        ("os.system", "No task is registered as 'os.system'"),
        (tasks.not_offered.name, "is not offered here"),
        ("tests.shop.admin_tasks.divid", f"Did you mean '{tasks.divide.name}'"),
        ("", "This field is required."),
    ):
        form = ChooseTaskForm({"task": name})
        assert not form.is_valid()
        assert said in form.errors["task"][0]


def signed(password: str, pin: int, private_key: str, token: Any) -> None: ...


def test_a_secret_of_one_line_is_typed_like_a_password() -> None:
    form = str(enqueue_form(Task(signed, name="signed", sensitive=("pin",)))({"arg_password": "hush", "arg_pin": "x"}))
    lines = re.findall(r'<input type="password"[^>]*name="arg_(\w+)"[^>]*>', form)
    assert lines == ["password", "pin"]
    assert form.count('autocomplete="new-password"') == 2 and "hush" not in form
    assert re.findall(r'<textarea[^>]*name="arg_(\w+)"', form) == ["private_key", "token"]  # which may have more lines


def test_choices_have_whole_names_and_the_first_line_of_the_docstring() -> None:
    shown = dict(choices())
    assert shown[tasks.divide.name] == f"{tasks.divide.name}: Divide and round."
    assert shown[tasks.keywords.name] == tasks.keywords.name
    assert tasks.not_offered.name not in shown


def test_every_task_of_this_process_makes_a_form() -> None:
    for task in registry.registered():
        assert str(enqueue_form(task)())
