"""Settings of the tests, also of the worker processes that they start. Without ``DATABASE_URL``: SQLite in a file."""

import os
import tempfile
from pathlib import Path

import django
import environ

env = environ.Env()

BASE = Path(__file__).parent
SECRET_KEY = "only-for-tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "dbqueue",
    "tests.shop",
    "example_project.library",
]
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE / 'tests.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # In a file, also under test: worker processes open it too.
    DATABASES["default"]["TEST"] = {"NAME": Path(tempfile.gettempdir()) / f"dbqueue-test-{os.getpid()}.sqlite3"}
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }
elif env.bool("TEST_POOL", default=False):
    # psycopg 3's pool; with psycopg2 Django refuses it. Without health checks a pool hands out sessions that the server
    # has ended, and never notices.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"max_size": 12}
if "TEST_DATABASE_NAME" in env:
    # A worker process that a test started: on the test's database.
    DATABASES["default"]["NAME"] = env("TEST_DATABASE_NAME")
# Django's own django.tasks, or before 6.0 the package that brings it.
DJANGO_TASKS = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
TASKS = {
    "default": {"BACKEND": "dbqueue.backend.DatabaseBackend", "QUEUES": []},
    "mail": {"BACKEND": "dbqueue.backend.DatabaseBackend", "QUEUES": ["default", "letters"]},
    "immediate": {"BACKEND": f"{DJANGO_TASKS}.backends.immediate.ImmediateBackend", "QUEUES": []},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
