"""A schedule of one second under many workers that are killed and started at random: no slot missed, none doubled."""

import datetime
import signal
import statistics
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from dbqueue.models import UNFINISHED, Job, JobStatus, Schedule
from dbqueue.store import store_for

from ..workers import WorkerProcess, eventually, spawn
from .stage import SETTINGS, Stage
from .verdict import print_table

MODULES = {"DBQUEUE_TASK_MODULES": "tasks,periodic_tasks"}
TASK = "tests.shop.periodic_tasks.tick"

SECOND = datetime.timedelta(seconds=1)

TO_CATCH_UP = 60.0
"""Seconds in which the last slots must have their jobs, and all jobs must have ended."""


class Fleet:
    """Workers of one process each, which come and go."""

    def __init__(self, size: int, environment: Mapping[str, str] = MODULES) -> None:
        self._environment = {**SETTINGS, **environment}
        self.kills = self.blackouts = 0
        self.all: list[WorkerProcess] = []
        self._size = size
        self._living: list[WorkerProcess] = []
        self.fill_up(size)

    def fill_up(self, most: int) -> None:
        """Start up to ``most`` of those that are missing."""
        for _ in range(min(most, self._size - len(self._living))):
            process = spawn("--name", f"w{len(self.all)}", **self._environment)
            self.all.append(process)
            self._living.append(process)

    def kill(self, victims: list[WorkerProcess]) -> None:
        for process in victims:
            process.kill()
            process.wait()
            self._living.remove(process)
            self.kills += 1

    def black_out(self) -> None:
        self.kill(list(self._living))
        self.blackouts += 1

    def some(self, random: Random, most: int) -> list[WorkerProcess]:
        return random.sample(self._living, min(most, len(self._living)))

    def dismiss(self) -> None:
        for process in self._living:
            process.terminate()
        for process in self._living:
            process.wait(60)

    def refusals(self) -> int:
        """How often the unique key, and not the lock, kept a slot from a second job; or another error did."""
        return sum(process.output.count("made no job") for process in self.all)

    def gave_up(self) -> int:
        """Those that ended without being told; SIGTERM ends one that has hardly begun to start."""
        return sum(process.poll() not in (0, -signal.SIGKILL, -signal.SIGTERM) for process in self.all)


def schedules(stage: Stage, options: Namespace) -> int:
    random = Random(options.seed)
    fleet = Fleet(options.workers)
    try:
        eventually(lambda: Job.objects.filter(task=TASK).exists(), timeout=60)
        begin = Job.objects.filter(task=TASK).order_by("slot").values_list("slot", flat=True)[0]
        assert begin is not None
        strike_for(fleet, random, options.seconds)
        fleet.fill_up(options.workers)
        end = store_for("default").clock() - SECOND
        expected = [begin + number * SECOND for number in range((end - begin) // SECOND + 1)]
        _wait_for(lambda: set(expected) <= set(_slots()) and not _unfinished())
        fleet.dismiss()
    except BaseException:
        fleet.black_out()
        raise
    return _judge(fleet, expected)


def strike_for(fleet: Fleet, random: Random, seconds: float) -> None:
    """Kill up to half of the workers every second or two, some time later start others; once kill all."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(random.uniform(0.3, 2.0))
        if not fleet.blackouts and passed > seconds / 2:
            fleet.black_out()
            time.sleep(random.uniform(1.0, 3.0))
        elif random.random() < 0.6:
            fleet.kill(fleet.some(random, random.randint(1, 3)))
        fleet.fill_up(random.randint(0, 4))


def _judge(fleet: Fleet, expected: list[datetime.datetime]) -> int:
    slots = _slots()
    jobs = Job.objects.filter(task=TASK)
    late = sorted((job.enqueued_at - job.slot).total_seconds() for job in jobs if job.slot)
    print_table(
        "Figures",
        {
            "workers killed": fleet.kills,
            "workers started": len(fleet.all),
            "seconds from the first slot to the last": len(expected),
            "jobs": len(slots),
            "from a slot to its job, median, ms": round(statistics.median(late) * 1000, 1),
            "from a slot to its job, longest, s": round(late[-1], 2),
        },
    )
    must_be_zero = {
        "slots missed": len(set(expected) - set(slots)),
        "slots doubled": sum(number - 1 for number in Counter(slots).values()),
        "second jobs that only the unique key refused": fleet.refusals(),
        "jobs that did not succeed": jobs.exclude(status=JobStatus.SUCCESSFUL).filter(slot__lte=expected[-1]).count(),
        "workers that gave up": fleet.gave_up(),
        "rows of the schedule beside its one": Schedule.objects.count() - 1,
    }
    print_table("Figures (each must be 0)", must_be_zero)
    return sum(must_be_zero.values())


def _unfinished() -> bool:
    """Whether a job of before this moment has not ended; there is a new one each second."""
    before = store_for("default").clock() - 5 * SECOND
    return Job.objects.filter(task=TASK, status__in=UNFINISHED, enqueued_at__lt=before).exists()


def _wait_for(condition: Callable[[], bool]) -> None:
    """Up to TO_CATCH_UP seconds; what is not so then is judged."""
    end = time.monotonic() + TO_CATCH_UP
    while not condition() and time.monotonic() < end:
        time.sleep(0.5)


def _slots() -> list[datetime.datetime]:
    found = Job.objects.filter(task=TASK, slot__isnull=False).values_list("slot", flat=True)
    return [slot for slot in found if slot]
