"""What became of every job that was enqueued, and whether faults explain what ran twice."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from django.db.models import Prefetch

from dbqueue.models import Attempt, Job, JobStatus, Worker

from ..shop.models import Run
from . import audit
from .crew import Crew
from .faults import AFTER, Fault
from .load import FATAL, KINDS, Kind, Ledger

SHOWN = 5
"""Offenders of one sort that are shown with all that is known of them."""

MAX_CRASHES = 3
"""The default: as many crashes as a job must have had to end FAILED for them."""

TO_WRITE = 0.5
"""Seconds for which the outcome of a run may wait to be written when nothing is wrong."""

OF_THE_DATABASE = frozenset({"OperationalError", "InterfaceError", "DatabaseError", "InternalError"})
"""What a job may fail with when the database fails under it."""

Offenders = dict[int, str]
"""Ids of jobs, each with a word on what is wrong."""


class Account:
    """The tables after all has ended, laid beside the ledger and the faults."""

    def __init__(self, ledger: Ledger, faults: Iterable[Fault], kinds: Mapping[str, Kind] = KINDS) -> None:
        self.ledger = ledger
        self._kinds = kinds
        attempts = Prefetch("attempt_set", Attempt.objects.order_by("id"))
        self.jobs = {job.pk: job for job in Job.objects.prefetch_related(attempts).iterator(2000)}
        self.runs: dict[int, list[Run]] = defaultdict(list)
        self._pids = dict(Worker.objects.values_list("pk", "pid"))
        for run in Run.objects.order_by("lease", "began"):
            self.runs[run.job_id].append(run)
        self.faults = [*faults, *self._deaths()]

    def _deaths(self) -> Iterator[Fault]:
        """A job that ends its own process is a fault to all that runs beside it."""
        for run in (run for runs in self.runs.values() for run in runs if run.kind in FATAL):
            if run.ended and (run.kind == "poison" or run.attempt == 1):
                yield Fault(f"beside a {run.kind}", run.ended, run.ended + AFTER, frozenset({run.pid}))

    # What must not be

    def lost(self) -> Offenders:
        """Acknowledged, and there is no row."""
        return {
            pk: f"no row of number {number}"
            for number, pk in self.ledger.acknowledged.items()
            if pk not in self.jobs and not (self._kinds[self.ledger.kinds[number]].ends is None and self.runs[pk])
        }

    def unfinished(self) -> Offenders:
        return {pk: job.status for pk, job in self.jobs.items() if not JobStatus(job.status).is_final}

    def taken_back(self) -> Offenders:
        """Enqueued in a transaction that was rolled back, and there all the same."""
        numbers = self.ledger.taken_back
        return {pk: "its enqueue was rolled back" for pk, job in self.jobs.items() if job.args[0] in numbers}

    def stale(self) -> Offenders:
        """The outcome is not that of the newest run.

        A run is known by its claim: lease and worker. Exact but for one case: a server's crash may take back a claim,
        and if the same worker then draws the same lease again, its two runs can't be told apart.
        """
        found = {}
        for pk, job in self.jobs.items():
            told, runs = _told(job), self.runs[pk]
            teller = next((run for run in runs if run.token in told), None)
            if job.status == JobStatus.SUCCESSFUL and teller is None:
                found[pk] = f"returned {told!r}, which no run has told"
            elif teller and (teller.lease, teller.worker_id) != (job.lease, job.worker_id):
                found[pk] = f"its outcome is that of the run with {teller}"
            elif runs and runs[-1].lease > job.lease:
                found[pk] = f"its lease {job.lease} is older than that of its newest run, {runs[-1].lease}"
        return found

    def wrong_end(self) -> Offenders:
        """Ended otherwise than its kind must, and neither the database's failure nor its workers' deaths explain it."""
        return {
            pk: f"ended {job.status}: {_error(job)[-500:]}"
            for pk, job in self._astray()
            if job.status != JobStatus.FAILED or not self._excuse(job)
        }

    def _astray(self) -> Iterator[tuple[int, Job]]:
        """Jobs that ended, and not as their kind must."""
        for pk, job in self.jobs.items():
            kind = self._kinds[job.args[1]]
            as_it_must = job.status == kind.ends and kind.error in _error(job)
            if not as_it_must and JobStatus(job.status).is_final:
                yield pk, job

    def unexplained_repeats(self) -> Offenders:
        return {run.job_id: "ran again, and no fault has hit this run" for run, why in self.repeats() if not why}

    # What may be, with a reason

    def excused(self) -> Counter[str]:
        """Failed jobs that would not have failed so without a fault, by the reason."""
        return Counter(self._excuse(job) or "NOTHING" for _, job in self._astray())

    def _excuse(self, job: Job) -> str:
        """Why a fault made this job fail; empty if none did."""
        last = _last(job)
        name = last.exception_class_path.rpartition(".")[2] if last else ""
        if name == "WorkerLost" and self._was_killed_too_often(job):
            return "its workers were killed, MAX_CRASHES times"
        if last and name in OF_THE_DATABASE and self._outage(last):
            return "the database failed under it"
        return ""

    def _was_killed_too_often(self, job: Job) -> bool:
        """Whether faults explain each of its crashes, and the last of them was no neighbour: then it ran alone.

        A run that waits for SQLite's write lock may die before it has left its mark, and one that had been taken ahead
        may die before it counts as an attempt: so it takes both to see all of them.
        """
        crashes = [attempt for attempt in job.attempt_set.all() if attempt.exception_class_path.endswith(".WorkerLost")]
        runs = self.runs[job.pk]
        lost, hit = [self._why_lost(attempt) for attempt in crashes], list(map(self._why, runs))
        if job.crashes < MAX_CRASHES or max(len(lost), len(hit)) < MAX_CRASHES or not all(lost + hit):
            return False
        return any(not kind.startswith("beside") for kind in lost[-1].split(", "))

    def _why_lost(self, attempt: Attempt) -> str:
        """The faults that hit the process of an attempt, from its start until it was given up."""
        pid, began, ended = (
            self._pids.get(attempt.worker_id, 0),
            attempt.started_at.timestamp(),
            attempt.ended_at.timestamp(),
        )
        return _listed(fault.kind for fault in self.faults if fault.hits(pid, began, ended))

    def repeats(self) -> list[tuple[Run, str]]:
        """Every run that was followed by another of its job, with the kinds of the faults that explain it."""
        return [(run, self._why(run)) for runs in self.runs.values() for run, _ in pairwise(runs)]

    def _why(self, run: Run) -> str:
        """The faults that hit this run, or its process or the database while its outcome may have waited."""
        until = run.ended + TO_WRITE if run.ended else self._next_begin(run)
        return _listed(fault.kind for fault in self.faults if fault.hits(run.pid, run.began, until))

    def _next_begin(self, run: Run) -> float:
        return min((other.began for other in self.runs[run.job_id] if other.began > run.began), default=float("inf"))

    def _outage(self, attempt: Attempt) -> bool:
        began, ended = attempt.started_at.timestamp(), attempt.ended_at.timestamp()
        return any(fault.pids is None and fault.touches(began, ended) for fault in self.faults)

    # Figures

    def longest_pause(self) -> tuple[float, str]:
        """Seconds of the longest stretch in which no job ended, and the kinds of the faults of that time."""
        ends = sorted(job.finished_at.timestamp() for job in self.jobs.values() if job.finished_at)
        before, after = max(pairwise(ends), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
        return after - before, _listed(fault.kind for fault in self.faults if fault.touches(before, after))

    def seconds_to_run_again(self, moment: float, pids: Iterable[int]) -> float:
        """The longest time from this moment until a job that ran in one of these processes then ran again."""
        hit = frozenset(pids)
        waits = (
            after.began - moment
            for runs in self.runs.values()
            for run, after in pairwise(runs)
            if run.pid in hit and run.began <= moment <= after.began
        )
        return max(waits, default=0.0)

    def seconds_to_next_end(self, moment: float) -> float:
        """How long it took from this moment until a job ended."""
        ends = (job.finished_at.timestamp() - moment for job in self.jobs.values() if job.finished_at)
        return min((seconds for seconds in ends if seconds > 0), default=math.inf)

    def arrived(self) -> int:
        """Jobs whose enqueue raised, and that are there."""
        return sum(job.args[0] in self.ledger.unknown for job in self.jobs.values())

    def tell(self, pk: int) -> str:
        """All that is known of a job."""
        job = self.jobs.get(pk)
        lines = [f"job {pk}" + (f" {job.args} {job.status} lease {job.lease} worker {job.worker_id}" if job else "")]
        lines += [f"    run: {run}; hit by: {self._why(run) or 'nothing'}" for run in self.runs[pk]]
        lines += [f"    {change}" for change in audit.history(pk)]
        if job:
            lines += [
                f"    attempt {attempt.number}: {attempt.exception_class_path} {attempt.started_at:%H:%M:%S.%f} "
                f"to {attempt.ended_at:%H:%M:%S.%f}"
                for attempt in job.attempt_set.all()
            ]
        return "\n".join(lines)


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(set(kinds)))


def _error(job: Job) -> str:
    """The last error of a job; empty if there is none."""
    last = _last(job)
    return last.traceback if last else ""


def _last(job: Job) -> Attempt | None:
    """Of the attempts that were fetched with the job."""
    return next(reversed(job.attempt_set.all()), None)


def _told(job: Job) -> str:
    """What the run whose outcome stands has told: its value, or its error."""
    return str(job.return_value) if job.status == JobStatus.SUCCESSFUL else _error(job)


def judge(account: Account, crew: Crew) -> int:
    """Print the verdict. Returns how many things are that must not be."""
    sorts: dict[str, Offenders] = {
        "lost": account.lost(),
        "unfinished": account.unfinished(),
        "stale outcomes applied": account.stale(),
        "ended otherwise than it must": account.wrong_end(),
        "there although rolled back": account.taken_back(),
        "illegal transitions": audit.illegal(),
        "repeats that no fault explains": account.unexplained_repeats(),
    }
    repeats = account.repeats()
    pause, during = account.longest_pause()
    print_table("Jobs enqueued", account.ledger.counts())
    print_table("Runs that were repeated, by the faults that hit them", Counter(why or "NOTHING" for _, why in repeats))
    print_table("Failed by a fault", account.excused())
    known = {
        "jobs acknowledged": len(account.ledger.acknowledged),
        "enqueues that raised": len(account.ledger.unknown),
        "of these, jobs that are there": account.arrived(),
        f"seconds without a finished job ({during or 'no fault then'})": round(pause, 2),
        "runs repeated": len(repeats),
    }
    print_table("Known", known)
    cries = crew.cries()
    verdict = {
        **{name: len(found) for name, found in sorts.items()},
        "trees that ended by themselves": len(crew.deserters),
        "workers of which a part died": len(cries),
    }
    print_table("VERDICT (each must be 0)", verdict)
    for name, found in sorts.items():
        for pk, what in list(found.items())[:SHOWN]:
            print(f"\n{name}: {what}\n{account.tell(pk)}")
    for words in (*crew.deserters, *cries):
        print(f"\n{words}")
    return sum(verdict.values())


def print_table(title: str, rows: Mapping[str, float]) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<60} {value:>9,}")
