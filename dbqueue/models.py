"""What is in the tables: jobs, their ended attempts, and the workers."""

import datetime
import uuid
from collections.abc import Collection
from typing import Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .conf import QUEUE_LENGTH
from .schedule import EXPRESSION_LENGTH, OWN_NAME_LENGTH, Cron, Every, When

MIN_PRIORITY = -100
MAX_PRIORITY = 100
DEFAULT_QUEUE = "default"
NAME_LENGTH = 255
KEY_LENGTH = 255
REASON_LENGTH = 500


class UniqueScope(models.TextChoices):
    """For how long a job keeps others with its unique key out."""

    STARTED = "started", _("Until it is claimed")
    FINISHED = "finished", _("Until it has ended")
    PERIOD = "period", _("Until a time, unless it fails or is cancelled before")


class JobStatus(models.TextChoices):
    """Where a job stands. ``docs/architecture.md`` draws the ways between them."""

    SCHEDULED = "SCHEDULED", _("Scheduled")
    READY = "READY", _("Ready")
    BLOCKED = "BLOCKED", _("Blocked")
    RUNNING = "RUNNING", _("Running")
    SUCCESSFUL = "SUCCESSFUL", _("Successful")
    FAILED = "FAILED", _("Failed")
    CANCELLED = "CANCELLED", _("Cancelled")

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED})
WAITING = frozenset({JobStatus.SCHEDULED, JobStatus.READY, JobStatus.BLOCKED})
CANCELLABLE = WAITING
# In an order, because they stand in indexes.
WAITING_LIST = sorted(WAITING)
UNFINISHED = sorted({*WAITING, JobStatus.RUNNING})
RETRYABLE = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self) -> Self:
        """Registered, and neither stopped nor declared lost."""
        return self.filter(stopped_at=None)

    def silent_since(self, moment: datetime.datetime) -> Self:
        return self.alive().filter(heartbeat_at__lt=moment)


class Worker(models.Model):
    """One worker process, from its start to its end. A process that was declared lost comes back as a new row."""

    name = models.CharField(max_length=NAME_LENGTH)
    hostname = models.CharField(max_length=NAME_LENGTH)
    pid = models.PositiveIntegerField()
    queues = models.CharField(max_length=1000, blank=True, help_text=_("Empty: all queues."))
    threads = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, blank=True)
    lost = models.BooleanField(default=False, help_text=_("It died, or went silent, and was declared dead."))
    token = models.UUIDField(
        null=True, default=uuid.uuid4, editable=False, help_text=_("Its supervisor's name for it.")
    )
    leases_lost = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text=_("Outcomes that were refused, because the job was not this worker's any more."),
    )

    objects = WorkerQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        indexes = (models.Index(fields=["heartbeat_at"], condition=Q(stopped_at=None), name="dbqueue_worker_alive"),)

    def __str__(self) -> str:
        return self.name


class JobQuerySet(models.QuerySet["Job"]):
    def due(self, moment: datetime.datetime) -> Self:
        return self.filter(status=JobStatus.SCHEDULED, run_after__lte=moment)

    def ready(self) -> Self:
        """What may be claimed, in the order in which it should be."""
        return self.filter(status=JobStatus.READY).order_by("-priority", "id")

    def held(self, *, job_id: int, lease: int, worker_id: int) -> Self:
        """The job, if this claim still holds it: the fence around every write of an attempt."""
        return self.filter(pk=job_id, status=JobStatus.RUNNING, lease=lease, worker_id=worker_id)

    def stalled(self) -> Self:
        """Running for a worker that is not alive."""
        alive = Worker.objects.using(self.db).alive().filter(pk=models.OuterRef("worker_id"))
        return self.filter(~models.Exists(alive), status=JobStatus.RUNNING)

    def leaving(self, states: Collection[JobStatus], ids: Collection[int]) -> Self:
        return self.filter(pk__in=ids, status__in=states)


