"""What the expressions of a code base are, as far as reading tells: Celery's names, apps, tasks, results, signatures.

Names are followed through imports, assignments and returns, over all files that were read. What is bound to several
things, or comes from elsewhere, is unknown: None.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from .coverage import before_the_move
from .sources import Source

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Name:
    """What was imported, by its dotted path; of a relative import the first part is empty."""

    path: tuple[str, ...]

    @property
    def is_celery(self) -> bool:
        return self.path[0] == "celery"


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of one of the kinds of ``coverage.MEMBERS``, or a method of one: ``Task.delay``."""

    kind: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the code base. What it returns is what a call of it is."""

    node: FunctionNode
    scope: "Scope" = field(hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the code base that is none of Celery's; tasks may be members of it."""

    node: ast.ClassDef
    scope: "Scope" = field(hash=False, compare=False)


Meaning: TypeAlias = Name | Thing | Function | Class | None

PROPERTIES = {
    "App.Task": "TaskClass",
    "App.conf": "Conf",
    "App.control": "Control",
    "App.current_task": "Task",
    "App.on_after_configure": "AppSignal",
    "App.on_after_finalize": "AppSignal",
    "App.task": "Decorator",
    "GroupResult.parent": "Result",
    "Result.parent": "Result",
    "Task.app": "App",
    "Task.request": "Request",
    "TaskClass.app": "App",
    "TaskClass.request": "Request",
}
"""What members are that are no methods."""

SIGNATURES = ("Signature", "Chain", "Chord", "Chunks", "Group")
"""Calls that have not been made."""

RETURNS = {
    "App.AsyncResult": "Result",
    "App.GroupResult": "GroupResult",
    "App._get_current_object": "App",
    "App.register_task": "Task",
    "App.send_task": "Result",
    "App.signature": "Signature",
    "Chain.__call__": "Result",
    "Chord.__call__": "Result",
    "Chunks.__call__": "GroupResult",
    "Chunks.group": "Group",
    "Control.inspect": "Inspect",
    "Group.__call__": "GroupResult",
    "GroupResult.__call__": "GroupResult",
    "GroupResult.restore": "GroupResult",
    "Task.AsyncResult": "Result",
    "Task.chunks": "Chunks",
    "Task.map": "Signature",
    "Task.s": "Signature",
    "Task.si": "Signature",
    "Task.signature": "Signature",
    "Task.starmap": "Signature",
    "Task.subtask": "Signature",
    **{
        f"{kind}.{name}": "Result"
        for kind in ("Task", "Signature", "Chain", "Chord")
        for name in ("delay", "apply_async", "apply")
    },
    **{f"{kind}.{name}": "GroupResult" for kind in ("Group", "Chunks") for name in ("delay", "apply_async", "apply")},
    **{f"{kind}.{name}": kind for kind in SIGNATURES for name in ("set", "clone", "on_error")},
}
"""What a call of a method gives."""

MADE = {
    "AsyncResult": "Result",
    "Celery": "App",
    "Task": "Task",
    "app_or_default": "App",
    "Control": "Control",
    "EagerResult": "Result",
    "GroupResult": "GroupResult",
    "Inspect": "Inspect",
    "ResultSet": "GroupResult",
    "Signature": "Signature",
    "chain": "Chain",
    "chord": "Chord",
    "chunks": "Chunks",
    "group": "Group",
    "maybe_signature": "Signature",
    "signature": "Signature",
    "subtask": "Signature",
    "xmap": "Signature",
    "xstarmap": "Signature",
}
"""What a call of Celery's own names gives, by the last part of their path."""

HELD = {"GroupResult": "GroupResult", "current_app": "App", "current_task": "Task", "shared_task": "Decorator"}
"""What Celery's own names are."""

ANNOTATED = {
    "AsyncResult": "Result",
    "Celery": "App",
    "Context": "Request",
    "GroupResult": "GroupResult",
    "Task": "Task",
}
"""What a parameter is that is annotated with one of Celery's classes."""

OF_AN_APP = ("autodiscover_tasks", "config_from_object")
"""Methods that nothing but an app has, however it was made."""

Bound: TypeAlias = Name | Thing | FunctionNode | ast.ClassDef | ast.expr | None


