"""One attempt while it runs in this process: what it is asked from outside, and what it tells of itself."""

import asyncio
import contextvars
import ctypes
import datetime
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from django.db import Error, connections
from django.utils import timezone

from .claim import Claim
from .encoding import encode, storable_text
from .exceptions import Interrupt
from .outcome import secrets_of
from .plan import Plan
from .redaction import Secrets

logger = logging.getLogger("dbqueue.job")

R = TypeVar("R")

FRAGILE = ("threading", "queue", "asgiref.local", "psycopg_pool.pool")
"""Modules that take a lock in one line of Python and see to its release in the next: not interrupted in between."""

WAITS = ("psycopg.connection", "psycopg.waiting")
"""Where psycopg 3 waits for the server. Elsewhere it is between two steps of a statement, and not interrupted either:
its connection would be of no more use, also for what the task does when it cleans up."""

NEVER = ("weakref", "__del__")
"""Finalizers and destructors: Python swallows whatever is raised in them, or in what they call. All are short."""

TRY_AGAIN = 0.005
"""Seconds to the next try, where the thread is in the middle of one of these."""

PATIENCE = 1.0
"""Seconds for which such tries are made. A task may be waiting in threading for good."""

MOST_LINES = 1000
"""Lines of log that are kept of one attempt."""

LINE_LENGTH = 2000
"""Characters of a line that are kept."""

STANDS_STILL = 0.02
"""Seconds for which a thread must have stood at one place after an interrupt, before its SQL is cancelled."""

LOOK = 0.002
"""Seconds between two looks at it meanwhile."""

SQL_PATIENCE = 5.0
"""Seconds in which a server must take the request to cancel a statement, where the driver can be told."""

EXECUTING = 1
"""What libpq calls PQTRANS_ACTIVE: a statement is on its way, or its result is."""

current: "contextvars.ContextVar[Running | None]" = contextvars.ContextVar("dbqueue_running", default=None)


class Line(NamedTuple):
    """One line that a task has logged, by this host's clock."""

    made_at: datetime.datetime
    text: str