class Job(models.Model):
    """One call of a task that somebody asked for."""

    task = models.CharField(max_length=NAME_LENGTH, help_text=_("The name under which the task is registered."))
    args = models.JSONField(default=list)
    kwargs = models.JSONField(default=dict)
    queue_name = models.CharField(max_length=QUEUE_LENGTH, default=DEFAULT_QUEUE)
    priority = models.SmallIntegerField(
        default=0,
        validators=[MinValueValidator(MIN_PRIORITY), MaxValueValidator(MAX_PRIORITY)],
        help_text=_("-100 to 100; higher runs first."),
    )
    status = models.CharField(max_length=10, choices=JobStatus.choices, default=JobStatus.READY)
    run_after = models.DateTimeField(null=True, blank=True, help_text=_("The earliest time that it may run next."))
    backend = models.CharField(
        max_length=NAME_LENGTH, blank=True, default="", help_text=_("The alias in TASKS, if django.tasks enqueued it.")
    )

    enqueued_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True, help_text=_("Start of the first attempt."))
    last_attempted_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    worker = models.ForeignKey(
        Worker, models.DO_NOTHING, null=True, blank=True, db_constraint=False, db_index=False, related_name="jobs"
    )
    lease = models.PositiveIntegerField(default=0, help_text=_("Number of claims so far; never goes back."))
    attempt = models.PositiveIntegerField(default=0, help_text=_("Number of attempts used."))
    ahead = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text=_("Claimed before a thread was free for it, and not known to have begun."),
    )
    crashes = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text=_("How often a worker died while it held this job.")
    )
    return_value = models.JSONField(null=True, blank=True)
    reason = models.CharField(
        max_length=REASON_LENGTH, blank=True, default="", db_default="", help_text=_("Why it was cancelled.")
    )

    max_attempts = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text=_("Attempts after which an error is final. Crashes are counted apart.")
    )
    earlier_attempts = models.PositiveIntegerField(
        default=0, db_default=0, help_text=_("Attempts before an operator's last retry: not counted any more.")
    )
    options = models.JSONField(
        null=True, blank=True, help_text=_("What else was asked for; docs/features.md names it.")
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text=_("Not started by then, it is cancelled."))

    unique_key = models.CharField(max_length=KEY_LENGTH, null=True, blank=True)
    unique_scope = models.CharField(max_length=8, null=True, blank=True, choices=UniqueScope.choices)
    unique_until = models.DateTimeField(null=True, blank=True)
    concurrency_key = models.CharField(
        max_length=KEY_LENGTH, null=True, blank=True, help_text=_("Of the jobs with this key only some run at once.")
    )
    rate_key = models.CharField(
        max_length=KEY_LENGTH,
        null=True,
        blank=True,
        help_text=_("Of the jobs with this key only some start in a while."),
    )

    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_interrupts = models.BooleanField(
        default=False, db_default=False, help_text=_("Whether the request to cancel is raised inside the running task.")
    )
    progress = models.JSONField(null=True, blank=True)
    awaited = models.BooleanField(
        default=False, db_default=False, editable=False, help_text=_("Somebody listens for its end.")
    )
    schedule_id = models.BigIntegerField(null=True, blank=True, help_text=_("The schedule that made it."))
    slot = models.DateTimeField(null=True, blank=True, help_text=_("The time on that schedule."))

    objects = JobQuerySet.as_manager()

    class Meta:
        # A job is not edited: it is enqueued, cancelled or retried.
        default_permissions = ("add", "view", "delete")
        permissions = (("retry_job", "Can retry a job"), ("cancel_job", "Can cancel a job"))
        # Partial, so that ten million finished rows cost a claim nothing, and a transition writes few entries.
        indexes = (
            models.Index(fields=["-priority", "id"], condition=Q(status="READY"), name="dbqueue_job_ready"),
            models.Index(
                fields=["queue_name", "-priority", "id"], condition=Q(status="READY"), name="dbqueue_job_ready_queue"
            ),
            models.Index(fields=["run_after"], condition=Q(status="SCHEDULED"), name="dbqueue_job_scheduled"),
            models.Index(fields=["worker"], condition=Q(status="RUNNING"), name="dbqueue_job_running"),
            models.Index(
                fields=["concurrency_key", "status", "id"],
                condition=Q(concurrency_key__isnull=False, status__in=UNFINISHED),
                name="dbqueue_job_concurrency",
            ),
            models.Index(
                fields=["concurrency_key", "-priority", "id"], condition=Q(status="BLOCKED"), name="dbqueue_job_blocked"
            ),
            models.Index(
                fields=["rate_key", "run_after"],
                condition=Q(rate_key__isnull=False, status="SCHEDULED"),
                name="dbqueue_job_promised",
            ),
            models.Index(
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False, status__in=WAITING_LIST),
                name="dbqueue_job_expires",
            ),
            models.Index(
                fields=["schedule_id"],
                condition=Q(schedule_id__isnull=False, status__in=UNFINISHED),
                name="dbqueue_job_schedule",
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["unique_key"], condition=Q(unique_key__isnull=False), name="dbqueue_job_unique"
            ),
            models.UniqueConstraint(
                fields=["schedule_id", "slot"], condition=Q(slot__isnull=False), name="dbqueue_job_slot"
            ),
        )

    def __str__(self) -> str:
        return f"{self.task} #{self.pk}"

    def unrecorded_worker_id(self) -> int | None:
        """The worker of the attempt that has no row in Attempt: one that runs, or one that succeeded."""
        return self.worker_id if self.status in (JobStatus.RUNNING, JobStatus.SUCCESSFUL) else None


