"""N worker processes: start them, replace one that died, stop them all."""

import logging
import os
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

from django.utils.autoreload import StatReloader, get_child_arguments

from .conf import Settings
from .services.base import backoff
from .services.undertaker import Undertaker
from .store import store_for
from .wakeup import Wakeup

logger = logging.getLogger("dbqueue.worker")

LOOK = 0.25
"""Seconds between two looks at the children."""

LONG_ENOUGH = 5.0
"""Seconds of life after which a child is replaced at once. One that dies sooner is replaced later and later."""

START_AGAIN = 10.0
"""Seconds after which --reload starts a child anew that ended early, although no code has changed: it may have been the
database that was not there yet."""

READY = b"."
"""What a child writes when it is among the workers."""

MOST_FAILED_STARTS = 5
"""Starts in a row that may fail before the supervisor gives up."""

LAST_BURIAL = 5.0
"""Seconds that the supervisor waits at its end for the burial of children that died."""


class Child:
    """One place for a process, and how its starts went."""

    def __init__(self, arguments: list[str], number: int) -> None:
        self.number = number
        self.done = False
        self.failed_starts = 0
        self.failing_since = 0.0
        self._short_lives = 0
        self._ready: int | None = None
        self._has_started = False
        self.token = uuid.uuid4()
        self.waits_for_code = False
        self._is_told = False
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at = 0.0

    @property
    def code(self) -> int | None:
        """The exit code of a process that has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def age(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self._started

    @property
    def pid(self) -> int:
        """Of its process; 0 where it has none."""
        return 0 if self._process is None else self._process.pid

    @property
    def has_process(self) -> bool:
        return self._process is not None

    @property
    def alive(self) -> bool:
        return self.has_process and self.code is None

    @property
    def ended_as_told(self) -> bool:
        """Whether it ended by the signal that it was told to end by, before it had a handler for that."""
        return self._is_told and self.code == -signal.SIGTERM

    def start(self) -> None:
        if time.monotonic() < self._start_at:
            return
        self.token = uuid.uuid4()
        self._ready, told = os.pipe()
        os.set_blocking(self._ready, False)
        own = ["--token", str(self.token), "--ready-to", str(told)]
        # A group of its own: Ctrl-C reaches the supervisor alone, which tells each child once.
        self._process = subprocess.Popen([*self._arguments, *own], process_group=0, pass_fds=[told])
        os.close(told)
        self._started = time.monotonic()
        self._has_started = self._is_told = False

    @property
    def lived_long(self) -> bool:
        return self.age > LONG_ENOUGH

    @property
    def has_started(self) -> bool:
        """Whether it has said that it is among the workers. What it dies of after that is no failed start."""
        if not self._has_started and self._ready is not None:
            with suppress(BlockingIOError):
                self._has_started = os.read(self._ready, 1) == READY
        return self._has_started

    def vacate(self) -> None:
        """Make the place free for another start: at once after a long life, later and later after short ones."""
        self.failed_starts = 0 if self.has_started or self.ended_as_told else self.failed_starts + 1
        if self.failed_starts <= 1:
            self.failing_since = time.monotonic()
        ended_well = self.code == 0 or self.ended_as_told
        self._short_lives = 0 if self.lived_long or ended_well else self._short_lives + 1
        self._start_at = time.monotonic() + (backoff(self._short_lives) if self._short_lives else 0.0)
        if self._ready is not None:
            os.close(self._ready)
        self._ready = self._process = None

    def tell(self, number: signal.Signals) -> None:
        if self._process is not None and self.alive:
            self._is_told = True
            self._process.send_signal(number)


class Supervisor:
    """Keeps N children that run this command line, each as one process.

    With ``reload`` they start anew when a file of the project changes.
    """

    def __init__(self, settings: Settings, processes: int, name: str, *, reload: bool = False) -> None:
        self._settings = settings
        self._children = [Child(_arguments(name, number), number) for number in range(1, processes + 1)]
        self._files = StatReloader() if reload else None
        self._seen: dict[Path, float] = {}
        self._wakeup = Wakeup()
        self._undertaker = Undertaker(store_for(settings.database), settings.max_crashes, self._wakeup.set)
        self._stops = 0
        self._code = 0

    def run(self) -> int:
        """Returns the exit code: 0 when the children ended well or were stopped, 1 if one can't start."""
        self._undertaker.start()
        self._code_changed()
        while not self._stops and not all(child.done for child in self._children):
            if self._code_changed():
                logger.info("The code has changed: starting anew")
                self._tell(signal.SIGTERM)
                for child in self._children:
                    child.waits_for_code = False
            for child in self._children:
                self._look_after(child)
            self._wakeup.wait(LOOK)
        self._end()
        return self._code

    def stop(self) -> None:
        """Stop all children; asked a second time, at once. May be called by a signal handler."""
        self._stops += 1
        self._wakeup.set()

    def _look_after(self, child: Child) -> None:
        code = child.code
        if child.done or (child.has_process and code is None):
            return
        if code is not None:
            self._take_note(child, code)
        if not child.done and (not child.waits_for_code or child.age > START_AGAIN):
            child.start()

    def _take_note(self, child: Child, code: int) -> None:
        """A child has ended. One that ended well, as after --burst, is not replaced."""
        self._tell_undertaker(child, code)
        if code == 0 and self._files is None:
            child.done = True
            return
        # It ended by itself and early: broken code fails again until somebody mends it.
        child.waits_for_code = self._files is not None and code > 0 and not child.lived_long
        pid, is_as_told = child.pid, child.ended_as_told
        child.vacate()
        if child.waits_for_code:
            child.failed_starts = 0
            logger.error(
                "Worker process %d ended early: it is started again when the code changes, or later", child.number
            )
        elif code != 0 and not is_as_told:
            logger.error("Worker process %d (pid %d) ended with %d", child.number, pid, code)
        if child.failed_starts >= MOST_FAILED_STARTS and not self._others_work(child):
            logger.critical("Worker process %d can't start: it failed %d times", child.number, child.failed_starts)
            child.done = True
            self._code = 1
            self.stop()

    def _others_work(self, child: Child) -> bool:
        """Whether its siblings do well: then it is tried for longer, as stopping would stop them too."""
        failing = time.monotonic() - child.failing_since
        others = any(other.alive and other.has_started for other in self._children if other is not child)
        return others and failing < self._settings.database_grace

    def _tell_undertaker(self, child: Child, code: int) -> None:
        """Free the jobs of a child that could not give them back itself."""
        if code:
            self._undertaker.bury(child.token)

    def _end(self) -> None:
        """Tell the children once for each time that this process was told, and wait for them."""
        told = 0
        while any(child.alive for child in self._children):
            if told < self._stops:
                told += 1
                self._tell(signal.SIGTERM)
            self._wakeup.wait(LOOK)
        for child in self._children:
            if code := child.code:
                self._tell_undertaker(child, code)
                # One that had no handler for the signal yet ends by it, and that is a good end, too.
                self._code = self._code if code == -signal.SIGTERM else 1
        self._undertaker.stop()
        self._undertaker.join(LAST_BURIAL)

    def _tell(self, number: signal.Signals) -> None:
        for child in self._children:
            child.tell(number)

    def _code_changed(self) -> bool:
        if self._files is None:
            return False
        seen = dict(self._files.snapshot_files())
        # Only what was known before: this process, too, imports a module late.
        changed = any(seen.get(path) != moment for path, moment in self._seen.items())
        self._seen = seen
        return changed


def _arguments(name: str, number: int) -> list[str]:
    """This process's own command line, for one child: what stands last counts."""
    own = [*get_child_arguments(), "--processes", "1", "--supervised-by", str(os.getpid())]
    return [*own, "--name", f"{name}.{number}"] if name else own
