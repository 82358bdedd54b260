"""A flag that a thread sleeps on and that a signal handler may set."""

from queue import Empty, SimpleQueue


class Wakeup:
    """Like ``threading.Event``, but safe to set from a signal handler.

    ``Event.set()`` takes a lock that the interrupted main thread may hold; ``SimpleQueue.put()`` is reentrant.
    """

    def __init__(self) -> None:
        self._pings: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        if self._pings.empty():
            self._pings.put(None)

    def clear(self) -> None:
        while not self._pings.empty():
            try:
                self._pings.get_nowait()
            except Empty:
                return

    def wait(self, timeout: float) -> bool:
        """Sleep until set, at most ``timeout`` seconds. Returns whether it was set, and leaves it cleared."""
        try:
            self._pings.get(timeout=max(timeout, 0.0))
        except Empty:
            return False
        self.clear()
        return True
