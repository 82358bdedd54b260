"""``python -m tests.celery_project``: the project's tests on Celery and on dbqueue, and both results."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .moving import Outcome, on_celery, on_dbqueue


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.celery_project", description=__doc__)
    parser.add_argument(
        "--celery",
        metavar="PYTHON",
        default=os.environ.get("CELERY_PYTHON", ""),
        help="An interpreter with Celery: of a virtual environment after pip install --group celery "
        "(default: CELERY_PYTHON of the environment). Without one that half is not run.",
    )
    parser.add_argument("--verbose", action="store_true", help="Print all that pytest said.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        halves = {
            "on Celery, in eager mode": on_celery(Path(folder, "celery"), options.celery) if options.celery else None,
            "on dbqueue, imports changed": on_dbqueue(Path(folder, "dbqueue"), sys.executable),
        }
    for name, outcome in halves.items():
        print_half(name, outcome, verbose=options.verbose)
    return 0 if all(outcome is not None and outcome.passed for outcome in halves.values()) else 1


def print_half(name: str, outcome: Outcome | None, *, verbose: bool) -> None:
    if outcome is None:
        print(f"{name}: NOT RUN, as neither --celery nor CELERY_PYTHON names an interpreter")
        return
    if verbose or not outcome.has_begun:
        print(outcome.output)
    elif not outcome.passed:
        print("\n".join(line for line in outcome.output.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))))
    print(f"{name}: {outcome.last_line}")


if __name__ == "__main__":
    sys.exit(main())
