"""``dbqueue_migrate_celery --check``: what it sees in small sources, by line, and what it says of it."""

import io
import textwrap
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from dbqueue.compat import coverage
from dbqueue.compat.coverage import Verdict
from dbqueue.compat.report import Report, check

C, D, M, L = Verdict.COVERED, Verdict.DIFFERS, Verdict.MISSING, Verdict.LOOK


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def report(folder: Path, source: str, others: dict[str, str] | None = None) -> Report:
    """Of tasks.py, beside others."""
    return check(written(folder, {"tasks.py": source, **(others or {})}))


def said(folder: Path, source: str, others: dict[str, str] | None = None) -> list[tuple[int, str, Verdict]]:
    """What was found in tasks.py."""
    found = report(folder, source, others)
    assert not found.unreadable
    path = str(folder / "tasks.py")
    return [(use.line, use.name, use.judgement.verdict) for use in found.uses if use.path == path]


def test_imports(tmp_path: Path) -> None:
    source = """\
        import celery
        import celery.signals as heard, celery.signals, celery.bin
        from celery import shared_task as job, Celery, bootsteps
        from celery.utils.log import get_task_logger
        from celery.schedules import crontab, solar
        from celery.backends.base import DisabledBackend
        from celery.exceptions import (
            Retry,
            SoftTimeLimitExceeded,
        )
        from celery.signals import task_failure, setup_logging
        from celery.canvas import *
        """
    assert said(tmp_path, source) == [
        (1, "celery", D),
        (2, "celery.signals", C),
        (2, "celery.signals", D),
        (2, "celery.bin", M),
        (3, "celery.shared_task", C),
        (3, "celery.Celery", C),
        (3, "celery.bootsteps", M),
        (4, "celery.utils.log.get_task_logger", C),
        (5, "celery.schedules.crontab", C),
        (5, "celery.schedules.solar", M),
        (6, "celery.backends.base.DisabledBackend", M),
        (8, "celery.exceptions.Retry", C),
        (9, "celery.exceptions.SoftTimeLimitExceeded", D),
        (11, "celery.signals.task_failure", C),
        (11, "celery.signals.setup_logging", D),
        (12, "celery.canvas.*", L),
    ]


def test_code_that_has_moved_is_read_as_what_it_was(tmp_path: Path) -> None:
    source = """\
        import dbqueue.compat.celery
        from dbqueue.compat import celery
        from dbqueue.compat.celery import bootsteps, chain, shared_task as job
        from dbqueue.compat.celery.signals import task_failure, setup_logging
        from dbqueue.compat.celery.canvas import *
        @job(acks_late=True)
        def f(): ...
        f.delay()
        @dbqueue.compat.celery.shared_task
        def g(): ...
        celery.signals.setup_logging
        chain(f.s(), g.s())["task"]
        """
    assert said(tmp_path, source) == [
        (1, "dbqueue.compat.celery", C),
        (2, "dbqueue.compat.celery", C),
        (3, "dbqueue.compat.celery.bootsteps", M),
        (3, "dbqueue.compat.celery.chain", C),
        (3, "dbqueue.compat.celery.shared_task", C),
        (4, "dbqueue.compat.celery.signals.task_failure", C),
        (4, "dbqueue.compat.celery.signals.setup_logging", D),
        (5, "dbqueue.compat.celery.canvas.*", L),
        (6, "@task", C),
        (6, "@task(acks_late=)", D),
        (8, "task.delay", C),
        (9, "@task", C),
        (9, "celery.shared_task", C),
        (11, "celery.signals.setup_logging", D),
        (12, "signature[…]", M),
        (12, "task.s", C),
    ]


def test_packages_beside_celery(tmp_path: Path) -> None:
    source = """\
        from kombu import Queue, Exchange
        import billiard
        import amqp.exceptions
        import flower.app
        from django_celery_beat.models import PeriodicTask
        from django_celery_results.models import TaskResult
        from sentry_sdk.integrations.celery import CeleryIntegration
        from os import path
        INSTALLED_APPS = ["django.contrib.admin", "django_celery_beat"]
        apps.get_model(app_label="django_celery_beat", model_name="PeriodicTask")
        apps.get_model("django_celery_beat.PeriodicTask"), apps.get_model("shop.Order")
        """
    assert said(tmp_path, source) == [
        (1, "kombu.Queue", M),
        (1, "kombu.Exchange", M),
        (2, "billiard", M),
        (3, "amqp.exceptions", M),
        (4, "flower.app", M),
        (5, "django_celery_beat.models.PeriodicTask", M),
        (6, "django_celery_results.models.TaskResult", M),
        (7, "sentry_sdk.integrations.celery.CeleryIntegration", L),
        (9, "INSTALLED_APPS: django_celery_beat", D),
        (10, "django_celery_beat", M),
        (11, "django_celery_beat.PeriodicTask", M),
    ]


def test_a_package_of_the_project_is_nobody_elses(tmp_path: Path) -> None:
    source = "from kombu.helpers import f\nfrom proj_celery import app\n"
    assert said(tmp_path, source, {"kombu/helpers.py": "", "proj_celery.py": ""}) == []


@pytest.mark.parametrize(
    "decorator",
    ["@shared_task({})", "@celery.shared_task({})", "@app.task({})", "@current_app.task({})", "@made().task({})"],
)
def test_decorators_with_their_keywords(tmp_path: Path, decorator: str) -> None:
    source = (
        "import celery\n"
        "from celery import Celery, current_app, shared_task\n"
        "def made():\n    return Celery('x')\n"
        "app = made()\n"
        + decorator.format("name='x', acks_late=True,\n  strategy=1, invented=2, serializer='pickle', **more")
        + "\ndef f(): ...\nf.delay()\n"
    )
    found = [one for one in said(tmp_path, source) if one[0] > 5 and one[1] not in ("app.task", "celery.shared_task")]
    assert found == [
        (6, "@task", C),
        (6, "@task(name=)", C),
        (6, "@task(acks_late=)", D),
        (7, "@task(strategy=)", M),
        (7, "@task(invented=)", D),
        (7, "@task(serializer=)", M),
        (7, "@task(**)", L),
        (9, "task.delay", C),
    ]


