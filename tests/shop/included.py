"""A module that only Celery's settings ``imports`` and ``include`` name."""

from dbqueue.compat.celery import shared_task


@shared_task(name="shop.included")
def included() -> str:
    return "included"
