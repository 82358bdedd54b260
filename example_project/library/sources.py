"""Which files there are, and what stands in one of them. No database here."""

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
INSTALLED = Path(sysconfig.get_path("purelib"))
FEWEST = 1000
"""Files to find at least. Some systems ship Python without its tests; then what is installed beside it counts."""


@dataclass
class Contents:
    """What one file holds: functions as (name, first line, number of lines), and the modules that it imports."""

    lines: int
    classes: int = 0
    functions: list[tuple[str, int, int]] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)


def names() -> list[str]:
    """The names of the files, in order; every one of the standard library is among them."""
    found = sorted(_below(STANDARD_LIBRARY))
    return found if len(found) >= FEWEST else sorted({*found, *_below(INSTALLED)})


def read(name: str) -> bytes:
    """The bytes of the file with this name. Raises FileNotFoundError, also for a name that leads out of the library."""
    if not PurePath(name).is_absolute() and ".." not in PurePath(name).parts:
        for root in (STANDARD_LIBRARY, INSTALLED):
            if (root / name).is_file():
                return (root / name).read_bytes()
    raise FileNotFoundError(f"The library has no file {name!r}.")


def parse(source: bytes) -> Contents:
    """Raises SyntaxError or ValueError for what this Python can't parse."""
    found = Contents(lines=len(source.splitlines()))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name, lineno=first) | ast.AsyncFunctionDef(name, lineno=first):
                found.functions.append((name, first, (node.end_lineno or first) - first + 1))
            case ast.ClassDef():
                found.classes += 1
            case ast.Import(aliases):
                found.imports.update(alias.name for alias in aliases)
            case ast.ImportFrom(module, level=level):
                found.imports.add("." * level + (module or ""))
    return found


def _below(root: Path) -> Iterator[str]:
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if not {"site-packages", "dist-packages"} & set(name.parts):
            yield name.as_posix()
