"""Celery's signals, with Celery's arguments. ``connect`` is also a decorator, with or without ``sender=``.

``task_prerun``, ``task_postrun``, ``task_success``, ``task_failure`` and ``task_retry`` are sent
on the job's thread, around the task; ``before_task_publish``, ``after_task_publish`` by who enqueues;
``task_revoked``, ``worker_init``, ``worker_process_init``, ``worker_ready``, ``worker_shutting_down`` and
``worker_shutdown`` where dbqueue tells of it. Those in ``NEVER_SENT`` have nothing here that they could tell of.
"""

import logging
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal as _Signal

logger = logging.getLogger("dbqueue.job")


class Signal(_Signal):
    """Django's, which a decorator may connect to; a receiver's error is logged and changes nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def connect(  # type: ignore[override]  # it is a decorator, too
        self, receiver: Any = None, sender: Any = None, weak: bool = False, **kwargs: Any
    ) -> Any:
        """``connect(receiver, sender=…)``, ``@connect`` or ``@connect(sender=…)``."""
        kwargs.pop("retry", None)
        if callable(receiver):
            super().connect(receiver, _one(sender), weak=weak, **kwargs)
            return receiver

        def decorate(receiver: Callable[..., Any]) -> Callable[..., Any]:
            self.connect(receiver, sender, weak, **kwargs)
            return receiver

        return decorate

    def disconnect(self, receiver: Any = None, sender: Any = None, dispatch_uid: Any = None) -> bool:
        return super().disconnect(receiver, _one(sender), dispatch_uid)

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """To those of this sender, which may be a text: before_task_publish has a task's name."""
        return self.send_robust(sender=_one(sender), signal_name=self.name, **named)


_texts: dict[str, str] = {}


def _one(sender: Any) -> Any:
    """Of equal texts always the same: Django knows senders by their identity."""
    return _texts.setdefault(sender, sender) if isinstance(sender, str) else sender


before_task_publish = Signal("before_task_publish")
after_task_publish = Signal("after_task_publish")
task_prerun = Signal("task_prerun")
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_failure = Signal("task_failure")
task_retry = Signal("task_retry")
task_revoked = Signal("task_revoked")
worker_init = Signal("worker_init")
worker_process_init = Signal("worker_process_init")
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down")
worker_process_shutdown = Signal("worker_process_shutdown")
worker_shutdown = Signal("worker_shutdown")

task_received = Signal("task_received")
task_rejected = Signal("task_rejected")
task_unknown = Signal("task_unknown")
task_internal_error = Signal("task_internal_error")
worker_before_create_process = Signal("worker_before_create_process")
beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
celeryd_init = Signal("celeryd_init")
celeryd_after_setup = Signal("celeryd_after_setup")
setup_logging = Signal("setup_logging")
after_setup_logger = Signal("after_setup_logger")
after_setup_task_logger = Signal("after_setup_task_logger")
heartbeat_sent = Signal("heartbeat_sent")
eventlet_pool_started = Signal("eventlet_pool_started")
user_preload_options = Signal("user_preload_options")
import_modules = Signal("import_modules")

NEVER_SENT = (
    task_received,
    task_rejected,
    task_unknown,
    task_internal_error,
    worker_before_create_process,
    beat_init,
    beat_embedded_init,
    celeryd_init,
    celeryd_after_setup,
    setup_logging,
    after_setup_logger,
    after_setup_task_logger,
    heartbeat_sent,
    eventlet_pool_started,
    user_preload_options,
    import_modules,
)
"""A system check names those of them that have receivers."""