class Scope:
    """The names of a module, a class or a function, and all that each is bound to.

    ``kind`` is what ``self`` is in the methods of a class; ``apps`` are names on which something is called that only an
    app has.
    """

    def __init__(self, source: Source, parent: "Scope | None", project: "Project") -> None:
        self.source = source
        self.parent = parent
        self.project = project
        self.is_class = False
        self.kind: Thing | None = None
        self.bound: dict[str, list[Bound]] = defaultdict(list)
        self.stars: list[Name] = []
        self.apps: set[str] = set()
        self._known: dict[str, Meaning] = {}

    def find(self, name: str) -> Meaning:
        """What the name means here: None where it is unknown, or bound to different things."""
        if name not in self.bound:
            return self._beyond(name)
        if name not in self._known:
            self._known[name] = None  # so that what is defined by itself comes to an end
            # What is None first, and something later, is that.
            said = [bound for bound in self.bound[name] if not _is_none(bound)]
            found = _agreed(self._meaning_of(bound) for bound in said)
            self._known[name] = Thing("App") if found is None and name in self.apps else found
        return self._known[name]

    def expression(self, name: str) -> ast.expr | None:
        """The one expression that the name is bound to, here or further out."""
        if name not in self.bound:
            return None if self.parent is None else self.parent.expression(name)
        found = self.bound[name]
        return found[0] if len(found) == 1 and isinstance(found[0], ast.expr) else None

    @property
    def is_in_a_function(self) -> bool:
        """Whether it is one's, or stands inside of one."""
        return self.parent is not None and (not self.is_class or self.parent.is_in_a_function)

    def is_parameter(self, name: str) -> bool:
        """Whether it is one of a function around it, of which it is known what it is."""
        outer: Scope | None = self
        while outer is not None and (outer.is_class or name not in outer.bound):
            outer = outer.parent
        return outer is not None and all(isinstance(bound, Thing) for bound in outer.bound[name])

    def _beyond(self, name: str) -> Meaning:
        for star in self.stars:
            if (found := self.project.resolve(Name((*star.path, name)))) is not None and found != Name(
                (*star.path, name)
            ):
                return found
        outer = self.parent
        while outer is not None and outer.is_class:
            outer = outer.parent
        return None if outer is None else outer.find(name)

    def _meaning_of(self, bound: Bound) -> Meaning:
        if isinstance(bound, Name):
            return self.project.resolve(bound)
        if isinstance(bound, ast.FunctionDef | ast.AsyncFunctionDef):
            return Thing("Task") if self.is_task(bound) else Function(bound, self)
        if isinstance(bound, ast.ClassDef):
            return class_kind(bound, self) or Class(bound, self)
        return bound if bound is None or isinstance(bound, Thing) else meaning(bound, self)

    def self_kind(self) -> "Thing | None":
        """What ``self`` is in the class around it."""
        outer: Scope | None = self
        while outer is not None and not outer.is_class:
            outer = outer.parent
        return None if outer is None else outer.kind

    def is_task(self, node: FunctionNode) -> bool:
        return any(makes_tasks(meaning(decorator, self)) for decorator in node.decorator_list)


