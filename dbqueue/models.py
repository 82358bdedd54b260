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
LARGEST_ID = 2**63 - 1


def is_id(text: str) -> bool:
    """Whether it is a number that an id may be. Python reads none of thousands of digits."""
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= LARGEST_ID


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
    WAITING = "WAITING", _("Waiting")
    RUNNING = "RUNNING", _("Running")
    SUCCESSFUL = "SUCCESSFUL", _("Successful")
    FAILED = "FAILED", _("Failed")
    CANCELLED = "CANCELLED", _("Cancelled")

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED})
QUEUED = frozenset({JobStatus.SCHEDULED, JobStatus.READY, JobStatus.BLOCKED})
CANCELLABLE = QUEUED | {JobStatus.WAITING}
# In an order, because they stand in indexes.
QUEUED_LIST = sorted(QUEUED)
UNFINISHED = sorted({*QUEUED, JobStatus.RUNNING})
OPEN = sorted({*UNFINISHED, JobStatus.WAITING})
RETRYABLE = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})
EDITABLE = CANCELLABLE | RETRYABLE

GROUP = "dbqueue.group"
"""What stands as the task of a group: no worker runs it, its end is that of its members."""


class WorkerRequest(models.TextChoices):
    """What a worker may be asked from a page."""

    QUIET = "quiet", _("Claim nothing more")
    STOP = "stop", _("Finish what runs, and end")


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
    asked = models.CharField(
        max_length=5,
        blank=True,
        default="",
        db_default="",
        choices=WorkerRequest.choices,
        help_text=_("What an operator wants of it."),
    )
    leases_lost = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text=_("Outcomes that were refused, because the job was not this worker's any more."),
    )

    objects = WorkerQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = (("control_worker", "Can quiet and stop a worker"),)
        indexes = (models.Index(fields=["heartbeat_at"], condition=Q(stopped_at=None), name="dbqueue_worker_alive"),)

    def __str__(self) -> str:
        return self.name


