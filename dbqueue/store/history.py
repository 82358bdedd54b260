"""The roll-up of how attempts went: written by workers, read by pages."""

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import OperationalError
from django.db.models import QuerySet

from ..connections import is_about_locks
from ..history import Key, Place, Sums, places, timestamp_of
from ..models import History, Resolution
from .database import BATCH, Database

COLUMNS = ("count", "waits", "runs", "wait_seconds", "run_seconds")
PLACE = ("seconds", "begins_at", "queue_name", "task", "outcome", "error")


PATIENCE = 0.5
"""Seconds for a row that another worker is just making."""


class _Taken(Exception):
    """Another worker has one of the rows."""


class HistoryRows(Database):
    """Sums are added under a lock of their rows, so that no worker overwrites another's, and nobody waits for one."""

    def add_history(self, taken: Mapping[tuple[int, Key], Sums], now: datetime.datetime | None = None) -> bool:
        """Add what a worker has counted, in one short transaction.

        Returns False, and has written nothing, where another worker has some of the rows: it may be frozen there.
        """
        if not taken:
            return True
        ahead = timestamp_of(now or self.clock()) - time.time()
        rows: dict[Place, Sums] = {}
        for (tick, key), sums in taken.items():
            for place in places(tick, key, ahead):
                rows.setdefault(place, Sums()).add(*sums.columns())
        try:
            with self.waiting_at_most(PATIENCE), self.atomic():
                # In one order: a row that somebody is just making is waited for.
                self._make_rows(sorted(rows.keys() - self._standing(self._rows_at(rows))))
                stand = self._rows_at(rows).order_by("id").select_for_update(**self.LOCK)
                merged = [self._merged(row, rows[place]) for row in stand if (place := _place(row)) in rows]
                if len(merged) < len(rows):
                    raise _Taken
                self._write(merged)
        except _Taken:
            return False
        except OperationalError as exc:
            if not is_about_locks(exc):
                raise
            return False
        return True

    def history(self, resolution: Resolution, since: datetime.datetime) -> "QuerySet[History]":
        """The rows of one resolution that begin at ``since`` or later."""
        return self._history().filter(seconds=resolution, begins_at__gte=since)

    def prune_history(self, cutoffs: Mapping[Resolution, datetime.datetime], limit: int = BATCH) -> int:
        """Delete up to ``limit`` rows of each resolution that begin before its cutoff. Returns how many."""
        deleted = 0
        for resolution, cutoff in cutoffs.items():
            old = self._history().filter(seconds=resolution, begins_at__lt=cutoff).order_by("begins_at")
            deleted += self._history().filter(pk__in=list(old.values_list("pk", flat=True)[:limit])).delete()[0]
        return deleted

    def _history(self) -> "QuerySet[History]":
        return History.objects.using(self.alias)

    def _rows_at(self, rows: Iterable[Place]) -> "QuerySet[History]":
        """These rows, and a few others."""
        return self._history().filter(
            seconds__in={place.seconds for place in rows},
            begins_at__in={place.begins_at for place in rows},
            queue_name__in={place.key.queue_name for place in rows},
            task__in={place.key.task for place in rows},
            outcome__in={place.key.outcome for place in rows},
            error__in={place.key.error for place in rows},
        )

    def _standing(self, rows: "QuerySet[History]") -> set[Place]:
        return {_place(row) for row in rows.only(*PLACE)}

    def _make_rows(self, new: Iterable[Place]) -> None:
        self._history().bulk_create(
            (History(seconds=place.seconds, begins_at=place.begins_at, **place.key._asdict()) for place in new),
            ignore_conflicts=True,
        )

    def _merged(self, row: History, more: Sums) -> History:
        sums = Sums()
        sums.add(*(getattr(row, name) for name in COLUMNS))
        sums.add(*more.columns())
        for name, value in zip(COLUMNS, sums.columns(), strict=True):
            setattr(row, name, value)
        return row

    def _write(self, rows: list[History]) -> None:
        """One statement. The rows are there, and locked: all of them are updated."""
        has_target = self.connection.features.supports_update_conflicts_with_target
        target: dict[str, Any] = {"unique_fields": ["id"]} if has_target else {}
        self._history().bulk_create(rows, update_conflicts=True, update_fields=list(COLUMNS), **target)


def _place(row: History) -> Place:
    return Place(row.seconds, row.begins_at, Key(row.queue_name, row.task, row.outcome, row.error))
