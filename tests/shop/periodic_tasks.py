"""The periodic task of ``tests.chaos.figures schedules``, known only to workers whose TASK_MODULES name this module."""

from dbqueue import every, task


@task(schedule=every(seconds=1))
def tick() -> None:
    """Its job is the mark."""
