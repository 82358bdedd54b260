"""Warnings that name the line of whoever called."""

import sys
import warnings


def warn(text: str) -> None:
    """Of the nearest line that is not dbqueue's own."""
    level, frame = 2, sys._getframe(1)
    while frame.f_globals.get("__name__", "").startswith("dbqueue.") and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
