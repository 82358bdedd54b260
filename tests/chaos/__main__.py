"""``python -m tests.chaos``: workers under load, faults at random, and a verdict. Exits non-zero unless all is well."""

import argparse
import sys
import time
from random import Random

from .stage import DATABASES, Stage, open_stage

TREES = 2

TO_DRAIN = 90.0
"""Seconds that the workers get to finish what there is after the last fault."""

LONGEST_PAUSE = 3.0
"""Seconds between two faults, on average, where there is time for each kind."""


def run(stage: Stage, seconds: float, seed: int) -> int:
    """Make faults for so long. Returns the exit code."""
    from . import audit
    from .crew import Crew
    from .faults import Faults
    from .load import Ledger, Load
    from .verdict import Account, judge, print_table

    audit.install()
    ledger = Ledger()
    with Crew(TREES) as crew:
        faults = Faults(stage, crew, Random(seed))
        # The faults themselves take a second or more.
        pause = min(LONGEST_PAUSE, max(0.2, seconds / len(faults.kinds) - 1.5))
        with Load(ledger, seed):
            faults.strike_for(seconds, pause)
        drained = crew.drain(TO_DRAIN)
        crew.dismiss()
    print(f"{seconds:g} s of chaos on {stage}, seed {seed}; then drained in {drained:.1f} s")
    print_table("Faults made", faults.strikes)
    problems = judge(Account(ledger, faults.made), crew)
    print(f"\n{'FAILED' if problems else 'PASSED'}, seed {seed}")
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="how long faults are made, each kind at least once (default: 120)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the faults' order; by default another each time")
    parser.add_argument("--database", choices=DATABASES, default="postgresql")
    parser.add_argument("--pgbouncer", action="store_true", help="reach PostgreSQL through PgBouncer")
    options = parser.parse_args()
    if not options.seconds > 0:
        parser.error(f"--seconds is {options.seconds:g}; it must be a number above 0")
    if options.pgbouncer and options.database != "postgresql":
        parser.error("--pgbouncer needs --database postgresql")
    seed = int(time.time()) % 100_000 if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with open_stage(options.database, pgbouncer=options.pgbouncer) as stage:
        return run(stage, options.seconds, seed)


if __name__ == "__main__":
    sys.exit(main())
