"""A job of which workers may have died, and that one more crash would end, runs alone.

All that had begun in a worker that dies has one crash more, the killer and its neighbours. Claimed together again, they
would die together until all of them are FAILED. So on its last chance each shows by itself which it is.
"""

import time
from collections.abc import Callable, Container

from .claim import Claim

PATIENCE = 60.0
"""Seconds that such a job waits for the others here to end. After that it runs beside what is left of them."""


NOBODY = (0, 0)


class Isolation:
    """A worker's place for one job on its last chance. While it is taken, the worker claims nothing."""

    def __init__(self, max_crashes: int) -> None:
        self.last_chance = max(1, max_crashes - 1)
        self._waiting: Claim | None = None
        self._since = 0.0
        self._running = NOBODY

    def is_taken(self, held: Callable[[], Container[tuple[int, int]]]) -> bool:
        """Whether a job waits here to be alone, or is among what is ``held``, by (id, lease), until it is written."""
        return self._waiting is not None or (self._running != NOBODY and self._running in held())

    @property
    def waiting(self) -> dict[tuple[int, int], Claim]:
        """What waits here, by (id, lease): one claim at most."""
        return {} if self._waiting is None else {_key(self._waiting): self._waiting}

    def admit(self, claims: list[Claim]) -> tuple[list[Claim], list[Claim]]:
        """Part a batch in what may run, and what must go back; the first on its last chance stays here.

        A suspect goes back also where it would have to wait for a thread: should this worker die meanwhile, nobody
        could tell that it had not begun.
        """
        run, back = [], []
        for claim in claims:
            if claim.crashes >= self.last_chance and self._waiting is None:
                self._waiting, self._since = claim, time.monotonic()
            elif claim.crashes and claim.ahead:
                back.append(claim)
            else:
                run.append(claim)
        return run, back

    def next(self, *, idle: bool) -> Claim | None:
        """The job that waits, if it is its turn."""
        return self._waiting if idle or time.monotonic() - self._since > PATIENCE else None

    def let_go(self) -> None:
        """The job that waited here runs from now on, or is no more this worker's."""
        if self._waiting is not None:
            self._running = _key(self._waiting)
        self._waiting = None


def _key(claim: Claim) -> tuple[int, int]:
    return claim.job_id, claim.lease