class Workflow(models.Model):
    """Jobs that wait for each other, as they were enqueued together. Its row is the lock around every change of them.

    Without this row the jobs that it had are history: nothing of them is retried, and they are deleted one by one.
    """

    name = models.CharField(max_length=NAME_LENGTH, help_text=_("What it does, in its tasks' names."))
    last_id = models.BigIntegerField(null=True, help_text=_("The job whose result is the workflow's."))
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True, help_text=_("When the last of its jobs had ended."))

    class Meta:
        default_permissions = ("view",)
        indexes = (
            models.Index(
                fields=["finished_at"], condition=Q(finished_at__isnull=False), name="dbqueue_workflow_finished"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} #{self.pk}"


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

    def deletable(self) -> Self:
        """Those that are deleted alone: a step goes with its workflow, as others may need its result."""
        return self.filter(~models.Exists(Workflow.objects.using(self.db).filter(pk=models.OuterRef("workflow_id"))))

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

    external_id = models.CharField(
        max_length=KEY_LENGTH, null=True, blank=True, help_text=_("Somebody else's name for it.")
    )
    workflow_id = models.BigIntegerField(null=True, blank=True, help_text=_("The workflow of which it is a step."))
    after_id = models.BigIntegerField(null=True, blank=True, help_text=_("The job for whose result it waits."))
    group_id = models.BigIntegerField(null=True, blank=True, help_text=_("The job whose result its own is a part of."))
    position = models.PositiveIntegerField(null=True, blank=True, help_text=_("Its place in that group, from 0."))
    held = models.BooleanField(
        default=False, db_default=False, editable=False, help_text=_("It waits for other steps, or would.")
    )
    allow_failure = models.BooleanField(
        default=False, db_default=False, help_text=_("Whether what comes after it goes on without its success.")
    )
    step = models.JSONField(null=True, blank=True, editable=False, help_text=_("What else is said about the step."))

    objects = JobQuerySet.as_manager()

    class Meta:
        permissions = (
            ("retry_job", "Can retry a job"),
            ("cancel_job", "Can cancel a job"),
            ("view_job_arguments", "Can see what jobs are called with, return and tell"),
        )
        # Partial, so that ten million finished rows cost a claim nothing, and a transition writes few entries.
        indexes = (
            models.Index(fields=["-priority", "id"], condition=Q(status="READY"), name="dbqueue_job_ready"),
            models.Index(
                fields=["queue_name", "-priority", "id"], condition=Q(status="READY"), name="dbqueue_job_ready_queue"
            ),
            models.Index(fields=["run_after", "id"], condition=Q(status="SCHEDULED"), name="dbqueue_job_due"),
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
                condition=Q(expires_at__isnull=False, status__in=QUEUED_LIST),
                name="dbqueue_job_expires",
            ),
            models.Index(
                fields=["schedule_id"],
                condition=Q(schedule_id__isnull=False, status__in=UNFINISHED),
                name="dbqueue_job_schedule",
            ),
            models.Index(fields=["external_id"], condition=Q(external_id__isnull=False), name="dbqueue_job_external"),
            models.Index(fields=["after_id"], condition=Q(status="WAITING"), name="dbqueue_job_waiting"),
            models.Index(
                fields=["after_id"],
                condition=Q(status="CANCELLED", held=True, allow_failure=True),
                name="dbqueue_job_early",
            ),
            models.Index(
                fields=["workflow_id", "group_id"],
                condition=Q(workflow_id__isnull=False, status__in=OPEN),
                name="dbqueue_job_open_step",
            ),
            models.Index(
                fields=["group_id", "position"], condition=Q(group_id__isnull=False), name="dbqueue_job_member"
            ),
            models.Index(fields=["workflow_id", "id"], condition=Q(workflow_id__isnull=False), name="dbqueue_job_step"),
            # What an operator looks for among millions that went well. One for each state: SQLite takes a partial index
            # only where the query says its very condition.
            models.Index(fields=["-id"], condition=Q(status="FAILED"), name="dbqueue_job_failed"),
            models.Index(fields=["-id"], condition=Q(status="CANCELLED"), name="dbqueue_job_cancelled"),
            models.Index(fields=["-id"], condition=Q(status="WAITING"), name="dbqueue_job_waiting_newest"),
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
        indexes = (models.Index(fields=["exception_class_path", "-job"], name="dbqueue_attempt_error"),)

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
        return f"log line {self.pk} of job {self.job_id}"


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
        help_text=_("Any name that is not used yet. Schedules declared in code are named after their task."),
    )
    source = models.CharField(max_length=5, choices=Source.choices, default=Source.ADMIN, editable=False)
    task = models.CharField(max_length=NAME_LENGTH, help_text=_("The name under which the task is registered."))
    args = models.JSONField(default=list, blank=True)
    kwargs = models.JSONField(default=dict, blank=True)
    cron = models.CharField(
        max_length=EXPRESSION_LENGTH, blank=True, default="", help_text=_("Minute, hour, day, month, day of week.")
    )
    every = models.PositiveIntegerField(null=True, blank=True, help_text=_("Every N seconds (instead of cron)."))
    timezone = models.CharField(
        max_length=100, blank=True, default="", help_text=_("The time zone in which the cron expression is read.")
    )
    misfire = models.CharField(
        max_length=4,
        default="once",
        choices=[("skip", _("Drop them")), ("once", _("One job for all")), ("all", _("A job for each"))],
        help_text=_("Runs missed because no worker was running."),
    )
    overlap = models.CharField(
        max_length=5,
        default="allow",
        choices=[("allow", _("Allow")), ("skip", _("Skip the slot"))],
        help_text=_("Start a new run while the previous one is still going?"),
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


class Resolution(models.IntegerChoices):
    """How many seconds of the past one row of History sums up."""

    EVER = 0, _("Since it is kept")
    MINUTE = 60, _("A minute")
    TEN_MINUTES = 600, _("Ten minutes")
    HOUR = 3600, _("An hour")


class History(models.Model):
    """How many attempts ended, how, and how long they had waited and run: sums that workers write, and pages read.

    Rows of EVER and MINUTE are by queue, task and, of failures, error. Those of MINUTE without a task sum up a queue;
    those of MINUTE, TEN_MINUTES and HOUR without a queue, too, sum up all of them.
    """

    seconds = models.PositiveIntegerField(choices=Resolution.choices)
    begins_at = models.DateTimeField()
    queue_name = models.CharField(max_length=QUEUE_LENGTH, blank=True, default="")
    task = models.CharField(max_length=NAME_LENGTH, blank=True, default="")
    outcome = models.CharField(max_length=10, choices=JobStatus.choices, help_text=_("Scheduled: it is tried again."))
    error = models.CharField(max_length=NAME_LENGTH, blank=True, default="", help_text=_("The exception's class."))
    count = models.BigIntegerField(default=0)
    waits = models.JSONField(default=list, help_text=_("How many waited how long: counts by bucket."))
    runs = models.JSONField(default=list, help_text=_("How many ran how long: counts by bucket."))
    wait_seconds = models.FloatField(default=0)
    run_seconds = models.FloatField(default=0)

    class Meta:
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["seconds", "begins_at", "queue_name", "task", "outcome", "error"], name="dbqueue_history_one"
            ),
        )
        # What failed in a day, and the sums of an hour, are few among all that ended.
        indexes = (
            models.Index(
                fields=["begins_at", "task", "queue_name"],
                condition=Q(outcome="FAILED", seconds=Resolution.MINUTE),
                name="dbqueue_history_failed",
            ),
            models.Index(
                fields=["begins_at", "queue_name"],
                condition=Q(task="", seconds=Resolution.MINUTE),
                name="dbqueue_history_sums",
            ),
        )

    def __str__(self) -> str:
        return f"{self.begins_at} {self.queue_name} {self.task} {self.outcome}"


