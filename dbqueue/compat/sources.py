"""The Python files of a code base, read and parsed; nothing of it is imported."""

import ast
import os
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders that hold somebody else's code; so do those with a pyvenv.cfg, and hidden ones."""


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """One file that was parsed. ``parts`` are its dotted name's, as far up as packages go, or to the folder read."""

    path: str
    parts: tuple[str, ...]
    is_package: bool
    tree: ast.Module

    @property
    def package(self) -> tuple[str, ...]:
        """Where its relative imports begin."""
        return self.parts if self.is_package else self.parts[:-1]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be parsed, and why."""

    path: str
    reason: str


def read(path: Path) -> tuple[list[Source], list[Unreadable]]:
    """All Python files of a folder, or this one. Raises FileNotFoundError, OSError of a folder that can't be read."""
    if not path.exists():
        raise FileNotFoundError(f"PATH is {str(path)!r}; it must be a file or a folder that exists.")
    root = _root(_absolute(path))
    sources: list[Source] = []
    unreadable: list[Unreadable] = []
    for file in _files(path):
        found = _parsed(file, root)
        if isinstance(found, Source):
            sources.append(found)
        else:
            unreadable.append(found)
    return sources, unreadable


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, folders, files in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if _is_own(Path(folder, name)))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def _refuse(error: OSError) -> None:
    raise error


def _is_own(folder: Path) -> bool:
    return folder.name not in LEFT_OUT and not folder.name.startswith(".") and not (folder / "pyvenv.cfg").exists()


def _parsed(file: Path, root: Path) -> Source | Unreadable:
    try:
        with tokenize.open(file) as opened:
            text = opened.read()
        with warnings.catch_warnings():
            # Its invalid escapes are no business of ours.
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as exc:
        line = f"line {exc.lineno}: " if exc.lineno else ""
        return Unreadable(str(file), f"{line}{exc.msg}")
    except (OSError, ValueError, RecursionError) as exc:
        return Unreadable(str(file), str(exc) or type(exc).__name__)
    relative = _absolute(file).relative_to(root).with_suffix("").parts
    is_package = relative[-1] == "__init__"
    return Source(str(file), relative[:-1] if is_package else relative, is_package, tree)


def _root(path: Path) -> Path:
    """The folder above the outermost package that holds ``path``; its own name is a part, it may be a package too."""
    folder = path.parent
    while (folder / "__init__.py").exists() and folder.parent != folder:
        folder = folder.parent
    return folder


def _absolute(path: Path) -> Path:
    """Links are not followed: a file has the place at which it was found."""
    return Path(os.path.abspath(path))
