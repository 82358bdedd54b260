"""Where jobs of the tests leave their marks."""

from django.db import models


class Mark(models.Model):
    """One effect of one job."""

    label = models.CharField(max_length=100)
    thread = models.BigIntegerField(default=0)
    made_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.label


class Run(models.Model):
    """One run of a job of ``tests.chaos``: the effect that is counted, and under which claim it was made.

    Moments are seconds since the epoch by this host's clock. ``ended`` is missing where the run did not get so far.
    """

    job_id = models.BigIntegerField(db_index=True)
    kind = models.CharField(max_length=20)
    lease = models.PositiveIntegerField()
    worker_id = models.BigIntegerField()
    attempt = models.PositiveIntegerField()
    pid = models.PositiveIntegerField()
    token = models.CharField(max_length=32)
    began = models.FloatField()
    ended = models.FloatField(null=True)

    def __str__(self) -> str:
        return f"lease {self.lease} by worker {self.worker_id}, pid {self.pid}, {self.began:.3f} to {self.ended}"


class Receipt(models.Model):
    """What refers to a job, and is not looked after by Django: only the commit notices that the job has gone."""

    job = models.ForeignKey("dbqueue.Job", models.DO_NOTHING)

    def __str__(self) -> str:
        return f"of job {self.job_id}"
