"""Django's own ``tests/tasks`` for the running Django (before 6.0: those of 6.0), on the database of these tests.

Each of its test classes is run as it is, but on a database: ``-rs`` shows what is left out, and why.
"""

import ast
import sys
import unittest
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from django.test import TransactionTestCase

from . import source
from .left_out import LEFT_OUT

FOLDER = source.folder()


def classes() -> "Iterator[tuple[str, type[unittest.TestCase]]]":
    """The module's name and the class, for each test class of Django's."""
    sys.path.insert(0, str(FOLDER))
    try:
        for path in sorted((FOLDER / "tasks").glob("test_*.py")):
            module = import_module(f"tasks.{path.stem}")
            for case in vars(module).values():
                if (
                    isinstance(case, type)
                    and issubclass(case, unittest.TestCase)
                    and case.__module__ == module.__name__
                ):
                    yield path.stem, case
    finally:
        sys.path.remove(str(FOLDER))


def on_a_database(module: str, case: type[unittest.TestCase]) -> type[unittest.TestCase]:
    body: dict[str, Any] = {"__module__": __name__, "databases": {"default"}, "available_apps": None}
    for name in unittest.TestLoader().getTestCaseNames(case):
        if reason := LEFT_OUT.get(f"{module}.{case.__name__}.{name}"):
            body[name] = unittest.skip(reason)(getattr(case, name))
    return type(case.__name__, (case, TransactionTestCase), body)


CASES = {(module, case.__name__): on_a_database(module, case) for module, case in classes()}
globals().update({name: case for (_, name), case in CASES.items()})


def test_each_of_django_s_tests_is_run_or_listed() -> None:
    assert len({name for _, name in CASES}) == len(CASES), "two classes of one name: one would hide the other"
    known = {
        f"{module}.{name}.{test}"
        for (module, name), case in CASES.items()
        for test in unittest.TestLoader().getTestCaseNames(case)
    }
    written = {
        f"{path.stem}.{statement.name}.{function.name}"
        for path in (FOLDER / "tasks").glob("*.py")
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.ClassDef)
        for function in statement.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test")
    }
    assert written
    assert known == written
    assert set(LEFT_OUT) - written == set(), "left out, but not there"
