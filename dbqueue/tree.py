"""Which steps of a workflow stand after, beside and inside each other, read from their rows."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .models import GROUP, REASON_LENGTH, Job, JobStatus

_FAILED = re.compile(r"job ([0-9]{1,18}) \([^()]*\) failed$")


class Row(NamedTuple):
    """A step, as far as a tree is made of it."""

    id: int
    task: str
    status: str
    after_id: int | None
    group_id: int | None
    position: int | None
    held: bool

    @property
    def is_group(self) -> bool:
        return self.task == GROUP

    @property
    def is_link(self) -> bool:
        """Whether nothing waits for it."""
        return self.group_id is None and self.position is not None


class Place(NamedTuple):
    """A step where a reader finds it: ``depth`` counts the groups around it, ``number`` its place in its chain."""

    row: Row
    depth: int
    number: int


class Tree:
    """All steps of one workflow. Nothing here calls itself: what replaces itself again and again is nested deeply."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {row.id: row for row in rows}
        members: dict[int, list[Row]] = defaultdict(list)
        self._links: dict[int, list[int]] = defaultdict(list)
        for row in self.rows.values():
            if row.group_id is not None:
                members[row.group_id].append(row)
            elif row.is_link and row.after_id is not None:
                self._links[row.after_id].append(row.id)
        self._members = {
            group: [row.id for row in sorted(found, key=lambda row: (row.position or 0, row.id))]
            for group, found in members.items()
        }

    @classmethod
    def of(cls, workflow_id: int, database: str) -> "Tree":
        rows = Job.objects.using(database).filter(workflow_id=workflow_id).order_by("id").values_list(*Row._fields)
        return cls(map(Row._make, rows))

    def members(self, pk: int) -> list[int]:
        """Whose results make the result of this step: a group's members, or what a job was replaced by."""
        return self._members.get(pk, [])

    def group_of(self, pk: int) -> int | None:
        """The group in which this step stands, itself, as a part of a chain or of what replaced a job; or None."""
        # The row of a group comes before its members, and it is what a chain goes on from.
        after = {row.after_id: row.id for row in reversed(self.rows.values()) if not row.is_link}
        while (row := self.rows[pk]).group_id is None or not self.rows[row.group_id].is_group:
            further = after.get(pk) if row.group_id is None else row.group_id
            if further is None:
                return None
            pk = further
        return row.group_id

    def path(self, last: int, stop: int | None) -> list[int]:
        """The chain that ends with this step, from its first one: what stands after ``stop``."""
        found = [last]
        while (before := self.rows[found[-1]].after_id) is not None and before != stop and before in self.rows:
            found.append(before)
        return found[::-1]

    def stop_of(self, pk: int) -> int | None:
        """Where the chains of this step's members begin: after what a group stands behind."""
        row = self.rows[pk]
        return row.after_id if row.is_group else None

    def walk(self, last: int, stop: int | None) -> Iterator[Place]:
        """Every step of the branch that ends with ``last``, in a reader's order."""
        left = [(pk, 0, number) for number, pk in reversed(list(enumerate(self.path(last, stop))))]
        while left:
            pk, depth, number = left.pop()
            yield Place(self.rows[pk], depth, number)
            inside: list[tuple[int, int, int]] = []
            for member in self.members(pk):
                inside += [(one, depth + 1, place) for place, one in enumerate(self.path(member, self.stop_of(pk)))]
            inside += [(link, depth + 1, 0) for link in self._links.get(pk, [])]
            left += reversed(inside)

    def states(self, ids: Iterable[int]) -> Counter[str]:
        """How many of these jobs are in each state. Groups are no jobs."""
        return Counter(self.rows[pk].status for pk in ids if not self.rows[pk].is_group)


def told_cause(pk: int, task: str, status: str, why: str) -> str:
    """The reason of what is cancelled because of this step."""
    said = "failed" if status == JobStatus.FAILED else f"was cancelled: {why}" if why else "was cancelled"
    return f"job {pk} ({task}) {said}"[:REASON_LENGTH]


def failed_step(reason: str) -> int | None:
    """The job whose failure is in the end the cause of this reason; None where none is."""
    found = _FAILED.search(reason)
    return None if found is None else int(found[1])
