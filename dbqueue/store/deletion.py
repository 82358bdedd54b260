"""How rows leave the tables: deleted by an operator, or pruned because they are old."""

import datetime
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from django.db import Error, IntegrityError
from django.db.models import Q

from ..models import FINAL, JobStatus
from .database import BATCH
from .workflows import Workflows


class Pruned(NamedTuple):
    """What one batch of pruning did.

    ``deleted`` counts jobs by the state in which they had ended; ``refused`` counts those that other tables refer to.
    ``last_id`` is where the next batch goes on; None: nothing that is old enough comes after.
    """

    deleted: Counter[str]
    refused: int
    last_id: int | None


class Deletion(Workflows):
    """Only what has ended is ever deleted. The steps of a workflow go with it: the others may need their results."""

    def delete(self, ids: Collection[int]) -> int:
        """Delete jobs that have ended, with their history. Returns how many; what may still run is left alone."""
        with self.atomic():
            ended = self.jobs.leaving(FINAL, ids).deletable().order_by("id").select_for_update()
            locked = list(ended.values_list("pk", flat=True))
            self._delete_locked(locked)
        return len(locked)

    def prune(
        self,
        cutoffs: Mapping[JobStatus, datetime.datetime],
        after_id: int = 0,
        limit: int = BATCH,
        *,
        dry_run: bool = False,
    ) -> Pruned:
        """Of the ``limit`` jobs whose ids follow ``after_id``, delete those that ended before their state's cutoff.

        One short transaction, and none where nothing is old. A row that somebody else has locked is left for the next
        time. ``dry_run`` only counts.

        The walk goes by id, so it needs no index on finished_at that each finish would have to keep. It is over when a
        whole batch was enqueued after the last cutoff: what follows can't have ended before.
        """
        columns = ("id", "status", "enqueued_at", "finished_at", "workflow_id")
        batch = list(self.jobs.filter(pk__gt=after_id).order_by("id").values_list(*columns)[:limit])
        alive = self._alive({row[4] for row in batch})
        old = {
            pk: status
            for pk, status, _, ended, workflow_id in batch
            if ended and ended < cutoffs.get(status, ended) and workflow_id not in alive
        }
        deleted, refused = Counter(old.values()), 0
        if old and not dry_run:
            deleted, refused = self._delete_ended(list(old), cutoffs)
        over = len(batch) < limit or min(row[2] for row in batch) >= max(cutoffs.values())
        return Pruned(deleted, refused, None if over else batch[-1][0])

    def _delete_ended(self, ids: list[int], cutoffs: Mapping[JobStatus, datetime.datetime]) -> tuple[Counter[str], int]:
        """Returns how many were deleted, by state, and how many can't be, because somebody else refuses it."""
        ended = Q(*(Q(status=state, finished_at__lt=cutoff) for state, cutoff in cutoffs.items()), _connector=Q.OR)
        # A job that still keeps others out, for the period that it was asked to, is kept for that.
        ended &= Q(unique_key=None) | Q(unique_until=None) | Q(unique_until__lte=self.clock())
        try:
            with self.atomic():
                # Asked again under the lock: an operator may have retried one since the look.
                rows = self.jobs.filter(ended, pk__in=ids).order_by("id").select_for_update(skip_locked=True)
                locked = dict(rows.values_list("id", "status"))
                self._delete_locked(locked)
        except Exception as exc:
            # What another table refers to, or what a receiver of pre_delete or post_delete, anybody's, refuses.
            if isinstance(exc, Error) and not isinstance(exc, IntegrityError):
                raise
            if len(ids) == 1:
                return Counter(), 1
            # One row that can't go must not keep the others.
            half = len(ids) // 2
            (some, refused), (more, also) = (self._delete_ended(part, cutoffs) for part in (ids[:half], ids[half:]))
            return some + more, refused + also
        return Counter(locked.values()), 0

    def prune_workers(self, before: datetime.datetime, limit: int = BATCH) -> int:
        """Delete up to ``limit`` rows of workers that stopped or were lost before this time. Returns how many."""
        stopped = self._workers().filter(stopped_at__lt=before)
        ids = list(stopped.order_by("id").values_list("id", flat=True)[:limit])
        deleted: int = stopped.filter(pk__in=ids).delete()[0]
        return deleted

    def _delete_locked(self, ids: Collection[int]) -> None:
        """Delete jobs with their attempts, without reading their arguments and results."""
        self.jobs.leaving(FINAL, ids).only("id").delete()
