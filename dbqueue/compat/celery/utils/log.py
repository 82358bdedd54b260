"""Loggers of tasks."""

import logging

task_logger = logging.getLogger("celery.task")


def get_logger(name: str) -> logging.Logger:
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """The logger of this name, below ``celery.task`` as in Celery, unless LOGGING says what becomes of its lines.

    Where it says nothing of ``celery.task`` either, a worker shows them as its own.
    """
    logger = logging.getLogger(name)
    if name not in ("celery", "celery.task") and not logger.handlers and _is_free(logger):
        logger.parent = task_logger
    return logger


def _is_free(logger: logging.Logger) -> bool:
    """Whether nobody has said anything of the loggers between it and the root."""
    above = logger.parent
    while above is not None and above is not logging.root:
        if above is task_logger or above.handlers or above.level or not above.propagate:
            return False
        above = above.parent
    return True
