"""What can be said about a task's jobs beside the arguments: where they wait, when they run, how often."""

import datetime
import difflib
import hashlib
import inspect
import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from django.conf import settings as django_settings
from django.utils import timezone

from .conf import QUEUE_LENGTH, is_queue_name
from .draft import FIRST_YEAR, LAST_YEAR, is_possible_time
from .encoding import encode
from .exceptions import InvalidArguments, InvalidTask, seconds
from .limits import Concurrency, Key, Rate
from .models import DEFAULT_QUEUE, KEY_LENGTH, MAX_PRIORITY, MIN_PRIORITY, UniqueScope
from .retry import Backoff, Exponential, as_json, path_of

Moment = datetime.datetime | datetime.timedelta
"""An aware datetime (naive without USE_TZ), or a timedelta counted from the call of ``enqueue``."""

MOST_ATTEMPTS = 1000

ON_THE_TASK = ("name", "takes_context", "admin_enqueue", "schedule", "sensitive")
"""What only @task has."""


@dataclass(frozen=True, slots=True)
class Unique:
    """While there is a job of this task with the same key, another enqueue of it makes none, and returns that job.

    ``key``: None for all arguments, names of some of them, a template, or a function of the arguments. ``until`` says
    for how long: until the job is ``"started"``, until it is ``"finished"``, or for a timedelta from its enqueue on (a
    job that failed or was cancelled keeps nobody out). With ``replace`` a job that still waits gets the new arguments,
    priority and time (a debounce). Raises ValueError.
    """

    key: Key | tuple[str, ...] | None = None
    until: Literal["started", "finished"] | datetime.timedelta = "started"
    replace: bool = False

    def __post_init__(self) -> None:
        if type(self.replace) is not bool:
            raise ValueError(f"replace is {self.replace!r}; it must be True or False.")
        if isinstance(self.until, datetime.timedelta):
            if seconds(self.until, "until") == 0:
                raise ValueError("until is a timedelta of zero; it must be longer.")
        elif self.until not in ("started", "finished"):
            raise ValueError(f"until is {self.until!r}; it must be 'started', 'finished' or a timedelta.")

    @property
    def scope(self) -> UniqueScope:
        return UniqueScope.PERIOD if isinstance(self.until, datetime.timedelta) else UniqueScope(self.until)


