"""dbqueue's: all as it comes, but that its jobs are where every peer has them, in ``jobs``."""

from benchmarks.peers.django_base import DATABASES, DEFAULT_AUTO_FIELD, SECRET_KEY, USE_TZ

__all__ = ["DATABASES", "DBQUEUE", "DEFAULT_AUTO_FIELD", "INSTALLED_APPS", "SECRET_KEY", "USE_TZ"]

INSTALLED_APPS = ["dbqueue", "benchmarks.peers.own"]
DBQUEUE = {"TASK_MODULES": ["tasks", "jobs"]}
