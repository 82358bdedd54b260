"""Where a code base uses Celery: each use by file and line, with what ``coverage`` says of it."""

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import coverage, settings_read
from .coverage import COVERED, Judgement, Section, Verdict
from .meanings import (
    SIGNATURES,
    FunctionNode,
    Meaning,
    Name,
    Project,
    Scope,
    Thing,
    class_kind,
    is_local,
    is_named,
    is_own_task,
    is_task_class,
    kind_of,
    makes_tasks,
    meaning,
    names_local,
)

BEGINS_A_JOB = ("delay", "apply_async")

ENQUEUES = ("App.send_task", *(f"{kind}.{name}" for kind in ("Task", *SIGNATURES) for name in BEGINS_A_JOB))

TAKES_NAMES = (
    "__import__",
    "distribution",
    "find_spec",
    "import_module",
    "import_string",
    "importorskip",
    "patch",
    "setattr",
    "version",
)
"""Functions that are given a dotted name as text; some ask by it whether Celery is installed."""

OF_A_PROCESS = (
    "locale.setlocale",
    "os.chdir",
    "os.putenv",
    "os.umask",
    "signal.alarm",
    "signal.setitimer",
    "signal.signal",
    "socket.setdefaulttimeout",
)
"""What changes a whole process, and so all jobs on its threads."""

INTERVALS = (
    (coverage.SCHEDULE, "schedule()", "run_every"),
    (coverage.PERIODIC, "add_periodic_task()", "schedule"),
)
"""Calls whose first argument may be an interval, and its name."""

FIXTURES = ("celery_app", "celery_worker", "celery_session_app", "celery_session_worker", "celery_config")

OF_CONF = (
    "update",
    "get",
    "setdefault",
    "items",
    "keys",
    "values",
    "humanize",
    "table",
    "changes",
    "defaults",
    "first",
)

OF_AN_ERROR = ("exc_type", "exc_message", "exc_module")
"""Keys of a dict as which some of Celery's backends tell an exception."""

CHANGES = ("clear", "pop", "popitem", "setdefault", "update")
"""Methods that change a dict."""

OLD_BROKER = (
    "BROKER_URL",
    "BROKER_TRANSPORT",
    "BROKER_HEARTBEAT",
    "BROKER_POOL",
    "BROKER_CONNECTION",
    "BROKER_USE_SSL",
)
"""How settings without CELERY_ begin that are Celery's all the same."""


@dataclass(frozen=True, slots=True)
class Use:
    """One name of Celery's at one place."""

    path: str
    line: int
    name: str
    judgement: Judgement


def uses(project: Project) -> list[Use]:
    """All of them, in the order of files and lines, each once."""
    found: dict[Use, None] = {}
    for source in project.sources:
        reader = Reader(project.scope(source))
        reader.visit(source.tree)
        found.update(dict.fromkeys(sorted(reader.found, key=lambda use: use.line)))
    return list(found)


