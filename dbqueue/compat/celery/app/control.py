"""Where Celery has its Control. Needs Django to be ready, as it reads rows."""

from ..control import Control, Inspect

__all__ = ["Control", "Inspect"]