def test_a_decorator_of_its_own_makes_tasks(tmp_path: Path) -> None:
    source = """\
        from celery import shared_task

        def ours(func):
            return shared_task(func, bind=True)

        def ours_with(**options):
            def wrap(func):
                return shared_task(**options)(func)
            return wrap

        @ours
        def f(self): ...

        @ours_with(queue="mail")
        def g(): ...

        f.delay(), g.delay()
        """
    assert [one for one in said(tmp_path, source) if one[0] > 10] == [
        (11, "@task", C),
        (14, "@task", C),
        (17, "task.delay", C),
    ]


def test_tasks_apps_and_names_are_followed_through_files(tmp_path: Path) -> None:
    files = {
        "proj/__init__.py": "from .celery import app as celery_app\n",
        "proj/celery.py": "from celery import Celery\napp = Celery('proj')\n",
        "proj/mail/__init__.py": "",
        "proj/mail/tasks.py": "from proj import celery_app\n@celery_app.task\ndef send(): ...\n",
        "proj/mail/views.py": "from . import tasks\nfrom .tasks import send\n\nsend.delay()\ntasks.send.delay()\n",
    }
    source = """\
        import proj.mail.tasks
        from proj.mail import tasks as t
        from proj.celery import app

        def view():
            from proj.mail.tasks import send
            send.apply_async(countdown=1, link=None, invented=1)
        proj.mail.tasks.send.delay()
        t.send.delay()
        app.send_task("x", queue="y", routing_key="z")
        """
    found = report(tmp_path, source, files)
    views = [(use.line, use.name) for use in found.uses if use.path.endswith("views.py")]
    assert views == [(4, "task.delay"), (5, "task.delay")]
    assert [
        (use.line, use.name, use.judgement.verdict) for use in found.uses if use.path == str(tmp_path / "tasks.py")
    ] == [
        (7, "apply_async(countdown=)", C),
        (7, "apply_async(link=)", C),
        (7, "apply_async(invented=)", D),
        (7, "task.apply_async", C),
        (8, "task.delay", C),
        (9, "task.delay", C),
        (10, "apply_async(queue=)", C),
        (10, "apply_async(routing_key=)", D),
        (10, "app.send_task", D),
    ]


def test_keywords_of_other_calls(tmp_path: Path) -> None:
    source = """\
        from celery import Celery, shared_task
        from celery.schedules import schedule
        app = Celery("x")

        @shared_task(bind=True)
        def f(self):
            self.update_state(task_id="x", state="S")
            self.retry(throw=False)

        f.apply(link=f.s(), retries=2)
        f.s().apply(throw=True)
        app.add_periodic_task(5, f.s(), name="x", expires=3)
        app.send_task("x")
        schedule(0.5)
        CELERY_TASK_ROUTES = ([("a.*", {"queue": "x", "exchange": "y"})], {"b": {"priority": 3}, "c": "d"})
        """
    found = said(tmp_path, source)
    assert [one for one in found if one[1].endswith(("=)", "schedule()")) or "routes" in one[1].lower()] == [
        (5, "@task(bind=)", C),
        (7, "update_state(task_id=)", D),
        (7, "update_state(state=)", C),
        (8, "self.retry(throw=)", D),
        (10, "apply(link=)", C),
        (10, "apply(retries=)", D),
        (11, "apply(throw=)", C),
        (12, "add_periodic_task(name=)", C),
        (12, "add_periodic_task(expires=)", D),
        (14, "schedule()", M),
        (15, "CELERY_TASK_ROUTES", C),
        (15, "task_routes: exchange", D),
        (15, "task_routes: priority", D),
    ]
    assert (13, "app.send_task", D) in found


def test_what_self_is_in_a_bound_task(tmp_path: Path) -> None:
    source = """\
        from celery import shared_task

        @shared_task(bind=True)
        def f(self, x):
            self.update_state(state="PROGRESS", meta={})
            self.request.retries, self.request.delivery_info, self.request.chord, self.request.tenant
            self.backend.store()
            self.request.started = self.own_thing()
            try:
                pass
            except OSError as exc:
                raise self.retry(exc=exc, countdown=2, queue="slow", args=(1,), kwargs={})

        @shared_task
        def g(self):
            self.request.chord

        class Other:
            def h(self):
                self.retry(args=1)
        """
    assert [one for one in said(tmp_path, source) if one[0] > 4] == [
        (5, "update_state(state=)", C),
        (5, "update_state(meta=)", C),
        (5, "task.update_state", C),
        (6, "request.retries", C),
        (6, "task.request", C),
        (6, "request.delivery_info", D),
        (6, "request.chord", M),
        (6, "request.tenant", L),
        (7, "task.backend", M),
        (8, "request.started", C),
        (8, "task.request", C),
        (12, "self.retry(exc=)", C),
        (12, "self.retry(countdown=)", C),
        (12, "self.retry(queue=)", D),
        (12, "self.retry(args=)", C),
        (12, "self.retry(kwargs=)", C),
        (12, "task.retry", C),
        (14, "@task", C),
    ]


