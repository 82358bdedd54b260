from bakery.celery import app
from celery import current_task, shared_task
from celery.result import AsyncResult
from django.db import transaction
from orders.models import Note


class MailboxFull(Exception):
    pass


@app.task
def send(to, subject="", **context):
    Note.write("mail", f"{to}: {subject}")
    return to


@app.task(bind=True, name="mail.confirm", max_retries=5)
def confirm(self, order_id):
    Note.write("confirm", f"{order_id} by {self.name}")
    return self.request.id == current_task.request.id


@app.task(ignore_result=True)
def weekly_letter(whom):
    for name in ("ann", "bob"):
        send.delay(name, subject=f"the week, for {whom}")


@app.task(bind=True, autoretry_for=(MailboxFull,), retry_kwargs={"max_retries": 1}, default_retry_delay=1)
def send_to_full_box(self, to):
    Note.write("full", self.request.retries)
    raise MailboxFull(to)


@app.task(priority=5)
def urgent(to):
    return f"urgent: {to}"


@app.task(rate_limit="100/m")
def newsletter(to):
    return to


@app.task(throws=(KeyError,))
def lookup(name):
    return {"ann": 1}[name]


@shared_task
def remind(order_id, days=1):
    Note.write("remind", f"{order_id} after {days}")


@shared_task(queue="slow")
def archive(year):
    return year


@shared_task
def on_bounce(request, exc, traceback):
    Note.write("bounce", f"{exc}")


def confirm_after_commit(order_id):
    transaction.on_commit(lambda: confirm.delay(order_id))


def send_by_name(to):
    return app.send_task("mail.tasks.send", args=(to,), kwargs={"subject": "by name"})


def status(task_id):
    """What the page of a task shows."""
    result = AsyncResult(task_id)
    said = {"state": result.state, "status": result.status, "ready": result.ready()}
    if result.successful():
        said["result"] = result.get(timeout=1)
    elif result.failed():
        said["error"] = str(result.result)
        said["has_traceback"] = bool(result.traceback)
    else:
        said["info"] = result.info
    return said