class Attempt(models.Model):
    """A run that did not succeed, kept for the history. A successful run is told by its job's own row."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="attempt_set")
    number = models.PositiveIntegerField(help_text=_("Counted from 1."))
    worker_id = models.BigIntegerField(help_text=_("Kept after the worker's row has gone."))
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    exception_class_path = models.CharField(max_length=NAME_LENGTH)
    traceback = models.TextField()

    class Meta:
        default_permissions = ()
        ordering = ("id",)

    def __str__(self) -> str:
        return f"attempt {self.number} of job {self.job_id}"


class LogLine(models.Model):
    """A line that a running task has logged with its job."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="log_line_set")
    attempt = models.PositiveIntegerField(help_text=_("In which attempt; counted from 1."))
    made_at = models.DateTimeField()
    text = models.TextField()

    class Meta:
        default_permissions = ()
        ordering = ("id",)

    def __str__(self) -> str:
        return self.text


class Limit(models.Model):
    """One key of a limit: the row that claims lock to count under it, and when jobs of a rate started."""

    key = models.CharField(max_length=KEY_LENGTH + 2, primary_key=True, help_text=_("c: or r:, and the job's key."))
    starts = models.JSONField(null=True, help_text=_("Starts in each slice of the rate's window."))
    next_start_at = models.DateTimeField(null=True, help_text=_("Until then starts are promised to jobs that wait."))
    used_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.key


class Queue(models.Model):
    """What was said about a queue. One of which nothing was said has no row."""

    name = models.CharField(max_length=QUEUE_LENGTH, primary_key=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    last_id = models.BigIntegerField(
        null=True, blank=True, help_text=_("While it is drained: jobs up to this one still run, later ones wait.")
    )
    reason = models.CharField(max_length=REASON_LENGTH, blank=True, default="")

    class Meta:
        default_permissions = ("view",)
        permissions = (("control_queue", "Can pause and resume a queue"),)

    def __str__(self) -> str:
        return self.name


class Source(models.TextChoices):
    """Where a schedule was made."""

    CODE = "code", _("Code")
    ADMIN = "admin", _("Admin")


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, moment: datetime.datetime) -> Self:
        return self.filter(enabled=True, next_at__lte=moment)


class Schedule(models.Model):
    """A call of a task that comes again and again. One of the code follows the code, but for what an admin changed."""

    name = models.CharField(
        max_length=NAME_LENGTH + OWN_NAME_LENGTH + 1,
        help_text=_("For one of the code: the task's name, and what tells it from others of the task."),
    )
    source = models.CharField(max_length=5, choices=Source.choices, default=Source.ADMIN, editable=False)
    task = models.CharField(max_length=NAME_LENGTH, help_text=_("The name under which the task is registered."))
    args = models.JSONField(default=list, blank=True)
    kwargs = models.JSONField(default=dict, blank=True)
    cron = models.CharField(
        max_length=EXPRESSION_LENGTH, blank=True, default="", help_text=_("Minute, hour, day, month, day of week.")
    )
    every = models.PositiveIntegerField(null=True, blank=True, help_text=_("Seconds, instead of a cron expression."))
    timezone = models.CharField(max_length=100, blank=True, default="", help_text=_("Whose clock cron goes by."))
    misfire = models.CharField(
        max_length=4,
        default="once",
        choices=[("skip", _("Drop them")), ("once", _("One job for all")), ("all", _("A job for each"))],
        help_text=_("What becomes of slots at which no worker was there."),
    )
    overlap = models.CharField(
        max_length=5,
        default="allow",
        choices=[("allow", _("Allow")), ("skip", _("Skip the slot"))],
        help_text=_("Whether there is a job for a slot while an earlier one has not ended."),
    )
    enabled = models.BooleanField(default=True)
    queue_name = models.CharField(
        max_length=QUEUE_LENGTH, blank=True, default="", help_text=_("Empty: the task's own.")
    )
    priority = models.SmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(MIN_PRIORITY), MaxValueValidator(MAX_PRIORITY)],
        help_text=_("-100 to 100; higher runs first. Empty: the task's own."),
    )
    overrides = models.JSONField(
        default=list, editable=False, help_text=_("Fields that an admin changed: the code does not.")
    )
    declared_at = models.DateTimeField(
        null=True, editable=False, help_text=_("When a worker last said that its code has it.")
    )
    next_at = models.DateTimeField(null=True, editable=False, help_text=_("The next slot."))
    last_slot = models.DateTimeField(null=True, editable=False, help_text=_("The last slot that made a job."))
    last_job_id = models.BigIntegerField(null=True, editable=False)
    skipped = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text=_("Slots without a job, as another was there already.")
    )
    problem = models.CharField(
        max_length=REASON_LENGTH, default="", editable=False, help_text=_("Why the last slot made no job.")
    )

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        permissions = (("run_schedule", "Can run a schedule now"),)
        indexes = (models.Index(fields=["next_at"], condition=Q(enabled=True), name="dbqueue_schedule_due"),)
        constraints = (models.UniqueConstraint(fields=["source", "name"], name="dbqueue_schedule_name"),)

    def __str__(self) -> str:
        return self.name

    @property
    def when(self) -> When:
        """Raises ValueError for a row that somebody wrote past the form."""
        return Every(self.every) if self.every else Cron(self.cron, self.timezone)
