"""Keeps many workers from all coming, call after call, for what one of them takes."""

import random
import time

VAIN_LOOKS = 1000.0
"""Looks for work in a second that all workers together may make in vain because they were called."""

AT_ONCE = 10
"""So many of its share a worker may make without a pause."""


class Restraint:
    """How long a worker waits before it answers a call.

    A notification reaches every listening worker, and one of them gets the job. Each look in vain costs a worker its
    share of a second: a thousandth of it for one worker alone, a tenth for each of a hundred. Who is in debt answers
    later. A look that finds work costs nothing, so work keeps its worker as fast as before, and with calls fewer than
    that nobody waits.
    """

    def __init__(self) -> None:
        self.workers = 1
        self._paid_until = 0.0

    @property
    def _price(self) -> float:
        return self.workers / VAIN_LOOKS

    def looked_in_vain(self) -> None:
        now = time.monotonic()
        paid_until = max(self._paid_until, now) + self._price
        # However often a worker was called by itself meanwhile, it never waits for longer than two looks are worth.
        self._paid_until = min(paid_until, now + (AT_ONCE + 2) * self._price)

    def delay(self) -> float:
        """Seconds to wait before the next answer."""
        debt = self._paid_until - time.monotonic() - AT_ONCE * self._price
        return random.uniform(debt / 2, debt) if debt > 0 else 0.0
