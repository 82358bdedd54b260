"""What workers do for this app. dbqueue imports the ``tasks.py`` of each installed app."""

from django.db import transaction

from dbqueue import task

from . import sources
from .models import Function, Import, SourceFile


@task
def analyse(name: str) -> int:
    """Parse one file of the library, store what is in it, and return the number of its functions."""
    source = sources.read(name)
    problem = ""
    try:
        found = sources.parse(source)
    except (SyntaxError, ValueError) as exc:
        # Some files are broken on purpose, for tests. That is a finding about the file and no failure of the job.
        found, problem = sources.Contents(lines=len(source.splitlines())), f"{type(exc).__name__}: {exc}"
    # A job may run twice: when its worker dies before the result is written. So it replaces what it stored before.
    with transaction.atomic():
        file, _ = SourceFile.objects.update_or_create(
            name=name, defaults={"lines": found.lines, "classes": found.classes, "problem": problem}
        )
        file.functions.all().delete()
        file.imports.all().delete()
        Function.objects.bulk_create(
            Function(file=file, name=function, first_line=first, lines=lines)
            for function, first, lines in found.functions
        )
        Import.objects.bulk_create(Import(file=file, module=module) for module in sorted(found.imports))
    return len(found.functions)