class Project:
    """All files that were read, found by their dotted names."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = list(sources)
        self._by_end: dict[tuple[str, ...], list[Source]] = defaultdict(list)
        self._scopes: dict[Source, Scope] = {}
        self._inner: dict[ast.AST, Scope] = {}
        self._returned: dict[FunctionNode, Meaning] = {}
        self._imported: set[Source] | None = None
        for source in self.sources:
            for start in range(len(source.parts)):
                self._by_end[source.parts[start:]].append(source)

    def scope(self, source: Source) -> Scope:
        """The names of a module."""
        if source not in self._scopes:
            self._scopes[source] = filled(Scope(source, None, self), source.tree.body)
        return self._scopes[source]

    def inner(self, node: FunctionNode | ast.ClassDef | ast.Lambda, outer: Scope) -> Scope:
        """The names of a class or a function."""
        if node not in self._inner:
            self._inner[node] = _inner(node, outer)
        return self._inner[node]

    def returned(self, function: Function) -> Meaning:
        """What a call of it gives, where all its returns agree."""
        node = function.node
        if node not in self._returned:
            self._returned[node] = None  # so that what returns itself comes to an end
            scope = self.inner(node, function.scope)
            self._returned[node] = _agreed(meaning(value, scope) for value in _Returns(node).values)
        return self._returned[node]

    def owns(self, top: str) -> bool:
        """Whether a file or package of this name was read."""
        return (top,) in self._by_end or any(top in source.parts for source in self.sources)

    def is_imported(self, source: Source) -> bool:
        """Whether another file that was read imports it, or a name from it, or names it as text, as settings are."""
        if self._imported is None:
            self._imported = {found for one in self.sources for found in self._imports(one)}
        return source in self._imported

    def _imports(self, source: Source) -> Iterator[Source]:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                paths = [tuple(alias.name.split(".")) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (base := imported_from(node, source)) not in ((), ("",)):
                paths = [base, *((*base, alias.name) for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
                paths = [tuple(node.value.split("."))]
            else:
                continue
            found = (self._module(path) for path in paths if path[0] != "celery")
            yield from (one for one in found if one is not None and one is not source)

    def defines(self, name: str) -> bool:
        """Whether a module that was read has a function of this name."""
        return any(
            isinstance(bound, ast.FunctionDef | ast.AsyncFunctionDef)
            for source in self.sources
            for bound in self.scope(source).bound.get(name, ())
        )

    def resolve(self, name: Name) -> Meaning:
        """What the path leads to: one of Celery's names, what a module that was read binds, or the path itself."""
        name = Name(before_the_move(name.path))
        if name.is_celery:
            held = HELD.get(name.path[-1])
            return name if held is None else Thing(held)
        return self._member(name) if len(name.path) > 1 else name

    def _member(self, name: Name) -> Meaning:
        path = name.path
        if self._module(path) is not None:
            return name
        source = self._module(path[:-1])
        if source is None:
            return name
        scope = self.scope(source)
        return scope.find(path[-1]) if path[-1] in scope.bound or scope.stars else name

    def _module(self, path: tuple[str, ...]) -> Source | None:
        """The one file that such a path names; of several the one that lies highest, if it is one."""
        exact = path[0] == ""
        found = [one for one in self._by_end.get(path[1:] if exact else path, ()) if not exact or one.parts == path[1:]]
        found.sort(key=lambda one: len(one.parts))
        is_one = len(found) == 1 or (len(found) > 1 and len(found[0].parts) < len(found[1].parts))
        return found[0] if is_one else None


def meaning(node: ast.expr | None, scope: Scope) -> Meaning:
    """What an expression is."""
    match node:
        case ast.Name(id=name):
            return scope.find(name)
        case ast.Attribute(value=value, attr=attr):
            return _member(meaning(value, scope), attr, scope)
        case ast.Call():
            return _called(node, scope)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            is_chain = any(kind_of(meaning(side, scope)) in SIGNATURES for side in (left, right))
            return Thing("Chain") if is_chain else None
        case ast.Subscript(value=value):
            return _item(kind_of(meaning(value, scope)))
        case ast.Await(value=value) | ast.NamedExpr(value=value):
            return meaning(value, scope)
        case ast.IfExp(body=body, orelse=orelse):
            return _agreed((meaning(body, scope), meaning(orelse, scope)))
    return None


def kind_of(of: Meaning) -> str:
    """Its kind; empty for what has none."""
    return of.kind if isinstance(of, Thing) else ""


def makes_tasks(of: Meaning) -> bool:
    """Whether what it decorates is a task: Celery's decorators, and functions that return what those make."""
    if isinstance(of, Function):
        given = of.scope.project.returned(of)
        return kind_of(given) in ("Decorator", "Task") or (isinstance(given, Function) and makes_tasks(given))
    return kind_of(of) == "Decorator"


def class_kind(node: ast.ClassDef, scope: Scope) -> Meaning:
    """A class of tasks, or of apps; None for another."""
    for base in node.bases:
        of = meaning(base, scope)
        for name, kind in (("Task", "TaskClass"), ("Celery", "AppClass")):
            if of == Thing(kind) or (isinstance(of, Name) and of.is_celery and of.path[-1] == name):
                return Thing(kind)
    return None


def is_task_class(of: Meaning) -> bool:
    """Whether tasks can have it as their base: Celery's own class, an app's, or one made of these."""
    return of == Thing("TaskClass") or (isinstance(of, Name) and of.is_celery and of.path[-1] == "Task")


def is_local(node: FunctionNode, scope: Scope) -> bool:
    """Whether it is a function that another makes, under a name of its own: ``functools.wraps`` gives it another's."""
    return scope.is_in_a_function and not any(map(_wraps, node.decorator_list))


