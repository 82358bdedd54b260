"""Tasks by Celery's names, found only where DBQUEUE['TASK_MODULES'] names this module, or a test imports it."""

import ctypes
import os
import signal
from typing import Any

from dbqueue.compat.celery import Celery, Task, maybe_signature, shared_task, signals
from dbqueue.compat.celery.exceptions import Ignore, Reject
from dbqueue.compat.celery.utils.log import get_task_logger

from .models import Mark

app = Celery("shop")
logger = get_task_logger(__name__)


def mark(label: object) -> None:
    Mark.objects.create(label=str(label)[:100])


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="shop.named", queue="mail", priority=5)
def named() -> str:
    return "named"


@shared_task
def tell() -> None:
    logger.info("told at info")
    logger.debug("told at debug")


@shared_task(bind=True)
def whoami(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "name": self.name,
        "args": request.args,
        "kwargs": request.kwargs,
        "retries": request.retries,
        "tenant": request.get("tenant"),
        "queue": request.delivery_info.get("routing_key"),
        "direct": request.called_directly,
    }


@shared_task(bind=True, max_retries=1)
def tells_its_eta(self: Task, name: str, again: bool = False) -> None:
    mark(f"{name} {'at no time' if self.request.eta is None else 'at its time'}")
    if again and not self.request.retries:
        self.retry(countdown=0)


class Flaky(Exception):
    pass


class Fatal(Flaky):
    pass


@shared_task(bind=True, max_retries=3, default_retry_delay=0)
def by_hand(self: Task, succeed_at: int) -> int:
    mark(f"{self.request.id} {self.request.retries}")
    if self.request.retries < succeed_at:
        try:
            raise Flaky(f"try {self.request.retries}")
        except Flaky as exc:
            raise self.retry(exc=exc, countdown=0) from exc
    return self.request.retries


@shared_task(bind=True, max_retries=9, default_retry_delay=0)
def one_by_one(self: Task, names: list[str], attempt: int = 0, *, day: Any = None) -> str:
    mark(f"{names[0]} {attempt} {day}")
    if names[1:]:
        raise self.retry(args=[names[1:]], kwargs={"attempt": attempt + 1, "day": day})
    return f"{self.request.retries} retries"


@shared_task(bind=True, max_retries=2, default_retry_delay=0)
def again_with(self: Task, x: Any, y: Any = 0, *, say: Any = None) -> list[Any]:
    mark(f"{x} {y}")
    if self.request.retries:
        return [x, y, say]
    raise self.retry(**say)


@shared_task(bind=True, max_retries=1, default_retry_delay=0)
def longer_than_declared(self: Task) -> int:
    if self.request.retries < 3:
        raise self.retry(max_retries=5)
    return self.request.retries


@shared_task(bind=True, max_retries=0)
def never_again(self: Task) -> None:
    raise self.retry()


@shared_task(autoretry_for=(Flaky,), dont_autoretry_for=(Fatal,), max_retries=3, retry_backoff=True, retry_jitter=False)
def automatic(fatal: bool = False) -> None:
    mark("automatic")
    raise (Fatal if fatal else Flaky)("again")


@shared_task(bind=True)
def tells_state(self: Task) -> str:
    self.update_state(state="PROGRESS", meta={"done": 3})
    return "done"


@shared_task(bind=True)
def keeps(self: Task) -> list[Any]:
    self.request.started = 5  # type: ignore[attr-defined]
    request = self.request
    return [request.started, request.get("started"), request.delivery_info["redelivered"], request.get("task")]


@shared_task(track_started=True)
def tracked() -> None: ...


@shared_task
def ignored() -> None:
    raise Ignore("nothing to do")


@shared_task
def rejected() -> None:
    raise Reject("no", requeue=False)


@shared_task(ignore_result=True)
def quiet() -> int:
    return 5


