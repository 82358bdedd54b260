"""A fixture for pytest, found by its entry point. Nothing of Django is imported before a test asks for it."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .testing import Jobs


@pytest.fixture
def dbqueue_jobs(db: None) -> "Jobs":
    """Jobs in a test: ``run()``, ``enqueued()``, ``assert_enqueued()``, ``assert_not_enqueued()``.

    It has the database by pytest-django's fixture ``db``, so also in the shape that the mark ``django_db`` asks for.
    """
    from .testing import Jobs

    return Jobs()