class JobOptions(TypedDict, total=False):
    """The keywords that ``@task`` and ``using()`` share; ``Options`` tells what they mean."""

    queue_name: str
    priority: int
    run_after: Moment | None
    expires: Moment | None
    max_attempts: int
    backoff: Backoff | datetime.timedelta | None
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    give_up_on: type[BaseException] | tuple[type[BaseException], ...]
    timeout: float | datetime.timedelta | None
    hard_timeout: float | datetime.timedelta | None
    unique: bool | Unique
    concurrency: int | Concurrency | None
    rate: str | Rate | None
    serial: Key | None
    durable: bool
    headers: dict[str, Any] | None
    external_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that holds for the jobs of a task, or of one variant of it made by ``using()``. Raises InvalidTask.

    ``queue_name`` and ``priority`` (-100 to 100, higher first). ``run_after`` is the earliest start, ``expires`` the
    latest: a job not started by then ends CANCELLED.

    ``max_attempts`` counts runs: 1 is no retry. Between them ``backoff`` is waited: seconds, an ``Exponential`` (the
    default), or a function of the number of failures and the error. Only errors of ``retry_on`` (default: every
    Exception) and not of ``give_up_on`` are tried again.

    ``timeout`` seconds after its start DeadlineExceeded is raised inside a run; ``hard_timeout`` seconds after it, the
    worker process is ended where the run has not.

    ``unique``, ``concurrency``, ``rate`` and ``serial`` (a key, whose jobs run one at a time, in the order of their
    enqueue) keep jobs out of each other's way. With ``durable`` a job is written on a connection of its own, and
    survives the rollback of the caller's transaction.

    ``headers`` travel with the job, through all of its attempts, and are told by ``context.headers``: a dict of values
    that JSON can hold. ``external_id`` is a name that somebody else has for the job (1 to 255 characters), by which it
    is found; nothing sees to it that there is only one.
    """

    queue_name: str = DEFAULT_QUEUE
    priority: int = 0
    run_after: Moment | None = None
    expires: Moment | None = None
    max_attempts: int = 1
    backoff: Backoff | None = None
    retry_on: tuple[type[BaseException], ...] = ()
    give_up_on: tuple[type[BaseException], ...] = ()
    timeout: float | None = None
    hard_timeout: float | None = None
    unique: Unique | None = None
    concurrency: Concurrency | None = None
    rate: Rate | None = None
    serial: Key | None = None
    durable: bool = False
    headers: dict[str, Any] | None = None
    external_id: str | None = None

    def __post_init__(self) -> None:
        try:
            self._take_short_forms()
            self._check()
        except (TypeError, ValueError) as exc:
            raise InvalidTask(str(exc)) from None

    def changed(self, changes: Mapping[str, Any]) -> "Options":
        """These with some replaced. Raises InvalidTask, also for a name that is no option."""
        if unknown := sorted(changes.keys() - _NAMES):
            raise InvalidTask(_unknown(unknown[0], _NAMES))
        if callable(changes.get("backoff")) and not isinstance(changes["backoff"], Exponential):
            raise InvalidTask(
                f"backoff is {changes['backoff']!r}; using() takes seconds or an Exponential, as a row can't hold a "
                "function. Give the function to @task."
            )
        return Options(**{name: getattr(self, name) for name in _NAMES} | dict(changes))

    def check_against(self, name: str, signature: inspect.Signature) -> None:
        """Whether keys name arguments that the function has. Raises InvalidTask."""
        for option, key in self._keys().items():
            if option == "unique" and isinstance(key, str) and key in signature.parameters:
                # Taken for a text it would be the same for all calls, and keep all but the first out.
                raise InvalidTask(
                    f"The key of unique of {name} is {key!r}, an argument's name: write ({key!r},), or '{{{key}}}'."
                )
            for argument in _arguments_of(key):
                if argument not in signature.parameters:
                    raise InvalidTask(
                        f"{option} of {name} names the argument {argument!r}; the function has "
                        f"{', '.join(map(repr, signature.parameters)) or 'none'}."
                    )

    def stored(self) -> dict[str, Any] | None:
        """What a row keeps of them for those who run the job: JSON's own types; None where there is nothing to say."""
        kept: dict[str, Any] = {}
        if self.backoff is not None and (backoff := as_json(self.backoff)) is not None:
            kept["backoff"] = backoff
        for name in ("retry_on", "give_up_on"):
            if classes := getattr(self, name):
                kept[name] = [path_of(cls) for cls in classes]
        for name in ("timeout", "hard_timeout"):
            if (length := getattr(self, name)) is not None:
                kept[name] = length
        if self.headers:
            kept["headers"] = json.loads(encode(self.headers, "headers"))
        if self.external_id is not None:
            kept["external_id"] = self.external_id
        return {**kept, **self._stored_limits()} or None

    def _stored_limits(self) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        if self.concurrency:
            kept["concurrency"] = self.concurrency.limit
        if self.serial is not None:
            kept["serial"] = True
        if self.rate:
            kept["rate"] = list(self.rate.window)
        return kept

    def limit_keys(self, task: str, call: "Call") -> tuple[str | None, str | None]:
        """The keys of concurrency (or serial) and rate for one call. Raises InvalidArguments."""
        concurrency: Key | None = None
        rate: Key | None = None
        if self.serial is not None:
            concurrency = self.serial
        elif self.concurrency:
            concurrency = self.concurrency.key or task
        if self.rate:
            rate = self.rate.key or task
        name = "concurrency" if self.serial is None else "serial"
        return (
            None if concurrency is None else call.key(concurrency, name),
            None if rate is None else call.key(rate, "rate"),
        )

    def unique_key(self, task: str, call: "Call") -> str | None:
        """Raises InvalidArguments."""
        if self.unique is None:
            return None
        key = self.unique.key
        if key is None or isinstance(key, tuple):
            chosen = call.arguments if key is None else {name: call.arguments[name] for name in key}
            text = json.dumps(chosen, sort_keys=True)
        else:
            text = call.key(key, "unique")
        digest = hashlib.sha256(f"{task}\n{text}".encode()).hexdigest()[:32]
        return f"{task[: KEY_LENGTH - 33]}:{digest}"

    def _take_short_forms(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("retry_on", "give_up_on"):
            put(name, _several(name, getattr(self, name)))
        for name in ("timeout", "hard_timeout"):
            if (value := getattr(self, name)) is not None:
                put(name, seconds(value, name, may_be_zero=False))
        if self.backoff is not None and not callable(self.backoff):
            put("backoff", seconds(self.backoff, "backoff"))
        given: dict[str, Any] = {name: getattr(self, name) for name in ("unique", "concurrency", "rate")}
        if isinstance(given["unique"], bool):
            put("unique", Unique() if given["unique"] else None)
        if isinstance(given["concurrency"], int):
            put("concurrency", Concurrency(given["concurrency"]))
        if isinstance(given["rate"], str):
            put("rate", Rate(given["rate"]))

    def _check(self) -> None:
        if not is_queue_name(self.queue_name):
            raise ValueError(
                f"queue_name is {self.queue_name!r}; it must be printable text of 1 to {QUEUE_LENGTH} characters "
                "without commas."
            )
        if type(self.priority) is not int or not MIN_PRIORITY <= self.priority <= MAX_PRIORITY:
            raise ValueError(
                f"priority is {self.priority!r}; it must be a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}."
            )
        if type(self.max_attempts) is not int or not 1 <= self.max_attempts <= MOST_ATTEMPTS:
            raise ValueError(
                f"max_attempts is {self.max_attempts!r}; it must be a whole number from 1 to {MOST_ATTEMPTS}."
            )
        check_moment(self.run_after, "run_after")
        check_moment(self.expires, "expires")
        self._check_order()
        self._check_types()
        if self.timeout and self.hard_timeout and self.hard_timeout < self.timeout:
            raise ValueError(
                f"hard_timeout is {self.hard_timeout:g} s; it must not be shorter than timeout, {self.timeout:g} s."
            )
        if self.serial is not None and self.concurrency:
            raise ValueError("serial and concurrency can't be combined: serial is a concurrency of one, in order.")

    def _check_order(self) -> None:
        """A job that would be given up before it may start, or at once, was not meant."""
        begin, end = self.run_after, self.expires
        if isinstance(end, datetime.timedelta) and end <= datetime.timedelta(0):
            raise ValueError(
                f"expires is {end!r}; it must be longer than zero: a job that has expired never runs, where one whose "
                "run_after is past runs at once."
            )
        if begin is not None and end is not None and type(begin) is type(end) and end <= begin:  # type: ignore[operator]
            raise ValueError(f"expires is {end!r}; it must be later than run_after, {begin!r}.")

    def _check_types(self) -> None:
        for name in ("retry_on", "give_up_on"):
            for item in getattr(self, name):
                if not isinstance(item, type) or not issubclass(item, BaseException):
                    raise ValueError(f"{name} holds {item!r}; it must hold classes of exceptions.")
        kinds = {
            "unique": (Unique, "True, False or a Unique"),
            "concurrency": (Concurrency, "a whole number or a Concurrency"),
            "rate": (Rate, "text as '100/m' or a Rate"),
        }
        for name, (kind, allowed) in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name} is {value!r}; it must be {allowed}.")
        if type(self.durable) is not bool:
            raise ValueError(f"durable is {self.durable!r}; it must be True or False.")
        self._check_keys()
        self._check_labels()

    def _check_labels(self) -> None:
        if self.headers is not None:
            if not isinstance(self.headers, dict):
                raise ValueError(f"headers is {self.headers!r}; it must be a dict.")
            encode(self.headers, "headers")
        label: Any = self.external_id
        if label is None:
            return
        if not isinstance(label, str) or not label.isprintable() or not 0 < len(label) <= KEY_LENGTH:
            raise ValueError(f"external_id is {label!r}; it must be printable text of 1 to {KEY_LENGTH} characters.")

    def _check_keys(self) -> None:
        for name, key in self._keys().items():
            if (not isinstance(key, str | tuple) and not callable(key)) or key == "":
                raise ValueError(f"The key of {name} is {key!r}; it must be a template (text) or a function.")
            _check_template(name, key)

    def _keys(self) -> dict[str, Any]:
        keys = {
            "unique": self.unique and self.unique.key,
            "concurrency": self.concurrency and self.concurrency.key,
            "rate": self.rate and self.rate.key,
            "serial": self.serial,
        }
        return {name: key for name, key in keys.items() if key is not None}


