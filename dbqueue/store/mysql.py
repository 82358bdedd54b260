"""MySQL 8 and MariaDB 10.6 or newer: the portable path, and their clock."""

import datetime
import math
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from .base import Store


class MySQLStore(Store):
    def clock(self) -> datetime.datetime:
        # NOW() follows the session's time zone, which Django leaves alone here; stored times are UTC under USE_TZ.
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT UTC_TIMESTAMP(6)" if settings.USE_TZ else "SELECT NOW(6)")
            moment: datetime.datetime = cursor.fetchone()[0]
        return moment.replace(tzinfo=datetime.UTC) if settings.USE_TZ else moment

    @contextmanager
    def waiting_at_most(self, seconds: float) -> Iterator[None]:
        with self.connection.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {max(1, math.ceil(seconds))}")
        try:
            yield
        finally:
            with self.connection.cursor() as cursor:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = DEFAULT")
