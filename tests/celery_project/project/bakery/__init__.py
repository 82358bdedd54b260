"""A bakery that bakes, writes to its customers and counts, with Celery."""

from .celery import app as celery_app

__all__ = ("celery_app",)
