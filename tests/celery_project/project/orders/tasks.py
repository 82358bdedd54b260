from bakery.celery import app
from celery import Task, chain, chord, group, shared_task
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from .models import Note, Order

logger = get_task_logger(__name__)


class OvenIsCold(Exception):
    pass


class Burnt(Exception):
    pass


class NotedTask(Task):
    """Notes what becomes of each of its tasks."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        Note.write("before_start", self.name)

    def on_success(self, retval, task_id, args, kwargs):
        Note.write("on_success", retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        Note.write("on_failure", f"{type(exc).__name__}: {exc} of {list(args)}")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        Note.write("on_retry", exc)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        Note.write("after_return", status)


@shared_task
def add(x, y):
    return x + y


@shared_task
def total(loaves):
    return sum(loaves)


@shared_task
def double(loaves):
    return loaves * 2


@shared_task(name="bakery.knead", queue="dough")
def knead(order_id):
    Order.objects.filter(pk=order_id).update(state="kneaded")
    return order_id


@shared_task(soft_time_limit=60, time_limit=120)
def bake(order_id):
    try:
        order = Order.objects.get(pk=order_id)
    except SoftTimeLimitExceeded:
        logger.warning("Order %s takes too long", order_id)
        raise
    order.state = "baked"
    order.save()
    return order.loaves


@shared_task(acks_late=True, reject_on_worker_lost=True)
def deliver(order_id):
    Order.objects.filter(pk=order_id).update(state="delivered")
    return order_id


@shared_task(bind=True)
def who(self, **kwargs):
    """What it is told of its own call."""
    headers = self.request.headers or {}
    return {
        "id": self.request.id,
        "name": self.name,
        "task": getattr(self.request, "task", None),
        "retries": self.request.retries,
        "tenant": headers.get("tenant"),
        "kwargs": self.request.kwargs,
        "direct": self.request.called_directly,
    }


@shared_task(bind=True, max_retries=3, default_retry_delay=1)
def heat(self, fails):
    """Fails so often."""
    Note.write("heat", self.request.retries)
    if self.request.retries < fails:
        raise self.retry(exc=OvenIsCold("cold"), countdown=2)
    return self.request.retries


@shared_task(bind=True, max_retries=1)
def heat_once_more(self):
    try:
        raise OvenIsCold("cold")
    except OvenIsCold:
        try:
            raise self.retry(countdown=1)
        except MaxRetriesExceededError:
            return "never"


@shared_task(bind=True, max_retries=1)
def wait_for_flour(self):
    self.retry(countdown=1)


@shared_task(
    bind=True, autoretry_for=(OvenIsCold,), max_retries=3, retry_backoff=2, retry_backoff_max=60, retry_jitter=True
)
def ignite(self, fails):
    Note.write("ignite", self.request.retries)
    if self.request.retries < fails:
        raise OvenIsCold("cold")
    return self.request.retries


@shared_task(
    bind=True, autoretry_for=(Exception,), dont_autoretry_for=(Burnt,), retry_kwargs={"max_retries": 2, "countdown": 1}
)
def toast(self, is_burnt):
    Note.write("toast", self.request.retries)
    raise Burnt("burnt") if is_burnt else OvenIsCold("cold")


class TimedTask(Task):
    """Notes each of its runs, from outside."""

    def __call__(self, *args, **kwargs):
        Note.write("begin", self.name)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            Note.write("end", self.name)


@shared_task(base=TimedTask, bind=True)
def rise(self, hours):
    return [hours, self.request.id, self.request.called_directly]


@shared_task(base=NotedTask)
def weigh(grams):
    if grams < 0:
        raise ValueError(f"{grams} g")
    return grams


@shared_task(base=NotedTask, bind=True, max_retries=2)
def weigh_again(self, grams):
    if self.request.retries < 1:
        raise self.retry(exc=ValueError("the scales swing"), countdown=1)
    return grams


class Slice(NotedTask):
    name = "orders.slice"

    def run(self, loaves, slices=10):
        return loaves * slices


slice_bread = app.register_task(Slice())


@shared_task(bind=True)
def bake_all(self, order_ids):
    """Tells how far it is."""
    for number, order_id in enumerate(order_ids, 1):
        bake(order_id)
        self.update_state(state="PROGRESS", meta={"done": number, "of": len(order_ids)})
    return len(order_ids)


@shared_task(bind=True)
def skip(self, why):
    self.update_state(state="SKIPPED", meta={"why": why})
    raise Ignore


@shared_task
def refuse():
    raise Reject("not today", requeue=False)


@shared_task
def note_failure(request, exc, traceback):
    Note.write("note_failure", f"{type(exc).__name__}: {exc}")


@shared_task
def note_result(result, prefix=""):
    Note.write("note_result", f"{prefix}{result}")
    return result


@shared_task
def feed_sourdough(grams=0):
    Note.write("sourdough", grams)


@shared_task(ignore_result=True)
def look_at_ovens():
    Note.write("ovens")


@shared_task(bind=True)
def bake_or_knead(self, order_id):
    """Knead first, if that has not been done."""
    if Order.objects.get(pk=order_id).state == "new":
        raise self.replace(chain(knead.s(order_id), bake.s()))
    return bake(order_id)


def make(order_id):
    """One after another."""
    return chain(knead.s(order_id), bake.s(), double.s())()


def make_and_deliver(order_id):
    return (knead.s(order_id) | bake.si(order_id) | deliver.si(order_id)).apply_async()


def make_many(order_ids):
    return group(bake.s(order_id) for order_id in order_ids).apply_async()


def count_loaves(order_ids):
    return chord([bake.s(order_id) for order_id in order_ids])(total.s())


def count_and_double(order_ids):
    """A group in the middle of a chain."""
    return chain(group(bake.s(order_id) for order_id in order_ids), total.s(), double.s()).delay()