class Reader(ast.NodeVisitor):
    """Reads one file."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.project = scope.project
        self.path = scope.source.path
        self.found: list[Use] = []
        self.functions: list[FunctionNode] = []
        """Those that stand around what is read."""
        self.for_types = False
        """Whether what is read is run by nobody, as it stands below ``if TYPE_CHECKING``."""
        self.in_task = False
        """Whether what is read runs in a job: the code of a task, or a method of a class of tasks."""

    def say(self, line: int, name: str, judgement: Judgement | None) -> None:
        """Note a use; None: there is nothing to say."""
        if judgement is not None:
            self.found.append(Use(self.path, line, name, judgement))

    def say_of(self, section: Section, line: int, name: str) -> None:
        self.say(line, section.title.format(name), section.judge(name))

    def say_all(self, said: Iterable[settings_read.Said]) -> None:
        for line, name, judgement in said:
            self.say(line, name, judgement)

    # Imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            path = tuple(alias.name.split("."))
            if alias.asname is None and coverage.imported(path)[1] == COVERED and path[0] == "celery":
                self.say(node.lineno, alias.name, coverage.BARE_IMPORT)
            else:
                self._imported(path, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level or not node.module:
            return
        path = tuple(node.module.split("."))
        for alias in node.names:
            self._imported((*path, alias.name), alias.lineno)

    def _imported(self, path: tuple[str, ...], line: int) -> None:
        top, last = path[0], path[-1]
        if (meant := coverage.before_the_move(path))[0] == "celery":
            said = coverage.STAR if last == "*" else coverage.imported(meant)[1]
            is_for_types = self.for_types and said.verdict is Verdict.MISSING
            self.say(line, ".".join(path), coverage.FOR_TYPES if is_for_types else said)
        elif not self.project.owns(top):
            judgement = coverage.PACKAGES.judge(top)
            if judgement is None and any("celery" in part.lower() for part in path):
                judgement = coverage.INTEGRATION
            self.say(line, ".".join(path), judgement)

    def visit_If(self, node: ast.If) -> None:
        of = meaning(node.test, self.scope)
        self.visit(node.test)
        self.for_types = isinstance(of, Name) and of.path == ("typing", "TYPE_CHECKING")
        for statement in node.body:
            self.visit(statement)
        self.for_types = False
        for statement in node.orelse:
            self.visit(statement)

    # Declarations

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        for decorator in node.decorator_list:
            if makes_tasks(meaning(decorator, self.scope)):
                is_refused = is_local(node, self.scope) and not is_named(decorator)
                self.say(decorator.lineno, "@task", coverage.LOCAL if is_refused else COVERED)
            self.visit(decorator)
        self.visit(node.args)
        if node.returns is not None:
            self.visit(node.returns)
        if node.name.startswith("test"):
            self._fixtures(node)
        self.functions.append(node)
        with self._inside(self.project.inner(node, self.scope), self._runs_in_a_job(node)):
            for statement in node.body:
                self.visit(statement)
        self.functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def _runs_in_a_job(self, node: FunctionNode) -> bool:
        """A task is made once, before there are jobs."""
        is_method = self.scope.is_class and self.scope.kind == Thing("Task") and node.name != "__init__"
        return self.in_task or is_method or self.scope.is_task(node)

    def _fixtures(self, node: FunctionNode) -> None:
        for parameter in node.args.args:
            if parameter.arg in FIXTURES and not self.project.defines(parameter.arg):
                self.say(parameter.lineno, parameter.arg, coverage.FIXTURE)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        is_task = class_kind(node, self.scope) == Thing("TaskClass")
        with self._inside(self.project.inner(node, self.scope)):
            for statement in node.body:
                if is_task:
                    self._of_task_class(statement)
                self.visit(statement)

    def _of_task_class(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.say_of(coverage.HOOKS, node.lineno, node.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in coverage.TASK_OPTIONS.known:
                    self.say_of(coverage.TASK_OPTIONS, node.lineno, target.id)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        with self._inside(self.project.inner(node, self.scope)):
            self.visit(node.body)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        inner = Scope(self.scope.source, self.scope, self.project)
        for generator in node.generators:
            for target in ast.walk(generator.target):
                if isinstance(target, ast.Name):
                    inner.bound[target.id].append(None)
        with self._inside(inner):
            self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    @contextmanager
    def _inside(self, scope: Scope, in_task: bool | None = None) -> Iterator[None]:
        """``in_task``: None leaves that as it is."""
        outer, self.scope = (self.scope, self.in_task), scope
        self.in_task = self.in_task if in_task is None else in_task
        yield
        self.scope, self.in_task = outer

    # Members and calls

    def visit_Attribute(self, node: ast.Attribute) -> None:
        of = meaning(node.value, self.scope)
        if isinstance(of, Name) and of.is_celery:
            if ".".join(of.path) in coverage.MODULES:
                self.say(node.lineno, *coverage.imported((*of.path, node.attr)))
                return
        elif kind_of(of) == "Conf":
            if node.attr not in OF_CONF:
                self._setting(f"conf.{node.attr}", node.attr, None, node.lineno)
        elif kind_of(of) == "Request" and isinstance(node.ctx, ast.Store):
            self.say(node.lineno, f"request.{node.attr}", COVERED)
        elif (section := _members(kind_of(of))) is not None:
            self.say_of(section, node.end_lineno or node.lineno, node.attr)
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        kind, key = kind_of(meaning(node.value, self.scope)), getattr(node.slice, "value", None)
        if kind in SIGNATURES:
            self.say(node.lineno, "signature[…]", coverage.NO_DICT)
        elif kind in ("Result.info", "Result.result") and key in OF_AN_ERROR:
            self.say(node.lineno, f"AsyncResult.info[{key!r}]", coverage.EXC_TYPE)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        of = meaning(node.func, self.scope)
        section = self._keywords_of(node, of)
        if section is not None:
            self._keywords(section, node)
        self._interval(node, section)
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        self._settings_as_keywords(node)
        self._names_as_text(node)
        if isinstance(of, Thing):
            self._called(node, of.kind)
        elif self.in_task and isinstance(of, Name) and (name := ".".join(of.path)) in OF_A_PROCESS:
            self.say(node.lineno, f"{name}()", coverage.STATE)
        self.generic_visit(node)

    def _called(self, node: ast.Call, kind: str) -> None:
        """A method of what Celery has, or one of its decorators."""
        owner, _, name = kind.partition(".")
        if kind == "Decorator":
            is_refused = not is_named(node) and any(names_local(arg, self.scope) for arg in node.args[:1])
            self.say(node.lineno, "@task", coverage.LOCAL if is_refused else None)
        elif kind == "App.register_task":
            self._registered(node)
        elif kind == "App.config_from_object":
            self._source_of_settings(node)
        elif kind in ENQUEUES and self.functions and isinstance(self.functions[-1], ast.AsyncFunctionDef):
            self.say(node.lineno, f"{kind.lower()}() in a coroutine", coverage.IN_A_COROUTINE)
        elif owner in SIGNATURES:
            for arg in node.args[:1]:
                self.say(arg.lineno, f"{name}()", self._linked(name, arg))

    def _keywords_of(self, node: ast.Call, of: object) -> Section | None:
        """Whose keywords those of the call are."""
        if isinstance(of, Name):
            last = of.path[-1] if of.is_celery else ""
            return coverage.APPLY_OPTIONS if last in ("signature", "subtask", "Signature") else coverage.CALLS.get(last)
        if of == Thing("Decorator"):
            return coverage.TASK_OPTIONS
        if of == Thing("AppClass"):
            return coverage.APP_OPTIONS
        if isinstance(of, Thing) and "." in of.kind:
            kind, _, name = of.kind.partition(".")
            return coverage.KEYWORDS.get((_alias(kind), name))
        return None

    def _keywords(self, section: Section, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg is None:
                if section is not coverage.CALLS["crontab"]:
                    self.say(keyword.value.lineno, section.title.format("**").replace("**=", "**"), coverage.EXPANDED)
            elif (judgement := self._by_value(keyword.arg, keyword.value)) is not None:
                self.say(keyword.lineno, section.title.format(keyword.arg), judgement)
            else:
                self.say_of(section, keyword.lineno, keyword.arg)

    def _interval(self, node: ast.Call, section: Section | None) -> None:
        """The first argument of ``schedule()`` and ``add_periodic_task()``, which may have its name."""
        for of, shown, name in INTERVALS:
            if of is not section:
                continue
            for value in (*node.args[:1], *(one.value for one in node.keywords if one.arg == name)):
                self.say_all(settings_read.interval(shown, value, self.scope))

    def _by_value(self, name: str, value: ast.expr) -> Judgement | None:
        """What is to be said of a keyword's value, where that says more than its name."""
        if name == "serializer":
            return settings_read.serializer(value)
        if name in ("base", "task_cls"):
            is_none = isinstance(value, ast.Constant) and value.value is None
            return None if is_none or is_task_class(meaning(value, self.scope)) else coverage.BASE
        return self._linked(name, value)

    def _linked(self, name: str, value: ast.expr) -> Judgement | None:
        """What can't be linked to a call, or be told of its failure, or be enqueued by the clock."""
        kinds = {kind_of(meaning(one, self.scope)) for one in getattr(value, "elts", [value])}
        if name in ("link_error", "on_error"):
            return coverage.ERRBACK if kinds & {"Chain", "Chord", "Chunks", "Group"} else None
        if name == "link":
            return coverage.LINKED_CHORD if "Chord" in kinds else None
        if name == "sig":
            return coverage.PERIODIC_CALL if kinds & {"Chain", "Chord", "Chunks", "Group"} else None
        return None

    def _registered(self, node: ast.Call) -> None:
        """``app.register_task(OfThem())``: its class may come from elsewhere."""
        for arg in node.args[:1]:
            of = meaning(arg, self.scope)
            if kind_of(of) != "Task" and not is_task_class(of):
                self.say(arg.lineno, "app.register_task()", coverage.BASE)

    def _method(self, node: ast.Call, func: ast.Attribute) -> None:
        of = meaning(func.value, self.scope)
        if kind_of(of) == "Conf" and func.attr == "update":
            self._conf_updated(node)
        elif func.attr in CHANGES and self._is_schedule(func.value):
            self._schedule_changed(func.value)
            for arg in node.args if func.attr == "update" else ():
                self.say_all(settings_read.of_schedule(arg, self.scope))
        elif func.attr in CHANGES and kind_of(of).startswith("Conf."):
            self._changed(kind_of(of).partition(".")[2], node.lineno)
        elif kind_of(of) == "App" and func.attr == "add_periodic_task":
            self._changed("beat_schedule", node.lineno)
            for arg in node.args[1:2]:
                self.say(arg.lineno, "add_periodic_task()", self._linked("sig", arg))
        elif func.attr in BEGINS_A_JOB and _is_unknown(of) and "pool" not in ast.unparse(func.value).lower():
            is_foreign = isinstance(of, Name) and not self.project.owns(of.path[0] or of.path[1])
            said = coverage.FOREIGN_TASK if is_foreign else coverage.PERHAPS_A_TASK
            self.say(func.end_lineno or node.lineno, f".{func.attr}()", said)

    def _conf_updated(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._setting(f"conf.{keyword.arg}", keyword.arg, keyword.value, keyword.lineno)
        for arg in node.args:
            if isinstance(arg, ast.Dict):
                for line, name, value in settings_read.keys(arg):
                    self._setting(f"conf.{name}", name, value, line)
            else:
                self.say(arg.lineno, "conf.update()", coverage.NOT_LITERAL)

    def _source_of_settings(self, node: ast.Call) -> None:
        given = [*node.args[:1], *(one.value for one in node.keywords if one.arg == "obj")]
        first = given[0] if given else None
        is_django = isinstance(first, ast.Constant) and first.value == "django.conf:settings"
        spaces = [one.value for one in node.keywords if one.arg == "namespace"]
        is_named = any(isinstance(one, ast.Constant) and one.value in ("CELERY", "CELERY_") for one in spaces)
        if isinstance(first, ast.Dict):
            for line, name, value in settings_read.keys(first):
                self._setting(name, name, value, line)
        elif not is_django:
            self.say(node.lineno, "app.config_from_object()", coverage.CONFIG_SOURCE)
        elif not is_named:
            said = coverage.OTHER_NAMESPACE if spaces else coverage.NAMESPACE
            self.say(node.lineno, "app.config_from_object(namespace=)", said)
        if len(self.project.sources) > 1 and not self.project.is_imported(self.scope.source):
            self.say(node.lineno, "Celery()", coverage.NOBODY_IMPORTS)

    def _names_as_text(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[:1] + [keyword.value for keyword in node.keywords if keyword.arg == "app_label"]
        for arg in first:
            if not isinstance(arg, ast.Constant) or not isinstance(arg.value, str):
                continue
            if name == "get_model":
                top = arg.value.split(".")[0]
                self.say(arg.lineno, arg.value, None if self.project.owns(top) else coverage.PACKAGES.judge(top))
            elif name in TAKES_NAMES and arg.value.split(".")[0] == "celery":
                self.say(arg.lineno, repr(arg.value), coverage.AS_TEXT)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A text that is the whole name of something that Celery has."""
        if isinstance(node.value, str) and coverage.is_object(node.value):
            self.say(node.lineno, repr(node.value), coverage.AS_TEXT)

    # What jobs share

    def visit_Global(self, node: ast.Global) -> None:
        if self.in_task:
            self.say(node.lineno, f"global {', '.join(node.names)}", coverage.STATE)

    def _kept(self, target: ast.expr) -> None:
        """``self.x = …`` in a job."""
        if self.in_task and isinstance(target, ast.Attribute) and is_own_task(target.value, self.scope):
            self.say(target.lineno, "self.… =", coverage.STATE)

    # Settings

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assigned(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self._schedule_changed(target.value if isinstance(target, ast.Subscript) else target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._schedule_changed(node.target)
        if isinstance(node.target, ast.Name):
            self._apps(node.target.id, node.value)
        self._kept(node.target)
        self.generic_visit(node)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        for one in target.elts if isinstance(target, ast.Tuple | ast.List) else (target,):
            self._kept(one)
        if isinstance(target, ast.Name) and (self.scope.parent is None or self.scope.is_class):
            self._apps(target.id, value)
            self._django_setting(target.id, value, target.lineno)
        elif isinstance(target, ast.Attribute):
            if kind_of(meaning(target.value, self.scope)) == "Conf":
                self._setting(f"conf.{target.attr}", target.attr, value, target.lineno)
            else:
                self._django_setting(target.attr, value, target.lineno)
        elif isinstance(target, ast.Subscript):
            self._item_assigned(target, value)

    def _item_assigned(self, target: ast.Subscript, value: ast.expr) -> None:
        """``conf["x"] = …``, and an entry of the beat schedule."""
        whole = target.value
        if kind_of(meaning(whole, self.scope)) == "Conf":
            if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
                self._setting(f"conf.{target.slice.value}", target.slice.value, value, target.lineno)
        elif self._is_schedule(whole):
            self._schedule_changed(whole)
            self.say_all(settings_read.of_entry(value, self.scope))

    def _is_schedule(self, node: ast.expr) -> bool:
        """By what it is, or by its name."""
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        is_named = name == "beat_schedule" or coverage.known_setting(name) == "beat_schedule"
        return is_named or kind_of(meaning(node, self.scope)) == "Conf.beat_schedule"

    def _schedule_changed(self, node: ast.expr) -> None:
        """A plain name in a function is a dict that it makes, unless it is known to be the app's."""
        is_the_apps = kind_of(meaning(node, self.scope)) == "Conf.beat_schedule"
        if is_the_apps or (isinstance(node, ast.Attribute) and self._is_schedule(node)):
            self._changed("beat_schedule", node.lineno)

    def _changed(self, name: str, line: int) -> None:
        """A setting that counts is changed by code that may run at any time."""
        counts = coverage.setting(name) == COVERED and name not in coverage.READ_LIVE
        if counts and self.functions and not any(map(self._is_setup, self.functions)):
            self.say(line, f"{name}, changed", coverage.AT_THE_START)

    def _is_setup(self, node: FunctionNode) -> bool:
        """Whether it runs once, when a process starts: it makes an app, or is told that one is made."""
        told = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
        if node.name == "ready" or any(kind_of(meaning(one, self.scope)) == "AppSignal.connect" for one in told):
            return True
        makes = any(kind_of(meaning(one, self.scope)) == "App" for one in ast.walk(node) if isinstance(one, ast.Call))
        return makes or node.name in self._connected()

    def _connected(self) -> set[str]:
        """The names of functions that are connected to something in this file."""
        return {
            arg.id
            for one in ast.walk(self.scope.source.tree)
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "connect"
            for arg in one.args
            if isinstance(arg, ast.Name)
        }

    def _settings_as_keywords(self, node: ast.Call) -> None:
        """``override_settings(CELERY_TASK_ALWAYS_EAGER=True)``, and whatever else is given settings by name."""
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._django_setting(keyword.arg, keyword.value, keyword.lineno)

    def _django_setting(self, name: str, value: ast.expr, line: int) -> None:
        known = coverage.known_setting(name)
        if known is not None and (not name.startswith("BROKER_") or name.startswith(OLD_BROKER)):
            self.say_all(settings_read.of_setting(name, known, value, line, self.scope))

    def _setting(self, shown: str, name: str, value: ast.expr | None, line: int) -> None:
        known = coverage.known_setting(name) or name.lower()
        if value is not None:
            self._changed(known, line)
        self.say_all(settings_read.of_setting(shown, known, value, line, self.scope))

    def _apps(self, name: str, value: ast.expr) -> None:
        """INSTALLED_APPS, and the lists that it is made of."""
        if not name.endswith("APPS"):
            return
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                top = node.value.split(".")[0]
                if not self.project.owns(top):
                    self.say(node.lineno, f"{name}: {node.value}", coverage.INSTALLED.judge(top))


def _is_unknown(of: Meaning) -> bool:
    """Whether it comes from elsewhere, but for Celery."""
    return of is None or (isinstance(of, Name) and not of.is_celery)


def _alias(kind: str) -> str:
    return "Task" if kind == "TaskClass" else kind


def _members(kind: str) -> Section | None:
    return coverage.MEMBERS.get(_alias(kind))
