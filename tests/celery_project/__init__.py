"""A Django project that uses Celery, and its own tests, run on Celery and, with its imports changed, on dbqueue."""
