"""Random workflow trees, whose workers are killed and started at random."""

import time
from argparse import Namespace
from collections import Counter
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from dbqueue.models import OPEN, Attempt, Job

from ..woods import Tree, trees
from ..workers import eventually
from .schedules import Fleet
from .stage import Stage
from .verdict import print_table

A_SECOND = 20
"""Trees that are enqueued in a second."""

TO_END = 120.0
"""Seconds after the last kill in which every tree must be final."""


def workflows(stage: Stage, options: Namespace) -> int:
    """``options.jobs`` trees under ``options.times`` kills; none without workers to kill."""
    random = Random(options.seed)
    grown = [Tree(spec, f"t{number}") for number, spec in enumerate(_specs(options.jobs, options.seed))]
    fleet = Fleet(3, MAX_CRASHES)
    began = time.monotonic()
    try:
        _enqueue_under_kills(grown, fleet, random, options.times)
        eventually(lambda: not Job.objects.filter(status__in=OPEN).exists(), timeout=TO_END)
        fleet.dismiss()
    except BaseException:
        fleet.black_out()
        raise
    found: Counter[str] = Counter()
    for tree in grown:
        found += tree.problems()
    steps = sum(len(tree.expected) for tree in grown)
    lost = Attempt.objects.filter(exception_class_path__endswith=".WorkerLost").count()
    figures = {
        "trees": len(grown),
        "steps": steps,
        "steps of the largest": max(len(tree.expected) for tree in grown),
        "trees with a step that never runs": sum("never" in repr(tree.expected) for tree in grown),
        "workers killed": fleet.kills,
        "attempts that were lost with them": lost,
        "seconds": round(time.monotonic() - began, 1),
    }
    print_table("Figures", figures)
    must_be_zero = {"trees not as they must be": sum(bool(tree.problems()) for tree in grown), **found}
    must_be_zero["workers that gave up"] = fleet.gave_up()
    print_table("Figures (each must be 0)", must_be_zero)
    return sum(must_be_zero.values()) + (options.times > 0 and lost == 0)


MAX_CRASHES = {"DBQUEUE_MAX_CRASHES": "1000"}
"""No step is to fail because of the kills."""


def _specs(number: int, start: int) -> list[Any]:
    found: list[Any] = []

    @seed(start)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(trees(20))
    def collect(spec: Any) -> None:
        found.append(spec)

    collect()
    return found[:number]


def _enqueue_under_kills(grown: list[Tree], fleet: Fleet, random: Random, kills: int) -> None:
    every = max(1, len(grown) // (kills + 1)) if kills else len(grown) + 1
    for number, tree in enumerate(grown, start=1):
        tree.enqueue()
        time.sleep(random.expovariate(A_SECOND))
        if number % every == 0 and fleet.kills < kills:
            fleet.kill(fleet.some(random, 1 + random.randrange(2)))
            fleet.fill_up(2)
