"""The rows of periodic jobs: found when they are due, locked by one worker, moved on; and kept as the code has them."""

import datetime
from typing import Any, NamedTuple

from django.db import IntegrityError

from ..models import UNFINISHED, Schedule, ScheduleQuerySet, Source
from .database import Database


class Upcoming(NamedTuple):
    """What a worker must know of a schedule to see whether, and when, it has to look at it."""

    pk: int
    source: str
    name: str
    task: str
    next_at: datetime.datetime


class ScheduleRows(Database):
    """There is no leader: who locks a due row makes its jobs and moves it on, in one transaction."""

    LOCK: Any

    @property
    def schedules(self) -> ScheduleQuerySet:
        return Schedule.objects.using(self.alias)

    def upcoming_schedules(self, until: datetime.datetime) -> list[Upcoming]:
        """Those whose next slot is not after ``until``, the nearest first."""
        found = self.schedules.due(until).order_by("next_at", "pk").values_list(*Upcoming._fields)
        return [Upcoming._make(row) for row in found]

    def lock_due_schedule(self, pk: int, now: datetime.datetime) -> Schedule | None:
        """None: it is not due any more, or somebody else is at it. To be called in a transaction."""
        return self.schedules.due(now).filter(pk=pk).select_for_update(**self.LOCK).first()

    def lock_schedule(self, pk: int) -> Schedule | None:
        """Waits for whoever has it. None: it has gone. To be called in a transaction."""
        return self.schedules.filter(pk=pk).select_for_update().first()

    def has_unfinished(self, schedule_id: int) -> bool:
        """Whether a job of this schedule waits or runs."""
        return self.jobs.filter(schedule_id=schedule_id, status__in=UNFINISHED).exists()

    def schedules_of_the_code(self) -> list[Schedule]:
        return list(self.schedules.filter(source=Source.CODE).order_by("pk"))

    def add_schedule(self, schedule: Schedule) -> bool:
        """False: somebody was faster."""
        try:
            with self.atomic():
                schedule.save(using=self.alias, force_insert=True)
        except IntegrityError:
            return False
        return True

    def touch_schedule(self, pk: int, now: datetime.datetime) -> None:
        """Say that the code of somebody who lives has it."""
        self.schedules.filter(pk=pk).update(declared_at=now)

    def forget_schedules(self, before: datetime.datetime) -> list[str]:
        """Delete those of the code that nobody's code has had since. Returns their names."""
        with self.atomic():
            gone = self.schedules.filter(source=Source.CODE, declared_at__lt=before).order_by("pk").select_for_update()
            names = {schedule.pk: schedule.name for schedule in gone}
            self.schedules.filter(pk__in=names).delete()
        return list(names.values())
