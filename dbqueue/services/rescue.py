"""Returns the jobs of dead workers, and says so."""

import logging
from collections.abc import Iterable

from ..store import Store

logger = logging.getLogger("dbqueue.worker")


def rescue_all(store: Store, max_crashes: int) -> None:
    """Rescue until nothing is left, a batch at a time."""
    while any(rescue := store.rescue(max_crashes)):
        if rescue.again or rescue.unbegun:
            logger.warning("Jobs of dead workers rescued: %s", _listed([*rescue.again, *rescue.unbegun]))
        if rescue.failed:
            logger.error("Jobs FAILED, as their workers died %d times: %s", max_crashes, _listed(rescue.failed))


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
