"""Receivers of dbqueue's signals in a worker of the tests: connected where ``SHOP_SIGNALS`` asks for it."""

import os
import sys
import time
from typing import Any

from django.db import connection, transaction
from django.dispatch import Signal

from dbqueue import signals

from .models import Mark

ALL = {name: signal for name, signal in vars(signals).items() if isinstance(signal, Signal)}


def name_of(signal: Signal) -> str:
    return next(name for name, other in ALL.items() if other is signal)


def tell(signal: Signal, sender: Any, **told: Any) -> None:
    """Leave a mark."""
    said = [told.get(name, "") for name in ("job_id", "attempt", "reason", "exception_class_path")]
    Mark.objects.create(label=" ".join(map(str, [name_of(signal), *said])).strip())


def misbehave(kind: str) -> None:
    """Each kind is one that no receiver may do harm with."""
    match kind:
        case "raise":
            raise RuntimeError("a receiver's own error")
        case "exit":
            sys.exit(1)
        case "interrupt":
            raise KeyboardInterrupt
        case "open":
            transaction.atomic().__enter__()
            Mark.objects.create(label="never committed")
        case "broken":
            with connection.cursor() as cursor:
                cursor.execute("SELECT no_such_column")
        case "close":
            connection.close()
        case "slow":
            while not Mark.objects.filter(label="go").exists():
                time.sleep(0.02)


KINDS = ("raise", "exit", "interrupt", "open", "broken", "close")


def bad(signal: Signal, **told: Any) -> None:
    misbehave(os.environ["SHOP_SIGNALS"])


def connect() -> None:
    """``tell``, and a kind of misbehaviour before it where that is asked for: of all signals, or of one."""
    kind, only = os.environ.get("SHOP_SIGNALS"), os.environ.get("SHOP_SIGNALS_OF")
    for name, signal in ALL.items() if kind else ():
        if kind != "tell" and only in (None, name):
            signal.connect(bad)
        signal.connect(tell)