_NAMES = frozenset(Options.__dataclass_fields__)


def _several(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, type | tuple | list):
        raise ValueError(f"{name} is {value!r}; it must be a class of exceptions, or several in a tuple.")
    return (value,) if isinstance(value, type) else tuple(value)


def _unknown(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*names, *ON_THE_TASK], n=1)
    if near and near[0] in ON_THE_TASK:
        return f"There is no option {name!r}; @task, and it alone, has {near[0]!r}."
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if "retries" in name:
        # Other queues have it, and a number that is carried over as it is would be one run short.
        hint = " Did you mean 'max_attempts'? It counts all runs: 3 retries are max_attempts=4."
    return (
        f"There is no option {name!r}; there are {', '.join(sorted(names))}, and on @task alone "
        f"{', '.join(sorted(ON_THE_TASK))}.{hint}"
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a task: what its keys are made of."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    """All of them by name, with the function's defaults."""

    @classmethod
    def of(cls, bound: inspect.BoundArguments) -> "Call":
        args, kwargs = bound.args, bound.kwargs
        bound.apply_defaults()
        return cls(args, kwargs, dict(bound.arguments))

    def key(self, key: Key, option: str) -> str:
        """Raises InvalidArguments where it can't be made, or is empty, too long, or no printable text."""
        try:
            text = key.format(**self.arguments) if isinstance(key, str) else key(*self.args, **self.kwargs)
        except Exception as exc:
            raise InvalidArguments(f"The key of {option} can't be made of these arguments: {exc!r}.") from exc
        if not isinstance(text, str) or not 0 < len(text) <= KEY_LENGTH or not text.isprintable():
            raise InvalidArguments(
                f"The key of {option} is {text!r}; it must be printable text of 1 to {KEY_LENGTH} characters."
            )
        return text


def check_moment(moment: Any, name: str) -> None:
    """Raises ValueError for what is no Moment."""
    if isinstance(moment, datetime.datetime):
        if django_settings.USE_TZ and timezone.is_naive(moment):
            raise ValueError(f"{name} is {moment!r}; with USE_TZ it must be an aware datetime.")
        if not django_settings.USE_TZ and timezone.is_aware(moment):
            raise ValueError(f"{name} is {moment!r}; without USE_TZ it must be a naive datetime.")
        if not is_possible_time(moment):
            raise ValueError(f"{name} is {moment!r}; it must be in the years {FIRST_YEAR} to {LAST_YEAR}.")
    elif moment is not None and not isinstance(moment, datetime.timedelta):
        raise ValueError(f"{name} is {moment!r}; it must be a datetime or a timedelta.")


def _check_template(option: str, key: Any) -> None:
    if key == ():
        raise ValueError(f"The key of {option} is (); it must name some of the arguments.")
    try:
        _arguments_of(key)
    except ValueError as exc:
        raise ValueError(f"The key of {option} is {key!r}, which is no template: {exc}.") from None


def _arguments_of(key: Any) -> list[str]:
    """The names that a template or a tuple of names refers to."""
    if isinstance(key, tuple):
        return list(key)
    if isinstance(key, str):
        fields = [field for _, field, _, _ in string.Formatter().parse(key) if field is not None]
        return [field.split(".")[0].split("[")[0] for field in fields]
    return []
