"""The operator's pages in the Django admin. Another AdminSite registers the same classes for itself."""

from .jobs import JobAdmin
from .workers import WorkerAdmin

__all__ = ["JobAdmin", "WorkerAdmin"]
