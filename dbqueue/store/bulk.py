"""What operators do to all jobs that a search finds: rows that workers carry out in chunks, by id."""

import datetime
from collections.abc import Collection, Sequence
from typing import NamedTuple

from django.db import DataError, Error, IntegrityError
from django.db.models import QuerySet

from ..encoding import told
from ..models import CANCELLABLE, FINAL, REASON_LENGTH, RETRYABLE, BulkAction, BulkOperation, JobStatus
from ..search import Search
from .database import BATCH
from .deletion import Deletion
from .listener import ANY_QUEUE
from .operators import Operators
from .reports import Reports

WINDOW = 50_000
"""Ids that one chunk looks at, so that it is short also where few of them are meant."""

LEAVES: dict[str, frozenset[JobStatus]] = {
    BulkAction.RETRY: RETRYABLE,
    BulkAction.RUN_NOW: frozenset({JobStatus.SCHEDULED}),
    BulkAction.CANCEL: CANCELLABLE | {JobStatus.RUNNING},
    BulkAction.MOVE: CANCELLABLE,
    BulkAction.DELETE: FINAL,
}
"""The states that each action leaves; a job in another is let be."""


TRIES = 5
"""Times that an error of the database, which may go away, is met by one step before its operation ends."""


class Chunk(NamedTuple):
    """What one step did. ``cancelled``: the ids of jobs that it cancelled, for those who listen to signals.

    ``rests``: there is no sense in another step at once, as somebody has the next job locked, or there was an error.
    """

    operation_id: int
    is_last: bool
    cancelled: Sequence[int]
    rests: bool = False


class Done(NamedTuple):
    """What one chunk did to its jobs: how many it changed, and how many it asked to end.

    ``inside``: how many more, which are inside of those. ``cancelled``: the ids of all that it cancelled.
    """

    changed: int = 0
    asked: int = 0
    inside: int = 0
    cancelled: Sequence[int] = ()


