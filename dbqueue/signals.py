"""What dbqueue tells a project while jobs go their way: signals of Django, to ``connect()`` to.

``sender`` is the task as its module holds it, so one receiver hears of all its variants; None where this process
doesn't know it. Whatever a receiver raises is logged and changes nothing; only a SystemExit keeps a signal from the
receivers after it. Of a job each signal tells ``job_id``, ``task_name``, ``queue_name`` and ``attempt`` (counted from
1; 0 before the first), and what stands in brackets.

On the caller's thread:

- ``job_enqueued`` (``run_after``): after the INSERT, in the caller's transaction; not for a duplicate.
- ``job_cancelled`` (``reason``): somebody has cancelled a job that waited; with the commit. Not for what is cancelled
  because of it.

On the job's thread: ``job_started`` (``worker_id``), before the task.

On a thread of the worker's for signals, after the outcome was written; one that was refused is not told:

- ``job_succeeded`` (``worker_id``).
- ``job_failed`` (``worker_id``, ``exception_class_path``, ``traceback``): for good; also where too many workers
  died of it.
- ``job_retrying`` (the same, and ``delay`` in seconds): it runs again, after an error or, with "", by its own wish.
- ``job_cancelled`` (``reason``): by its own wish or its expiry.
- ``job_rescued``: its worker has died, and it was given back. It is told by whoever rescued it.
- ``worker_ready`` (``worker_id``, ``name``, ``queues``) and ``worker_stopping`` (``worker_id``, ``name``, ``reason``).

Where jobs run inline (``run_jobs()``, ``DBQUEUE["IMMEDIATE"]``) all of it is on the one thread.
"""

from django.dispatch import Signal

job_enqueued = Signal()
job_started = Signal()
job_succeeded = Signal()
job_failed = Signal()
job_retrying = Signal()
job_cancelled = Signal()
job_rescued = Signal()
worker_ready = Signal()
worker_stopping = Signal()
