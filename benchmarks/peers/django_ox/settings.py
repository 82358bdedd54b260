"""django-ox's: connections are kept."""

from benchmarks.peers.django_base import DEFAULT_AUTO_FIELD, KEPT, SECRET_KEY, USE_TZ

__all__ = ["DATABASES", "DEFAULT_AUTO_FIELD", "INSTALLED_APPS", "SECRET_KEY", "TASKS", "USE_TZ"]

DATABASES = KEPT
INSTALLED_APPS = ["django_ox"]
TASKS = {"default": {"BACKEND": "django_ox.backend.OxBackend", "QUEUES": []}}
