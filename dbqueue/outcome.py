"""How an attempt ended: a frozen value, made in one place and written in another."""

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import NamedTuple

from .claim import Claim
from .encoding import storable_text
from .exceptions import Retry
from .models import NAME_LENGTH, REASON_LENGTH, JobStatus
from .plan import Plan
from .redaction import Secrets, redacted

TRACEBACK_LENGTH = 100_000
"""Characters of a traceback that are kept. Of a longer one the middle is left out: where it happened stands at the
beginning, and the error at the end."""

HEAD_LENGTH = 20_000
"""Those of the beginning."""

HEADLINE_LENGTH = 300
"""Characters of an error in a log line."""


NO_SECRETS = Secrets()


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text. ``headline`` is one line of it, for a log; ``is_scrubbed``: it told a secret."""

    exception_class_path: str
    traceback: str
    headline: str = ""
    is_scrubbed: bool = False

    def in_ascii(self) -> "Failure":
        """The same for a database whose encoding can't hold every character."""
        path, text = (
            part.encode("ascii", "backslashreplace").decode() for part in (self.exception_class_path, self.traceback)
        )
        return replace(self, exception_class_path=path[:NAME_LENGTH], traceback=_shortened(text))

    @classmethod
    def of(cls, exc: BaseException, secrets: Secrets = NO_SECRETS) -> "Failure":
        path = _class_path(exc)
        try:
            text = "".join(traceback.format_exception(type(exc), exc, beyond_dbqueue(exc.__traceback__)))
        except BaseException:  # noqa: BLE001  an exception's own __str__ may raise anything
            text = f"{path} (its traceback could not be printed)\n"
        shown = secrets.scrub(text)
        line = headline(exc, secrets)
        return cls(storable_text(path)[:NAME_LENGTH], _shortened(storable_text(shown)), line, shown != text)


def beyond_dbqueue(found: TracebackType | None) -> TracebackType | None:
    """Without the frames by which every job is called; all of them, where the job's code was never reached."""
    frame = found
    while frame is not None and str(frame.tb_frame.f_globals.get("__name__")).startswith("dbqueue."):
        frame = frame.tb_next
    return frame or found


def secrets_of(claim: Claim) -> Secrets:
    """What nobody may read of this attempt's arguments."""
    return _secrets(claim.task, claim.args_json, claim.kwargs_json)


def _secrets(task: str, args_json: str, kwargs_json: str) -> Secrets:
    try:
        return redacted(task, json.loads(args_json), json.loads(kwargs_json)).secrets
    except (ValueError, RecursionError):  # json can't decode the row, so nobody was given anything
        return NO_SECRETS


def _secrets_told(claim: Claim, exc: BaseException, call: tuple[str, str] | None = None) -> Secrets:
    """What nobody may read of an attempt that ended so: also of the arguments with which it wants to run again."""
    call = call or (exc.call if isinstance(exc, Retry) else None)
    return secrets_of(claim) if call is None else secrets_of(claim) | _secrets(claim.task, *call)


def headline(exc: BaseException, secrets: Secrets = NO_SECRETS) -> str:
    """An exception in one line, for a log: its class and the first line of its message, as far as it can be printed."""
    path = _class_path(exc).removeprefix("builtins.")
    try:
        message = secrets.scrub(str(exc))
    except BaseException:  # noqa: BLE001  as above
        message = "(can't be printed)"
    first, *more = message[: HEADLINE_LENGTH + 1].splitlines() or [""]
    line = storable_text(f"{path}: {first}" if first else path)
    return f"{line[:HEADLINE_LENGTH]}…" if more or len(line) > HEADLINE_LENGTH else line


def _class_path(exc: BaseException) -> str:
    try:
        return f"{type(exc).__module__}.{type(exc).__qualname__}"
    except BaseException:  # noqa: BLE001  a metaclass may refuse to tell
        return "an exception whose class has no name"


def _shortened(text: str) -> str:
    if len(text) <= TRACEBACK_LENGTH:
        return text
    left_out = f"\n… {len(text) - TRACEBACK_LENGTH} and some characters left out …\n"
    tail_length = TRACEBACK_LENGTH - HEAD_LENGTH - len(left_out)
    return text[:HEAD_LENGTH] + left_out + text[-tail_length:]


def _reason(text: str) -> str:
    return storable_text(text)[:REASON_LENGTH]


REQUESTED = "cancelled on request"
"""The reason of a job that was cancelled while it ran."""

EXPIRED = "expired"
"""The reason of a job that had not been started in time."""


class Outcome(NamedTuple):
    """What to write for one claim; a tuple for the reason that a Claim is one.

    ``status`` is the state that the job goes to. ``value_json`` is the return value as JSON text; None stands for
    ``None``. ``delay`` (seconds) says when a job that goes to SCHEDULED may run again, and ``call`` with which args
    and kwargs (as JSON) it does so from now on, if with others. An attempt that is not ``counted`` was none.
    ``reason`` says why the job is CANCELLED. ``ran`` (seconds) tells how long it took, where that is known.
    ``replacement`` is what a job that goes to WAITING waits for, from now on in its place; ``added`` are new members
    of groups, by the group's id.
    """

    claim: Claim
    status: JobStatus
    value_json: str | None = None
    failure: Failure | None = None
    delay: float = 0.0
    call: tuple[str, str] | None = None
    counted: bool = True
    reason: str = ""
    ran: float | None = None
    replacement: Plan | None = None
    added: Mapping[int, Sequence[Plan]] = MappingProxyType({})

    @classmethod
    def succeeded(cls, claim: Claim, value_json: str | None, ran: float | None = None) -> "Outcome":
        return cls(claim, JobStatus.SUCCESSFUL, value_json, ran=ran)

    @classmethod
    def replaced(cls, claim: Claim, plan: Plan) -> "Outcome":
        return cls(claim, JobStatus.WAITING, replacement=plan)

    @classmethod
    def failed(cls, claim: Claim, exc: BaseException) -> "Outcome":
        return cls(claim, JobStatus.FAILED, failure=Failure.of(exc, _secrets_told(claim, exc)))

    @classmethod
    def retried(cls, claim: Claim, exc: BaseException, delay: float, call: tuple[str, str] | None = None) -> "Outcome":
        failure = Failure.of(exc, _secrets_told(claim, exc, call))
        return cls(claim, JobStatus.SCHEDULED, failure=failure, delay=delay, call=call)

    @classmethod
    def postponed(cls, claim: Claim, delay: float) -> "Outcome":
        return cls(claim, JobStatus.SCHEDULED, delay=delay, counted=False)

    @classmethod
    def cancelled(cls, claim: Claim, exc: BaseException, reason: str) -> "Outcome":
        secrets = _secrets_told(claim, exc)
        failure = Failure.of(exc, secrets)
        return cls(claim, JobStatus.CANCELLED, failure=failure, reason=_reason(secrets.scrub(reason)))

    @classmethod
    def expired(cls, claim: Claim) -> "Outcome":
        return cls(claim, JobStatus.CANCELLED, counted=False, reason=EXPIRED)

    def refused(self, exc: BaseException) -> "Outcome":
        """What can be written of this outcome after the database refused what is in it: a failure, in ASCII."""
        failure = (self.failure or Failure.of(exc, secrets_of(self.claim))).in_ascii()
        return self._replace(
            status=JobStatus.FAILED,
            value_json=None,
            failure=failure,
            call=None,
            counted=True,
            reason="",
            replacement=None,
            added={},
        )
