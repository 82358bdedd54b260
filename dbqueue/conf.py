"""One frozen ``Settings``, read from the dict ``DBQUEUE`` and from the environment."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import environ
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .exceptions import InvalidSettings

PREFIX = "DBQUEUE_"

SENSITIVE = r"pass(word|wd|phrase|code)|secret|token|credential|authori[sz]ation|cookie|(api|private|access|auth)_?key"
"""Names of what nobody may read, wherever it is passed."""

QUEUE_LENGTH = 100
"""Characters of a queue's name. It stands here so that the settings can be read without any model."""


def _setting(default: Any, allowed: str, accept: Callable[[Any], bool], env: str) -> Any:
    """A field that knows what it allows (in words and as a predicate) and django-environ's cast for it."""
    return field(default=default, metadata={"allowed": allowed, "accept": accept, "env": env})


def _number(low: float, high: float, *, whole: bool = False) -> Callable[[Any], bool]:
    kinds = (int,) if whole else (int, float)
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)


def is_queue_name(value: Any) -> bool:
    """Text of 1 to 100 characters, without commas (they part names on the command line) or control characters."""
    return isinstance(value, str) and 0 < len(value) <= QUEUE_LENGTH and value.isprintable() and "," not in value


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (TypeError, re.error):
        return False
    return isinstance(value, str)


def _is_plain(value: str) -> bool:
    return value.isascii() and (not value or value.isprintable())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set, each with its default. A key of ``DBQUEUE`` is the field's name in capitals."""

    database: str = _setting(
        "default",
        "an alias of DATABASES",
        lambda value: isinstance(value, str) and value in django_settings.DATABASES,
        "str",
    )
    queues: tuple[str, ...] = _setting(
        (),
        f"a list of queue names (text of 1 to {QUEUE_LENGTH} characters without commas); empty allows every name",
        lambda value: _texts(value) and all(map(is_queue_name, value)),
        "list",
    )
    task_modules: tuple[str, ...] = _setting(
        ("tasks",), "a list of module names, looked for in each installed app", _texts, "list"
    )
    threads: int = _setting(8, "a whole number from 1 to 1000", _number(1, 1000, whole=True), "int")
    poll_interval: float = _setting(1.0, "seconds, from 0.01 to 3600", _number(0.01, 3600), "float")
    heartbeat_timeout: float = _setting(30.0, "seconds, from 1 to 86400", _number(1, 86400), "float")
    max_crashes: int = _setting(3, "a whole number from 1 to 1000", _number(1, 1000, whole=True), "int")
    database_grace: float = _setting(300.0, "seconds, from 1 to 604800", _number(1, 604_800), "float")
    grace: float = _setting(30.0, "seconds, from 0 to 86400", _number(0, 86400), "float")
    unknown_task: str = _setting("fail", "'fail' or 'wait'", lambda value: value in ("fail", "wait"), "str")
    max_result_bytes: int = _setting(
        1_048_576, "a whole number of bytes, from 1 to 268435456", _number(1, 268_435_456, whole=True), "int"
    )
    max_handed_on_bytes: int = _setting(
        104_857_600, "a whole number of bytes, from 1 to 268435456", _number(1, 268_435_456, whole=True), "int"
    )
    keep_successful_days: float = _setting(7.0, "days, from 0 to 36500", _number(0, 36500), "float")
    keep_failed_days: float = _setting(30.0, "days, from 0 to 36500", _number(0, 36500), "float")
    priority_ageing: float = _setting(0.0, "seconds, from 0 (off) to 8640000", _number(0, 8_640_000), "float")
    metrics_token: str = _setting(
        "", "text of printable ASCII characters", lambda value: isinstance(value, str) and _is_plain(value), "str"
    )
    sensitive: str = _setting(
        SENSITIVE,
        "a regular expression, looked for in names of arguments without regard to case; '' for none",
        _is_pattern,
        "str",
    )
    immediate: bool = _setting(False, "True or False", lambda value: isinstance(value, bool), "bool")
    listen: bool = _setting(True, "True or False", lambda value: isinstance(value, bool), "bool")

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings in force. Raises InvalidSettings, naming every key that can't be used."""
        settings, problems = read()
        if problems:
            raise InvalidSettings(" ".join(problems))
        return settings

    @property
    def silence(self) -> float:
        """Seconds without a heartbeat after which a worker is declared lost.

        Short of HEARTBEAT_TIMEOUT, so that within that time its jobs are not only missed but ready to run again.
        """
        return 0.8 * self.heartbeat_timeout

    def replace(self, **changes: Any) -> "Settings":
        """These settings with some changed. Raises InvalidSettings for a value that is not allowed."""
        for name, value in changes.items():
            if not _fields()[name].metadata["accept"](value):
                raise InvalidSettings(_not_allowed(name.upper(), value, _fields()[name]))
        return dataclasses.replace(self, **changes)


