"""The operator's pages in the Django admin. Another AdminSite registers the same classes for itself."""

from .console.bulk import BulkOperationAdmin
from .console.jobs import JobAdmin
from .console.overview import OverviewAdmin
from .console.queues import QueuesAdmin
from .console.schedules import ScheduleAdmin
from .console.workers import WorkerAdmin
from .console.workflows import WorkflowAdmin

__all__ = [
    "BulkOperationAdmin",
    "JobAdmin",
    "OverviewAdmin",
    "QueuesAdmin",
    "ScheduleAdmin",
    "WorkerAdmin",
    "WorkflowAdmin",
]
