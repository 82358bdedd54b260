"""Celery's small helpers, as far as projects use them."""

import uuid as _uuid


def uuid() -> str:
    """A new id, as for ``task_id=``."""
    return str(_uuid.uuid4())


gen_unique_id = uuid
