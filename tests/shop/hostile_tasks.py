"""Tasks that do what no job should. Found only where DBQUEUE['TASK_MODULES'] names this module."""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from dbqueue import task


class Nameless(type):
    """Makes classes that don't tell what they are called."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__name__", "__qualname__"):
            raise cls  # type: ignore[misc]
        return super().__getattribute__(name)


class Unnamed(Exception, metaclass=Nameless):
    pass


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def chained(length: int) -> Exception:
    error = ValueError("the first")
    for _ in range(length):
        following = ValueError("another")
        following.__cause__ = error
        error = following
    return error


@task
def raise_it(kind: str) -> None:
    match kind:
        case "class without a name":
            raise Unnamed
        case "module that is no text":
            raise type("Odd", (Exception,), {"__module__": 5})("odd")
        case "name that no column holds":
            odd = type("Odd", (Exception,), {})
            odd.__qualname__ = "Odd\x00\ud800" * 100
            raise odd("odd")
        case "group":
            raise BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("one of them")])
        case "huge message":
            raise ValueError("it begins here " + "x" * 10_000_000 + " and ends here")
        case "many lines":
            raise ValueError("\n".join(f"line {number}" for number in range(100_000)))
        case "chain":
            raise chained(2000)
        case "no words":
            raise Interrupting
        case "memory":
            bytearray(2**62)
        case "signal handler":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


@task
async def raise_later(kind: str) -> None:
    await asyncio.sleep(0)
    raise {"interrupt": KeyboardInterrupt, "exit": SystemExit, "cancelled": asyncio.CancelledError}[kind]


@task
def spoil(kind: str) -> None:
    """Do something to the process that its other jobs could feel."""
    match kind:
        case "closes stdout":
            sys.stdout.close()
        case "closes stderr":
            sys.stderr.close()
        case "loses both":
            sys.stdout = sys.stderr = None
        case "folder":
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
        case "thread":
            threading.Thread(target=threading.Event().wait).start()


@task
def speak(words: str) -> str:
    print(words)
    logging.getLogger(__name__).warning(words)
    return words


@task
def fork(end: str, folder: str) -> list[int]:
    """Fork, as a program does that makes a daemon of itself. Returns how the child ended."""
    child = os.fork()
    if child == 0:
        (Path(folder) / "child").touch()
        match end:
            case "returns":
                return [0]
            case "raises":
                raise ValueError("of the child")
            case "exits":
                sys.exit(5)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@task
def give_megabytes(size: int) -> str:
    return "x" * size * 1_000_000


@task
def end_the_process() -> None:
    os._exit(7)
