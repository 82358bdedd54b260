"""Settings of the benchmarks and of the processes that they start. The database is always a scratch one."""

import environ

env = environ.Env()

SECRET_KEY = "only-for-benchmarks"
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["dbqueue", "benchmarks.jobs"]
# CONN_MAX_AGE stays 0, Django's default: a connection is closed, not kept.
DATABASES = {"default": env.db("DATABASE_URL")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }
if pool := env.int("BENCHMARK_POOL", default=0):
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": pool, "max_size": pool}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
