"""Jobs that would last a minute, and may last a second: how long each attempt takes, and whether its thread goes on.

Returns how many things are that must not be.
"""

from argparse import Namespace
from random import Random

from dbqueue import enqueue_many
from dbqueue.models import Attempt, Job, JobStatus

from ..shop.running_tasks import loop, slow_sql, tell_pid
from .crew import Crew
from .stage import Stage
from .verdict import print_table

TIMEOUT, WITHIN = 1.0, 2.0
"""Seconds that a job may take, and those after which it must have ended."""

MINUTE = 60.0


def deadlines(stage: Stage, options: Namespace) -> int:
    """As many jobs in one long statement as in a Python loop, and after them jobs that need working threads."""
    kinds = [slow_sql.using(timeout=TIMEOUT).s(MINUTE), loop.using(timeout=TIMEOUT).s(MINUTE)]
    calls = kinds * options.jobs
    enqueue_many(Random(options.seed).sample(calls, len(calls)))
    with Crew(options.trees, DBQUEUE_THREADS="4") as crew:
        crew.drain(20 * MINUTE)
        enqueue_many(tell_pid.s() for _ in range(options.jobs))
        crew.drain(MINUTE)
        leaks = sum("leaked" in tree.output for tree in crew.outputs)
        crew.dismiss()
    attempts = Attempt.objects.select_related("job")
    took = {
        name: sorted((one.ended_at - one.started_at).total_seconds() for one in attempts if one.job.task == name)
        for name in (slow_sql.name, loop.name)
    }
    wrong = attempts.exclude(exception_class_path="dbqueue.exceptions.DeadlineExceeded").count()
    after = Job.objects.filter(task=tell_pid.name, status=JobStatus.SUCCESSFUL).count()
    longest: float = max(seconds for times in took.values() for seconds in times)
    figures = {
        "attempts": sum(map(len, took.values())),
        "longest in a statement, s": round(took[slow_sql.name][-1], 2),
        "longest in a loop, s": round(took[loop.name][-1], 2),
        "attempts that did not end by their deadline (must be 0)": wrong,
        "jobs done after by the same threads": after,
        "workers that saw a connection leak": leaks,
    }
    print_table(f"Figures (at most {WITHIN:g} s)", figures)
    missing: int = abs(after - options.jobs) + abs(len(attempts) - len(calls))
    return wrong + int(longest > WITHIN) + missing
