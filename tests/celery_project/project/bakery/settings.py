import os
from datetime import timedelta

from celery.schedules import crontab

SECRET_KEY = "bread"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "orders", "mail", "reports"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIGRATION_MODULES = {"orders": None}

CELERY_BROKER_URL = "memory://"
CELERY_RESULT_BACKEND = "cache+memory://"
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "Europe/Berlin"
CELERY_ENABLE_UTC = True
CELERY_TASK_TRACK_STARTED = True
CELERY_TASK_ALWAYS_EAGER = os.environ.get("BAKERY_EAGER", "1") == "1"
CELERY_TASK_EAGER_PROPAGATES = False
CELERY_TASK_STORE_EAGER_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"mail.tasks.*": {"queue": "mail"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULE = {
    "close the day": {"task": "reports.tasks.close_day", "schedule": crontab(hour=18, minute=30)},
    "weekly letter": {
        "task": "mail.tasks.weekly_letter",
        "schedule": crontab(minute=0, hour=8, day_of_week="mon"),
        "args": ("all",),
        "options": {"queue": "mail", "expires": 3600},
    },
    "feed the sourdough": {
        "task": "orders.tasks.feed_sourdough",
        "schedule": timedelta(hours=12),
        "kwargs": {"grams": 50},
    },
    "look at the ovens": {"task": "orders.tasks.look_at_ovens", "schedule": 60.0},
}
