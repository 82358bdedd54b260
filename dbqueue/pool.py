"""The threads that run jobs, and how many jobs may wait for them."""

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from .claim import Claim

logger = logging.getLogger("dbqueue.worker")

AHEAD = 0.02
"""Seconds of work that may wait for the threads. Longer, and a job waits here while another worker is idle."""

MOST_AHEAD = 400
"""Jobs that may wait at most: with more in flight the throughput measured lower."""

PATIENCE = 0.1
"""Seconds without a start after which waiting jobs are given back."""

SHORTEST = 1e-6
"""Seconds that a job is taken to last at least."""

SMOOTHING = 0.05
"""Weight of the newest job in the mean duration."""


class Pool:
    """N threads on one queue. ``run`` must not raise; if it does, ``crashed`` says with what."""

    def __init__(self, threads: int, run: Callable[[Claim], None], on_room: Callable[[], None]) -> None:
        self.crashed: BaseException | None = None
        self._threads = threads
        self._run = run
        self._on_room = on_room
        self._queue: SimpleQueue[Claim | None] = SimpleQueue()
        self._held: dict[tuple[int, int], Claim] = {}
        self._mean: float | None = None
        self._last_start = 0.0

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
    def idle(self) -> bool:
        return not self._held

    @property
    def waits(self) -> bool:
        """Whether jobs wait here for a thread."""
        return not self._queue.empty()

    @property
    def waiting_too_long(self) -> bool:
        """Whether jobs wait here although no thread has started one for a while: they were thought shorter."""
        return self.waits and time.monotonic() - self._last_start > PATIENCE

    def submit(self, claim: Claim) -> None:
        self._held[claim.job_id, claim.lease] = claim
        self._queue.put(claim)

    def take_back(self) -> list[Claim]:
        """Remove and return what no thread has started; until jobs are short again, take no more than the threads."""
        self._mean = self._threads * AHEAD * 2
        claims: list[Claim] = []
        try:
            while claim := self._queue.get_nowait():
                del self._held[claim.job_id, claim.lease]
                claims.append(claim)
        except Empty:
            pass
        return claims

    def stop(self) -> None:
        """Let each thread end after the job it runs. Nothing may be submitted after."""
        for _ in range(self._threads):
            self._queue.put(None)

    def held_keys(self) -> set[tuple[int, int]]:
        """(id, lease) of everything that was submitted and has not ended."""
        return set(self._held.copy())

    def held(self) -> list[Claim]:
        """Everything that was submitted and has not ended."""
        return list(self._held.copy().values())

    @property
    def _ahead(self) -> int:
        if self._mean is None:
            return 0
        return min(MOST_AHEAD, int(self._threads * AHEAD / max(self._mean, SHORTEST)))

    def _work(self) -> None:
        try:
            while claim := self._queue.get():
                began = self._last_start = time.monotonic()
                try:
                    self._run(claim)
                finally:
                    self._held.pop((claim.job_id, claim.lease), None)
                self._learn(time.monotonic() - began)
                if 2 * self._queue.qsize() <= self._ahead:
                    self._on_room()
        except BaseException as exc:
            logger.exception("A thread of the pool died")
            self.crashed = exc
            self._on_room()

    def _learn(self, duration: float) -> None:
        # Threads may overwrite each other's step here: a mean loses nothing by it.
        mean = self._mean
        self._mean = duration if mean is None else mean + SMOOTHING * (duration - mean)
