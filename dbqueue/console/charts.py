"""Charts of the recent past, as numbers that a template draws: plain SVG, coloured by classes."""

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..history import TICK, added, moment_at, quantile, timestamp_of
from ..models import History, JobStatus, Resolution
from . import display

WIDTH = 600
HEIGHT = 120
"""Of the coordinates; the page scales them to the space that there is."""


@dataclass(frozen=True, slots=True)
class Range:
    """How far back charts go, and how fine."""

    name: str
    label: "Promise | str"
    resolution: Resolution
    length: datetime.timedelta

    @property
    def points(self) -> int:
        return int(self.length.total_seconds()) // self.resolution


RANGES = {
    one.name: one
    for one in (
        Range("1h", gettext_lazy("1 hour"), Resolution.MINUTE, datetime.timedelta(hours=1)),
        Range("24h", gettext_lazy("24 hours"), Resolution.TEN_MINUTES, datetime.timedelta(hours=24)),
        Range("7d", gettext_lazy("7 days"), Resolution.HOUR, datetime.timedelta(days=7)),
    )
}


@dataclass(slots=True)
class Point:
    """What ended in one stretch of time."""

    begins_at: datetime.datetime
    minutes: float
    finished: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    waits: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def add(self, row: History) -> None:
        match row.outcome:
            case JobStatus.SUCCESSFUL:
                self.finished += row.count
            case JobStatus.FAILED:
                self.failed += row.count
            case JobStatus.CANCELLED:
                self.cancelled += row.count
            case _:
                self.retried += row.count
        self.waits = added(self.waits, row.waits)
        self.runs = added(self.runs, row.runs)

    @property
    def clock(self) -> str:
        return display.moment(self.begins_at)

    @property
    def figures(self) -> tuple[str, ...]:
        """The columns of the table beside the charts."""
        counts = (self.finished, self.failed, self.retried, self.cancelled)
        spans = (quantile(histogram, share) for histogram in (self.waits, self.runs) for share in (0.5, 0.95))
        return (*(number_format(count) for count in counts), *map(display.seconds, spans))


def points(rows: Iterable[History], chosen: Range, now: datetime.datetime) -> list[Point]:
    """A point for each stretch of the range, the last of them being the one that ``now`` is in."""
    last = timestamp_of(now) // chosen.resolution * chosen.resolution
    begins = [moment_at(last - chosen.resolution * back) for back in reversed(range(chosen.points))]
    made = {begin: Point(begin, chosen.resolution / 60) for begin in begins}
    # The last stretch is not over: by its whole length a steady rate would look like a fall.
    made[begins[-1]].minutes = max(TICK, timestamp_of(now) - last) / 60
    for row in rows:
        if row.begins_at in made:
            made[row.begins_at].add(row)
    return list(made.values())


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, and what it stands for in words."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    said: str


@dataclass(frozen=True, slots=True)
class Line:
    """Pieces of a line: where nothing was measured there is a gap."""

    kind: str
    label: "Promise | str"
    pieces: list[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """``highest``: what the upper edge stands for. ``said``: the chart in a sentence."""

    name: str
    title: "Promise | str"
    highest: str
    said: str
    begins: str
    ends: str
    legend: list[tuple[str, "Promise | str"]]
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def ended(all_points: Sequence[Point]) -> Chart:
    """How many attempts a minute succeeded and failed."""
    highest = max([1.0, *((point.finished + point.failed) / point.minutes for point in all_points)])
    finished, failed = sum(point.finished for point in all_points), sum(point.failed for point in all_points)
    said = gettext_lazy("%(finished)s succeeded, %(failed)s failed; peak %(highest)s per minute") % {
        "finished": number_format(finished, force_grouping=True),
        "failed": number_format(failed, force_grouping=True),
        "highest": _rate(highest),
    }
    bars: list[Bar] = []
    for index, point in enumerate(all_points):
        bars += _stack(index, len(all_points), point, highest)
    legend: list[tuple[str, Promise | str]] = [
        ("finished", gettext_lazy("succeeded")),
        ("failed", gettext_lazy("failed (on top)")),
    ]
    return Chart(
        "ended", gettext_lazy("Jobs per minute"), _rate(highest), str(said), *_edges(all_points), legend, bars=bars
    )


def waited(all_points: Sequence[Point]) -> Chart:
    """How long jobs waited until they were claimed."""
    return _durations("waited", gettext_lazy("Wait before start"), all_points, lambda point: point.waits)


def ran(all_points: Sequence[Point]) -> Chart:
    """How long attempts ran."""
    return _durations("ran", gettext_lazy("Run time"), all_points, lambda point: point.runs)


def _stack(index: int, count: int, point: Point, highest: float) -> list[Bar]:
    """The bars of one stretch: what succeeded, and on top what failed. A failure is always seen."""
    step, floor, bars = WIDTH / count, float(HEIGHT), []
    for kind, label, number in (("finished", _("succeeded"), point.finished), ("failed", _("failed"), point.failed)):
        if number:
            height = max(2.0, number / point.minutes / highest * HEIGHT)
            floor = max(0.0, floor - height)
            said = f"{display.clock(point.begins_at)}: {number_format(number, force_grouping=True)} {label}"
            bars.append(
                Bar(round(index * step, 2), round(floor, 2), round(step * 0.9, 2), round(height, 2), kind, said)
            )
    return bars


def _durations(
    name: str, title: Promise, all_points: Sequence[Point], histogram: Callable[[Point], list[int]]
) -> Chart:
    values = {share: [quantile(histogram(point), share) for point in all_points] for share in (0.5, 0.95)}
    highest = max([0.001, *(value for row in values.values() for value in row if value is not None)])
    all_counts: list[int] = []
    for point in all_points:
        all_counts = added(all_counts, histogram(point))
    said = gettext_lazy("median %(half)s, 95th percentile %(most)s") % {
        "half": display.seconds(quantile(all_counts, 0.5)),
        "most": display.seconds(quantile(all_counts, 0.95)),
    }
    median, most = gettext_lazy("median (solid)"), gettext_lazy("95th percentile (dashed)")
    lines = [Line("p50", median, _pieces(values[0.5], highest)), Line("p95", most, _pieces(values[0.95], highest))]
    legend = [(line.kind, line.label) for line in lines]
    return Chart(name, title, display.seconds(highest), str(said), *_edges(all_points), legend, lines=lines)


def _pieces(values: Sequence[float | None], highest: float) -> list[str]:
    """The points of polylines, one for each run of values without a gap. A single value becomes a short dash."""
    step = WIDTH / len(values)
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            pieces.append([])
            continue
        y = round(HEIGHT * (1 - value / highest), 2)
        if not pieces[-1]:
            pieces[-1].append(f"{round(index * step, 2)},{y}")
        pieces[-1].append(f"{round((index + 0.9) * step, 2)},{y}")
    return [" ".join(piece) for piece in pieces if piece]


def _edges(all_points: Sequence[Point]) -> tuple[str, str]:
    return all_points[0].clock, all_points[-1].clock


def _rate(value: float) -> str:
    return number_format(value, decimal_pos=0 if value >= 10 else 1, force_grouping=True)