@cache
def read() -> tuple[Settings, tuple[str, ...]]:
    """Return the settings, with the default in place of what can't be used, and a sentence for each such key."""
    given: dict[str, Any] = {}
    problems: list[str] = []
    configured = getattr(django_settings, "DBQUEUE", {})
    if not isinstance(configured, Mapping):
        problems.append(f"DBQUEUE is {configured!r}; it must be a dict.")
        configured = {}
    for key in configured:
        if not isinstance(key, str) or key != key.upper() or key.lower() not in _fields():
            problems.append(_unknown_key(str(key)))
    for name, setting in _fields().items():
        try:
            value, source = _given(name, setting, configured)
        except ValueError:
            variable = PREFIX + name.upper()
            problems.append(_not_allowed(f"{variable} (environment)", os.environ[variable], setting))
            continue
        if setting.metadata["accept"](value):
            given[name] = tuple(value) if isinstance(value, list) else value
        else:
            problems.append(_not_allowed(source, value, setting))
    return Settings(**given), tuple(problems)


def unknown_variables() -> list[str]:
    """The environment's ``DBQUEUE_…`` variables that name no setting."""
    return [
        name for name in sorted(os.environ) if name.startswith(PREFIX) and name[len(PREFIX) :].lower() not in _fields()
    ]


def _given(name: str, setting: "dataclasses.Field[Any]", configured: Mapping[str, Any]) -> tuple[Any, str]:
    """The value of one setting and where it stands: the environment before the dict before the default."""
    variable = PREFIX + name.upper()
    if variable in os.environ:
        cast = _CASTS.get(setting.metadata["env"]) or getattr(environ.Env(), setting.metadata["env"])
        return cast(variable), f"{variable} (environment)"
    return configured.get(name.upper(), setting.default), f"DBQUEUE[{name.upper()!r}]"


def _truth(variable: str) -> bool:
    """Like ``Env.bool``, which takes every word that it doesn't know for False. Raises ValueError for such a word."""
    word = os.environ[variable].strip().lower()
    if word not in (*environ.Env.BOOLEAN_TRUE_STRINGS, "false", "off", "n", "no", "0"):
        raise ValueError(word)
    return environ.Env().bool(variable)  # type: ignore[no-any-return]


_CASTS: dict[str, Callable[[str], Any]] = {
    "bool": _truth,
    # Env's own casts drop what is no digit: "12h" would be 12, and "1e3" would be 13.
    "int": lambda variable: int(os.environ[variable]),
    "float": lambda variable: float(os.environ[variable]),
}


@cache
def _fields() -> "dict[str, dataclasses.Field[Any]]":
    return {setting.name: setting for setting in dataclasses.fields(Settings)}


def _not_allowed(source: str, value: Any, setting: "dataclasses.Field[Any]") -> str:
    shown = "not as it must be (it is not shown)" if setting.name == "metrics_token" else repr(value)
    return f"{source} is {shown}; it must be {setting.metadata['allowed']}."


def _unknown_key(key: str) -> str:
    keys = [name.upper() for name in _fields()]
    near = difflib.get_close_matches(key.upper(), keys, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(keys)}."
    return f"DBQUEUE has an unknown key {key!r}; {hint}"


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("DBQUEUE", "DATABASES"):
        read.cache_clear()


setting_changed.connect(_forget)
