"""What a person does to jobs: cancel, retry, run now, move, edit. Each names the states that it leaves."""

import datetime
from collections.abc import Collection
from typing import Any, NamedTuple

from django.db.models import F

from ..models import CANCELLABLE, EDITABLE, GROUP, QUEUED, RETRYABLE, JobStatus
from .listener import ANY_QUEUE
from .workflows import Workflows


class SeenCall(NamedTuple):
    """What a job was called with when somebody looked."""

    args: list[Any]
    kwargs: dict[str, Any]


class Operators(Workflows):
    """What is in another state is let be."""

    def cancel(self, ids: Collection[int], now: datetime.datetime | None = None, *, reason: str = "") -> int:
        """Cancel jobs that wait. Returns how many; what runs or has ended is left alone."""
        now = now or self.clock()
        return self._with_workflows_locked(ids, lambda locked: self._cancel(ids, locked, now, reason))

    def _cancel(self, ids: Collection[int], locked: set[int], now: datetime.datetime, reason: str) -> int:
        if locked:
            ids = self._with_inside(ids)
        rows = self.jobs.leaving(CANCELLABLE, self.among(ids)).order_by("id").select_for_update()
        found = dict(rows.values_list("id", "workflow_id"))
        self._must_be_locked(found.values(), locked)
        cancelled = self.jobs.leaving(CANCELLABLE, self.among(found)).update(
            status=JobStatus.CANCELLED, finished_at=now, reason=reason, unique_key=None
        )
        self.call_waiters(found)
        if locked:
            self._settle(found, now)
        return cancelled

    def retry(self, ids: Collection[int], now: datetime.datetime | None = None) -> int:
        """Let failed and cancelled jobs run again, with a fresh count of attempts. Returns how many.

        Their history stays. They are READY, or SCHEDULED again where the time that they were to wait for has not come.
        A step of a workflow whose turn had not come waits for it again, or is left alone where what it waits for has
        not succeeded. What was cancelled because of these waits for them again.
        """
        now = now or self.clock()
        with self.atomic():
            replaced = self._replaced(ids) if self.lock_workflows_of(ids) else set()
            if not replaced:
                return self._retry(ids, now, ids)
            # By what is inside of it such a job ends, so that is tried again.
            asked = self._inside_of(replaced) | set(ids)
            self._retry_steps(asked - set(ids), now, asked)
            wait_again = self.jobs.leaving({JobStatus.WAITING}, self.among(replaced)).count()
            return wait_again + self._retry(ids, now, asked)

    def _retry(self, ids: Collection[int], now: datetime.datetime, asked: Collection[int]) -> int:
        """``asked``: all of those that are to be tried again, if these are some of them."""
        anew: dict[str, Any] = {
            "finished_at": None,
            "worker": None,
            "crashes": 0,
            "earlier_attempts": F("attempt"),
            "reason": "",
            "expires_at": None,
            "cancel_requested_at": None,
            "cancel_interrupts": False,
            "progress": None,
        }
        with self.atomic():
            has_steps = self.lock_workflows_of(ids)
            # Locked first: of what is cancelled meanwhile, one of two statements might take what the other left.
            locked = self.jobs.leaving(RETRYABLE, self.among(ids)).order_by("id").select_for_update()
            found = list(locked.values_list("id", "queue_name", "run_after", "held", "workflow_id"))
            forgotten = {row[4] for row in found} - {None} - self._alive({row[4] for row in found}) if has_steps else ()
            found = [row for row in found if row[4] not in forgotten]
            held = [pk for pk, _, _, is_held, _ in found if is_held]
            later = [pk for pk, _, due, is_held, _ in found if not is_held and due is not None and due > now]
            ready = [pk for pk, _, due, is_held, _ in found if not is_held and (due is None or due <= now)]
            self.jobs.leaving(RETRYABLE, self.among(later)).update(status=JobStatus.SCHEDULED, **anew)
            self.jobs.leaving(RETRYABLE, self.among(ready)).update(status=JobStatus.READY, run_after=None, **anew)
            if has_steps:
                self.jobs.leaving({JobStatus.CANCELLED}, self.among(held)).update(status=JobStatus.WAITING, **anew)
                self._wait_again([pk for pk, *_ in found], asked)
                self._decide_again(held, now)
            queues = {queue for _, queue, *_ in found}
            self.call_workers(queues | {ANY_QUEUE} if later else queues)
            stayed = self.jobs.leaving({JobStatus.CANCELLED}, self.among(held)).count() if held else 0
            return len(found) - stayed

    def retry_steps(self, ids: Collection[int], now: datetime.datetime | None = None) -> int:
        """Retry those of these steps by which a workflow failed: not what was only cancelled because of them.

        Nor a failure that was tolerated, and in place of a result was given to what has begun since: another result
        would come too late. Returns how many jobs run again.
        """
        now = now or self.clock()
        with self.atomic():
            self.lock_workflows_of(ids)
            return self._retry_steps(ids, now, ids)

    def _retry_steps(self, ids: Collection[int], now: datetime.datetime, asked: Collection[int]) -> int:
        ended_badly = self.jobs.leaving(RETRYABLE, self.among(ids)).exclude(task=GROUP)
        found = dict(ended_badly.values_list("pk", "held"))
        for pk in self._handed_on(found):
            del found[pk]
        self._retry([pk for pk, is_held in found.items() if not is_held], now, asked)
        # What was cancelled while it waited for a step that has succeeded since.
        self._retry([pk for pk, is_held in found.items() if is_held], now, asked)
        # Groups that were cancelled while their members ran, and these have succeeded since.
        groups = self.jobs.leaving({JobStatus.CANCELLED}, self.among(ids)).filter(task=GROUP)
        self._retry(list(groups.values_list("pk", flat=True)), now, asked)
        return self.jobs.leaving(QUEUED, self.among(found)).count()

    def run_now(self, ids: Collection[int]) -> int:
        """Make SCHEDULED jobs READY before their time. Returns how many; all others are let be."""
        ready: int = self.jobs.leaving({JobStatus.SCHEDULED}, ids).update(status=JobStatus.READY, run_after=None)
        self.call_workers({ANY_QUEUE})
        return ready

    def move(self, ids: Collection[int], queue_name: str) -> int:
        """Put jobs that wait into another queue, also steps before their turn. Returns how many; others are let be."""
        with self.atomic():
            # So that nobody who ends a step locks some of these in another order.
            self.lock_workflows_of(ids)
            moved: int = self.jobs.leaving(CANCELLABLE, ids).exclude(task=GROUP).update(queue_name=queue_name)
            self.call_workers({queue_name})
        return moved

    def edit(self, job_id: int, seen: SeenCall, args: list[Any], kwargs: dict[str, Any]) -> bool:
        """Give a job that waits, or did not succeed, other arguments. Returns whether it was still as it was ``seen``.

        Its keys of unique and of limits stay: they are what others count by.
        """
        with self.atomic():
            job = self.jobs.leaving(EDITABLE, [job_id]).only("args", "kwargs").select_for_update().first()
            if job is None or (job.args, job.kwargs) != seen:
                return False
            self.jobs.leaving(EDITABLE, [job_id]).update(args=args, kwargs=kwargs)
        return True