def is_named(call: ast.expr) -> bool:
    """Whether a decorator, or the call of one, says ``name=``."""
    while isinstance(call, ast.Call):
        if any(keyword.arg == "name" for keyword in call.keywords):
            return True
        call = call.func
    return False


def names_local(node: ast.expr, scope: Scope) -> bool:
    """Whether it names such a function, whatever else is bound to the name afterwards."""
    outer: Scope | None = scope
    while outer is not None and isinstance(node, ast.Name) and node.id not in outer.bound:
        outer = outer.parent
    if outer is None or not isinstance(node, ast.Name):
        return False
    return any(isinstance(one, FunctionNode) and is_local(one, outer) for one in outer.bound[node.id])


def _wraps(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(("wraps", "update_wrapper"))


def is_own_task(node: ast.expr, scope: Scope) -> bool:
    """Whether it is ``self`` of a bound task, or of a method of a class of tasks."""
    return isinstance(node, ast.Name) and kind_of(meaning(node, scope)) == "Task" and scope.is_parameter(node.id)


def _member(of: Meaning, attr: str, scope: Scope) -> Meaning:
    if isinstance(of, Name):
        return scope.project.resolve(Name((*of.path, attr)))
    if isinstance(of, Class):
        return _class_member(of, attr)
    if isinstance(of, Thing):
        kind = "Task" if of.kind == "TaskClass" else of.kind
        path = f"{kind}.{attr}"
        return Thing(PROPERTIES.get(path, path))
    return None


def _class_member(of: Class, attr: str) -> Meaning:
    """What it, or one of its bases, binds."""
    inner = of.scope.project.inner(of.node, of.scope)
    if attr in inner.bound:
        return inner.find(attr)
    for base in of.node.bases:
        outer = meaning(base, of.scope)
        # A class that names itself as its base is no class.
        if isinstance(outer, Class) and outer.node is not of.node and (found := _class_member(outer, attr)) is not None:
            return found
    return None


def _is_none(bound: Bound) -> bool:
    return isinstance(bound, ast.Constant) and bound.value is None


def _item(kind: str) -> Meaning:
    return {"App.tasks": Thing("Task"), "GroupResult": Thing("Result")}.get(kind)


def _called(node: ast.Call, scope: Scope) -> Meaning:
    if isinstance(node.func, ast.Name) and node.func.id == "super":
        return scope.self_kind()
    of = meaning(node.func, scope)
    if isinstance(of, Function):
        return scope.project.returned(of)
    if isinstance(of, Name):
        made = MADE.get(of.path[-1]) if of.is_celery else None
        return None if made is None else Thing(made)
    kind = kind_of(of)
    if kind == "Decorator":
        is_given = any(not isinstance(arg, ast.Starred) for arg in node.args)
        return Thing("Task") if is_given else of
    given = {"TaskClass": "Task", "AppClass": "App"}.get(kind) or RETURNS.get(kind) or RETURNS.get(f"{kind}.__call__")
    return None if given is None else Thing(given)


def _agreed(found: Iterable[Meaning]) -> Meaning:
    """What all of them are; None where they differ, or there is none."""
    kinds = list(found)
    return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else None


class _Returns(ast.NodeVisitor):
    """The values that a function returns."""

    def __init__(self, node: FunctionNode) -> None:
        self.values: list[ast.expr | None] = []
        for statement in node.body:
            self.visit(statement)

    def visit_Return(self, node: ast.Return) -> None:
        self.values.append(node.value)

    def visit_FunctionDef(self, node: ast.AST) -> None:
        """What stands inside of others is theirs."""

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef


class _Binder(ast.NodeVisitor):
    """What the statements of one scope bind."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def bind(self, target: ast.expr, value: Bound) -> None:
        if isinstance(target, ast.Name):
            self.scope.bound[target.id].append(value)
        elif isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self.bind(one, None)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, None)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            path = tuple(alias.name.split("."))
            self.scope.bound[alias.asname or path[0]].append(Name(path if alias.asname else path[:1]))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = imported_from(node, self.scope.source)
        for alias in node.names:
            if alias.name == "*":
                self.scope.stars.append(Name(base))
            else:
                self.scope.bound[alias.asname or alias.name].append(Name((*base, alias.name)))

    def visit_FunctionDef(self, node: FunctionNode | ast.ClassDef) -> None:
        self.scope.bound[node.name].append(node)

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.bind(target, node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.bind(node.target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.bind(node.target, node.value)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.attr in OF_AN_APP
        ):
            self.scope.apps.add(node.func.value.id)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.bind(node.target, None)
        self.generic_visit(node)

    visit_AsyncFor = visit_For

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self.bind(node.optional_vars, None)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.scope.bound[node.name].append(None)
        self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        """What stands in for an import that fails is not what the name means."""
        before = set(self.scope.bound)
        for part in (*node.body, *node.orelse, *node.finalbody):
            self.visit(part)
        made = {name: list(bound) for name, bound in self.scope.bound.items() if name not in before}
        for handler in node.handlers:
            self.visit(handler)
        if any(map(_is_of_an_import, node.handlers)):
            self.scope.bound.update(made)

    def visit_Lambda(self, node: ast.AST) -> None:
        """It has names of its own."""

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda


def _is_of_an_import(handler: ast.ExceptHandler) -> bool:
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(handler.type or handler)}
    return handler.type is None or bool(names & {"ImportError", "ModuleNotFoundError"})


def filled(scope: Scope, body: Iterable[ast.stmt]) -> Scope:
    """With all that these statements bind."""
    binder = _Binder(scope)
    for statement in body:
        binder.visit(statement)
    return scope


def imported_from(node: ast.ImportFrom, source: Source) -> tuple[str, ...]:
    """The path of the module that it imports from."""
    module = tuple(node.module.split(".")) if node.module else ()
    if not node.level:
        return module
    package = source.package
    return ("", *package[: len(package) - node.level + 1], *module)


def _inner(node: FunctionNode | ast.ClassDef | ast.Lambda, outer: Scope) -> Scope:
    scope = Scope(outer.source, outer, outer.project)
    if isinstance(node, ast.ClassDef):
        scope.is_class = True
        of = kind_of(class_kind(node, outer))
        scope.kind = {"TaskClass": Thing("Task"), "AppClass": Thing("App")}.get(of)
        return filled(scope, node.body)
    _bind_parameters(node, scope)
    return scope if isinstance(node, ast.Lambda) else filled(scope, node.body)


def _bind_parameters(node: FunctionNode | ast.Lambda, scope: Scope) -> None:
    given = node.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    for parameter in parameters:
        scope.bound[parameter.arg].append(_annotated(parameter, scope))
    for rest in (given.vararg, given.kwarg):
        if rest is not None:
            scope.bound[rest.arg].append(None)
    assert scope.parent is not None
    if isinstance(node, ast.Lambda) or not parameters:
        return
    if (first := _first(node, scope.parent)) is not None:
        scope.bound[parameters[0].arg] = [first]
    for decorator in node.decorator_list:
        for name, told in _told(meaning(_undone(decorator), scope.parent)).items():
            if name in scope.bound:
                scope.bound[name] = [told]


def _told(of: Meaning) -> dict[str, Thing]:
    """What a receiver of a signal is given, by the names of its parameters; nothing for another decorator."""
    if kind_of(of) == "AppSignal.connect":
        return {"sender": Thing("App")}
    if not isinstance(of, Name) or of.path[:2] != ("celery", "signals") or of.path[-1] != "connect":
        return {}
    is_of_a_run = of.path[-2].startswith("task_")
    return {"sender": Thing("Task"), "task": Thing("Task"), "request": Thing("Request")} if is_of_a_run else {}


def _annotated(parameter: ast.arg, scope: Scope) -> Thing | None:
    of = meaning(parameter.annotation, scope.parent) if scope.parent is not None else None
    kind = ANNOTATED.get(of.path[-1]) if isinstance(of, Name) and of.is_celery else None
    return None if kind is None else Thing(kind)


def _first(node: FunctionNode, outer: Scope) -> Thing | None:
    """What ``self`` is: a bound task's, or that of a class of tasks."""
    if any(makes_tasks(meaning(decorator, outer)) and is_bound(decorator) for decorator in node.decorator_list):
        return Thing("Task")
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    return outer.kind if outer.is_class and not names & {"staticmethod", "classmethod"} else None


def is_bound(decorator: ast.expr) -> bool:
    """Whether it says ``bind=True``."""
    return isinstance(decorator, ast.Call) and any(
        keyword.arg == "bind" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in decorator.keywords
    )


def _undone(decorator: ast.expr) -> ast.expr:
    """What is called to make the decorator."""
    return decorator.func if isinstance(decorator, ast.Call) else decorator