def test_classes_of_tasks(tmp_path: Path) -> None:
    source = """\
        from celery import Celery, Task
        app = Celery("x")

        class Base(Task):
            abstract = True
            acks_late = True
            def on_failure(self, exc, task_id, args, kwargs, einfo):
                self.request.stack
            def on_bound(self, app): ...
            @staticmethod
            def helper(x):
                x.request

        class Own(Base):
            name = "own"
            def run(self): ...

        class OfApp(app.Task):
            def start_strategy(self): ...

        own = app.register_task(Own())
        own.delay()

        class Unrelated:
            def on_failure(self): ...
        """
    found = [one for one in said(tmp_path, source) if one[0] > 4 and one[1] != "task.request"]
    assert found == [
        (6, "@task(acks_late=)", D),
        (7, "Task.on_failure()", C),
        (8, "request.stack", M),
        (9, "Task.on_bound()", D),
        (15, "@task(name=)", C),
        (16, "Task.run()", C),
        (18, "app.Task", C),
        (19, "Task.start_strategy()", M),
        (21, "app.register_task", C),
        (22, "task.delay", C),
    ]


def test_a_base_from_elsewhere_may_be_celerys_still(tmp_path: Path) -> None:
    source = """\
        from celery import Celery, Task, shared_task
        from elsewhere.tasks import OpenTask, work
        from theirs import OfCelery
        from .bases import Ours
        from . import bases
        app = Celery("x", task_cls=OpenTask)

        class Own(OpenTask): ...

        @shared_task(base=OpenTask)
        def a(): ...
        @app.task(base=Own)
        def b(): ...
        @app.task(base=Ours)
        def c(): ...
        @app.task(base=bases.Ours)
        def d(): ...
        @app.task(base=Task)
        def e(): ...
        @app.task(base=None)
        def f(): ...
        app.register_task(Own())
        app.register_task(Ours())
        work.delay()
        """
    bases = "from celery import Task\nclass Ours(Task): ...\n"
    found = report(tmp_path, source, {"bases.py": bases}).uses
    looked = [(use.line, use.name) for use in found if use.judgement.verdict is L]
    assert looked == [
        (3, "theirs.OfCelery"),
        (6, "Celery(task_cls=)"),
        (10, "@task(base=)"),
        (12, "@task(base=)"),
        (22, "app.register_task()"),
        (24, ".delay()"),
    ]
    assert "its package has to be moved too" in {use.line: use for use in found}[10].judgement.reason
    assert [use.judgement for use in found if use.line == 24] == [coverage.FOREIGN_TASK]
    assert len([use for use in found if use.name == "@task(base=)" and use.judgement.verdict is C]) == 4


def test_what_jobs_keep_on_their_task_is_shared_by_threads(tmp_path: Path) -> None:
    source = """\
        import os, signal
        from celery import Task, shared_task

        class Base(Task):
            _db = None
            def __init__(self):
                self.made = 1
            def __call__(self, *args):
                self.current = args[0]
                self.a, b = args
                self.count += 1
                del self.current
                return self.run(*args)
            @property
            def db(self):
                if self._db is None:
                    self._db = connect()
                args = self._db
                args.x = 1
                def inner():
                    self.inner: int = 1
                return args

        @shared_task(bind=True)
        def f(this):
            global cache
            this.cache = 1
            os.chdir("/")
            signal.signal(1, None)
            this.helper.x = 1

        @shared_task
        def g(self):
            self.x = 1

        def h(self):
            global cache
            self.x = 1
            os.chdir("/")
            f.max_retries = 1

        class Other:
            def i(self):
                self.x = 1
        """
    found = report(tmp_path, source).uses
    assert [(use.line, use.name) for use in found if use.judgement is coverage.STATE] == [
        (9, "self.… ="),
        (10, "self.… ="),
        (11, "self.… ="),
        (17, "self.… ="),
        (21, "self.… ="),
        (26, "global cache"),
        (27, "self.… ="),
        (28, "os.chdir()"),
        (29, "signal.signal()"),
    ]
    assert "--threads 1 --processes N" in coverage.STATE.reason


def test_a_hard_limit_is_never_without_its_neighbours(tmp_path: Path) -> None:
    source = """\
        from celery import Task, shared_task
        class Base(Task):
            time_limit = 5
        @shared_task(time_limit=5)
        def f(): ...
        f.apply_async(time_limit=5)
        f.s().set(time_limit=5)
        CELERY_TASK_TIME_LIMIT = CELERYD_TASK_TIME_LIMIT = 5
        """
    found = report(tmp_path, source).uses
    assert [use.line for use in found if use.judgement.reason == coverage.HARD_LIMIT] == [3, 4, 6, 7, 8, 8]
    assert all(use.judgement.verdict is D for use in found if use.judgement.reason == coverage.HARD_LIMIT)
    assert "--threads 1" in coverage.HARD_LIMIT


def test_a_coroutine_can_not_enqueue(tmp_path: Path) -> None:
    source = """\
        from asgiref.sync import sync_to_async
        from celery import current_app, group, shared_task
        @shared_task
        def f(): ...

        async def view(request):
            f.delay()
            group([f.s()]).apply_async()
            current_app.send_task("x")
            await sync_to_async(f.delay)()
            def inner():
                f.delay()
            f()
        """
    found = [use for use in report(tmp_path, source).uses if use.judgement is coverage.IN_A_COROUTINE]
    assert [(use.line, use.name) for use in found] == [
        (7, "task.delay() in a coroutine"),
        (8, "group.apply_async() in a coroutine"),
        (9, "app.send_task() in a coroutine"),
    ]


