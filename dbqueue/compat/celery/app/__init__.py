"""The shell of an app: its settings, its tasks, its periodic tasks. A process has one queue, so all apps share it."""

import fnmatch
import importlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, overload

from django.conf import settings as settings_of_django
from django.core.signals import setting_changed

from .... import registry
from ....exceptions import InvalidTask
from ..settings import Configuration, named
from ..signals import Signal
from ..stack import top
from ..task import Task, options_of

if TYPE_CHECKING:
    from ..result import AsyncResult

on_after_configure = Signal("on_after_configure")
on_after_finalize = Signal("on_after_finalize")


class Celery:
    """``app = Celery("proj")``. What a broker or a result backend is, is not read: there is neither."""

    on_after_configure: Signal
    on_after_finalize: Signal

    def __init__(self, main: str | None = None, **options: Any) -> None:
        self.main = main
        self.conf = Configuration()
        self.on_after_configure = Signal("on_after_configure")
        self.on_after_finalize = Signal("on_after_finalize")
        self.Task: type[Task] = options.pop("task_cls", None) or Task
        self._is_final = False
        for name in ("include", "broker", "backend", "set_as_current", "autofinalize", "namespace", "timezone"):
            options.pop(name, None)
        if options:
            warnings.warn(f"Celery() has no use for {', '.join(sorted(options))} here.", stacklevel=2)
        _apps.append(self)

    def __repr__(self) -> str:
        return f"<Celery {self.main}>"

    # Settings

    def config_from_object(self, obj: Any, silent: bool = False, force: bool = False, namespace: str = "") -> None:
        """Read, when asked for, the names of an object, or of a dotted path, that begin with ``namespace``."""
        self._source = (obj, f"{namespace}_" if namespace else "")
        self._is_read = False

    _source: tuple[Any, str] | None = None
    _is_read = True

    def read(self) -> Configuration:
        """The settings, now that they may be read."""
        if not self._is_read and self._source is not None:
            self._is_read = True
            found, prefix = self._object(), self._source[1]
            for key in dir(found):
                if (setting := named(key, prefix)) is not None:
                    self.conf.said.setdefault(setting, getattr(found, key))
        return self.conf

    def _object(self) -> Any:
        """That of config_from_object()."""
        found = None if self._source is None else self._source[0]
        if not isinstance(found, str):
            return found
        module, _, name = found.partition(":")
        found = importlib.import_module(module)
        return getattr(found, name) if name else found

    def read_again(self, key: str) -> None:
        """One of Django's settings, which a test has changed, or has changed back."""
        if self._source is None or not self._is_read or self._object() is not settings_of_django:
            return
        if (setting := named(key, self._source[1])) is None:
            return
        if hasattr(settings_of_django, key):
            self.conf.said[setting] = getattr(settings_of_django, key)
        else:
            self.conf.said.pop(setting, None)

    # Tasks

    @overload
    def task(self, func: Callable[..., Any], /) -> Task: ...
    @overload
    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Task]: ...
    def task(self, *args: Any, **options: Any) -> Any:
        """``@app.task``, or ``@app.task(bind=True, …)``."""
        return _declare(self, args, options)

    def register_task(self, task: "Task | type[Task]", **options: Any) -> Task:
        """Of a class-based task, an instance or the class."""
        made = task() if isinstance(task, type) else task
        made.__dict__.update(options_of(options, type(made)))
        return made.registered(self)

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks of Celery's kind, by name."""
        return dict(Task.known)

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str = "tasks",
        **kwargs: Any,
    ) -> None:
        """dbqueue imports each app's ``tasks`` by itself. What else is named is imported when Django is ready."""
        if packages is None and related_name == "tasks":
            return
        registry.when_ready(lambda: _import_all(packages, related_name))

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> "AsyncResult":
        """Enqueue a task by its name. Raises NotRegistered where this process has none of it."""
        from ..bridge import by_name

        return by_name(name).apply_async(args, kwargs, **options)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        from ..canvas import signature

        return signature(*args, **kwargs)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> "AsyncResult":
        from ..result import AsyncResult

        return AsyncResult(task_id)

    @property
    def control(self) -> Any:
        from ..control import Control

        return Control()

    @property
    def current_task(self) -> Task | None:
        request = top()
        return None if request is None else request.task_object

    # Periodic tasks

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = None, name: str | None = None, **options: Any
    ) -> str:
        """As an entry of ``beat_schedule``; ``options`` are those of ``apply_async()``.

        Without a name it is the call's, as in Celery: who adds that again gives it another schedule. Raises InvalidTask
        for a chain, a group or a chord.
        """
        from ..canvas import Signature

        call = sig.signature() if isinstance(sig, Task) else sig
        if not isinstance(call, Signature):
            raise InvalidTask(
                f"A periodic task is {sig!r}; it must be a task, or a signature of one: have a task enqueue the rest."
            )
        call = call.clone(args, kwargs)
        said = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs.items())]
        key = name or f"{call.task}({', '.join(said)})"
        entry = {
            "task": call.task,
            "schedule": schedule,
            "args": list(call.args),
            "kwargs": call.kwargs,
            "options": {**call.options, **options},
        }
        self.conf.beat_schedule = {**self.read().beat_schedule, key: entry}
        return key

    def finalize(self, auto: bool = False) -> None:
        """Tell once that the app is set up, to those who then add periodic tasks."""
        if not self._is_final:
            self._is_final = True
            self.read()
            self.on_after_configure.send(sender=self)
            self.on_after_finalize.send(sender=self)

    def set_current(self) -> None:
        """Make it the one that ``current_app`` is."""
        _apps.remove(self)
        _apps.append(self)

    set_default = set_current

    def close(self) -> None:
        """Forget this app: its settings and periodic tasks hold no more. Its tasks stay."""
        if self in _apps:
            _apps.remove(self)

    def start(self, argv: Any = None) -> None:
        raise SystemExit("There is no celery command here: python manage.py dbqueue_worker")

    worker_main = start


