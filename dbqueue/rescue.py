"""Returns the jobs of dead workers, and says so."""

import logging
from collections.abc import Iterable

from .store import Store

logger = logging.getLogger("dbqueue.worker")
job_logger = logging.getLogger("dbqueue.job")


def rescue_all(store: Store, max_crashes: int) -> None:
    """Rescue until nothing is left, a batch at a time."""
    while any(rescue := store.rescue(max_crashes)):
        if rescue.again or rescue.unbegun:
            logger.warning("Jobs of dead workers rescued: %s", _listed([*rescue.again, *rescue.unbegun]))
        for pk, task in store.jobs.filter(pk__in=rescue.failed).values_list("pk", "task"):
            job_logger.error(
                "Job id=%d task=%s failed: worker lost, DBQUEUE['MAX_CRASHES'] is %d", pk, task, max_crashes
            )


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