class Bulk(Operators, Deletion, Reports):
    """A chunk is one transaction: the jobs, and how far it is. So a kill loses nothing, and nothing is done twice."""

    def start_bulk(
        self,
        action: BulkAction,
        search: Search,
        *,
        user_id: object,
        user_name: str,
        expected: int | None = None,
        queue_name: str = "",
        now: datetime.datetime | None = None,
    ) -> BulkOperation:
        """Have workers do this to all jobs that ``search`` finds when their turn comes, up to the newest of now.

        By id: one that was enqueued before, in a transaction that is still open, is among them.
        """
        operation = BulkOperation(
            action=action,
            filter=search.resolved().as_json(),
            queue_name=queue_name,
            described=search.in_words(with_values=False)[:1000],  # which more people may read
            user_id=str(user_id),
            user_name=user_name,
            created_at=now or self.clock(),
            expected=expected,
            first_id=0,
            last_id=self.newest_id(),
        )
        operation.save(using=self.alias, force_insert=True)
        self.call_workers({ANY_QUEUE})
        return operation

    def cancel_bulk(self, operation_id: int, now: datetime.datetime | None = None) -> bool:
        """Let an operation end before its next chunk. Returns whether it was still under way."""
        now = now or self.clock()
        return bool(self._unfinished().filter(pk=operation_id).update(cancel_requested_at=now))

    def step_bulk(self, now: datetime.datetime | None = None, *, resting: Collection[int] = ()) -> Chunk | None:
        """Do one chunk of the oldest operation that no other worker is at, but for those ``resting``.

        Returns None where there is none. What can't be done for what is in the rows ends the operation, with the
        reason; what was done stays done.
        """
        now = now or self.clock()
        operation: BulkOperation | None = None
        try:
            with self.atomic():
                operation = self._take(resting)
                if operation is None:
                    return None
                chunk = self._do_step(operation, now)
                operation.save(using=self.alias)
        except Exception as exc:
            # Around the commit, too, where the database looks at foreign keys. Anybody's rows may refer to a job, and
            # anybody's receivers hear of its deletion.
            if operation is None or self.connection.needs_rollback or not self.connection.is_usable():
                raise  # it is the connection
            return self._note_failure(operation.pk, exc, now)
        return chunk

    def _take(self, resting: Collection[int]) -> BulkOperation | None:
        """Lock the oldest operation that nobody else has in his hands."""
        waiting = self._unfinished().exclude(pk__in=resting).order_by("id")
        return waiting.select_for_update(**self.LOCK).first()

    def _do_step(self, operation: BulkOperation, now: datetime.datetime) -> Chunk:
        if operation.cancel_requested_at is not None:
            operation.finished_at = now
            return Chunk(operation.pk, True, [])
        operation.failures = 0
        return self._do_chunk(operation, Search.from_json(operation.filter), now)

    def _note_failure(self, operation_id: int, exc: Exception, now: datetime.datetime) -> Chunk:
        """In a transaction of its own, and of the row only this: it is not to come again for ever."""
        may_go_away = isinstance(exc, Error) and not isinstance(exc, IntegrityError | DataError)
        with self.atomic():
            mine = self._unfinished().filter(pk=operation_id)
            failures = mine.select_for_update(**self.LOCK).values_list("failures", flat=True).first()
            if failures is None:  # another worker has taken it meanwhile
                return Chunk(operation_id, False, [], rests=True)
            is_last = not may_go_away or failures + 1 >= TRIES
            problem = f"{type(exc).__name__}: {told(exc)}"[:REASON_LENGTH]
            ended = {"finished_at": now, "problem": problem} if is_last else {}
            mine.update(failures=failures + 1, **ended)
        return Chunk(operation_id, is_last, [], rests=not is_last)

    def prune_bulk(self, before: datetime.datetime) -> int:
        """Delete a batch of operations that ended before then. Returns how many."""
        old = BulkOperation.objects.using(self.alias).filter(finished_at__lt=before).order_by("id")
        ids = list(old.values_list("id", flat=True)[:BATCH])
        return BulkOperation.objects.using(self.alias).filter(pk__in=ids).delete()[0] if ids else 0

    def _do_chunk(self, operation: BulkOperation, search: Search, now: datetime.datetime) -> Chunk:
        first = max(operation.first_id, self._first_id_from(operation.first_id))
        until = min(first + WINDOW - 1, operation.last_id)
        window = range(first, until + 1)
        found = search.apply(self.jobs, window).order_by("pk").values_list("pk", flat=True)
        ids = list(found[:BATCH])
        busy = self._lock_workflows_soon(ids)
        # Asked again under the lock: since the look, a job may have become another.
        meant = search.apply(self.jobs.leaving(LEAVES[operation.action], ids), window).order_by("pk")
        free = meant.exclude(workflow_id__in=busy) if busy else meant
        states = dict(free.select_for_update(of=self._of(), **self.LOCK).values_list("pk", "status"))
        # What somebody else has locked is not waited for, which would hold up the outcomes of those locked here. The
        # next step begins with it.
        cut = min(set(meant.values_list("pk", flat=True)) - states.keys(), default=None)
        if cut is not None:
            states = {pk: status for pk, status in states.items() if pk < cut}
            ids = [pk for pk in ids if pk < cut]
        done = self._act(operation, list(states), now) if states else Done()
        operation.changed += done.changed
        operation.asked += done.asked
        operation.inside += done.inside
        operation.left_alone += len(ids) - done.changed - done.asked
        if cut is not None:
            operation.first_id = cut
        else:
            operation.first_id = (ids[-1] if len(ids) == BATCH else until) + 1
        if operation.first_id > operation.last_id:
            operation.finished_at = now
        return Chunk(operation.pk, operation.finished_at is not None, done.cancelled, rests=cut is not None)

    def _act(self, operation: BulkOperation, ids: list[int], now: datetime.datetime) -> Done:
        match operation.action:
            case BulkAction.RETRY:
                return Done(self.retry(ids, now))
            case BulkAction.RUN_NOW:
                return Done(self.run_now(ids))
            case BulkAction.CANCEL:
                return self._cancel_all(ids, now)
            case BulkAction.MOVE:
                return Done(self.move(ids, operation.queue_name))
            case _:
                return Done(self.delete(ids))

    def _cancel_all(self, ids: list[int], now: datetime.datetime) -> Done:
        """What is inside of a group ends with it, and is counted apart: it need not match."""
        ended = self.request_cancel(ids, now=now)
        changed, asked = (len(set(ids).intersection(some)) for some in ended)
        inside = len(ended.cancelled) + len(ended.asked) - changed - asked
        return Done(changed, asked, inside, ended.cancelled)

    def _first_id_from(self, first_id: int) -> int:
        """The first job that there is from this id on: ids may begin late, and have gaps."""
        found = self.jobs.filter(pk__gte=first_id).order_by("pk").values_list("pk", flat=True).first()
        return first_id if found is None else found

    def _unfinished(self) -> "QuerySet[BulkOperation]":
        return BulkOperation.objects.using(self.alias).filter(finished_at=None)
