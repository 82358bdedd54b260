"""Where jobs of the tests leave their marks."""

from django.db import models


class Mark(models.Model):
    """One effect of one job."""

    label = models.CharField(max_length=100)
    thread = models.BigIntegerField(default=0)
    made_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.label
