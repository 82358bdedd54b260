"""Settings that the peers with Django share; each takes what it needs by name and adds its own."""

import environ

SECRET_KEY = "only-for-benchmarks"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": environ.Env().db("DATABASE_URL")}

KEPT = {"default": {**DATABASES["default"], "CONN_MAX_AGE": 600}}
"""The same, and a thread keeps its connection for the next job. For peers whose guide asks for it."""
