"""What is heard of tasks and workers. ``heard`` is for whoever looks in this process."""

from celery.signals import (
    after_task_publish,
    before_task_publish,
    task_failure,
    task_postrun,
    task_prerun,
    task_retry,
    task_revoked,
    task_success,
    worker_process_init,
    worker_ready,
    worker_shutdown,
)

heard = []


@task_prerun.connect
def on_prerun(sender=None, task_id=None, task=None, args=None, kwargs=None, **extra):
    heard.append(("prerun", sender.name, list(args)))


@task_postrun.connect
def on_postrun(sender=None, task_id=None, task=None, retval=None, state=None, **extra):
    heard.append(("postrun", sender.name, state))


@task_success.connect
def on_success(sender=None, result=None, **extra):
    heard.append(("success", sender.name, result))


@task_failure.connect
def on_failure(sender=None, task_id=None, exception=None, einfo=None, traceback=None, **extra):
    heard.append(("failure", sender.name, str(exception)))


@task_retry.connect
def on_retry(sender=None, request=None, reason=None, einfo=None, **extra):
    heard.append(("retry", sender.name, request.id is not None))


@task_revoked.connect
def on_revoked(sender=None, request=None, terminated=None, **extra):
    heard.append(("revoked", getattr(sender, "name", None), terminated))


@before_task_publish.connect
def before_publish(sender=None, headers=None, body=None, **extra):
    heard.append(("publishing", sender, None))


@after_task_publish.connect(sender="mail.confirm")
def after_publish(sender=None, headers=None, **extra):
    heard.append(("published", sender, None))


@worker_process_init.connect
def on_process_init(**extra):
    heard.append(("process_init", None, None))


@worker_ready.connect
def on_ready(sender=None, **extra):
    heard.append(("ready", None, None))


@worker_shutdown.connect
def on_shutdown(sender=None, **extra):
    heard.append(("shutdown", None, None))