def test_a_function_in_a_function_is_no_task_without_a_name(tmp_path: Path) -> None:
    source = """\
        import functools
        from celery import Celery, shared_task
        app = Celery("x")

        class View:
            def __init_subclass__(cls):
                def execute(self): ...
                execute = transaction.atomic(execute)
                cls.execute = app.task(bind=True)(execute)
            @shared_task
            def member(): ...

        def test_it():
            @shared_task
            def f(): ...
            class Inner:
                @app.task
                def g(): ...
            @app.task(name="x")
            def h(): ...
            app.task(name="y")(f), shared_task(f, name="z")

        def ours(func):
            @shared_task(bind=True)
            @functools.wraps(func)
            def wrapper(self): ...
            return wrapper

        def theirs(func):
            @functools.wraps(func)
            def wrapper(self): ...
            return shared_task(wrapper) or shared_task(func)

        def plain(): ...
        plain_task = app.task(plain)
        """
    found = [use for use in report(tmp_path, source).uses if use.judgement is coverage.LOCAL]
    assert [(use.line, use.name) for use in found] == [(9, "@task"), (14, "@task"), (17, "@task")]


def test_what_can_not_be_linked_or_be_periodic(tmp_path: Path) -> None:
    source = """\
        from celery import chain, chord, current_app as app, group, shared_task
        @shared_task
        def f(): ...

        f.apply_async(link_error=chain(f.s()))
        f.s().on_error(group(f.s()))
        f.s().link_error(f.s() | f.s())
        f.apply_async(link=[f.s(), chord(f.s(), f.s())])
        chain(f.s()).link(chord(f.s(), f.s()))
        app.add_periodic_task(5, chain(f.s()))
        app.add_periodic_task(5, sig=group(f.s()))

        f.apply_async(link_error=[f.s()], link=chain(f.s()))
        f.s().link(group(f.s())), f.s().on_error(f.si())
        app.add_periodic_task(5, f.s())
        """
    refused = (coverage.ERRBACK, coverage.LINKED_CHORD, coverage.PERIODIC_CALL)
    found = [use for use in report(tmp_path, source).uses if use.judgement in refused]
    assert [(use.line, use.name) for use in found] == [
        (5, "apply_async(link_error=)"),
        (6, "on_error()"),
        (7, "link_error()"),
        (8, "apply_async(link=)"),
        (9, "link()"),
        (10, "add_periodic_task()"),
        (11, "add_periodic_task(sig=)"),
    ]


def test_intervals_are_read_wherever_they_stand(tmp_path: Path) -> None:
    source = """\
        from datetime import timedelta
        from celery import current_app as app
        from celery.schedules import schedule
        HALF = 0.5
        app.add_periodic_task(0.5, f.s())
        app.add_periodic_task(schedule=0, sig=f.s())
        app.add_periodic_task(HALF, f.s())
        app.add_periodic_task(timedelta(milliseconds=500), f.s())
        app.add_periodic_task(367 * 24 * 60 * 60, f.s())
        schedule(run_every=timedelta(0, 1, 5))
        CELERY_BEAT_SCHEDULE = {"a": {"task": "x", "schedule": timedelta(weeks=60)}}

        app.add_periodic_task(0.5 * 60, f.s())
        app.add_periodic_task(timedelta(days=1), f.s())
        app.add_periodic_task(timedelta(minutes=made()), f.s())
        app.add_periodic_task(timedelta(**made()), f.s())
        app.add_periodic_task(theirs.timedelta(milliseconds=1), f.s())
        app.add_periodic_task(True, f.s())
        schedule(60.0)
        """
    found = [use for use in report(tmp_path, source).uses if "an interval of" in use.judgement.reason]
    assert [use.line for use in found] == [5, 6, 7, 8, 9, 10, 11]
    assert all(use.judgement.verdict is M for use in found)
    assert found[5].judgement.reason.startswith("an interval of 1")


def test_results_control_and_inspect(tmp_path: Path) -> None:
    source = """\
        from celery import Celery, current_app
        from celery.result import AsyncResult
        from celery.app.control import Inspect
        app = Celery("x")

        def f(id):
            result = AsyncResult(id, app=app)
            result.state, result.get(timeout=1, interval=2), result.collect(), result.invented
            app.AsyncResult(id).forget()
            app.control.revoke(id, terminate=True)
            current_app.control.broadcast("x")
            look = app.control.inspect()
            look.active(), look.stats(), look.memdump()
            Inspect(app=app).ping()

        def g(result: AsyncResult):
            result.graph

        def h(result):
            result.graph
        """
    assert [one for one in said(tmp_path, source) if one[0] > 6] == [
        (8, "AsyncResult.state", C),
        (8, "AsyncResult.get(timeout=)", C),
        (8, "AsyncResult.get(interval=)", D),
        (8, "AsyncResult.get", C),
        (8, "AsyncResult.collect", M),
        (8, "AsyncResult.invented", L),
        (9, "AsyncResult.forget", C),
        (9, "app.AsyncResult", C),
        (10, "control.revoke(terminate=)", D),
        (10, "control.revoke", C),
        (10, "app.control", C),
        (11, "control.broadcast", M),
        (11, "app.control", C),
        (12, "control.inspect", C),
        (12, "app.control", C),
        (13, "inspect().active", C),
        (13, "inspect().stats", D),
        (13, "inspect().memdump", M),
        (14, "inspect().ping", C),
        (17, "AsyncResult.graph", M),
    ]


