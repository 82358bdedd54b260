"""Loggers of tasks."""

import logging

task_logger = logging.getLogger("celery.task")


def get_logger(name: str) -> logging.Logger:
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """The logger of this name, below ``celery.task`` where it has no handlers of its own above it, as in Celery."""
    logger = logging.getLogger(name)
    if logger.parent is logging.root and name != "celery.task":
        logger.parent = task_logger
    return logger
