"""How an attempt ended: a frozen value, made in one place and written in another."""

import traceback
from dataclasses import dataclass, replace

from .claim import Claim
from .encoding import storable_text
from .models import NAME_LENGTH, JobStatus

TRACEBACK_LENGTH = 100_000
"""Characters of a traceback that are kept: its end, where the error stands."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text."""

    exception_class_path: str
    traceback: str

    @property
    def last_line(self) -> str:
        """The exception's own line."""
        return self.traceback.rstrip().rpartition("\n")[2]

    def in_ascii(self) -> "Failure":
        """The same for a database whose encoding can't hold every character."""
        path, text = (
            part.encode("ascii", "backslashreplace").decode() for part in (self.exception_class_path, self.traceback)
        )
        return Failure(path[:NAME_LENGTH], text[-TRACEBACK_LENGTH:])

    @classmethod
    def of(cls, exc: BaseException) -> "Failure":
        kind = type(exc)
        try:
            text = "".join(traceback.format_exception(exc))
        except BaseException as broken:  # noqa: BLE001  an exception's own __str__ may raise anything
            why = f"its traceback could not be printed: {type(broken).__name__}"
            text = f"{kind.__module__}.{kind.__qualname__} ({why})\n"
        return cls(
            storable_text(f"{kind.__module__}.{kind.__qualname__}")[:NAME_LENGTH],
            storable_text(text)[-TRACEBACK_LENGTH:],
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to write for one claim.

    ``status`` is the state that the job goes to. ``value_json`` is the return value as JSON text; None stands for
    ``None``. ``delay`` (seconds) says when a job that goes to SCHEDULED may run again; its attempt is not counted.
    """

    claim: Claim
    status: JobStatus
    value_json: str | None = None
    failure: Failure | None = None
    delay: float = 0.0

    @classmethod
    def succeeded(cls, claim: Claim, value_json: str | None) -> "Outcome":
        return cls(claim, JobStatus.SUCCESSFUL, value_json)

    @classmethod
    def failed(cls, claim: Claim, exc: BaseException) -> "Outcome":
        return cls(claim, JobStatus.FAILED, failure=Failure.of(exc))

    @classmethod
    def postponed(cls, claim: Claim, delay: float) -> "Outcome":
        return cls(claim, JobStatus.SCHEDULED, delay=delay)

    def refused(self, exc: BaseException) -> "Outcome":
        """What can be written of this outcome after the database refused what is in it: a failure, in ASCII."""
        failure = (self.failure or Failure.of(exc)).in_ascii()
        return replace(self, status=JobStatus.FAILED, value_json=None, failure=failure)