def test_signatures_and_what_is_made_of_them(tmp_path: Path) -> None:
    source = """\
        from celery import chain, chord, chunks, group, shared_task, signature
        from celery.result import GroupResult
        @shared_task
        def f(): ...

        f.s(1).set(countdown=1, invented=2)
        (f.s() | f.si()).apply_async(queue="x").get()
        group(f.s() for _ in range(2)).delay().join()
        chord([f.s()])(f.s()).collect()
        signature("f", immutable=True).on_error(f.s())
        f.chunks([], 2), f.map([]), f.starmap([])
        chain(f.s(), f.s()).unchain_tasks()
        group([f.s()]).apply_async().save()
        GroupResult("id", []).join()
        GroupResult.restore("id").get()
        """
    found = [one for one in said(tmp_path, source) if one[0] > 5 and one[1] not in ("task.s", "task.si")]
    assert found == [
        (6, "apply_async(countdown=)", C),
        (6, "apply_async(invented=)", D),
        (6, "signature.set", C),
        (7, "AsyncResult.get", C),
        (7, "apply_async(queue=)", C),
        (7, "chain.apply_async", C),
        (8, "GroupResult.join", C),
        (8, "group.delay", C),
        (9, "AsyncResult.collect", M),
        (10, "signature.on_error", C),
        (10, "apply_async(immutable=)", C),
        (11, "task.chunks", C),
        (11, "task.map", C),
        (11, "task.starmap", C),
        (12, "chain.unchain_tasks", M),
        (13, "GroupResult.save", C),
        (13, "group.apply_async", C),
        (14, "GroupResult.join", C),
        (15, "GroupResult.get", C),
        (15, "GroupResult.restore", C),
    ]


def test_members_of_what_is_composed_are_its_own(tmp_path: Path) -> None:
    source = """\
        from celery import chain, chord, group, shared_task
        @shared_task
        def f(): ...

        f.s().freeze(), f.s().tasks, f.s()["args"]
        chain(f.s()).freeze(), group(f.s()).args, chord(f.s()).name, (f.s() | f.s()).immutable
        chain(f.s()).tasks, group(f.s()).tasks, chord(f.s()).body, (f.s() | f.s()).body, group()["tasks"]
        f.chunks([], 1).group().skew()
        group(f.s()).apply_async(task_id="x", immutable=True).get()
        chain(f.s()).apply_async(task_id="x", link=f.s()).get()
        chain(f.s()).set(link=f.s())
        f.chunks([], 1).apply_async().join()
        """
    found = [one for one in said(tmp_path, source) if one[0] > 4 and one[1] not in ("task.s", "task.chunks")]
    assert found == [
        (5, "signature.freeze", C),
        (5, "signature.tasks", M),
        (5, "signature[…]", M),
        (6, "chain.freeze", M),
        (6, "group.args", M),
        (6, "chord.name", M),
        (6, "chain.immutable", M),
        (7, "chain.tasks", C),
        (7, "group.tasks", C),
        (7, "chord.body", C),
        (7, "chain.body", M),
        (7, "signature[…]", M),
        (8, "group.skew", M),
        (8, "chunks.group", C),
        (9, "GroupResult.get", C),
        (9, "apply_async(task_id=)", D),
        (9, "apply_async(immutable=)", D),
        (9, "group.apply_async", C),
        (10, "AsyncResult.get", C),
        (10, "apply_async(task_id=)", C),
        (10, "apply_async(link=)", C),
        (10, "chain.apply_async", C),
        (11, "apply_async(link=)", D),
        (11, "chain.set", C),
        (12, "GroupResult.join", C),
        (12, "chunks.apply_async", C),
    ]


def test_signals_by_every_way_to_name_them(tmp_path: Path) -> None:
    source = """\
        import celery
        from celery import signals
        from celery.signals import task_prerun

        @task_prerun.connect
        def a(**kw): ...
        @signals.task_retry.connect(sender="x")
        def b(**kw): ...
        celery.signals.celeryd_init.connect(a)
        """
    assert said(tmp_path, source) == [
        (1, "celery", D),
        (2, "celery.signals", C),
        (3, "celery.signals.task_prerun", C),
        (7, "celery.signals.task_retry", C),
        (9, "celery.signals.celeryd_init", D),
    ]


def test_what_receivers_of_signals_are_given(tmp_path: Path) -> None:
    source = """\
        from celery import signals
        from celery.signals import task_prerun, worker_ready, before_task_publish

        @task_prerun.connect
        def a(task_id, task, **kwargs):
            task.request.chord, task.send_event()
        @signals.task_failure.connect(weak=False)
        def b(sender=None, **kwargs):
            sender.request.stack
        @worker_ready.connect
        def c(sender, **kwargs):
            sender.request.stack
        @before_task_publish.connect
        def d(sender, **kwargs):
            sender.request.stack
        @other.connect
        def e(sender, **kwargs):
            sender.request.stack
        """
    found = [one for one in said(tmp_path, source) if one[0] > 3 and one[1] != "task.request"]
    assert found == [
        (6, "request.chord", M),
        (6, "task.send_event", M),
        (7, "celery.signals.task_failure", C),
        (9, "request.stack", M),
    ]


