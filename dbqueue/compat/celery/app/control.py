"""Where Celery has its Control. What it reads are rows: to ask it something needs Django to be ready."""

from ..control import Control, Inspect

__all__ = ["Control", "Inspect"]
