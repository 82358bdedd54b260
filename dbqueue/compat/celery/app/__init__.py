"""The shell of an app: its settings, its tasks, its periodic tasks. A process has one queue, so all apps share it."""

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from django.conf import settings as settings_of_django
from django.core.signals import setting_changed

from .... import registry
from ....exceptions import InvalidTask
from ..exceptions import NotRegistered
from ..settings import DEFAULTS, Configuration, known_name, named
from ..signals import Signal
from ..stack import top
from ..task import Task, options_of
from ..warned import warn

if TYPE_CHECKING:
    from ..result import AsyncResult

on_after_configure = Signal("on_after_configure")
on_after_finalize = Signal("on_after_finalize")


class Celery:
    """``app = Celery("proj")``. What a broker or a result backend is, is not read: there is neither."""

    on_after_configure: Signal
    on_after_finalize: Signal

    task_cls: "type[_Task] | str | None" = None
    """The base of its tasks, or the dotted path of it."""

    def __init__(
        self,
        main: str | None = None,
        *,
        task_cls: "type[_Task] | str | None" = None,
        namespace: str | None = None,
        config_source: Any = None,
        changes: Mapping[str, Any] | None = None,
        set_as_current: bool = True,
        autofinalize: bool = True,
        **options: Any,
    ) -> None:
        """``options`` are settings, as ``timezone`` and ``include``."""
        self.main = main
        self.task_cls = task_cls or self.task_cls
        self.namespace = namespace
        self.conf = Configuration(self.read)
        self.on_after_configure = Signal("on_after_configure")
        self.on_after_finalize = Signal("on_after_finalize")
        self._is_final = False
        self.troubles: list[str] = []
        """What went wrong where others were told that it is set up."""
        self._periodic: dict[str, Any] = {}
        options.pop("broker", None)
        options["result_backend"] = options.pop("backend", None)
        settings = {name: options.pop(name) for name in list(options) if known_name(name) in DEFAULTS}
        self.conf.update({**(changes or {}), **{name: value for name, value in settings.items() if value is not None}})
        if options:
            warn(f"Celery() has no use for {', '.join(sorted(options))} here.")
        if config_source is not None:
            self.config_from_object(config_source)
        # The last one is the current one.
        _apps.insert(len(_apps) if set_as_current else 0, self)

    def __repr__(self) -> str:
        return f"<Celery {self.main}>"

    # Settings

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read, when first asked for, the names of an object, a dict or a dotted path that begin with ``namespace``."""
        self.namespace = namespace or self.namespace
        self._source = obj
        self._is_read = False
        if force:
            self.read()

    _source: Any = None
    _is_read = True

    @property
    def _prefix(self) -> str:
        return f"{self.namespace.rstrip('_')}_" if self.namespace else ""

    def read(self) -> Configuration:
        """The settings. Raises what the import of their module does."""
        if not self._is_read:
            self._is_read = True  # at once: while they are imported somebody may ask for one of them
            try:
                found = dict(self._found())
            except BaseException:
                self._is_read = False
                raise
            self.conf.found.clear()
            self.conf.found.update(found)
        if self._periodic:
            added, self._periodic = self._periodic, {}
            self.conf.beat_schedule = {**(self.conf.beat_schedule or {}), **added}
        return self.conf

    def _found(self) -> Iterator[tuple[str, Any]]:
        source = self._object()
        for key in source if isinstance(source, Mapping) else dir(source):
            if (setting := named(key, self._prefix)) is not None:
                yield setting, source[key] if isinstance(source, Mapping) else getattr(source, key)

    def _object(self) -> Any:
        """That of config_from_object()."""
        return imported(self._source) if isinstance(self._source, str) else self._source

    def read_again(self, key: str) -> None:
        """One of Django's settings, which a test has changed, or has changed back."""
        if self._source is None or not self._is_read or self._object() is not settings_of_django:
            return
        if (setting := named(key, self._prefix)) is None:
            return
        if hasattr(settings_of_django, key):
            self.conf.found[setting] = getattr(settings_of_django, key)
        else:
            self.conf.found.pop(setting, None)

    def import_named(self) -> None:
        """The modules of the settings ``imports`` and ``include``."""
        for names in (self.conf.imports, self.conf.include):
            for name in [names] if isinstance(names, str) else names or ():
                importlib.import_module(name)

    # Tasks

    @overload
    def task(self, func: Callable[..., Any], /) -> "_Task": ...
    @overload
    def task(self, **options: Any) -> "Callable[[Callable[..., Any]], _Task]": ...
    def task(self, *args: Any, **options: Any) -> Any:
        """``@app.task``, or ``@app.task(bind=True, …)``."""
        return _declare(self, args, options)

    def register_task(self, task: "_Task | type[_Task]", **options: Any) -> "_Task":
        """Of a class-based task, an instance or the class."""
        made = task() if isinstance(task, type) else task
        made.__dict__.update(options_of(options, type(made)))
        return made.registered(self)

    @property
    def tasks(self) -> "dict[str, _Task]":
        """All tasks of Celery's kind, by name. Raises NotRegistered for a name that none has."""
        return _Tasks(Task.known)

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
    def current_task(self) -> "_Task | None":
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
        self._periodic[key] = entry
        return key

    def finalize(self, auto: bool = False) -> None:
        """Tell once that the app is set up, to those who then add periodic tasks."""
        if not self._is_final:
            self._is_final = True
            self.import_named()
            for signal in (self.on_after_configure, self.on_after_finalize):
                answers = signal.send(sender=self)
                self.troubles += [
                    f"A receiver of {signal.name} failed, so what it was to add is not there: {answer}"
                    for _, answer in answers
                    if isinstance(answer, Exception)
                ]

    def set_current(self) -> None:
        """Make it the one that ``current_app`` is."""
        self.close()
        _apps.append(self)

    set_default = set_current

    def close(self) -> None:
        """Forget this app: its settings and periodic tasks hold no more. Its tasks stay."""
        if self in _apps:
            _apps.remove(self)

    def start(self, argv: Any = None) -> None:
        raise SystemExit("There is no celery command here: python manage.py dbqueue_worker")

    worker_main = start

    @cached_property
    def Task(self) -> "type[_Task]":
        """The base of its tasks."""
        found = self.task_cls or Task
        kind: type[_Task] = imported(found) if isinstance(found, str) else found
        return kind