def test_settings_of_django(tmp_path: Path) -> None:
    source = """\
        from datetime import timedelta
        from celery.schedules import crontab
        CELERY_BROKER_URL = "redis://"
        BROKER_URL = "redis://"
        BROKER_OF_SHARES = "x"
        CELERY_TASK_ALWAYS_EAGER = True
        CELERY_ALWAYS_EAGER = True
        CELERY_TASK_SERIALIZER = "json"
        CELERY_RESULT_SERIALIZER = "pickle"
        CELERY_ACCEPT_CONTENT = ["json"]
        CELERY_TASK_ROUTES = {"x.*": {"queue": "y"}}  # or [("x.*", {"queue": "y"})]
        CELERY_ROUTES = ("x.Router",)
        CELERYD_CONCURRENCY = 4
        CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
        CELERY_OUR_OWN = 1
        CELERYBEAT_SCHEDULE = {
            "a": {"task": "x", "schedule": crontab(minute=1, nowfun=None), "options": {"queue": "x", "exchange": "y"}},
            "b": {"task": "x", "schedule": 0.5, "relative": True},
            "c": entry(),
        }
        CELERY_BEAT_SCHEDULE = made()

        class Base:
            CELERY_TIMEZONE = "UTC"

        def f():
            CELERY_TIMEZONE = "UTC"
        """
    found = [one for one in said(tmp_path, source) if one[1] not in ("beat_schedule: task", "beat_schedule: options")]
    assert found == [
        (2, "celery.schedules.crontab", C),
        (3, "CELERY_BROKER_URL", D),
        (4, "BROKER_URL", D),
        (6, "CELERY_TASK_ALWAYS_EAGER", C),
        (7, "CELERY_ALWAYS_EAGER", C),
        (8, "CELERY_TASK_SERIALIZER", C),
        (9, "CELERY_RESULT_SERIALIZER", M),
        (10, "CELERY_ACCEPT_CONTENT", C),
        (11, "CELERY_TASK_ROUTES", C),
        (12, "CELERY_ROUTES", M),
        (13, "CELERYD_CONCURRENCY", D),
        (14, "CELERY_BEAT_SCHEDULER", D),
        (15, "CELERY_OUR_OWN", L),
        (16, "CELERYBEAT_SCHEDULE", C),
        (17, "beat_schedule: schedule", C),
        (17, "beat_schedule: options: queue", C),
        (17, "beat_schedule: options: exchange", D),
        (17, "crontab(minute=)", C),
        (17, "crontab(nowfun=)", D),
        (18, "beat_schedule: schedule", C),
        (18, "beat_schedule: schedule", M),
        (18, "beat_schedule: relative", D),
        (19, "beat_schedule", L),
        (21, "CELERY_BEAT_SCHEDULE", C),
        (21, "beat_schedule", L),
        (24, "CELERY_TIMEZONE", C),
    ]


def test_settings_of_an_app(tmp_path: Path) -> None:
    source = """\
        from celery import Celery
        from django.test import override_settings
        app = Celery("x", broker="redis://", changes={}, invented=1)
        app.config_from_object(obj="django.conf:settings", namespace="CELERY")
        app.config_from_object("django.conf:settings")
        app.config_from_object("x.celeryconfig", namespace="CELERY")
        app.conf.task_track_started = True
        app.conf["task_serializer"] = "pickle"
        app.conf.update(task_always_eager=True, worker_prefetch_multiplier=1)
        app.conf.update({"result_expires": 1, "invented": 1})
        app.conf.beat_schedule = {"a": {"task": "x", "schedule": 10.0}}
        app.conf.beat_schedule["b"] = {"task": "x", "schedule": 10, "invented": 1}
        app.conf.timezone

        @app.on_after_finalize.connect
        def setup(sender, **kwargs):
            sender.add_periodic_task(10.0, None, name="x")
            sender.amqp

        @override_settings(CELERY_TASK_EAGER_PROPAGATES=True)
        def test_it(celery_worker, settings): ...
        """
    found = [one for one in said(tmp_path, source) if one[0] > 2 and one[1] not in ("app.conf", "beat_schedule: task")]
    assert found == [
        (3, "Celery(broker=)", D),
        (3, "Celery(changes=)", C),
        (3, "Celery(invented=)", D),
        (4, "app.config_from_object", C),
        (5, "app.config_from_object(namespace=)", L),
        (5, "app.config_from_object", C),
        (6, "app.config_from_object()", L),
        (6, "app.config_from_object", C),
        (7, "conf.task_track_started", C),
        (8, "conf.task_serializer", M),
        (9, "conf.task_always_eager", C),
        (9, "conf.worker_prefetch_multiplier", D),
        (10, "conf.result_expires", D),
        (10, "conf.invented", L),
        (11, "conf.beat_schedule", C),
        (11, "beat_schedule: schedule", C),
        (12, "beat_schedule: schedule", C),
        (12, "beat_schedule: invented", L),
        (12, "conf.beat_schedule", C),
        (13, "conf.timezone", C),
        (15, "app.on_after_finalize", C),
        (17, "add_periodic_task(name=)", C),
        (17, "app.add_periodic_task", C),
        (18, "app.amqp", M),
        (20, "CELERY_TASK_EAGER_PROPAGATES", C),
        (21, "celery_worker", M),
    ]


def test_settings_that_nobody_reads_are_not_covered(tmp_path: Path) -> None:
    source = """\
        from celery import Celery
        CELERY_IMPORTS = CELERY_INCLUDE = ("shop.background",)
        CELERY_ENABLE_UTC = False
        CELERY_DEFAULT_PRIORITY = 1
        CELERY_EAGER = True
        app = Celery("x", include=["y"], timezone="Asia/Tokyo", task_time_limit=5, task_cls="a.B", result_expires=1)
        app.config_from_object("django.conf:settings")
        app.config_from_object("django.conf:settings", namespace="OURS")
        app.config_from_object("django.conf:settings", namespace="CELERY_")
        app.config_from_object({"task_always_eager": True, "task_serializer": "pickle"})
        """
    found = report(tmp_path, source).uses
    assert [(use.line, use.name, use.judgement.verdict) for use in found if use.judgement.verdict is not C] == [
        (3, "CELERY_ENABLE_UTC", D),
        (4, "CELERY_DEFAULT_PRIORITY", D),
        (5, "CELERY_EAGER", L),
        (6, "Celery(task_time_limit=)", D),
        (6, "Celery(task_cls=)", L),
        (6, "Celery(result_expires=)", D),
        (7, "app.config_from_object(namespace=)", L),
        (8, "app.config_from_object(namespace=)", L),
        (10, "task_serializer", M),
    ]
    assert [use.judgement for use in found if use.line in (7, 8) and use.judgement.verdict is L] == [
        coverage.NAMESPACE,
        coverage.OTHER_NAMESPACE,
    ]