class BulkAction(models.TextChoices):
    """What can be done to all jobs that a filter matches."""

    RETRY = "retry", _("Retry")
    RUN_NOW = "run_now", _("Run now")
    CANCEL = "cancel", _("Cancel")
    MOVE = "move", _("Move to another queue")
    DELETE = "delete", _("Delete")


class BulkOperation(models.Model):
    """Something that workers do to all jobs that a filter matched, in chunks by id."""

    action = models.CharField(max_length=7, choices=BulkAction.choices)
    filter = models.JSONField(default=dict, help_text=_("The list's parameters."))
    queue_name = models.CharField(max_length=QUEUE_LENGTH, blank=True, default="", help_text=_("Where to move them."))
    described = models.CharField(_("filter"), max_length=1000)
    user_id = models.CharField(max_length=NAME_LENGTH, help_text=_("Who asked for it."))
    user_name = models.CharField(max_length=NAME_LENGTH)
    created_at = models.DateTimeField()
    expected = models.PositiveIntegerField(null=True, help_text=_("How many matched, as far as it was counted."))
    first_id = models.BigIntegerField(help_text=_("The next job to look at has at least this id."))
    last_id = models.BigIntegerField(help_text=_("Jobs that came later are let be."))
    changed = models.PositiveIntegerField(default=0)
    asked = models.PositiveIntegerField(
        _("asked to stop"), default=0, help_text=_("Running jobs that were asked to stop.")
    )
    inside = models.PositiveIntegerField(
        default=0, db_default=0, help_text=_("Jobs inside groups that were cancelled, or asked to stop, with them.")
    )
    left_alone = models.PositiveIntegerField(default=0, help_text=_("In a state that this action doesn't touch."))
    failures = models.PositiveSmallIntegerField(default=0, editable=False, help_text=_("Of the last steps, in a row."))
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=REASON_LENGTH, blank=True, default="", help_text=_("Why it ended early."))

    class Meta:
        default_permissions = ("view",)
        indexes = (models.Index(fields=["id"], condition=Q(finished_at=None), name="dbqueue_bulk_unfinished"),)

    def __str__(self) -> str:
        return f"{self.get_action_display()}: {self.described}"


class Overview(Job):
    """The same table, for a page of its own in the admin."""

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