class _Tasks(dict[str, Task]):
    def __missing__(self, name: str) -> Task:
        raise NotRegistered(f"No task is registered as {name!r}.")


_Task = Task
_apps: list[Celery] = []
_nobodys: list[Celery] = []
"""The app that stands in where nobody has made one; nobody's schedules are read of it."""


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
    if not _apps and not _nobodys:
        Celery()
        _nobodys.append(_apps.pop())
    return (_apps or _nobodys)[-1]


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
        # As with Celery a shared task has the base of the app; where there is none yet, it gets it later.
        base = options.get("base") or (app.Task if app is not None else _apps[-1].Task if _apps else Task)
        if not isinstance(base, type) or not issubclass(base, Task):
            raise InvalidTask(
                f"The base of {func.__module__}.{func.__name__} is {base!r}; it must be a class made of "
                "dbqueue.compat.celery.Task: where it comes from, celery is imported, too."
            )
        said = {name: value for name, value in options.items() if name != "base"}
        made = base.from_function(func, **{**said, "name": said.get("name") or _name_of(app, func)})
        made.is_named = "name" in said
        made.waits_for_app = app is None and not _apps and "base" not in options
        return made.registered(app)

    if len(args) == 1 and callable(args[0]):
        return declare(args[0])
    if args:
        raise TypeError("@task takes keywords only")
    return declare


def _name_of(app: Celery | None, func: Callable[..., Any]) -> str:
    """As Celery names it: what runs as a script has the app's name."""
    main = (app or the_app()).main if func.__module__ == "__main__" else None
    return f"{main or func.__module__}.{func.__name__}"


def imported(path: str) -> Any:
    """What stands at ``module:name``; without a colon the module, or else the last part of it as its name."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        parent, _, last = module.rpartition(".")
        if name or exc.name != module or not hasattr(importlib.import_module(parent), last):
            raise
        return getattr(importlib.import_module(parent), last)
    return getattr(found, name) if name else found


def _is_part_of(missing: str | None, name: str) -> bool:
    """Whether it is this module that is missing, or a package of it, and nothing that it imports."""
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _import_all(packages: Any, related_name: str) -> None:
    if packages is None:
        from django.apps import apps

        packages = [config.name for config in apps.get_app_configs()]
    for package in packages() if callable(packages) else packages:
        name = f"{package}.{related_name}" if related_name else package
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if not _is_part_of(exc.name, name):
                raise
