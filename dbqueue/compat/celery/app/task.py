"""Where Celery has its Task."""

from ..task import Task

__all__ = ["Task"]
