"""The one task of ``tests.chaos``: it leaves a Run, and then does what its kind says."""

import os
import signal
import sys
import time
import uuid

from django.db import transaction

from dbqueue import Context, task
from dbqueue.models import Job

from . import tasks
from .models import Mark, Run


@task(takes_context=True)
def toil(context: Context, number: int, kind: str, seconds: float) -> str:
    """Leave a Run, work for ``seconds``, and return the run's token. ``number`` is the ledger's."""
    claim = context.claim
    run = Run.objects.create(
        job_id=claim.job_id,
        kind=kind,
        lease=claim.lease,
        worker_id=claim.worker_id,
        attempt=claim.attempt,
        pid=os.getpid(),
        token=uuid.uuid4().hex,
        began=time.time(),
    )
    time.sleep(seconds)
    if kind == "transaction":
        with transaction.atomic():
            for half in ("first", "second"):
                Mark.objects.create(label=f"{run.token} {half}")
    # Before it misbehaves: what is written in a transaction that leaks is rolled back.
    run.ended = time.time()
    run.save(update_fields=["ended"])
    _misbehave(context, run)
    return run.token


def _misbehave(context: Context, run: Run) -> None:
    match run.kind.split(maxsplit=1):
        case ["fail"]:
            raise ValueError(f"meant to fail {run.token}")
        case ["NUL"]:
            raise ValueError(f"a\x00b {run.token}")
        case ["unprintable"]:
            raise tasks.Unprintable
        case ["exit"]:
            sys.exit(f"meant to exit {run.token}")
        case ["leak", how]:
            tasks.leak(how)
        case ["deletes", "itself"]:
            Job.objects.filter(pk=context.claim.job_id).delete()
        case ["killer"] if context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["poison"]:
            os._exit(1)