_apps: list[Celery] = []


def _setting_changed(*, setting: str, **kwargs: Any) -> None:
    for app in _apps:
        app.read_again(setting)


setting_changed.connect(_setting_changed, dispatch_uid="dbqueue.compat.celery")


class _Current:
    """The app that was made last; one without a name where there is none."""

    def __getattr__(self, name: str) -> Any:
        return getattr(the_app(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(the_app(), name, value)


class _CurrentTask:
    """The task that runs on this thread; false where none does."""

    def __getattr__(self, name: str) -> Any:
        request = top()
        if request is None:
            raise AttributeError(f"No task runs here, so there is no current_task.{name}.")
        return getattr(request.task_object, name)

    def __bool__(self) -> bool:
        return top() is not None


current_app: Any = _Current()
current_task: Any = _CurrentTask()


def the_app() -> Celery:
    return _apps[-1] if _apps else Celery()


def settings() -> Configuration:
    """Of the current app, read."""
    return the_app().read()


def all_apps() -> list[Celery]:
    return list(_apps)


@overload
def shared_task(func: Callable[..., Any], /) -> Task: ...
@overload
def shared_task(**options: Any) -> Callable[[Callable[..., Any]], Task]: ...
def shared_task(*args: Any, **options: Any) -> Any:
    """``@shared_task``, or ``@shared_task(bind=True, …)``."""
    return _declare(None, args, options)


def route_of(name: str) -> dict[str, Any]:
    """What ``task_routes`` says of a task of this name: its queue, its priority.

    Of the first dict, or list of pairs, that has the name, or else a pattern that it matches.
    """
    for routes in map(pairs_of, each_of(settings().task_routes)):
        exact = [route for pattern, route in routes if pattern == name]
        for route in exact or [route for pattern, route in routes if _matches(pattern, name)]:
            return {"queue": route} if isinstance(route, str) else dict(route or {})
    return {}


def each_of(routes: Any) -> list[Any]:
    """What ``task_routes`` holds; a list of pairs is one of it."""
    if isinstance(routes, list | tuple) and not all(map(_is_pair, routes)):
        return list(routes)
    return [routes]


def pairs_of(entry: Any) -> list[tuple[Any, Any]]:
    """Of a dict, or of a list of pairs; of a router that is code none."""
    pairs = entry.items() if isinstance(entry, dict) else entry if isinstance(entry, list | tuple) else ()
    return [tuple(pair) for pair in pairs if _is_pair(pair)]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str | re.Pattern)


def _matches(pattern: Any, name: str) -> bool:
    if isinstance(pattern, re.Pattern):
        return pattern.match(name) is not None
    return "*" in pattern and fnmatch.fnmatchcase(name, pattern)


def _declare(app: Celery | None, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    def declare(func: Callable[..., Any]) -> Task:
        base = options.get("base") or (app.Task if app is not None else Task)
        return base.from_function(func, **{k: v for k, v in options.items() if k != "base"}).registered(app)

    if len(args) == 1 and callable(args[0]):
        return declare(args[0])
    if args:
        raise TypeError("@task takes keywords only")
    return declare


def _import_all(packages: Any, related_name: str) -> None:
    if packages is None:
        from django.apps import apps

        packages = [config.name for config in apps.get_app_configs()]
    for package in packages() if callable(packages) else packages:
        name = f"{package}.{related_name}" if related_name else package
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not name.startswith(exc.name):
                raise
