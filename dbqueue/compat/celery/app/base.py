"""Where Celery has its Celery."""

from . import Celery

__all__ = ["Celery"]
