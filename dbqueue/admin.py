"""The operator's pages in the Django admin. Another AdminSite registers the same classes for itself."""

from .console.jobs import JobAdmin
from .console.schedules import ScheduleAdmin
from .console.workers import WorkerAdmin

__all__ = ["JobAdmin", "ScheduleAdmin", "WorkerAdmin"]
