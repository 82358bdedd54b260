"""One worker process: claim, hand out, wait. It introduces the parts to each other and holds no logic of theirs."""

import contextvars
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from django.core.cache import caches
from django.db import Error, OperationalError
from django.dispatch import Signal

from . import registry, signals
from .announcement import Announcement
from .claim import Bookmark, Claim, Selection
from .conf import Settings
from .connections import close_all, owned_connection, renew
from .exceptions import HARD_TIMEOUT, DeadlineExceeded, WorkerLost
from .executor import Executor
from .history import Tally
from .models import WorkerRequest
from .outcome import Outcome
from .pool import Pool
from .running import Running
from .services.base import Service, Trouble
from .services.completer import Completer
from .services.heartbeat import Heartbeat
from .services.herald import Herald
from .services.maintenance import Maintenance
from .services.monitor import Monitor
from .services.notifier import Notifier
from .services.timekeeper import Timekeeper
from .store import ANY_QUEUE, store_for
from .summing import Summing
from .suspects import Isolation
from .wakeup import Wakeup

logger = logging.getLogger("dbqueue.worker")

BURST_LOOK = 0.01
PATIENT_LOOK = 0.1
"""Seconds of one wait: while a burst comes to its end, and while jobs wait here for a thread."""

LAST_TRIES = 5.0
"""Seconds in which a worker that ends tries to give back what it holds."""

LAST_FIGURES = 2.0
"""Seconds for the last figures of the roll-up."""

LAST_SIGNALS = 5.0
"""Seconds that a worker which ends waits for the receivers of signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What a worker was asked to do.

    ``burst``: end when nothing is due. ``max_jobs``: end after so many claims. ``supervisor``: the process id without
    which this process has no reason to live. ``token``: what that supervisor knows this worker by.
    """

    selection: Selection = Selection()
    name: str = ""
    burst: bool = False
    max_jobs: int | None = None
    supervisor: int | None = None
    token: uuid.UUID | None = None