def test_schedules_that_are_changed_while_the_program_runs_are_to_look_at(tmp_path: Path) -> None:
    source = """\
        from celery import Celery, current_app
        app = Celery("x")
        app.conf.beat_schedule["a"] = {"task": "x", "schedule": 5}
        app.conf.beat_schedule.update({"b": {"task": "x", "schedule": 0.5}})
        CELERY_BEAT_SCHEDULE = {}
        CELERY_BEAT_SCHEDULE.update({"b": {"task": "x", "schedule": 0.5}})
        app.conf.timezone = "UTC"

        @app.on_after_finalize.connect
        def at_first(sender, **kwargs):
            sender.add_periodic_task(5, f.s())
            app.conf.beat_schedule.pop("a")
        def connected(sender, **kwargs):
            sender.conf.beat_schedule = {}
        app.on_after_configure.connect(connected)
        def made():
            app = Celery("y")
            app.conf.update(timezone="UTC")
        class Config:
            def ready(self):
                app.conf.task_routes = {}

        def view(request):
            app.conf.beat_schedule["a"] = {}
            app.conf.beat_schedule.update(a={})
            current_app.conf.beat_schedule.pop("a")
            del app.conf.beat_schedule["a"]
            schedule = app.conf.beat_schedule
            schedule.clear()
            app.conf.beat_schedule |= {}
            app.conf.timezone = "UTC"
            app.conf.update({"task_routes": {}})
            app.add_periodic_task(5, f.s())
            app.conf.task_always_eager = True
            app.conf.beat_schedule.items(), app.conf.timezone
            beat_schedule = {}
            beat_schedule["a"] = {}
            settings.CELERY_BEAT_SCHEDULE["a"] = {}
            app.conf.task_routes.update({}), app.conf.task_queues.clear()
        """
    found = report(tmp_path, source).uses
    changed = [(use.line, use.name) for use in found if use.judgement is coverage.AT_THE_START]
    assert changed == [
        (24, "beat_schedule, changed"),
        (25, "beat_schedule, changed"),
        (26, "beat_schedule, changed"),
        (27, "beat_schedule, changed"),
        (29, "beat_schedule, changed"),
        (30, "beat_schedule, changed"),
        (31, "timezone, changed"),
        (32, "task_routes, changed"),
        (33, "beat_schedule, changed"),
        (38, "beat_schedule, changed"),
        (39, "task_routes, changed"),
    ]
    assert [use.line for use in found if "an interval of" in use.judgement.reason] == [4, 6]


@pytest.mark.parametrize(
    ("importing", "is_named"),
    [
        ("from .celery import app", False),
        ("from . import celery", False),
        ("from proj import celery", False),
        ("import proj.celery", False),
        ("from proj.celery import app", False),
        ("SETTINGS = 'proj.celery'", False),
        ("from celery import shared_task", True),
        ("from . import views", True),
    ],
)
def test_an_app_that_no_file_imports_is_named(tmp_path: Path, importing: str, is_named: bool) -> None:
    app = "from celery import Celery\napp = Celery('x')\napp.config_from_object('x', namespace='CELERY')\n"
    files = {"proj/__init__.py": f"{importing}\n", "proj/celery.py": app, "proj/views.py": ""}
    found = [use.line for use in report(tmp_path, "", files).uses if use.judgement is coverage.NOBODY_IMPORTS]
    assert found == ([3] if is_named else [])
    assert not [use for use in check(tmp_path / "proj/celery.py").uses if use.judgement is coverage.NOBODY_IMPORTS]


def test_an_exception_is_no_dict(tmp_path: Path) -> None:
    source = """\
        from celery.result import AsyncResult
        result = AsyncResult("x")
        result.info["exc_type"], result.info["done"], other.info["exc_type"]
        """
    found = [use for use in report(tmp_path, source).uses if use.judgement is coverage.EXC_TYPE]
    assert [(use.line, use.name) for use in found] == [(3, "AsyncResult.info['exc_type']")]


def test_a_fixture_of_the_projects_own_is_not_celerys(tmp_path: Path) -> None:
    own = "import pytest\n@pytest.fixture\ndef celery_app(): ...\n"
    assert said(tmp_path, "def test_it(celery_app): ...", {"conftest.py": own}) == []


def test_tasks_that_are_members_of_a_class(tmp_path: Path) -> None:
    source = """\
        from celery import shared_task

        class Mail:
            @staticmethod
            @shared_task
            def send(): ...

            @classmethod
            def all(cls):
                Mail.send.delay()

            @staticmethod
            @shared_task(bind=True)
            def again(self):
                self.retry()

        class Post(Mail):
            pass

        Post.send.delay()
        Post.other.delay()
        """
    assert [one for one in said(tmp_path, source) if one[0] > 5] == [
        (10, "task.delay", C),
        (13, "@task", C),
        (13, "@task(bind=)", C),
        (15, "task.retry", C),
        (20, "task.delay", C),
        (21, ".delay()", L),
    ]


def test_an_app_is_known_by_what_only_apps_have(tmp_path: Path) -> None:
    source = """\
        from elsewhere import make
        app = make()
        app.autodiscover_tasks()
        @app.task(strategy=1)
        def f(): ...
        """
    assert ("@task(strategy=)", M) in [(name, verdict) for _, name, verdict in said(tmp_path, source)]


def test_what_super_is(tmp_path: Path) -> None:
    source = """\
        from celery import Task
        class Noted(Task):
            def apply_async(self, *args, **options):
                return super().apply_async(*args, shadow="x", **options)
        class Other:
            def delay(self):
                return super().delay()
        """
    assert [one for one in said(tmp_path, source) if one[0] > 2] == [
        (3, "Task.apply_async()", D),
        (4, "apply_async(shadow=)", D),
        (4, "apply_async(**)", L),
        (4, "task.apply_async", C),
        (7, ".delay()", L),
    ]


