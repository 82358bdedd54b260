"""Faults that are made, one after the other, and the record of what they may explain."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psycopg2
from django.db import Error, transaction

from dbqueue.connections import close_all

from ..servers import Mode
from .crew import Crew, Tree, send
from .load import shuffled
from .stage import SETTINGS, Stage

HEARTBEAT_TIMEOUT = float(SETTINGS["DBQUEUE_HEARTBEAT_TIMEOUT"])
GRACE = float(SETTINGS["DBQUEUE_GRACE"])

AFTER = 1.0
"""Seconds after a fault in which it may still hit: a process that was stopped learns of its loss at its next beat."""

SNAPSHOT = 5.0
"""Seconds for which a snapshot, or SQLite's write lock, is held."""


@dataclass(frozen=True)
class Fault:
    """When something happened, and to whom: process ids, or None for everybody who uses the database."""

    kind: str
    began: float
    ended: float
    pids: frozenset[int] | None = None

    def touches(self, began: float, ended: float) -> bool:
        """Whether it was, or had consequences, at some time from ``began`` to ``ended``."""
        return began <= self.ended and self.began <= ended

    def hits(self, pid: int, began: float, ended: float) -> bool:
        """Whether it may have hit something that this process did from ``began`` to ``ended``."""
        return (self.pids is None or pid in self.pids) and self.touches(began, ended)


