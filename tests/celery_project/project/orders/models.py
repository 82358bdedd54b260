from django.db import models


class Order(models.Model):
    bread = models.CharField(max_length=50)
    loaves = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=20, default="new")

    def __str__(self):
        return f"{self.loaves} of {self.bread}"


class Note(models.Model):
    """What has happened, in its order."""

    kind = models.CharField(max_length=50)
    text = models.CharField(max_length=200, blank=True)

    def __str__(self):
        return f"{self.kind}: {self.text}"

    @classmethod
    def write(cls, kind, text=""):
        cls.objects.create(kind=kind, text=str(text)[:200])

    @classmethod
    def texts(cls, kind):
        return list(cls.objects.filter(kind=kind).order_by("pk").values_list("text", flat=True))
