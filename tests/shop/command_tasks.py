"""Tasks of a module that is found only where DBQUEUE['TASK_MODULES'] names it."""

import threading
from concurrent.futures import ThreadPoolExecutor

from dbqueue import task

executor = ThreadPoolExecutor()


@task
def leave_a_thread_busy() -> str:
    """Python waits for the threads of an executor, and for one that is no daemon, before it ends."""
    executor.submit(threading.Event().wait)
    threading.Thread(target=threading.Event().wait).start()
    return "left"
