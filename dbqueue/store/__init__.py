"""The one place that writes job rows. ``store_for(alias)`` gives the operations of one database."""

from functools import cache

from django.core.signals import setting_changed
from django.db import connections

from .base import Finished, Store, fence
from .bulk import LEAVES, Chunk
from .census import MOST_COUNTED, MOST_QUEUES, NEAR, Line, is_served
from .coming_back import Rescue
from .deletion import Pruned
from .listener import ANY_QUEUE, Listener
from .mysql import MySQLStore
from .operators import SeenCall
from .postgresql import PostgreSQLStore
from .reports import Asked
from .sqlite import SQLiteStore
from .uniqueness import Entered
from .workflows import called_back

__all__ = [
    "ANY_QUEUE",
    "LEAVES",
    "MOST_COUNTED",
    "MOST_QUEUES",
    "NEAR",
    "Asked",
    "Chunk",
    "Entered",
    "Finished",
    "Line",
    "Listener",
    "Pruned",
    "Rescue",
    "SeenCall",
    "Store",
    "called_back",
    "fence",
    "is_served",
    "store_for",
]

_STORES: dict[str, type[Store]] = {"postgresql": PostgreSQLStore, "sqlite": SQLiteStore, "mysql": MySQLStore}


@cache
def store_for(alias: str) -> Store:
    """The store of the database ``alias``. It keeps no state, so threads share it.

    Raises NotImplementedError for a database that dbqueue has no statements for.
    """
    vendor = connections[alias].vendor
    if vendor not in _STORES:
        raise NotImplementedError(
            f"dbqueue has no store for {vendor!r} (database {alias!r}); it has one for {', '.join(sorted(_STORES))}."
        )
    return _STORES[vendor](alias)


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "DATABASES":
        store_for.cache_clear()


setting_changed.connect(_forget)
