"""The table of ``dbqueue.compat.coverage`` beside the package that it speaks of."""

import importlib
import importlib.util
import types
from typing import Any

import pytest

from dbqueue.compat import coverage
from dbqueue.compat.coverage import Section, Verdict

exists = pytest.mark.skipif(
    importlib.util.find_spec("dbqueue.compat.celery") is None, reason="dbqueue.compat.celery is not there yet"
)

CLASSES = {
    "App": ["app.Celery"],
    "Control": ["control.Control"],
    "GroupResult": ["result.GroupResult"],
    "Inspect": ["control.Inspect"],
    "Request": ["request.Request"],
    "Result": ["result.AsyncResult"],
    "Signature": ["canvas.Signature", "canvas.chain", "canvas.group", "canvas.chord"],
    "Task": ["task.Task"],
}
"""Where the package has what each kind is of."""


def module(name: str) -> Any:
    """The package's module, by the name of Celery's."""
    return importlib.import_module(f"dbqueue.compat.{name}")


def classes(kind: str) -> list[Any]:
    found = []
    for path in CLASSES[kind]:
        name, _, attribute = path.partition(".")
        found.append(getattr(module(f"celery.{name}"), attribute))
    return found


def has(cls: Any, name: str) -> bool:
    """Whether its objects have it: a member of the class, or what its __init__ sets."""
    code = getattr(cls.__init__, "__code__", None)
    return hasattr(cls, name) or name in getattr(cls, "__slots__", ()) or (code is not None and name in code.co_names)


@exists
@pytest.mark.parametrize("name", coverage.MODULES)
def test_names_that_are_covered_can_be_imported_and_those_missing_cant(name: str) -> None:
    section, there = coverage.MODULES[name], module(name)
    is_module = {one for one in section.known if f"{name}.{one}" in coverage.MODULES}
    works = (section.covered | section.differs.keys()) - is_module
    assert sorted(one for one in works if not hasattr(there, one)) == []
    # A module of the package's own may have the name.
    assert [one for one in section.missing if not isinstance(getattr(there, one, there), types.ModuleType)] == []


@exists
@pytest.mark.parametrize("kind", coverage.MEMBERS)
def test_members_that_are_covered_exist_and_those_missing_dont(kind: str) -> None:
    section = coverage.MEMBERS[kind]
    works = (section.covered | section.differs.keys()) - {"__call__"}
    assert sorted(one for one in works if not any(has(cls, one) for cls in classes(kind))) == []
    assert sorted(one for one in section.missing if any(has(cls, one) for cls in classes(kind))) == []


@exists
def test_signals_that_are_never_sent_are_said_to_be() -> None:
    signals = module("celery.signals")
    never = {
        name for name, reason in coverage.MODULES["celery.signals"].differs.items() if reason is coverage.NEVER_SENT
    }
    assert {signal.name for signal in signals.NEVER_SENT} == never


@exists
def test_settings_that_are_read_are_said_to_matter() -> None:
    read = module("celery.settings").DEFAULTS
    for name in read:
        judgement = coverage.setting(name)
        assert judgement.verdict in (Verdict.COVERED, Verdict.DIFFERS), name


def sections() -> list[Section]:
    named = [value for value in vars(coverage).values() if isinstance(value, Section)]
    return [*named, *coverage.MODULES.values()]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.title)
def test_each_name_has_one_verdict_and_each_but_covered_a_reason(section: Section) -> None:
    entries = [section.covered, section.differs.keys(), section.missing.keys(), section.look.keys()]
    assert sum(map(len, entries)) == len(section.known)
    for name in section.known - section.covered:
        judgement = section.judge(name)
        assert judgement is not None and judgement.reason


def test_old_names_of_settings_lead_to_new_ones() -> None:
    assert coverage.known_setting("CELERY_ALWAYS_EAGER") == "task_always_eager"
    assert coverage.known_setting("CELERYD_TASK_TIME_LIMIT") == "task_time_limit"
    assert coverage.known_setting("CELERYD_CONCURRENCY") == "worker_concurrency"
    assert coverage.known_setting("CELERYBEAT_SCHEDULE") == "beat_schedule"
    assert coverage.known_setting("CELERY_TASK_ROUTES") == "task_routes"
    assert coverage.known_setting("CELERY_DISABLE_RATE_LIMITS") == "worker_disable_rate_limits"
    assert coverage.known_setting("BROKER_URL") == "broker_url"
    assert coverage.known_setting("celery_app") is None
    assert coverage.known_setting("DATABASES") is None
