"""Tasks that give the operator's pages something to show: progress, a log, a workflow, a schedule, a failure."""

import time

from dbqueue import Context, every, task
from example_project.library import sources
from example_project.library.models import Function, SourceFile


@task(queue_name="reports", takes_context=True)
def survey(context: Context, package: str) -> dict[str, int]:
    """Count the functions in every file of one package, telling how far it is."""
    names = [name for name in sources.names() if name.startswith(f"{package}/")]
    functions = unreadable = 0
    for number, name in enumerate(names, 1):
        try:
            functions += len(sources.parse(sources.read(name)).functions)
        except (SyntaxError, ValueError):
            unreadable += 1
        context.progress(number, len(names), name)
    context.log("%s: %d functions in %d files, %d of them unreadable", package, functions, len(names), unreadable)
    return {package: functions}


@task(queue_name="reports")
def rank(surveys: list[dict[str, int]]) -> dict[str, int]:
    """Put surveys together, the largest package first."""
    together = {package: functions for one in surveys for package, functions in one.items()}
    return dict(sorted(together.items(), key=lambda item: -item[1]))


@task(queue_name="reports", concurrency=1, takes_context=True)
def proofread(context: Context, files: int) -> int:
    """Read a file a second, as somebody quick would, and return the number of lines. Only one runs at once."""
    lines = 0
    for number, name in enumerate(sources.names()[:files], 1):
        context.raise_if_cancelled()
        time.sleep(1)
        lines += len(sources.read(name).splitlines())
        context.progress(number, files, name)
    return lines


@task(max_attempts=2, backoff=5)
def count_lines(name: str) -> int:
    """Fails, and is tried once more, where the library has no such file."""
    return len(sources.read(name).splitlines())


@task(queue_name="reports", schedule=every(minutes=1))
def count_findings() -> dict[str, int]:
    """What `make demo` has stored."""
    return {"files": SourceFile.objects.count(), "functions": Function.objects.count()}
