"""The tests' settings with a logging filter that raises, as a project's own may."""

import logging

from .settings import *  # noqa: F403


class Broken(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("no log for you")


logging.getLogger("dbqueue.job").addFilter(Broken())
logging.getLogger("dbqueue.job").setLevel(logging.INFO)
