"""Tasks that give the operator's pages something to show: progress, a log, a workflow, a schedule, a failure."""

from dbqueue import Context, every, task
from example_project.library import sources
from example_project.library.models import Function, SourceFile


@task(queue_name="reports", takes_context=True)
def survey(context: Context, package: str) -> dict[str, int]:
    """Count the functions in every file of one package, telling how far it is."""
    names = [name for name in sources.names() if name.startswith(f"{package}/")]
    functions = unreadable = 0
    for number, name in enumerate(names):
        context.progress(number, len(names), name)
        try:
            functions += len(sources.parse(sources.read(name)).functions)
        except (SyntaxError, ValueError):
            unreadable += 1
    context.log("%s: %d functions in %d files, %d of them unreadable", package, functions, len(names), unreadable)
    return {package: functions}


@task(queue_name="reports")
def rank(surveys: list[dict[str, int]]) -> dict[str, int]:
    """Put surveys together, the largest package first."""
    together = {package: functions for one in surveys for package, functions in one.items()}
    return dict(sorted(together.items(), key=lambda item: -item[1]))


@task(max_attempts=2, backoff=5)
def count_lines(name: str) -> int:
    """Fails, and is tried once more, where the library has no such file."""
    return len(sources.read(name).splitlines())


@task(queue_name="reports", schedule=every(minutes=1))
def count_findings() -> dict[str, int]:
    """What `make demo` has stored."""
    return {"files": SourceFile.objects.count(), "functions": Function.objects.count()}
