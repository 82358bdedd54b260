"""What the jobs read and write."""

from typing import ClassVar

from django.db import models


class Item(models.Model):
    """A row that jobs read."""

    price = models.IntegerField()

    objects: ClassVar["models.Manager[Item]"] = models.Manager()


class Visit(models.Model):
    """A row that one job writes: its side effect, by which the benchmark sees that it ran and committed."""

    number = models.IntegerField()
    price = models.IntegerField()

    objects: ClassVar["models.Manager[Visit]"] = models.Manager()
