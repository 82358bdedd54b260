"""The table of ``dbqueue.compat.coverage`` beside the package that it speaks of."""

import ast
import dis
import importlib
import types
from pathlib import Path
from typing import Any

import pytest

from dbqueue.compat import coverage
from dbqueue.compat.coverage import Section, Verdict

CLASSES = {
    "App": "app.Celery",
    "Chain": "canvas.chain",
    "Chord": "canvas.chord",
    "Chunks": "canvas.chunks",
    "Control": "control.Control",
    "Group": "canvas.group",
    "GroupResult": "result.GroupResult",
    "Inspect": "control.Inspect",
    "Request": "request.Request",
    "Result": "result.AsyncResult",
    "Signature": "canvas.Signature",
    "Task": "task.Task",
}
"""Where the package has the class of each kind."""


def module(name: str) -> Any:
    """The package's module, by the name of Celery's."""
    return importlib.import_module(f"dbqueue.compat.{name}")


def of_kind(kind: str) -> Any:
    """The class."""
    name, _, attribute = CLASSES[kind].partition(".")
    return getattr(module(f"celery.{name}"), attribute)


def has(cls: Any, name: str) -> bool:
    """Whether its objects have it: a member of the class, or what an __init__ of it or its bases sets."""
    codes = [code for one in cls.__mro__ if (code := getattr(one.__init__, "__code__", None)) is not None]
    set_there = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"}
    return hasattr(cls, name) or name in getattr(cls, "__slots__", ()) or name in set_there


@pytest.mark.parametrize("name", coverage.MODULES)
def test_names_that_are_covered_can_be_imported_and_those_missing_cant(name: str) -> None:
    section, there = coverage.MODULES[name], module(name)
    is_module = {one for one in section.known if f"{name}.{one}" in coverage.MODULES}
    works = (section.covered | section.differs.keys()) - is_module
    assert sorted(one for one in works if not hasattr(there, one)) == []
    # A module of the package's own may have the name.
    assert [one for one in section.missing if not isinstance(getattr(there, one, there), types.ModuleType)] == []


@pytest.mark.parametrize("kind", coverage.MEMBERS)
def test_members_that_are_covered_exist_and_those_missing_dont(kind: str) -> None:
    section, cls = coverage.MEMBERS[kind], of_kind(kind)
    works = section.covered | section.differs.keys()
    assert sorted(one for one in works if not has(cls, one)) == []
    assert sorted(one for one in section.missing if has(cls, one)) == []


def test_signals_that_are_never_sent_are_said_to_be() -> None:
    signals = module("celery.signals")
    never = {
        name for name, reason in coverage.MODULES["celery.signals"].differs.items() if reason is coverage.NEVER_SENT
    }
    assert {signal.name for signal in signals.NEVER_SENT} == never


def test_settings_that_are_read_are_said_to_matter() -> None:
    read = module("celery.settings").DEFAULTS
    for name in read:
        judgement = coverage.setting(name)
        assert judgement.verdict in (Verdict.COVERED, Verdict.DIFFERS), name
        assert "changes nothing" not in judgement.reason or name == "task_acks_late", name


def test_settings_that_are_covered_are_read() -> None:
    """Not only accepted: somewhere beside the table the configuration is asked for each of them."""
    folder = Path(module("celery").__file__).parent
    read = {
        node.attr
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith(("conf", "settings()", "read()"))
    }
    assert sorted(coverage.SETTINGS.covered - module("celery.settings").DEFAULTS.keys()) == []
    assert sorted(coverage.SETTINGS.covered - read) == []


def test_old_names_of_settings_mean_the_same_in_both_tables() -> None:
    settings = module("celery.settings")
    for old, new in settings.OLD_NAMES.items():
        key = old.upper() if old.startswith("celery") else f"CELERY_{old.upper()}"
        assert coverage.known_setting(key) == new, old
    for old, new in coverage.OLD_SETTINGS.items():
        if new in settings.DEFAULTS:
            assert settings.known_name(old) == new, old


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
    assert coverage.known_setting("CELERY_MESSAGE_COMPRESSION") == "task_compression"
    assert coverage.known_setting("CELERY_EAGER") == "eager" and coverage.setting("eager").verdict is Verdict.LOOK
    assert coverage.known_setting("CELERY_DEFAULT_RATE_LIMIT") == "task_default_rate_limit"
    assert coverage.known_setting("CELERY_DEFAULT_PRIORITY") == "task_default_priority"
    assert coverage.known_setting("celery_app") is None
    assert coverage.known_setting("DATABASES") is None