class Running:
    """An attempt in the hands of a thread. That thread writes it; a monitor reads it, and may interrupt.

    ``ended`` and ``sending`` keep an interrupt out of whatever the thread does after the task. Who interrupts says so
    in ``sending`` before he looks at ``ended``; the thread says ``ended`` before it looks at ``sending``. So either
    the interrupt is not sent, or the thread waits for it and takes it away.
    """

    __slots__ = (
        "_asked",
        "_logged",
        "_loop",
        "_on_report",
        "_one_sender",
        "_secrets",
        "_task",
        "_thread_id",
        "_wrappers",
        "added",
        "began",
        "cancelled",
        "claim",
        "deadline",
        "ended",
        "hard_timeout",
        "interrupted_by",
        "is_overdue",
        "lines",
        "progress",
        "progress_told",
        "replacement",
        "sending",
        "timeout",
    )

    def __init__(self, claim: Claim, on_report: Callable[[], None] = lambda: None) -> None:
        options = claim.options
        self.claim = claim
        self.timeout = _duration(options.get("timeout"))
        self.hard_timeout = _duration(options.get("hard_timeout"))
        self.deadline: datetime.datetime | None = None
        self.began = 0.0
        """time.monotonic() at the start; 0 before."""
        self.ended = self.sending = False
        self.cancelled = False
        """Whether somebody has asked for its end."""
        self.interrupted_by: type[Interrupt] | None = None
        """By what it was interrupted last."""
        self.is_overdue = False
        self.progress: dict[str, Any] | None = None
        self.progress_told: dict[str, Any] | None = None
        self.lines: deque[Line] = deque()
        self.replacement: Plan | None = None
        """What is to be done in the job's place."""
        self.added: dict[int, list[Plan]] = {}
        """New members of groups, by the group's id."""
        self._asked: tuple[type[Interrupt], ...] = ()
        self._logged = 0
        self._on_report = on_report
        self._secrets: Secrets | None = None
        self._one_sender = threading.Lock()
        """Never taken by the job's thread."""
        self._thread_id = 0
        self._wrappers: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    # On the job's thread

    def call(self, function: Callable[[], R]) -> R:
        """Call ``function`` where it can be interrupted; when this returns or raises, nothing can be any more."""
        try:
            self._begin()
            return function()
        except Error as exc:
            if self.interrupted_by is not None:
                raise self.interrupted_by from exc  # its statement was cancelled for that
            raise
        finally:
            # The first thing, and nothing that Python might interrupt.
            self.ended = True
            # One of each kind may still come. No loop: its jump back would be a place for that, too.
            try:
                self._take_away()
            except Interrupt:
                try:
                    self._take_away()
                except Interrupt:
                    self._take_away()

    async def call_async(self, coroutine: Any) -> Any:
        """The same for a coroutine, whose event loop may be on another thread."""
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self.interrupted_by is not None:
                raise self.interrupted_by from None
            raise
        finally:
            self._loop = None

    def tell_progress(self, done: float, total: float | None, message: str, told: Any = None) -> None:
        """``told`` is kept beside it, as JSON, for who knows what it means."""
        message = self._scrubbed(message)
        progress = {"done": done, "total": total, "message": message, "at": timezone.now().isoformat()}
        self.progress = progress if told is None else {**progress, "told": json.loads(encode(told, "told"))}
        self._on_report()

    def log(self, text: str) -> None:
        self._logged += 1
        if self._logged > MOST_LINES + 1:
            return
        if self._logged == MOST_LINES + 1:
            text = f"More than {MOST_LINES} lines: what follows is not kept."
        self.lines.append(Line(timezone.now(), storable_text(self._scrubbed(text))[:LINE_LENGTH]))
        self._on_report()

    def _scrubbed(self, text: str) -> str:
        if self._secrets is None:
            self._secrets = secrets_of(self.claim)
        return self._secrets.scrub(text)

    def _begin(self) -> None:
        self._thread_id = threading.get_ident()
        self._wrappers = [connections[alias] for alias in connections]
        if self.timeout is not None:
            self.deadline = timezone.now() + datetime.timedelta(seconds=self.timeout)
        self.began = time.monotonic()

    def _take_away(self) -> None:
        while self.sending:
            time.sleep(0.0005)
        if self.interrupted_by is not None:
            _raise_in(self._thread_id, None)
            _free_logging()

    # From outside

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.began if self.began else 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether it is past its hard timeout, and still there."""
        return self.hard_timeout is not None and self.seconds >= self.hard_timeout and not self.ended

    @property
    def has_reports(self) -> bool:
        return bool(self.lines) or self.progress is not self.progress_told

    def ask(self, kind: type[Interrupt]) -> None:
        """Interrupt it, on a thread of its own: a server may take its time to cancel a statement.

        Once by each kind: who has met his deadline, and goes on, can still be asked to end.
        """
        if kind not in self._asked:
            self._asked += (kind,)
            threading.Thread(target=self.interrupt, args=(kind,), name="dbqueue-interrupt", daemon=True).start()

    def interrupt(self, kind: type[Interrupt]) -> None:
        """Raise ``kind`` in the task as soon as Python runs there, and cancel the SQL that it may be waiting for."""
        end = time.monotonic() + PATIENCE
        with self._one_sender:
            while not self._send(kind, in_a_hurry=time.monotonic() > end):
                time.sleep(TRY_AGAIN)

    def _send(self, kind: type[Interrupt], *, in_a_hurry: bool) -> bool:
        """Returns whether there is nothing left to do."""
        self.sending = True
        try:
            if self.ended or self.interrupted_by is kind:
                return True
            if not self._loop and self._is_fragile(in_a_hurry):
                return False
            self.interrupted_by = kind
            if not self._cancel_task():
                _raise_in(self._thread_id, kind)
            self._cancel_sql()
            return True
        finally:
            self.sending = False

    def _is_fragile(self, in_a_hurry: bool) -> bool:
        """Whether the thread would be hit where it has just taken a lock, and could not give it back.

        It stands still while this looks, and what is raised now is raised where it stands.
        """
        frame = sys._current_frames().get(self._thread_id)
        if frame is not None and _is_between_steps(str(frame.f_globals.get("__name__"))) and not in_a_hurry:
            return True
        while frame is not None and frame.f_globals.get("__name__") != __name__:
            if frame.f_globals.get("__name__") in NEVER or frame.f_code.co_name in NEVER:
                return True
            frame = frame.f_back
        return False

    def _cancel_sql(self) -> None:
        """Cancel what the thread waits for since before the interrupt.

        Once it has moved, it has been interrupted: the SQL that it executes then is its cleaning up, and is let be.
        """
        stood = self._place()
        end = time.monotonic() + STANDS_STILL
        while time.monotonic() < end:
            time.sleep(LOOK)
            if self.ended or self._place() != stood:
                return
        for wrapper in self._wrappers:
            if not self.ended and self._place() == stood:
                _cancel_statement(wrapper)

    def _place(self) -> tuple[FrameType | None, int]:
        """Where in its code the job's thread is."""
        frame = sys._current_frames().get(self._thread_id)
        return frame, -1 if frame is None else frame.f_lasti

    def _cancel_task(self) -> bool:
        loop, task = self._loop, self._task
        if loop is None or task is None:
            return False
        with suppress(RuntimeError):  # it has closed meanwhile
            loop.call_soon_threadsafe(task.cancel)
        return True


def _duration(value: Any) -> float | None:
    """What a row says: of one that somebody else wrote, nothing is sure."""
    return float(value) if isinstance(value, int | float) else None


def _is_between_steps(module: str) -> bool:
    return module in FRAGILE or (module.startswith("psycopg.") and module not in WAITS)


def _free_logging() -> None:
    """Give back the locks of logging that this thread still has.

    A handler takes its lock in one line of Python, and an interrupt may come before the next, which sees to the
    release. Every other thread would wait for it for ever at its next line of log.
    """
    own: Any = logging
    locks = [handler.lock for reference in own._handlerList if (handler := reference())]
    for lock in (*locks, own._lock):
        while lock is not None and lock._is_owned():
            lock.release()


def _raise_in(thread_id: int, kind: type[BaseException] | None) -> None:
    """Have Python raise ``kind`` in a thread as soon as it executes bytecode there; None takes that back."""
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), what)


def _cancel_statement(wrapper: Any) -> None:
    """Ask the server to cancel what this connection executes, as its own protocol does it: also through a pooler."""
    raw = wrapper.connection
    if raw is None:
        return
    try:
        if wrapper.vendor == "sqlite":
            raw.interrupt()
        elif wrapper.vendor == "postgresql" and raw.info.transaction_status == EXECUTING:
            if hasattr(raw, "cancel_safe"):
                raw.cancel_safe(timeout=SQL_PATIENCE)
            else:
                raw.cancel()
    except Exception as exc:  # noqa: BLE001  a connection that is just being closed may raise its driver's own errors
        logger.debug("SQL of a job could not be cancelled: %s", exc)
