"""What an operator asks."""

from bakery.celery import app


def workers():
    return sorted((app.control.inspect(timeout=0.1).ping() or {}).keys())


def busy():
    inspect = app.control.inspect(timeout=0.1)
    found = {}
    for name in ("active", "reserved", "scheduled"):
        for tasks in (getattr(inspect, name)() or {}).values():
            found[name] = len(tasks)
    return found


def registered():
    return sorted(name for name in app.tasks if not name.startswith("celery."))


def stop(task_id):
    app.control.revoke(task_id, terminate=True)
