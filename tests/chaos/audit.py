"""Every change of a job's state, as PostgreSQL itself saw it, and the rules that it must have kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from django.db import connection

_TRIGGER = """
    CREATE TABLE chaos_audit (
        id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), job_id bigint NOT NULL,
        old_status text, new_status text, old_lease int, new_lease int, old_worker bigint, new_worker bigint
    );
    CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_audit (job_id, old_status, new_status, old_lease, new_lease, old_worker, new_worker)
        VALUES (OLD.id, OLD.status, NEW.status, OLD.lease, NEW.lease, OLD.worker_id, NEW.worker_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER chaos_audit AFTER UPDATE ON dbqueue_job FOR EACH ROW
        WHEN (
            (OLD.status, OLD.lease, OLD.worker_id, OLD.finished_at, OLD.return_value) IS DISTINCT FROM
            (NEW.status, NEW.lease, NEW.worker_id, NEW.finished_at, NEW.return_value)
        )
        EXECUTE FUNCTION chaos_audit();
"""

_COLUMNS = "job_id, old_status, old_lease, old_worker, new_status, new_lease, new_worker, at"

WAYS = frozenset(
    {
        ("SCHEDULED", "READY"),
        ("READY", "RUNNING"),
        ("RUNNING", "READY"),
        ("RUNNING", "SCHEDULED"),
        ("RUNNING", "SUCCESSFUL"),
        ("RUNNING", "FAILED"),
    }
)
"""From where to where, as docs/architecture.md has it, but for an operator's ways: there is no operator here."""

State = tuple[str, int, int | None]
"""Status, lease, worker."""


@dataclass(frozen=True)
class Change:
    job_id: int
    old: State
    new: State
    at: object

    def broken_rule(self) -> str:
        """What is wrong with it; empty if nothing is."""
        (was, old_lease, old_worker), (became, new_lease, new_worker) = self.old, self.new
        if (was, became) not in WAYS:
            return f"{was} to {became} is no way"
        if new_lease != old_lease + (became == "RUNNING"):
            return f"the lease went from {old_lease} to {new_lease}"
        if became == "RUNNING" and new_worker is None:
            return "runs for nobody"
        if became in ("SUCCESSFUL", "FAILED") and new_worker not in (old_worker, None):
            return "ended by another worker than the one that held it"
        return ""

    def __str__(self) -> str:
        return f"{self.at}: {self.old} to {self.new}"


def install() -> None:
    """Start to write down every change. On SQLite this does nothing."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_TRIGGER)


def history(job_id: int) -> list[Change]:
    """All changes of one job."""
    return list(_changes(f"WHERE job_id = {job_id:d}"))


def illegal() -> dict[int, str]:
    """Jobs whose history breaks a rule, and which.

    A change and its entry here are one transaction: what a crash of the server took back is in neither.
    """
    found: dict[int, str] = {}
    for job_id, group in groupby(_changes(), key=lambda change: change.job_id):
        changes = list(group)
        for change in changes:
            if rule := change.broken_rule():
                found[job_id] = rule
        for before, after in pairwise(changes):
            if before.new != after.old:
                found[job_id] = f"became {before.new}, but was {after.old} then"
    return found


def _changes(where: str = "") -> Iterator[Change]:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM chaos_audit {where} ORDER BY job_id, id")
        for job_id, *states, at in cursor:
            yield Change(job_id, tuple(states[:3]), tuple(states[3:]), at)