class Hooked(Task):
    """A base whose hooks leave marks."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        mark("before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        mark(f"on_success {retval}")

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        mark(f"on_failure {exc} {type(einfo.exception).__name__}")

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        mark(f"on_retry {exc}")

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        mark(f"after_return {status}")


@shared_task(base=Hooked, bind=True, max_retries=1, default_retry_delay=0)
def hooked(self: Task, how: str) -> str:
    if how == "retry":
        raise self.retry(exc=ValueError("later"))
    if how == "fail":
        raise ValueError("no")
    return how


class Tenant(Task):
    """A base that adds to each call, as projects with tenants have it."""

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        if kwargs and kwargs.pop("leave_out", None):
            return None
        add.delay(1, 2)
        return super().apply_async(args, kwargs, **{**options, "headers": {"tenant": "acme"}, "queue": "acme"})

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        mark(f"own retry {kwargs.get('countdown')}")
        return super().retry(*args, **{**kwargs, "countdown": 0})


@shared_task(base=Tenant, bind=True)
def whose(self: Task, *args: Any) -> list[Any]:
    return [self.request.get("tenant"), *args]


@shared_task(base=Tenant, autoretry_for=(Flaky,), retry_backoff=True, retry_jitter=False, max_retries=2)
def retries_itself() -> None:
    raise Flaky


@shared_task(base=Hooked)
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=Hooked, time_limit=1)
def gets_stuck() -> None:
    ctypes.CDLL(None).usleep(60_000_000)


def failed(sender: Task, task_id: str, exception: BaseException, einfo: Any, **kwargs: Any) -> None:
    name = type(exception).__name__
    mark(f"failed {sender.request.id == task_id} {name} {name in str(einfo)}")


for one in (dies, gets_stuck):
    signals.task_failure.connect(failed, sender=one)


class ByClass(Task):
    name = "shop.by_class"

    def run(self, x: int) -> int:
        return x * 2


by_class = app.register_task(ByClass())


@shared_task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task
def boom(*args: Any) -> None:
    raise ValueError("boom")


@shared_task
def wordy(words: str) -> None:
    raise LookupError(words)


@shared_task
def errback(request: Any, exc: BaseException, traceback: str) -> None:
    mark(f"{request.id} {exc!r} {'boom' in traceback}")


@shared_task
def old_errback(task_id: str) -> None:
    mark(f"old {task_id}")


@shared_task(bind=True)
def replaced(self: Task, x: int) -> Any:
    return self.replace(add.s(x, 1) | add.s(10))


class Listed(Task):
    name = "shop.listed"
    autoretry_for = [Flaky]  # type: ignore[assignment]
    default_retry_delay = 0
    max_retries = 1

    def run(self) -> None:
        mark("listed")
        raise Flaky("again")


listed = app.register_task(Listed())


@shared_task(bind=True)
def later(self: Task) -> None:
    raise self.retry(exc=Flaky("why"), countdown=600)


@shared_task
def echo(*args: Any, **kwargs: Any) -> Any:
    mark(f"echo {args}")
    return list(args)


@shared_task(base=Hooked)
def returns_what_is_no_json() -> Any:
    return {"a set", "no JSON"}


@shared_task
def calls_back(callback: Any, value: int) -> Any:
    return maybe_signature(callback).delay(value).id


@shared_task
def late_errback(task_id: str, a: int, b: int) -> None:
    mark(f"late {task_id} {a} {b}")


@shared_task
def open_errback(request: Any, exc: BaseException | None = None, trace: str = "") -> None:
    mark(f"open {request.task.rpartition('.')[2]} {exc!r} {'boom' in trace}")


@shared_task
def given_errback(request: Any, exc: BaseException, traceback: str, word: str) -> None:
    mark(f"{word} {request.id} {exc!r}")


@shared_task(bind=True, max_retries=2)
def goes_on(self: Task, fails: str = "") -> str:
    mark(f"try {self.request.retries}")
    if self.request.retries == 0:
        promised = self.retry(countdown=0, throw=False)
        mark("went on")
        if fails:
            raise {"ValueError": ValueError("after that"), "Ignore": Ignore("after that"), "Retry": promised}[fails]
    return "done"


@shared_task(bind=True)
def tells_its_end(self: Task, state: str, meta: Any) -> None:
    self.update_state(state=state, meta=meta)
    raise Ignore


@shared_task(bind=True)
def tells_from_inside(self: Task) -> None:
    self.update_state(state="OUTER", meta={})
    tells_state.apply()
    raise Ignore


@shared_task(bind=True)
def correlation(self: Task, *args: Any) -> Any:
    return self.request.get("correlation")


@shared_task(bind=True)
def kinds_of_values(self: Task, *values: Any, **named: Any) -> Any:
    mark([type(value).__name__ for value in (*values, *named.values())])
    self.update_state(state="PROGRESS", meta={"at": values[0]})
    return {"values": values, **named}
