"""What the jobs read and write."""

from django.db import models


class Item(models.Model):
    """A row that jobs read."""

    price = models.IntegerField()


class Visit(models.Model):
    """A row that one job writes: its side effect, by which the benchmark sees that it ran and committed."""

    number = models.IntegerField()
    price = models.IntegerField()
