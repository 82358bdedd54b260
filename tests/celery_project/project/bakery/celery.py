import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bakery.settings")

app = Celery("bakery")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f"Request: {self.request!r}")


@app.on_after_finalize.connect
def setup_periodic_tasks(sender, **kwargs):
    from reports.tasks import count_flour

    sender.add_periodic_task(300.0, count_flour.s("rye"), name="count the rye")
