"""A worker's processes, all of them, as Linux shows them: those of the sessions that it was started in."""

import os
import re
from collections.abc import Collection
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
"""A second of CPU, as /proc counts it."""

# What follows the name in /proc/PID/stat, counted from the state.
_STATE, _SESSION, _TIMES = 0, 3, slice(11, 15)


def members(sessions: Collection[int]) -> list[int]:
    """The processes of the sessions that have not ended."""
    return [pid for pid in _all() if (stat := _stat(pid)) and int(stat[_SESSION]) in sessions and stat[_STATE] != "Z"]


def cpu(sessions: Collection[int]) -> float:
    """Seconds of CPU, user and system, of all its processes and of the children that they have waited for."""
    stats = [stat for pid in members(sessions) if (stat := _stat(pid))]
    return sum(int(ticks) for stat in stats for ticks in stat[_TIMES]) / _TICKS


def memory(sessions: Collection[int]) -> float:
    """MiB of all its processes: proportional set size, so that a page which they share counts once."""
    return sum(map(_pss, members(sessions))) / 1024


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []  # ended since the folder was read
    # The name stands in brackets and may hold anything, brackets as well.
    return text.rpartition(")")[2].split()


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0
