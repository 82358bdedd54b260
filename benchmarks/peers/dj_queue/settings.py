"""dj-queue's: connections are kept."""

from benchmarks.peers.django_base import DEFAULT_AUTO_FIELD, KEPT, SECRET_KEY, USE_TZ

__all__ = ["DATABASES", "DATABASE_ROUTERS", "DEFAULT_AUTO_FIELD", "INSTALLED_APPS", "SECRET_KEY", "TASKS", "USE_TZ"]

DATABASES = KEPT
DATABASE_ROUTERS = ["dj_queue.routers.DjQueueRouter"]
INSTALLED_APPS = ["dj_queue"]
TASKS = {
    "default": {
        "BACKEND": "dj_queue.backend.DjQueueBackend",
        "QUEUES": [],
        "OPTIONS": {
            "mode": "async",
            "workers": [{"queues": "*", "threads": 8, "polling_interval": 0.01, "prefetch_multiplier": 250}],
        },
    },
}