class Faults:
    """Makes faults to a crew and its database."""

    def __init__(self, stage: Stage, crew: Crew, random: Random) -> None:
        self.made: list[Fault] = []
        self.strikes: Counter[str] = Counter()
        self._stage = stage
        self._crew = crew
        self._random = random
        self._background: list[threading.Thread] = []
        self.kinds: dict[str, Callable[[], object]] = {
            "child killed": self.kill_child,
            "tree killed": self.kill_tree,
            "supervisor killed": self.kill_supervisor,
            "child frozen": self.freeze_child,
            "rolling restart": self.rolling_restart,
        }
        if stage.server:
            self.kinds |= {
                "server restarted": lambda: self.restart_server("fast"),
                "server crashed": lambda: self.restart_server("immediate"),
                "sessions terminated": self.terminate_sessions,
                "snapshot held": self.hold_snapshot,
            }
        else:
            self.kinds["write lock held"] = self.hold_write_lock
        if stage.bouncer:
            self.kinds["bouncer killed"] = self.kill_bouncer

    def strike_for(self, seconds: float, pause: float) -> None:
        """Make faults for so long, and until each kind has struck, with about ``pause`` seconds in between."""
        end = time.monotonic() + seconds
        for number, kind in enumerate(shuffled(list(self.kinds), self._random)):
            self._crew.look_after()
            time.sleep(pause * self._random.uniform(0.5, 1.5))
            if number >= len(self.kinds) and time.monotonic() > end:
                break
            self.strike(kind)
        self.settle()

    def strike(self, kind: str) -> None:
        self.strikes[kind] += 1
        self.kinds[kind]()

    def settle(self) -> None:
        """Wait for those that last; this thread's own session may be one of those that were hit."""
        for thread in self._background:
            thread.join()
        close_all()

    # Workers

    def kill_child(self) -> tuple[float, list[int]]:
        """Returns when, and the process id of the one that was killed."""
        pid = self._some_child()
        began = time.time()
        send(pid, signal.SIGKILL)
        self._remember("child killed", began, pids=[pid])
        return began, [pid]

    def kill_tree(self) -> tuple[float, list[int]]:
        """Kill a whole tree and replace it a moment later. Returns when, and the process ids of its children."""
        tree = self._some_tree()
        began = time.time()
        pids = tree.kill()
        self._remember("tree killed", began, pids=pids)
        time.sleep(self._random.uniform(0.1, 1.0))
        self._crew.replace(tree)
        return began, pids

    def kill_supervisor(self) -> None:
        """Its children find themselves alone and stop as if they had been asked to."""
        tree = self._some_tree()
        began = time.time()
        pids = tree.behead()
        self._remember("supervisor killed", began + GRACE - 0.2, began + 2 * GRACE + AFTER, pids)
        self._crew.replace(tree)

    def freeze_child(self) -> None:
        """SIGSTOP for longer than HEARTBEAT_TIMEOUT: others take it for dead, and then it goes on."""
        pid = self._some_child()
        began = time.time()
        send(pid, signal.SIGSTOP)
        try:
            time.sleep(HEARTBEAT_TIMEOUT * self._random.uniform(1.2, 1.8))
        finally:
            send(pid, signal.SIGCONT)
        # On SQLite it may have been stopped with the write lock in its hand.
        self._remember("child frozen", began, time.time() + AFTER, [pid] if self._stage.server else None)

    def rolling_restart(self) -> None:
        """Tree by tree: the new one is started, then the old one is asked to stop and waited for."""
        for tree in list(self._crew.trees):
            if tree.ended():
                continue
            self._crew.await_ready(self._crew.replace(tree))
            pids = tree.children()
            began = time.time()
            tree.tell_to_stop()
            tree.process.wait(60)
            if time.time() > began + GRACE:  # only what outlives the grace runs again
                self._remember("asked to stop, past its grace", began + GRACE - 0.2, pids=pids)

    # The database

    def restart_server(self, mode: Mode, pause: float = 0.0) -> tuple[float, float]:
        """Returns when it was stopped, and when it was there again."""
        assert self._stage.server is not None
        began = time.time()
        self._stage.server.stop(mode)
        time.sleep(pause)
        self._stage.server.start()
        back = time.time()
        self._remember_outage("server crashed" if mode == "immediate" else "server restarted", began)
        return began, back

    def fail_over(self) -> None:
        """SIGKILL the primary and promote its standby."""
        assert self._stage.server is not None and self._stage.standby is not None
        began = time.time()
        self._stage.server.kill()
        self._stage.standby.promote()
        self._remember_outage("failover", began)

    def kill_bouncer(self) -> None:
        assert self._stage.bouncer is not None
        began = time.time()
        self._stage.bouncer.kill()
        self._stage.bouncer.start()
        self._remember_outage("bouncer killed", began)

    def terminate_sessions(self) -> None:
        """End about half of all sessions, whoever's they are."""
        assert self._stage.server is not None
        began = time.time()
        for (pid,) in self._stage.server.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ):
            if self._random.random() < 0.5:
                self._stage.server.execute("SELECT pg_terminate_backend(%s)", pid)
        self._remember_outage("sessions terminated", began)

    def hold_snapshot(self) -> None:
        """Keep a snapshot for a while, in the background: meanwhile no dead row version can be removed."""
        self._in_background(self._snapshot)

    def hold_write_lock(self) -> None:
        """Keep SQLite's only write lock, in the background."""
        self._in_background(self._write_lock)

    def _snapshot(self) -> None:
        assert self._stage.server is not None
        connection = psycopg2.connect(host=str(self._stage.server.folder), user="postgres", dbname="postgres")
        with suppress(psycopg2.Error):  # another fault may end it
            connection.set_session(isolation_level="REPEATABLE READ")
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM dbqueue_job")
                time.sleep(SNAPSHOT)
                cursor.execute("SELECT count(*) FROM dbqueue_job")
        connection.close()

    def _write_lock(self) -> None:
        try:
            with transaction.atomic():
                began = time.time()
                time.sleep(SNAPSHOT)
            self._remember_outage("write lock held", began)
        except Error:
            pass  # it never got the lock
        finally:
            close_all()

    def _in_background(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._background.append(thread)

    def _some_tree(self) -> Tree:
        self._crew.look_after()
        return self._random.choice(self._crew.trees)

    def _some_child(self) -> int:
        """A child of some tree. One that is just starting has none yet."""
        while not (pids := self._some_tree().children()):
            time.sleep(0.05)
        return self._random.choice(sorted(pids))

    def _remember(self, kind: str, began: float, ended: float = 0.0, pids: Iterable[int] | None = None) -> None:
        hit = None if pids is None else frozenset(pids)
        self.made.append(Fault(kind, began, ended or time.time() + AFTER, hit))

    def _remember_outage(self, kind: str, began: float) -> None:
        """After an outage a worker may wait as long as it lasted before it tries again."""
        lasted = time.time() - began
        self._remember(kind, began, time.time() + lasted + 2 * AFTER)
