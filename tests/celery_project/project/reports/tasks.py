from celery import group, shared_task, signature
from django.utils import timezone
from orders.models import Note, Order


@shared_task
def close_day():
    return Order.objects.filter(state="delivered").count()


@shared_task
def count_flour(kind):
    Note.write("flour", kind)
    return kind


@shared_task
def square(x):
    return x * x


@shared_task
def largest(numbers):
    return max(numbers)


@shared_task
def fail(message="no"):
    raise RuntimeError(message)


@shared_task(bind=True)
def expire_soon(self):
    return bool(self.request.id)


@shared_task
def write_page(number, title=""):
    Note.write("page", f"{number} {title}".strip())
    return number


@shared_task(trail=True, track_started=True, serializer="json")
def bind_book(pages):
    return f"{len(pages)} pages"


@shared_task(bind=True)
def tomorrow(self):
    Note.write("tomorrow", timezone.now().year >= 2024)


def book(numbers):
    return (group(write_page.s(number, title="bread") for number in numbers) | bind_book.s()).apply_async()


def squares_in_chunks(numbers):
    return square.chunks(zip(numbers), 2)


def by_name(number):
    return signature("reports.tasks.square", args=(number,)).apply_async(priority=3)
