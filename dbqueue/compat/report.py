"""What ``dbqueue_migrate_celery --check`` prints: uses by verdict and reason, each by file and line, and a summary."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .coverage import Verdict
from .meanings import Project
from .sources import Unreadable, read
from .uses import Use, uses

HEADINGS = {
    Verdict.MISSING: "MISSING: it does not work when the imports are changed",
    Verdict.DIFFERS: "DIFFERS: it works, and not in the same way",
    Verdict.LOOK: "LOOK HERE YOURSELF: it can't be decided by reading",
    Verdict.COVERED: "COVERED",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in ``files`` files."""

    files: int
    uses: list[Use]
    unreadable: list[Unreadable]

    def of(self, verdict: Verdict) -> list[Use]:
        """The uses of one verdict, in the order of files and lines."""
        return [use for use in self.uses if use.judgement.verdict is verdict]

    def lines(self, *, with_covered: bool = False) -> Iterator[str]:
        """As text. Covered uses are counted by name; with ``with_covered`` they are listed as the others are."""
        for verdict, heading in HEADINGS.items():
            found = self.of(verdict)
            if found and (verdict is not Verdict.COVERED or with_covered):
                yield heading
                yield from _by_reason(found)
        if self.unreadable:
            yield "NOT READ"
            yield from (f"  {one.path}: {one.reason}" for one in self.unreadable)
            yield ""
        yield from self._summary()

    def _summary(self) -> Iterator[str]:
        covered, differs, missing, look = (len(self.of(verdict)) for verdict in Verdict)
        with_uses = len({use.path for use in self.uses})
        yield f"{_many(self.files, 'file')} read, {with_uses} of them with {_many(len(self.uses), 'use')} of Celery:"
        yield (
            f"{covered} covered, {differs} {'differs' if differs == 1 else 'differ'}, {missing} missing, "
            f"{look} to look at yourself; {_many(len(self.unreadable), 'file')} could not be read."
        )


def check(path: Path) -> Report:
    """Read a file or a folder. Raises FileNotFoundError, OSError."""
    sources, unreadable = read(path)
    return Report(len(sources), uses(Project(sources)), unreadable)


def _by_reason(found: list[Use]) -> Iterator[str]:
    """Each reason once, below it the names that it is true of, and their places; the most frequent first."""
    reasons: dict[str, list[Use]] = defaultdict(list)
    for use in found:
        reasons[use.judgement.reason].append(use)
    for reason, there in _frequent(reasons):
        yield f"  {reason or 'as in Celery'}"
        names: dict[str, list[Use]] = defaultdict(list)
        for use in there:
            names[use.name].append(use)
        for name, places in _frequent(names):
            yield f"    {name}"
            yield from (f"      {place}" for place in _places(places))
    yield ""


def _frequent(found: dict[str, list[Use]]) -> list[tuple[str, list[Use]]]:
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def _places(there: list[Use]) -> Iterator[str]:
    lines: dict[str, list[int]] = defaultdict(list)
    for use in there:
        lines[use.path].append(use.line)
    for path, numbers in lines.items():
        yield f"{path}:{', '.join(map(str, numbers))}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
