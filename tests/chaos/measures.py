"""What ``figures`` measures. Each returns how many things are that must not be."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from random import Random
from typing import TypeVar

from dbqueue.models import JobStatus

from ..servers import Mode
from . import audit, deadlines, limits
from .bulk import bulk
from .crew import Crew
from .faults import Faults
from .load import KINDS, Kind, Ledger, Load, enqueue_all
from .schedules import schedules
from .stage import Stage
from .verdict import Account, judge, print_table
from .workflows import workflows

PLAIN = {"short": KINDS["short"], "slow": Kind(520, seconds=(0.05, 0.5))}
"""Jobs that do no harm, all of them shorter than the grace."""

LEAKS = [name for name in KINDS if name.startswith("leak")]

TO_DRAIN = 90.0

T = TypeVar("T")


def tree_kills(stage: Stage, options: Namespace) -> int:
    account, kills, problems = _under_load(stage, options, Faults.kill_tree)
    longest = max(account.seconds_to_run_again(*kill) for kill in kills)
    print_table("Figures", {"longest time from a kill to its jobs running again, s": round(longest, 2)})
    return problems


def child_kills(stage: Stage, options: Namespace) -> int:
    account, kills, problems = _under_load(stage, options, Faults.kill_child)
    times = [account.seconds_to_run_again(*kill) for kill in kills]
    longest = max(times)
    figures = {
        "children whose death hit a running job": sum(seconds > 0 for seconds in times),
        "longest time from a kill to its jobs running again, s": round(longest, 2),
    }
    print_table("Figures", figures)
    return problems + int(longest > options.within)


def restarts(stage: Stage, options: Namespace) -> int:
    mode: Mode = "immediate" if options.immediate else "fast"
    account, outages, problems = _under_load(stage, options, lambda faults: faults.restart_server(mode, pause=1.0))
    figures = {
        "seconds the server was away, longest": max(back - began for began, back in outages),
        "seconds from its return to the next finished job, longest": max(
            account.seconds_to_next_end(back) for _, back in outages
        ),
        "jobs that ran more than once": len({run.job_id for run, _ in account.repeats()}),
    }
    print_table("Figures", {name: round(value, 2) for name, value in figures.items()})
    return problems


def rolling(stage: Stage, options: Namespace) -> int:
    account, _, problems = _under_load(stage, options, Faults.rolling_restart)
    must_be_zero = {
        "runs that were repeated": len(account.repeats()),
        "jobs that used up more than one attempt": sum(job.attempt != 1 for job in account.jobs.values()),
        "jobs that failed": sum(job.status != JobStatus.SUCCESSFUL for job in account.jobs.values()),
    }
    print_table("Figures (each must be 0)", must_be_zero)
    return problems + sum(must_be_zero.values())


def failover(stage: Stage, options: Namespace) -> int:
    account, _, problems = _under_load(stage, options, Faults.fail_over)
    print_table("Figures", {"seconds without a finished job": round(account.longest_pause()[0], 2)})
    return problems


def leaks(stage: Stage, options: Namespace) -> int:
    """Failures of bystanders are jobs that ended otherwise than they must."""
    audit.install()
    ledger = Ledger()
    leaking, normal = list(islice(cycle(LEAKS), options.times)), ["short"] * options.jobs
    enqueue_all(ledger, Random(options.seed).sample([*leaking, *normal], options.times + options.jobs))
    with Crew(options.trees) as crew:
        crew.drain(TO_DRAIN)
        crew.dismiss()
    account = Account(ledger, [])
    normal_ones = [job for job in account.jobs.values() if job.args[1] == "short"]
    failed = sum(job.status != JobStatus.SUCCESSFUL for job in normal_ones)
    print_table("Figures", {"bystanders": len(normal_ones), "failures of bystanders (must be 0)": failed})
    return judge(account, crew) + failed


def _under_load(
    stage: Stage, options: Namespace, strike: Callable[[Faults], T], kinds: Mapping[str, Kind] = PLAIN
) -> tuple[Account, list[T], int]:
    """Make the same fault again and again, evenly over so many jobs.

    Returns the account, what each strike returned, and how many things are that must not be.
    """
    audit.install()
    ledger = Ledger()
    with Crew(options.trees) as crew:
        faults = Faults(stage, crew, Random(options.seed))
        made = []
        with Load(ledger, options.seed, kinds=kinds, rate=options.rate, most=options.jobs) as load:
            for number in range(1, options.times + 1):
                load.await_jobs(number * options.jobs // (options.times + 1))
                made.append(strike(faults))
            load.await_jobs(options.jobs)
        faults.settle()
        crew.drain(TO_DRAIN)
        crew.dismiss()
    account = Account(ledger, faults.made, kinds)
    return account, made, judge(account, crew)


MEASURES: Mapping[str, Callable[[Stage, Namespace], int]] = {
    "tree-kills": tree_kills,
    "child-kills": child_kills,
    "restarts": restarts,
    "rolling": rolling,
    "failover": failover,
    "leaks": leaks,
    "concurrency": limits.concurrency,
    "rate": limits.rate,
    "unique": limits.unique,
    "deadlines": deadlines.deadlines,
    "bulk": bulk,
    "schedules": schedules,
    "workflows": workflows,
}
