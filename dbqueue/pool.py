"""The threads that run jobs, and how many jobs may wait for them."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from .claim import Claim
from .handover import Handover

logger = logging.getLogger("dbqueue.worker")

AHEAD = 0.02
"""Seconds of work that may wait for the threads. Longer, and a job waits here while another worker is idle."""

MOST_AHEAD = 2000
"""Jobs that may wait at most."""

PATIENCE = 0.1
"""Seconds without a start after which waiting jobs are given back."""

SHORTEST = 1e-6
"""Seconds that a job is taken to last at least."""

SMOOTHING = 0.05
"""Weight of the newest job in the mean duration."""

TELL_AFTER = 0.05
"""Seconds after which a job that was taken ahead is told to have begun. Most have ended by then."""


class Pool:
    """N threads on one queue. ``run`` must not raise; if it does, ``crashed`` says with what."""

    def __init__(
        self,
        threads: int,
        run: Callable[[Claim], None],
        on_room: Callable[[], None],
        on_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self.crashed: BaseException | None = None
        self._threads = threads
        self._run = run
        self._on_room = on_room
        self._on_thread = on_thread
        self._handover = Handover()
        self._held: dict[tuple[int, int], Claim] = {}
        self._untold: dict[tuple[int, int], tuple[float, Claim]] = {}
        self._mean: float | None = None
        self._moved_at = 0.0

    def start(self) -> None:
        for number in range(self._threads):
            threading.Thread(target=self._work, name=f"dbqueue-job-{number}", daemon=True).start()

    @property
    def capacity(self) -> int:
        """Jobs that may be here at once: one a thread, and what the threads will start within AHEAD seconds."""
        return self._threads + self._ahead

    @property
    def room(self) -> int:
        return max(0, self.capacity - len(self._held))

    @property
    def free(self) -> int:
        """Threads that wait for a job."""
        return max(0, self._threads - len(self._held))

    @property
    def idle(self) -> bool:
        return not self._held

    @property
    def waits(self) -> bool:
        """Whether jobs wait here for a thread."""
        return len(self._handover) > 0

    @property
    def waiting_too_long(self) -> bool:
        """Whether jobs wait here although no thread has started one for a while: they were thought shorter."""
        return self.waits and time.monotonic() - self._moved_at > PATIENCE

    @property
    def has_untold(self) -> bool:
        """Whether a job runs of which the database says that it was only taken ahead."""
        return bool(self._untold)

    def begun(self) -> list[Claim]:
        """Jobs that were taken ahead and have run for TELL_AFTER seconds: the database is to be told."""
        before = time.monotonic() - TELL_AFTER
        return [claim for began, claim in self._untold.copy().values() if began < before]

    def told(self, claims: Iterable[Claim]) -> None:
        """The database has been told that these have begun."""
        for claim in claims:
            self._untold.pop((claim.job_id, claim.lease), None)

    def be_careful(self) -> None:
        """Until jobs are known to be short again, take no more than the threads, as if their mean were too long."""
        self._mean = self._threads * AHEAD * 2

    def submit(self, claim: Claim) -> None:
        if not self.waits:
            self._moved_at = time.monotonic()  # a thread that has slept for long needs its time to wake up
        self._held[claim.job_id, claim.lease] = claim
        self._handover.put(claim)

    def take_back(self) -> list[Claim]:
        """Remove and return what no thread has started, and be careful from now on."""
        self.be_careful()
        claims = self._handover.take_back()
        for claim in claims:
            del self._held[claim.job_id, claim.lease]
        return claims

    def stop(self) -> None:
        """Let each thread end after the job it runs. Nothing may be submitted after."""
        for _ in range(self._threads):
            self._handover.put(None)

    def held(self) -> dict[tuple[int, int], Claim]:
        """Everything that was submitted and has not ended, by (id, lease)."""
        return self._held.copy()

    @property
    def _ahead(self) -> int:
        if self._mean is None:
            return 0
        return min(MOST_AHEAD, int(self._threads * AHEAD / max(self._mean, SHORTEST)))

    def _work(self) -> None:
        try:
            self._on_thread()
            while claim := self._handover.take():
                key = claim.job_id, claim.lease
                began = self._moved_at = time.monotonic()
                if claim.ahead:
                    self._untold[key] = began, claim
                try:
                    self._run(claim)
                finally:
                    self._untold.pop(key, None)
                    self._held.pop(key, None)
                self._learn(time.monotonic() - began)
                if 2 * len(self._handover) <= self._ahead:
                    self._on_room()
        except BaseException as exc:
            self.crashed = exc
            self._on_room()
            logger.exception("A thread of the pool died")

    def _learn(self, duration: float) -> None:
        # Threads may overwrite each other's step here: a mean loses nothing by it.
        mean = self._mean
        self._mean = duration if mean is None else mean + SMOOTHING * (duration - mean)