def test_what_reading_does_not_tell_is_listed_apart(tmp_path: Path) -> None:
    source = """\
        from unittest.mock import patch
        from elsewhere.tasks import work
        import multiprocessing

        def f(task):
            task.delay(1)
            work.apply_async()
            multiprocessing.Pool().apply_async(f)
            with patch("celery.app.task.Task.delay"), patch("proj.f"):
                [g.delay() for g in task]
            monkeypatch.setattr("celery.app.task.Task.retry", f)
        APP_CLASS = "celery.Celery"
        HAS_CELERY = find_spec("celery") is not None and importlib.metadata.version("celery")
        LOGGERS = ["celery.task", "celery.utils.log", "celery", "see celery.Celery"]
        """
    assert said(tmp_path, source) == [
        (6, ".delay()", L),
        (7, ".apply_async()", L),
        (9, "'celery.app.task.Task.delay'", L),
        (10, ".delay()", L),
        (11, "'celery.app.task.Task.retry'", L),
        (12, "'celery.Celery'", L),
        (13, "'celery'", L),
    ]


def test_what_has_nothing_to_do_with_celery_is_not_named(tmp_path: Path) -> None:
    source = """\
        class Task:
            def on_failure(self): ...
        def chain(*x): ...
        def shared_task(f): return f
        @shared_task
        def f(self): self.request.chord
        chain(1).unchain_tasks()
        crontab = dict
        crontab(nowfun=1)
        request.chord, app.amqp, result.collect(), control.broadcast()
        """
    assert said(tmp_path, source) == []


def test_names_bound_to_two_things_are_unknown(tmp_path: Path) -> None:
    source = """\
        from celery.result import AsyncResult
        def f(id):
            result = None
            result = AsyncResult(id)
            result.graph
        def g(id):
            result = AsyncResult(id)
            result = other(id)
            result.graph
        def h(x):
            return h(x)
        h(1).graph
        loop = loop
        loop.graph
        """
    assert [one for one in said(tmp_path, source) if one[0] > 1] == [(5, "AsyncResult.graph", M)]


def test_what_stands_in_for_celery_is_not_what_is_meant(tmp_path: Path) -> None:
    source = """\
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from celery.local import Proxy
            from celery.result import AsyncResult
        else:
            from celery.local import Proxy
        try:
            from celery import Task, shared_task
        except ImportError:
            shared_task = dummy
            class Task: ...
        try:
            from celery import chain
        except ValueError:
            chain = None.made

        class Base(Task): ...
        @shared_task(base=Base)
        def f(): ...
        f.delay()
        chain(f.s()).unchain_tasks()
        """
    assert [one for one in said(tmp_path, source) if one[0] not in (8, 13)] == [
        (3, "celery.local.Proxy", L),
        (4, "celery.result.AsyncResult", C),
        (6, "celery.local.Proxy", M),
        (18, "@task", C),
        (18, "@task(base=)", C),
        (20, "task.delay", C),
        (21, "task.s", C),
    ]


def test_files_that_cant_be_parsed_are_named_and_others_folders_left_out(tmp_path: Path) -> None:
    files = {
        "old.py": "print 'x'\n",
        "null.py": "x = '\0'\n",
        "latin.py": "# -*- coding: latin-1 -*-\nfrom celery import bootsteps  # \xe9\n",
        ".hidden/a.py": "from celery import bootsteps\n",
        "node_modules/a.py": "from celery import bootsteps\n",
        "env/pyvenv.cfg": "",
        "env/a.py": "from celery import bootsteps\n",
        "readme.txt": "from celery import bootsteps\n",
    }
    written(tmp_path, files)
    (tmp_path / "latin.py").write_bytes(files["latin.py"].encode("latin-1"))
    (tmp_path / "bad.py").write_bytes(b"x = '\xff'\n")
    found = check(tmp_path)
    assert [Path(one.path).name for one in found.unreadable] == ["bad.py", "null.py", "old.py"]
    assert all(one.reason for one in found.unreadable)
    assert [(Path(use.path).name, use.line) for use in found.uses] == [("latin.py", 2)]
    assert "NOT READ" in list(found.lines())


def called(path: Path, **options: object) -> str:
    out = io.StringIO()
    call_command("dbqueue_migrate_celery", check=str(path), stdout=out, **options)
    return out.getvalue()


def test_the_command_says_all_and_exits_with_1_where_something_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "tasks.py"
    file.write_text(
        "from celery import shared_task, bootsteps\n@shared_task(acks_late=True)\ndef f(): ...\nx.delay()\n"
    )
    out = io.StringIO()
    with pytest.raises(SystemExit) as caught:
        call_command("dbqueue_migrate_celery", check=str(file), stdout=out)
    assert caught.value.code == 1
    said = out.getvalue()
    assert said.index("MISSING") < said.index("celery.bootsteps") < said.index(f"{file}:1") < said.index("DIFFERS")
    assert coverage.TASK_OPTIONS.differs["acks_late"] in said
    assert said.index("LOOK HERE YOURSELF") < said.index(f"{file}:4")
    assert "COVERED" not in said
    assert said.endswith(
        "1 file read, 1 of them with 5 uses of Celery:\n"
        "2 covered, 1 differs, 1 missing, 1 to look at yourself; 0 files could not be read.\n"
    )


def test_the_command_lists_what_is_covered_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "tasks.py"
    file.write_text("from celery import shared_task\n@shared_task\ndef f(): ...\nf.delay()\nf.delay()\n")
    assert "COVERED" not in called(file)
    said = called(file, verbosity=2)
    assert "COVERED" in said and f"task.delay\n      {file}:4, 5\n" in said


def test_the_command_refuses_what_is_no_code_base(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="it must be a file or a folder that exists"):
        called(tmp_path / "nowhere")
    with pytest.raises(CommandError, match="there is no Python file in it"):
        called(tmp_path)