class Dispatcher:
    """The claim loop of a process, and the threads around it."""

    def __init__(self, settings: Settings, mode: Mode, on_start: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self._on_start = on_start
        self.mode = mode
        self.name = mode.name or f"{socket.gethostname()}-{os.getpid()}"
        self.store = store_for(settings.database)
        self.executor = Executor(settings)
        self.isolation = Isolation(settings.max_crashes)
        self.bookmark = Bookmark()
        self.wakeup = Wakeup()
        self.pool = Pool(settings.threads, self.run_job, self.wakeup.set, _keep_caches)
        self.herald = Herald(settings.database, self.wakeup.set)
        self.tally = Tally()
        self.completer = Completer(self.store, self.wakeup.set, self._tell)
        self.heartbeat = Heartbeat(self.store, settings.heartbeat_timeout, self.wakeup.set, self._heed)
        self.selection = replace(mode.selection, ageing=settings.priority_ageing)
        self.maintenance = Maintenance(
            self.store,
            settings,
            self._work_arrived,
            self.wakeup.set,
            self._close,
            self.herald.put,
            self.tally,
            lambda: self.herald.is_half_full,
        )
        self.notifier = Notifier(self.store, self._work_arrived, self.wakeup.set)
        self.running: dict[tuple[int, int], Running] = {}
        self.monitor = Monitor(self.store, self._running_now, self.wakeup.set)
        self.timekeeper = Timekeeper(settings.database, self._running_now, self._give_up_on_somebody, self.wakeup.set)
        self.services: tuple[Service, ...] = (
            self.completer,
            self.heartbeat,
            self.maintenance,
            self.monitor,
            self.timekeeper,
            self.herald,
        )
        if settings.listen:
            self.services += (self.notifier,)
        self.worker_id = 0
        self._stops = 0
        self._claimed = 0
        self._returning: dict[tuple[int, int], Claim] = {}
        """What is to be given back, and somebody else has locked, by (id, lease)."""
        self._return_at = 0.0
        self._trouble = Trouble("The database")
        self._in_doubt = False
        self._nobody_to_rescue = False
        self._called_anew = False
        self._finished = False
        self._failed = False
        self._has_stuck = False
        self._is_quiet = False
        self._is_dismissed = False
        """Whether an operator has asked it to stop. Not a stop of its own, or a signal after it would be the second."""

    def run(self) -> int:
        """Work until told to stop.

        Returns the exit code: 0, or 1 where a part of the worker died, the database could not be used for
        DATABASE_GRACE, or the last outcomes could not be written. Raises django.db.Error where it can't even start.
        """
        with owned_connection(self.settings.database):
            self._await_database()
            if self._stops:
                return 0
            self._start()
            try:
                while not self.stopping:
                    self.turn()
            finally:
                self._shut_down()
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Stop claiming, finish what runs. Asked a second time: end now. May be called by a signal handler."""
        self._stops += 1
        self.wakeup.set()

    @property
    def stopping(self) -> bool:
        orphaned = self.mode.supervisor is not None and os.getppid() != self.mode.supervisor
        told = self._stops or self._is_dismissed
        return bool(told or self._finished or orphaned or self._crashed() or self._gives_up() or self._has_stuck)

    def turn(self) -> None:
        """Look for work once, hand it out, and wait if there was nothing to do."""
        self.wakeup.clear()
        was_idle, nobody_to_rescue = self._idle, self._nobody_to_rescue
        self._nobody_to_rescue = False
        self.bookmark.put_aside = False
        claims = self._claim()
        if claims is None:
            return  # it has waited already, and what woke it meanwhile must not be slept over
        for claim in claims:
            self.pool.submit(claim)
        if self._called_anew:
            self._called_anew = False
            # Only now: at once, it would stand in the way of a job that is ready.
            self.maintenance.wake()
        if not claims and was_idle and self._nothing_will_come(nobody_to_rescue):
            self._finished = True
        elif self.bookmark.put_aside and self._room():
            return  # behind what limits have put aside there may be more
        elif not claims or self.bookmark.nothing_left or not self._room():
            self._rest()

    def run_job(self, claim: Claim) -> None:
        """Runs on a thread of the pool. Whatever happens beside the task, its outcome is told."""
        running = self.running[claim.job_id, claim.lease] = Running(claim, self.monitor.wake)
        if running.timeout is not None or running.hard_timeout is not None:
            self.timekeeper.wake()
        try:
            # A context of its own, so that a language or a time zone that a job activates ends with it.
            outcome = contextvars.copy_context().run(self.executor.run, claim, running)
        except BaseException as exc:  # noqa: BLE001  a logging filter or a signal's receiver may raise anything
            outcome = Outcome.failed(claim, exc)
        try:
            self._clean_up(claim)
        finally:
            self.running.pop((claim.job_id, claim.lease), None)
            if running.has_reports:
                self.monitor.leave(running)
            self.completer.put(outcome)

    def _clean_up(self, claim: Claim) -> None:
        for leak in close_all():
            logger.error("Job %s leaked a database connection's state: %s", claim, leak)

    def _claim(self) -> list[Claim] | None:
        """Claim what there is room for. None: nothing is known, because the database did not answer."""
        try:
            if self.heartbeat.lost:
                self._come_back()
            if self._in_doubt or self.completer.was_refused():
                self._settle_doubt()
            if self._called_anew:
                # Before the claim: a queue may have been closed, and what came into it after that is not to start.
                self._close(self.store.closed_queues())
            self._tell_begun()
            if self._returning and time.monotonic() >= self._return_at:
                self._return([])
            claims = self._take()
            if not claims and self.mode.burst and self._room() and self.store.promote():
                claims = self._take()
        except Error as exc:
            self._lost_database(exc)
            return None
        except WorkerLost:
            self.heartbeat.lose(self.worker_id)
            return None
        self._trouble.over()
        self._claimed += len(claims)
        return claims

    def _take(self) -> list[Claim]:
        if claim := self.isolation.next(idle=self._idle):
            self.store.begun([claim])
            self.isolation.let_go()
            return [claim]
        if not (room := self._room()):
            return []
        known = self._keys_here()
        claims = self.store.claim(
            self.worker_id,
            room,
            self.selection,
            free=self.pool.free,
            last_chance=self.isolation.last_chance,
            bookmark=self.bookmark,
        )
        # A crash of the server may have taken back a claim that runs here, and given it again under the same lease.
        known |= self._keys_here()  # its outcome may have been written meanwhile
        for claim in claims:
            self._returning.pop((claim.job_id, claim.lease), None)
        claims = [claim for claim in claims if (claim.job_id, claim.lease) not in known]
        claims, back = self.isolation.admit(claims)
        if back:
            self.pool.be_careful()
            self._return(back)
            self.bookmark.nothing_left = False
        return claims

    def _tell_begun(self) -> None:
        """Should this worker die, these were attempts; what was only taken ahead was none."""
        if begun := self.pool.begun():
            self.pool.told(self.store.begun(begun))

    def _keys_here(self) -> set[tuple[int, int]]:
        """Of what _known_here() has the keys alone, as every claim asks for them."""
        return self.pool.held().keys() | self.isolation.waiting.keys() | self.completer.unwritten_keys()

    def _known_here(self) -> dict[tuple[int, int], Claim]:
        """What runs or waits here, and what has ended and is not written, by (id, lease)."""
        return self.pool.held() | self.isolation.waiting | self.completer.unwritten()

    @property
    def _idle(self) -> bool:
        """Whether nothing would be lost if this process died now: no running job, no outcome that is not written."""
        return self.pool.idle and not self.completer.pending

    def _room(self) -> int:
        if self._is_quiet or self._hopeless() or self.isolation.is_taken(self._keys_here):
            return 0
        left = self.pool.room if self.mode.max_jobs is None else min(self.pool.room, self.mode.max_jobs - self._claimed)
        return max(0, min(left, self.completer.room))

    def _rest(self) -> None:
        if self.mode.burst or self.mode.max_jobs is not None:
            self.wakeup.wait(BURST_LOOK)
        elif self.pool.waits or self.pool.has_untold or self.isolation.waiting or self._returning:
            self.wakeup.wait(PATIENT_LOOK)
        else:
            self.wakeup.wait(self.settings.poll_interval * random.uniform(0.75, 1.25))
        if self.pool.waiting_too_long:
            unstarted = self.pool.take_back()
            self._claimed -= len(unstarted)
            self._give_back(unstarted)

    def _nothing_will_come(self, nobody_to_rescue: bool) -> bool:
        """Whether an idle worker that found nothing is done.

        A worker that lives for a moment would never come to rescue anybody: it waits until there is nobody to rescue,
        and then looks once more, for what was rescued after it had looked. ``nobody_to_rescue`` is what it knew before
        the look that has just found nothing, and no older: a turn that went otherwise makes it ask anew.
        """
        if self.isolation.waiting or self._returning or (not self.mode.burst and self._claimed != self.mode.max_jobs):
            return False
        if nobody_to_rescue:
            return True
        try:
            self._nobody_to_rescue = not self.store.has_abandoned(self.settings.heartbeat_timeout)
        except Error as exc:
            self._lost_database(exc)
        return False

    def _lost_database(self, exc: Error) -> None:
        """The claim's commit may have succeeded although its reply was lost.

        What was to be given back is found anew then: a crash of the server may have done so, and this worker may claim
        it again under the same lease.
        """
        self._in_doubt = True
        self._returning.clear()
        renew(self.settings.database)
        self.wakeup.wait(self._trouble.note(exc))

    def _settle_doubt(self) -> None:
        """Give back what the database thinks is running here and is not, and the other way round."""
        self._in_doubt = True
        known = self._known_here()
        standing = {(claim.job_id, claim.lease): claim for claim in self.store.held_by(self.worker_id)}
        self._return([claim for key, claim in standing.items() if key not in known])
        # Only this worker's: those of the row before, which was declared lost, are others' now.
        taken_back = [known[key] for key in known.keys() - standing.keys() if known[key].worker_id == self.worker_id]
        if restored := self.store.restore(taken_back):
            logger.warning("Claims that a crash of the server had taken back, restored: %d", restored)
        self._in_doubt = False

    def _come_back(self) -> None:
        """Enter anew after this worker was declared lost: its jobs are others' now, and its outcomes are refused."""
        dropped = self.pool.take_back()
        self.isolation.let_go()
        self._returning.clear()
        self._claimed -= len(dropped)
        logger.error(
            "Worker %s (id %d) was silent for too long and was declared lost; %d claims dropped, coming back anew",
            self.name,
            self.worker_id,
            len(dropped),
        )
        self._register()

    def _return(self, claims: Collection[Claim]) -> None:
        """Give these back, with those that could not be before. What somebody else has locked is tried again later."""
        self._returning |= {(claim.job_id, claim.lease): claim for claim in claims}
        if not self._returning:
            return
        left = self.store.release_free(list(self._returning.values()))
        self._returning = {(claim.job_id, claim.lease): claim for claim in left}
        self._return_at = time.monotonic() + PATIENT_LOOK

    def _give_back(self, claims: Collection[Claim]) -> Collection[Claim]:
        """Returns those that the database has not taken: what it has is no more this worker's."""
        try:
            self._return(claims)
        except Error as exc:
            self._lost_database(exc)
            return claims
        return list(self._returning.values())

    def _give_back_at_last(self, claims: Collection[Claim]) -> None:
        """Nobody else will: what stays with a worker that has ended counts as its crash."""
        began = time.monotonic()
        while claims := self._give_back(claims):
            if time.monotonic() > began + (1.0 if self._stops > 1 else LAST_TRIES):
                logger.error("Worker %s could not give back %d jobs", self.name, len(claims))
                self._failed = True
                return
            time.sleep(PATIENT_LOOK)

    def _register(self) -> None:
        self.worker_id = self.store.register(
            name=self.name,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            queues=str(self.mode.selection),
            threads=self.settings.threads,
            token=self.mode.token,
            asked=WorkerRequest.QUIET.value if self._is_quiet else "",
        )
        self.heartbeat.beat_for(self.worker_id)

    def _await_database(self) -> None:
        """Let a server that starts at the same time as this worker come up."""
        while not self._stops:
            try:
                self.store.clock()
                self._trouble.over()
                return
            except OperationalError as exc:
                if self.mode.burst or self._trouble.seconds > self.settings.database_grace:
                    raise
                self._lost_database(exc)

    def _close(self, queues: Mapping[str, int]) -> None:
        """These queues are paused or drained, each up to an id; all others are open."""
        if queues != self.selection.closed:
            self.selection = replace(self.selection, closed=queues)
            self.wakeup.set()

    def _start(self) -> None:
        self._register()
        self._close(self.store.closed_queues())
        self._on_start()
        for service in self.services:
            service.start()
        self.pool.start()
        logger.info(
            "Worker %s (id %d) started: queues %s, %d threads, %d tasks, database %r",
            self.name,
            self.worker_id,
            self.mode.selection.in_words(),
            self.settings.threads,
            len(list(registry.registered())),
            self.settings.database,
        )
        self._announce_worker(signals.worker_ready, queues=str(self.mode.selection))

    def _running_now(self) -> list[Running]:
        return list(self.running.copy().values())

    def _give_up_on_somebody(self) -> None:
        """A job is past its hard timeout: only the end of the process ends it."""
        self._has_stuck = True
        self.wakeup.set()

    def _give_up_on_stuck(self, held: dict[tuple[int, int], Claim]) -> None:
        """Say how the attempts end whose threads will not come back, and take them out of what is held."""
        for key, running in self.running.copy().items():
            if running.is_stuck and held.pop(key, None) is not None:
                logger.critical(
                    "Worker %s ends: job %s is past its hard timeout of %g s",
                    self.name,
                    running.claim,
                    running.hard_timeout,
                )
                self._failed = True
                error = DeadlineExceeded(HARD_TIMEOUT)
                self.completer.put(self.executor.give_up(running.claim, error))

    def _heed(self, request: str) -> None:
        """An operator asks this of the worker, on its page."""
        if request == WorkerRequest.STOP and not self._is_dismissed:
            logger.info("Worker %s (id %d) is asked to stop", self.name, self.worker_id)
            self._is_dismissed = True
            self.wakeup.set()
        if self._is_quiet != (request == WorkerRequest.QUIET):
            self._is_quiet = not self._is_quiet
            logger.info(
                "Worker %s (id %d) %s", self.name, self.worker_id, "is quiet now" if self._is_quiet else "claims again"
            )
            self.wakeup.set()

    def _work_arrived(self, queues: Collection[str]) -> None:
        if ANY_QUEUE in queues:
            self._called_anew = True
            self.monitor.ask_now()
        if any(queue == ANY_QUEUE or self.mode.selection.serves(queue) for queue in queues):
            self.wakeup.set()

    def _crashed(self) -> BaseException | None:
        crashes = [self.pool.crashed, *(service.crashed for service in self.services)]
        return next((crash for crash in crashes if crash is not None), None)

    def _hopeless(self) -> Error | None:
        """The error that has kept a part of this worker from its work for DATABASE_GRACE."""
        troubles = (self._trouble, *(service.trouble for service in self.services if service.essential))
        return next((trouble.error for trouble in troubles if trouble.seconds > self.settings.database_grace), None)

    def _gives_up(self) -> bool:
        """Whether it is hopeless, and nothing would be lost: neither a running job nor an outcome not yet written."""
        return bool(self._hopeless() and self._idle)

    def _tell(self, outcomes: list[Outcome]) -> None:
        """These were written."""
        self.tally.note(outcomes)
        for outcome in outcomes:
            self.herald.put(Announcement.of_outcome(outcome))

    def _announce_worker(self, signal: Signal, **told: str) -> None:
        self.herald.put(Announcement.of_worker(signal, worker_id=self.worker_id, name=self.name, **told))

    def _shut_down(self) -> None:
        if reason := self._crashed():
            logger.critical("Worker %s ends: a part of it died: %r", self.name, reason)
        elif reason := self._hopeless():
            grace = self.settings.database_grace
            logger.critical("Worker %s ends: no use of its database for %g s: %s", self.name, grace, reason)
        self._failed = reason is not None or self._has_stuck
        self._announce_worker(signals.worker_stopping, reason=str(reason or ""))
        unstarted = [*self.pool.take_back(), *self.isolation.waiting.values(), *self._returning.values()]
        left = self._await_running(self._give_back(unstarted))
        still_running = self.pool.held()
        self._give_up_on_stuck(still_running)
        if still_running:
            logger.warning("Worker %s gives back what still runs, jobs: %d", self.name, len(still_running))
        self._give_back_at_last([*left, *still_running.values()])
        self._flush()
        self.maintenance.stop()
        self.maintenance.join(LAST_FIGURES)  # it may be writing what it has counted
        self._write_history()
        for service in self.services:
            service.stop()
        self.monitor.join(1.0)
        self.pool.stop()
        try:
            self.store.unregister(self.worker_id)
        except Error as exc:
            logger.warning("Worker %s could not sign off: %s", self.name, str(exc).strip())
        self._await_receivers()
        logger.info("Worker %s (id %d) stopped", self.name, self.worker_id)

    def _await_receivers(self) -> None:
        if not self.herald.join(1.0 if self._stops > 1 else LAST_SIGNALS):
            logger.error(
                "Worker %s ends before its signals' receivers, signals left: %d", self.name, self.herald.pending
            )

    def _await_running(self, left: Collection[Claim]) -> Collection[Claim]:
        """Meanwhile try to give back what is ``left``. Returns what still is."""
        if running := len(self.pool.held()):
            logger.info(
                "Worker %s stops: jobs still running: %d, for up to %g s; asked once more, it ends at once",
                self.name,
                running,
                self.settings.grace,
            )
        end = time.monotonic() + self.settings.grace
        while not self.pool.idle and self._stops < 2 and not self._has_stuck and time.monotonic() < end:
            self.wakeup.wait(min(PATIENT_LOOK, end - time.monotonic()))
            if left and time.monotonic() >= self._return_at:
                left = self._give_back(left)
        return left

    def _write_history(self) -> None:
        end = time.monotonic() + LAST_FIGURES
        try:
            while not Summing(self.store, self.tally).write():
                if time.monotonic() > end:
                    raise OperationalError("another worker has the rows")
                time.sleep(0.05)
        except Error as exc:
            logger.warning("Worker %s could not write what it has counted: %s", self.name, str(exc).strip())

    def _flush(self) -> None:
        """Write the last outcomes. What can't be written now runs again on another worker."""
        self.completer.stop()
        self.completer.join(1.0 if self._stops > 1 else max(self.settings.grace, 5.0))
        if self.completer.pending:
            self._failed = True
            logger.error("Worker %s could not write %d outcomes", self.name, self.completer.pending)


def _keep_caches() -> None:
    """Make this thread's caches, which jobs then share. In the context of a job they would be made anew for each."""
    with suppress(Exception):  # one that can't be made is told to whoever uses it
        caches.all()
