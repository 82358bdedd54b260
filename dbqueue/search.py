"""Which jobs an operator means: read from a list's parameters and its search box, told in words, applied to rows."""

import datetime
import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.fields.json import KeyTransform
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from . import registry
from .draft import is_possible_time
from .encoding import encode
from .exceptions import UnknownTask
from .models import LARGEST_ID, Attempt, Job, JobStatus, is_id
from .redaction import Secrets, hides, is_sensitive_name, known

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds. ``since:2h`` is two hours ago."""

WITH_INDEX = frozenset(JobStatus) - {JobStatus.SUCCESSFUL}
"""States whose jobs have an index of their own."""

QUALIFIERS = ("id", "state", "task", "queue", "worker", "error", "since", "before", "args.NAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What must be true of a job; what is None may be anything.

    ``error``: an attempt of it ended with this exception class. ``after`` and ``until`` are about the time at which it
    was enqueued. ``below``: its id is smaller. ``named``: its task's name begins so, or is that of a registered task
    that has it anywhere. ``arguments``: it is called with these values, by parameter.

    ``names``, ``readable`` and ``places`` are what ``resolved`` has written down of the registered tasks: those that
    ``named`` means, those that hide none of the arguments, and the arguments' places in the signature.
    """

    id: int | None = None
    state: str | None = None
    task: str | None = None
    queue: str | None = None
    worker: int | None = None
    error: str | None = None
    after: datetime.datetime | None = None
    until: datetime.datetime | None = None
    below: int | None = None
    named: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] | None = None
    readable: tuple[str, ...] | None = None
    places: tuple[int | None, ...] | None = None

    @classmethod
    def parse(cls, text: str, now: datetime.datetime) -> Self:
        """Read what stands in the search box. Raises ValueError, which names what can't be read and what can."""
        found = cls()
        try:
            words = shlex.split(text)
        except ValueError as exc:
            raise ValueError(_("The search %(text)r can't be read: %(why)s.") % {"text": text, "why": exc}) from None
        for word in words:
            found = found._with_word(word, now)
        return found

    def _with_word(self, word: str, now: datetime.datetime) -> Self:
        name, colon, value = word.partition(":")
        if not colon:
            if word.removeprefix("#").isascii() and word.removeprefix("#").isdigit():
                return self.both(type(self)(id=_number("id", word.removeprefix("#"))))
            return self.both(type(self)(named=_printable(word)))
        if name.startswith("args.") and not name.removeprefix("args.").lstrip("-").isdigit() and name != "args.":
            return replace(self, arguments=(*self.arguments, (_printable(name[5:]), _printable(value))))
        if name not in _READERS:
            said = {"word": word, "allowed": ", ".join(f"{one}:" for one in QUALIFIERS)}
            raise ValueError(
                _("The search has %(word)r; it may have %(allowed)s an id, or a part of a task's name.") % said
            )
        if not value:
            raise ValueError(_("The search has %r, and after the colon nothing.") % word)
        return self.both(type(self)(**_READERS[name](_printable(value), now)))

    def both(self, other: Self) -> Self:
        """What is asked for here and there. Raises ValueError where the two say different things."""
        said = {field.name: value for field in fields(other) if (value := getattr(other, field.name)) not in (None, ())}
        for name, value in said.items():
            if (mine := getattr(self, name)) not in (None, (), value):
                told = {"name": name, "mine": mine, "value": value}
                raise ValueError(_("%(name)s is to be both %(mine)s and %(value)s: nothing is that.") % told)
        return replace(self, **said)

    def as_json(self) -> dict[str, Any]:
        """For a row; ``from_json`` reads it."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime.datetime) else value
            for name, value in said.items()
            if value is not None and value != ()
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Raises ValueError or TypeError for what ``as_json`` can't have written."""
        values = dict(said)
        for name in ("after", "until"):
            if name in values:
                values[name] = datetime.datetime.fromisoformat(values[name])
        values["arguments"] = tuple((name, value) for name, value in values.get("arguments", ()))
        for name in ("names", "readable", "places"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def resolved(self) -> Self:
        """With what this process knows of the tasks, for another one, which may know others."""
        is_of_any_task = bool(self.arguments) and self.task is None
        return replace(
            self,
            names=None if self.named is None else tuple(self._names()),
            readable=tuple(self._readable()) if is_of_any_task else None,
            places=tuple(self._place_of(number) for number in range(len(self.arguments))) if self.arguments else None,
        )

    def in_words(self, *, with_values: bool = True) -> str:
        """For a reader who is to say whether these are the jobs that he means; arguments also without their values."""
        parts = [
            _("job %s") % self.id if self.id is not None else "",
            _("state %s") % JobStatus(self.state).label if self.state else "",
            _("task %s") % self.task if self.task else "",
            _('task name contains "%s"') % self.named if self.named else "",
            _("queue %s") % self.queue if self.queue else "",
            _("worker #%s") % self.worker if self.worker is not None else "",
            self._error_in_words(),
            _("enqueued since %s") % f"{self.after:%Y-%m-%d %H:%M:%S %Z}" if self.after else "",
            _("enqueued before %s") % f"{self.until:%Y-%m-%d %H:%M:%S %Z}" if self.until else "",
            _("before job %s") % self.below if self.below is not None else "",
            *(f"{name} = {value if with_values else '…'}" for name, value in self.arguments),
        ]
        return ", ".join(filter(None, parts)) or _("all jobs")

    def _error_in_words(self) -> str:
        if not self.error:
            return ""
        if self.state == JobStatus.FAILED:
            return _("the last attempt failed with %s") % self.error
        return _("an attempt failed with %s") % self.error

    @property
    def has_index(self) -> bool:
        """Whether what is meant can be found without a walk over what has ended well."""
        return self.id is not None or self.state in WITH_INDEX or self == Search(below=self.below)

    def hidden_arguments(self) -> list[str]:
        """The arguments by which nothing is found, because somebody could find out what nobody may read."""
        return [name for name, value in self.arguments if not self._may_be_sought(name, value)]

    def _may_be_sought(self, name: str, value: str) -> bool:
        if is_sensitive_name(name) or any(map(_has_sensitive_keys, _readings(value))):
            return False
        if self.task is None or (self.places is not None and known(self.task) is None):
            return True  # as it was where it was resolved
        return not hides(known(self.task), name)

    def apply(self, jobs: "QuerySet[Job]", window: range | None = None) -> "QuerySet[Job]":
        """Those of these jobs that are meant, and whose arguments may be sought; with a ``window`` only of its ids.

        Said here, because an error is looked for in another table, which has many from before.
        """
        if window is not None:
            jobs = jobs.filter(pk__gte=window.start, pk__lt=window.stop)
        if self.hidden_arguments():
            return jobs.none()
        columns = {
            "pk": self.id,
            "status": self.state,
            "task": self.task,
            "queue_name": self.queue,
            "worker_id": self.worker,
            "enqueued_at__gte": self.after,
            "enqueued_at__lt": self.until,
            "pk__lt": self.below,
        }
        jobs = jobs.filter(**{column: value for column, value in columns.items() if value is not None})
        if self.error is not None:
            paths = [self.error] if "." in self.error else [self.error, f"builtins.{self.error}"]
            failed_so = Attempt.objects.using(jobs.db).filter(job_id=OuterRef("pk"), exception_class_path__in=paths)
            if window is not None:
                failed_so = failed_so.filter(job_id__gte=window.start, job_id__lt=window.stop)
            if self.state == JobStatus.FAILED:
                # What it failed of in the end, as the overview counts it.
                later = Attempt.objects.using(jobs.db).filter(job_id=OuterRef("job_id"), pk__gt=OuterRef("pk"))
                failed_so = failed_so.filter(~Exists(later))
            jobs = jobs.filter(Exists(failed_so))
        if self.named is not None:
            jobs = jobs.filter(Q(task__startswith=self.named) | Q(task__in=self._names()))
        if self.arguments and self.task is None:
            jobs = jobs.filter(task__in=self._readable())
        for number, (name, value) in enumerate(self.arguments):
            jobs = self._called_with(jobs, number, name, value)
        return jobs

    def _names(self) -> Collection[str]:
        """The registered tasks that have what is ``named`` anywhere in their names."""
        if self.names is not None:
            return self.names
        part = (self.named or "").lower()
        return [task.name for task in registry.registered() if part in task.name.lower()]

    def _readable(self) -> Collection[str]:
        """The tasks by whose arguments may be sought. Of one that is not known, nobody knows what is sensitive."""
        known_here = {task.name: task for task in registry.registered()}
        names = known_here if self.readable is None else self.readable
        # What has become sensitive since then is not sought for either.
        hidden = {one for one, task in known_here.items() if any(hides(task, name) for name, _ in self.arguments)}
        return [one for one in names if one not in hidden]

    def _called_with(self, jobs: "QuerySet[Job]", number: int, name: str, value: str) -> "QuerySet[Job]":
        """By keyword, or by position, where the task is named and is known."""
        # As expressions: in a keyword a name might be taken for a lookup.
        places = {f"keyword_{number}": KeyTransform(name, "kwargs")}
        if (place := self._place_of(number)) is not None:
            places[f"position_{number}"] = KeyTransform(place, "args")
        wanted = Q(*((alias, one) for alias in places for one in _readings(value)), _connector=Q.OR)
        return jobs.alias(**places).filter(wanted)

    def _place_of(self, number: int) -> int | None:
        if self.places is not None:
            return self.places[number]
        name, _value = self.arguments[number]
        try:
            parameters = registry.find(self.task or "").signature.parameters.values()
        except UnknownTask:
            return None
        names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
        return names.index(name) if name in names else None


def _printable(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError(_("The search has %r; it must be printable text.") % value)
    return value


def _number(name: str, value: str) -> int:
    if not is_id(value):
        value = value if len(value) < 40 else f"{value[:20]}…"
        said = {"name": name, "value": value, "most": LARGEST_ID}
        raise ValueError(_("%(name)s is %(value)r; it must be a whole number from 0 to %(most)d.") % said)
    return int(value)


def _state(value: str) -> str:
    if value.upper() not in JobStatus.values:
        allowed = ", ".join(JobStatus.values).lower()
        raise ValueError(_("state is %(value)r; it must be one of %(allowed)s.") % {"value": value, "allowed": allowed})
    return value.upper()


def _moment(name: str, value: str, now: datetime.datetime) -> datetime.datetime:
    """A duration before now, or a date, or a time."""
    if ago := re.fullmatch(r"(\d{1,9})([smhdw])", value):
        try:
            return now - datetime.timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        except OverflowError:
            pass
    try:
        moment = parse_datetime(value if "T" in value else f"{value}T00:00")
    except ValueError:
        moment = None
    if moment is not None and timezone.is_aware(moment) and timezone.is_naive(now):
        moment = None  # this project has no time zones
    if moment is None or not is_possible_time(moment):
        said = {"name": name, "value": value}
        raise ValueError(_("%(name)s is %(value)r; it must be as 30m, 2h, 7d or 2031-02-03T04:05.") % said)
    return timezone.make_aware(moment) if timezone.is_naive(moment) and timezone.is_aware(now) else moment


def _before(value: str, now: datetime.datetime) -> dict[str, Any]:
    """An id, or a time."""
    if value.isascii() and value.isdigit():
        return {"below": _number("before", value)}
    return {"until": _moment("before", value, now)}


def _readings(value: str) -> list[Any]:
    """What was typed, as text and as JSON: 42 may stand for a number or for its digits."""
    try:
        parsed = json.loads(value)
        encode(parsed, "value")
    except (ValueError, RecursionError):  # NotStorable is a ValueError
        return [value]
    return [value] if parsed == value else [value, parsed]


def _has_sensitive_keys(value: Any) -> bool:
    """Also where it is JSON inside of a text: SQLite can't tell that from the object itself."""
    if isinstance(value, str):
        if not value.lstrip().startswith(("{", "[", '"')):
            return False
        inner = [reading for reading in _readings(value) if reading != value]
        # Brackets that nobody could read were no object anywhere.
        return any(map(_has_sensitive_keys, inner))
    return bool(Secrets().scrub_value(value) != value)


_READERS: dict[str, Callable[[str, datetime.datetime], dict[str, Any]]] = {
    "id": lambda value, now: {"id": _number("id", value)},
    "state": lambda value, now: {"state": _state(value)},
    "task": lambda value, now: {"task": value},
    "queue": lambda value, now: {"queue": value},
    "worker": lambda value, now: {"worker": _number("worker", value)},
    "error": lambda value, now: {"error": value},
    "since": lambda value, now: {"after": _moment("since", value, now)},
    "before": _before,
}
