"""How claimed jobs reach the threads that run them."""

from collections import deque
from queue import SimpleQueue

from .claim import Claim


class Handover:
    """A queue that wakes its sleepers one after the other.

    A thread that is woken has to wait for the interpreter's lock. Eight woken at once would stand in line there before
    the threads that talk to the database, and none of them would run sooner for it. So a call wakes one thread, and who
    takes a claim calls the next one if there is more: while a job waits for something, the others go on.
    """

    def __init__(self) -> None:
        self._claims: deque[Claim | None] = deque()
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._called = False
        """Whether a call is on its way. Who hears it says no before looking for claims, so none is overlooked."""

    def __len__(self) -> int:
        return len(self._claims)

    def put(self, claim: Claim | None) -> None:
        self._claims.append(claim)
        self._call()

    def take(self) -> Claim | None:
        """The next one, waiting for it if need be."""
        while True:
            try:
                claim = self._claims.popleft()
            except IndexError:
                self._calls.get()
                self._called = False
            else:
                if self._claims:
                    self._call()
                return claim

    def take_back(self) -> list[Claim]:
        """Everything that nobody has taken."""
        back = []
        while self._claims:
            try:
                claim = self._claims.popleft()
            except IndexError:
                break  # a thread was faster
            if claim is not None:
                back.append(claim)
        return back

    def _call(self) -> None:
        # Two threads may both find that nobody has called; then somebody is woken for nothing.
        if not self._called:
            self._called = True
            self._calls.put(None)
