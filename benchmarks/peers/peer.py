"""What the command has to know of a peer."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol


@dataclass(frozen=True)
class Peer:
    """A queue that is measured.

    ``name``: as ``--only`` takes it. ``folder``: its package, beside this file.
    ``jobs``: in one drain, about as many as it runs in five to ten seconds; ``--jobs`` scales them.
    ``worker``: what follows ``python`` on its command line; ``processes``: how many times it is started.
    ``unfinished``: SQL that counts the jobs which the queue itself doesn't call finished; for a queue on Redis, the
    keys that hold such jobs, divided by blanks.
    ``modules``: without which it can't be measured. ``distributions``: whose versions the heading tells.
    """

    name: str
    folder: str
    jobs: int
    worker: tuple[str, ...]
    unfinished: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    store: Literal["postgresql", "redis"] = "postgresql"
    processes: int = 1

    @property
    def title(self) -> str:
        """As the table has it."""
        return f"{self.name} + Redis" if self.store == "redis" else self.name

    @property
    def package(self) -> str:
        return f"benchmarks.peers.{self.folder}"

    def missing(self) -> str:
        """Which of its modules can't be imported here, in words; nothing where all can."""
        absent = [name for name in self.modules if not _is_there(name)]
        return f"not installed here: {', '.join(absent)}" if absent else ""


class Jobs(Protocol):
    """A peer's module ``jobs``, as the producer uses it. Every job calls ``count.ran()`` or ``count.began()``."""

    def set_up(self) -> None:
        """Make the queue's tables, where it has any, in the empty database that DATABASE_URL names."""

    def enqueue_many(self, number: int) -> None:
        """Enqueue no-op jobs by the queue's best call for many."""

    def enqueue_each(self, number: int) -> None:
        """Enqueue no-op jobs one at a time, each of them committed before the next."""

    def enqueue_timed(self, number: int) -> None:
        """Enqueue one job that calls ``count.began(number)``."""


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False  # not even the package that the module would be in
