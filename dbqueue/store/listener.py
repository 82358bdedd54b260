"""How a worker hears that there is work."""

from abc import ABC, abstractmethod
from collections.abc import Collection

ANY_QUEUE = ""
"""Stands among the names of queues for "look anew"."""


class Listener(ABC):
    """Hears, on the connection of the thread that made it, that there is work. Polling stays the guarantee."""

    proven = True
    """Whether it has ever heard a call that it made to itself. Where that is out of question: True."""

    @abstractmethod
    def wait(self, timeout: float) -> Collection[str]:
        """Wait up to ``timeout`` seconds. Returns the queues that got work; ANY_QUEUE among them means "look anew"."""

    def is_deaf(self) -> bool:
        """Whether a call that it made to itself has not come in time. ``wait()`` is what makes these calls."""
        return False

    def close(self) -> None:
        """Stop listening, and close the connection."""
