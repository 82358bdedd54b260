"""``python -m tests.chaos.figures NAME``: one kind of fault, and its figures. Exits non-zero where one is not kept."""

import argparse
import sys

from .stage import DATABASES, open_stage

NAMES = {
    "tree-kills": "SIGKILL of whole worker trees",
    "child-kills": "SIGKILL of a child under its supervisor",
    "restarts": "restarts of PostgreSQL",
    "rolling": "rolling restarts of the workers",
    "failover": "SIGKILL of the primary, and promotion of its synchronous standby",
    "leaks": "jobs that leak transactions among others that don't",
    "concurrency": "kills of workers whose jobs have one key of concurrency",
    "rate": "three workers under one rate",
    "unique": "eight processes that enqueue one unique key",
    "deadlines": "jobs in a long statement and in a loop, with a timeout of a second",
    "bulk": "kills of the worker that retries all failed jobs, asked for on the page",
    "workflows": "kills of the workers that run random workflow trees",
    "schedules": "a schedule of one second, whose workers are killed and started at random",
}

DEFAULTS: dict[str, dict[str, float]] = {
    "tree-kills": {"times": 20, "jobs": 5000},
    "child-kills": {"times": 10, "jobs": 2000},
    "restarts": {"times": 5, "jobs": 2000},
    "rolling": {"times": 20, "jobs": 4000},
    "failover": {"times": 1, "jobs": 1000},
    "leaks": {"times": 100, "jobs": 1000},
    "concurrency": {"times": 10, "jobs": 2000},
    "rate": {"times": 1, "jobs": 3250},
    "unique": {"times": 1, "jobs": 10_000},
    "deadlines": {"times": 1, "jobs": 100},
    "bulk": {"times": 3, "jobs": 100_000},
    "workflows": {"times": 40, "jobs": 500},
    "schedules": {"times": 1, "jobs": 0, "seconds": 120.0, "workers": 10},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.figures", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, about in NAMES.items():
        command = names.add_parser(name, help=about, description=about)
        command.set_defaults(**DEFAULTS[name])
        command.add_argument("--times", type=int, help=f"how many faults (default: {DEFAULTS[name]['times']})")
        command.add_argument("--jobs", type=int, help=f"during how many jobs (default: {DEFAULTS[name]['jobs']})")
        command.add_argument("--trees", type=int, default=2, help="worker trees of two processes (default: 2)")
        command.add_argument("--rate", type=float, default=60.0, help="jobs enqueued in a second (default: 60)")
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--database", choices=DATABASES, default="postgresql")
    names.choices["restarts"].add_argument("--immediate", action="store_true", help="crash it instead")
    names.choices["child-kills"].add_argument("--within", type=float, default=2.0, help="seconds allowed (default: 2)")
    of_schedules = names.choices["schedules"]
    of_schedules.add_argument("--seconds", type=float, help="how long workers come and go (default: 120)")
    of_schedules.add_argument("--workers", type=int, help="at most at a time (default: 10)")
    options = parser.parse_args()
    if options.name in ("restarts", "failover") and options.database != "postgresql":
        parser.error(f"{options.name} needs --database postgresql")
    with open_stage(options.database, standby=options.name == "failover") as stage:
        from .measures import MEASURES  # now that Django is set up

        print(f"{NAMES[options.name]}: {options.times} times during {options.jobs} jobs on {stage}", flush=True)
        problems = MEASURES[options.name](stage, options)
    print(f"\n{'FAILED' if problems else 'PASSED'}: {options.name}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
