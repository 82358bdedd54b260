"""What of Celery's names is covered by ``dbqueue.compat.celery``, what behaves differently and why, what is missing.

One table, and nothing else knows. A section is a place where names are used: a module, the keywords of a call, the
members of an object. To correct a verdict, move its name.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


class Verdict(enum.Enum):
    """What becomes of a name when the imports are changed."""

    COVERED = "covered"
    DIFFERS = "differs"
    MISSING = "missing"
    LOOK = "look here yourself"
    """What can't be decided by reading."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and its reason in a line; empty where a name is covered."""

    verdict: Verdict
    reason: str = ""


COVERED = Judgement(Verdict.COVERED)


@dataclass(frozen=True, slots=True)
class Section:
    """The names of one place. ``title`` is how a name is shown, with ``{}`` for the name.

    ``other`` judges what no entry names; None: nothing is said of it, as it may be the project's own. ``prefixes``
    judges names by how they begin, where nothing else names them.
    """

    title: str
    covered: frozenset[str] = frozenset()
    differs: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    look: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[str, Judgement] = field(default_factory=dict)
    other: Judgement | None = None

    def judge(self, name: str) -> Judgement | None:
        """None where there is nothing to say."""
        if name in self.covered:
            return COVERED
        for verdict, entries in (
            (Verdict.DIFFERS, self.differs),
            (Verdict.MISSING, self.missing),
            (Verdict.LOOK, self.look),
        ):
            if name in entries:
                return Judgement(verdict, entries[name])
        for prefix, judgement in self.prefixes.items():
            if name.startswith(prefix):
                return judgement
        return self.other

    @property
    def known(self) -> frozenset[str]:
        """All names that it has an entry for."""
        return self.covered | self.differs.keys() | self.missing.keys() | self.look.keys()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _each(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


# Reasons that several names share.

NO_BROKER = "there is no broker: it is accepted and changes nothing; take it out"
NO_RESULT_STORE = (
    "a result stands on the job's row: it is accepted and changes nothing (KEEP_SUCCESSFUL_DAYS says for how long)"
)
RESULT_BACKEND = (
    "a result stands on the job's row; whether one is set says only what becomes of a result that JSON can't hold: its "
    "job fails, or, without, it is dropped with a warning"
)
NO_MESSAGE = "there are no messages, jobs are rows: it is accepted and changes nothing"
NO_EVENTS = "there are no events, everything stands in rows: the admin and /metrics show it; accepted, changes nothing"
THREADS = "workers run jobs on threads, and say how many on their own command line: it is accepted and changes nothing"
NEVER_SENT = (
    "can be connected to and is never sent: nothing here does what it tells of; a system check names its receivers"
)
HIGHER_FIRST = "higher is sooner, from -100 to 100; with Redis as broker lower is sooner: turn the numbers round"
NOT_THERE = "dbqueue.compat.celery has no such name: the import fails"
CUSTOM_SERIALIZER = (
    "arguments and results are JSON in a row: no serializer can be added; pass keys, or what JSON can hold"
)
UNKNOWN_KEYWORD = "an unknown keyword is named in a warning, and changes nothing"
SOFT_LIMIT = "SoftTimeLimitExceeded is no Exception, so `except Exception` doesn't see it; SQL is cancelled too"
HARD_LIMIT = (
    "after it the worker process ends and is replaced, and all other jobs on its threads begin anew: such tasks belong "
    "in a queue of their own, with a worker of --threads 1"
)
NOT_IN_TABLE = "it is not known whether this exists here"
ONLY_JSON = "only JSON is spoken here"

MODULES: dict[str, Section] = {
    "celery": Section(
        "celery.{}",
        covered=_names(
            "AsyncResult Celery Task chain chord chunks current_app current_task group maybe_signature shared_task "
            "signature subtask canvas exceptions result schedules signals states utils app"
        ),
        missing={
            **_each("bootsteps", "workers have no boot steps: use the signals worker_init and worker_shutdown"),
            **_each("xmap xstarmap", "use task.map(…) and task.starmap(…)"),
            **_each("uuid", "use str(uuid.uuid4())"),
            **_each("task", "Celery itself has no celery.task since 5.0: use shared_task"),
            **_each("decorators", "Celery itself has no celery.decorators since 5.0: use shared_task"),
            **_each("platforms", "processes are the business of systemd or the container"),
            **_each("bugreport", "there is no report of an installation"),
            **_each(
                "beat", "the workers keep the clock: schedules are rows, and a scheduler of one's own has no place"
            ),
            **_each("worker", "the worker is dbqueue's own: manage.py dbqueue_worker"),
            **_each("bin", "there is no celery command: manage.py dbqueue_worker, and flags in docs/from-celery.md"),
            **_each("events", "there are no events, everything stands in rows: read them, or connect to signals"),
            **_each("backends", "results stand on the job's row: there is no result backend to choose or write"),
            **_each("loaders", "there are no loaders: settings are Django's"),
            **_each("contrib", "Celery's contrib has no counterpart: for tests see dbqueue.testing"),
        },
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.app": Section(
        "celery.app.{}",
        covered=_names("Celery shared_task base control task"),
        missing=_each("app_or_default default_app", "use current_app")
        | {
            "registry": "use app.tasks",
            "log": "logging is Django's LOGGING",
            "utils": "nothing of it exists here",
        },
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.app.base": Section(
        "celery.app.base.{}", covered=_names("Celery"), other=Judgement(Verdict.MISSING, NOT_THERE)
    ),
    "celery.app.control": Section(
        "celery.app.control.{}", covered=_names("Control Inspect"), other=Judgement(Verdict.MISSING, NOT_THERE)
    ),
    "celery.app.task": Section(
        "celery.app.task.{}", covered=_names("Task"), other=Judgement(Verdict.MISSING, NOT_THERE)
    ),
    "celery.canvas": Section(
        "celery.canvas.{}",
        covered=_names("Signature chain chord chunks group maybe_signature signature subtask xmap"),
        missing=_each("xstarmap", "use task.map(…) and task.starmap(…)"),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.exceptions": Section(
        "celery.exceptions.{}",
        covered=_names(
            "CeleryError ChordError ImproperlyConfigured InvalidTaskError MaxRetriesExceededError NotRegistered Reject "
            "Retry TaskError TaskPredicate TaskRevokedError TimeoutError"
        ),
        differs={
            "Ignore": "the job ends CANCELLED with this reason, and AsyncResult says REVOKED",
            "SoftTimeLimitExceeded": "it is no Exception, as CancelledError: an `except Exception` doesn't see it",
            "TimeLimitExceeded": "the hard limit ends the process; only the soft one raises inside a task",
            "Terminated": "revoke(terminate=True) raises CancelRequested in the task, which is no Exception",
        },
        missing={
            **_each(
                "WorkerLostError WorkerTerminate WorkerShutdown",
                "a worker's death is no exception in anybody's hands: the job runs again, and at MAX_CRASHES "
                "it is FAILED",
            ),
            **_each("QueueNotFound", "a queue need not be made: any name is one"),
            **_each(
                "BackendError BackendGetMetaError BackendStoreError",
                "there is no result backend: expect django.db.Error",
            ),
            **_each("OperationalError", "expect django.db.OperationalError"),
        },
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.result": Section(
        "celery.result.{}",
        covered=_names("AsyncResult EagerResult GroupResult ResultSet"),
        missing=_each("allow_join_result", "waiting inside a task is not forbidden here: leave it out")
        | _each("result_from_tuple denied_join_result", "keep the job's id, and make an AsyncResult of it"),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.schedules": Section(
        "celery.schedules.{}",
        covered=_names("crontab schedule maybe_schedule"),
        missing={
            "solar": "the sun's times are not known here: a cron that runs often, and a task that looks at the sun",
            "BaseSchedule": "schedules of one's own have no place: crontab, schedule, or a task that decides by itself",
            "crontab_parser": "use cronsim, or dbqueue.cron",
            "ParseException": "what is no cron raises ValueError",
            "schedstate": "schedules of one's own have no place",
        },
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.signals": Section(
        "celery.signals.{}",
        covered=_names(
            "after_task_publish before_task_publish task_failure task_postrun task_prerun task_retry task_revoked "
            "task_success worker_shutdown worker_shutting_down"
        ),
        differs={
            **_each(
                "worker_init worker_process_init worker_ready",
                "they come together, when a worker process has started: with --processes N that is N times",
            ),
            "worker_process_shutdown": "sent where the worker process ends: a worker is one process with threads",
            **_each(
                "after_setup_logger after_setup_task_logger beat_embedded_init beat_init celeryd_after_setup "
                "celeryd_init eventlet_pool_started heartbeat_sent import_modules setup_logging task_internal_error "
                "task_received task_rejected task_unknown user_preload_options worker_before_create_process",
                NEVER_SENT,
            ),
        },
        missing=_each(
            "eventlet_pool_apply eventlet_pool_postshutdown eventlet_pool_preshutdown", "there is no pool of greenlets"
        ),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.states": Section(
        "celery.states.{}",
        covered=_names(
            "ALL_STATES EXCEPTION_STATES FAILURE IGNORED PROPAGATE_STATES READY_STATES RECEIVED REJECTED RETRY REVOKED "
            "STARTED SUCCESS UNREADY_STATES"
        ),
        differs={"PENDING": "means a job that waits; of an id that nobody knows the state is UNKNOWN"},
        missing=_each("precedence state PRECEDENCE", "states have no order here"),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.utils": Section(
        "celery.utils.{}",
        covered=_names("gen_unique_id log uuid"),
        missing=_each("cached_property", "use functools.cached_property")
        | _each(
            "abstract collections deprecated dispatch functional imports iso8601 serialization text threads time",
            NOT_THERE,
        ),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
    "celery.utils.log": Section(
        "celery.utils.log.{}",
        covered=_names("get_logger get_task_logger task_logger"),
        missing=_each("ColorFormatter LoggingProxy base_logger worker_logger", "logging is Django's LOGGING"),
        other=Judgement(Verdict.MISSING, NOT_THERE),
    ),
}
"""What each module of Celery has; one that stands here exists in ``dbqueue.compat.celery``."""

INSTALLED = Section(
    "{}",
    differs={
        "django_celery_beat": "schedules are rows of dbqueue: run manage.py dbqueue_import_beat once, then take it out",
        "django_celery_results": "results are rows of dbqueue, its admin shows them: take it out",
    },
)
"""Apps that stand beside Celery, in INSTALLED_APPS."""

PACKAGES = Section(
    "{}",
    missing={
        "kombu": "there is no broker and no message: a queue is a name (queue='mail'); exchanges and "
        "serializers have no place",
        "django_celery_beat": "nobody reads its rows here: declare schedules by beat_schedule or "
        "@task(schedule=…), or make dbqueue's own rows (dbqueue.models.Schedule)",
        "django_celery_results": "nobody writes its rows here: read dbqueue.models.Job, or AsyncResult",
        "flower": "there are no events to read: the admin's pages and /metrics show what Flower did",
        "billiard": "jobs run on threads: use threading or multiprocessing",
        "amqp": "there is no broker",
        "vine": "there are no promises: use link=, or a chain",
        "celery_once": "use dbqueue's own @task(unique=…)",
        "celery_singleton": "use dbqueue's own @task(unique=…)",
        "redbeat": "schedules are rows of dbqueue: declare them by beat_schedule, or in the admin",
        "celery_batches": "there are no batches of calls: a task that reads what has gathered, each minute",
        "tenant_schemas_celery": "nothing here switches schemas: a task that is told its schema, and a signal "
        "task_prerun",
        "celery_progress": "update_state() works; its page reads Celery's backends: result.progress is dbqueue's own",
        "django_celery_email": "an e-mail backend of Celery's: a task of one's own that sends",
        "djcelery_email": "an e-mail backend of Celery's: a task of one's own that sends",
        "djcelery": "django-celery has ended with Celery 4: its schedules are dbqueue's rows",
        "celery_haystack": "its tasks are Celery's",
    },
)
"""Packages that stand beside Celery, by the first part of their dotted name."""

TASK_OPTIONS = Section(
    "@task({}=)",
    covered=_names(
        "autoretry_for base bind default_retry_delay dont_autoretry_for expires ignore_result max_retries name queue "
        "retry_backoff retry_backoff_max retry_jitter retry_kwargs throws track_started"
    ),
    differs={
        "acks_late": "a job whose worker dies runs again whatever this says (at MAX_CRASHES it is FAILED); "
        "tasks must bear that",
        "reject_on_worker_lost": "a job whose worker dies always runs again: it is accepted and changes nothing",
        "acks_on_failure_or_timeout": "there is nothing to acknowledge: it is accepted and changes nothing",
        "rate_limit": "it holds over all workers together, not for each; fractions are counted by minute or hour",
        "soft_time_limit": SOFT_LIMIT,
        "time_limit": HARD_LIMIT,
        "priority": HIGHER_FIRST,
        **_each("serializer compression exchange routing_key delivery_mode", NO_MESSAGE),
        **_each(
            "send_events trail resultrepr_maxsize",
            "rows tell all of that always: accepted, changes nothing",
        ),
        **_each("store_errors_even_if_ignored store_eager_result", "errors are always kept: accepted, changes nothing"),
        **_each("backend result_backend", NO_RESULT_STORE),
        **_each("shared lazy typing from_config", "it is accepted and changes nothing: arguments are always checked"),
    },
    missing=_each("request_stack", "write a class-based task")
    | _each("filter filter_methods", "Celery itself has it no more")
    | _each("run_every", "Celery itself has no periodic_task since 5.0: use beat_schedule")
    | _each("strategy Strategy Request", "how a worker takes a job can't be replaced"),
    other=Judgement(Verdict.DIFFERS, UNKNOWN_KEYWORD),
)
"""Keywords of ``@shared_task`` and ``@app.task``."""

APPLY_OPTIONS = Section(
    "apply_async({}=)",
    covered=_names(
        "args kwargs countdown eta expires headers immutable link link_error options queue task_id debug app task"
    ),
    differs={
        "priority": HIGHER_FIRST,
        "soft_time_limit": SOFT_LIMIT,
        "time_limit": HARD_LIMIT,
        "ignore_result": "a result is kept or not by the task, not by the call: it is accepted and changes nothing",
        **_each(
            "argsrepr chord compression connection correlation_id delivery_mode exchange expiration group_id "
            "kwargsrepr "
            "mandatory parent_id producer publisher reply_to retry retry_policy root_id router routing_key "
            "serializer shadow "
            "add_to_parent add_to_chord",
            NO_MESSAGE,
        ),
    },
    other=Judgement(Verdict.DIFFERS, UNKNOWN_KEYWORD),
)
"""Keywords of ``apply_async()``, ``send_task()``, ``signature()`` and ``.set()``."""

CHAIN_OPTIONS = replace(APPLY_OPTIONS, covered=APPLY_OPTIONS.covered - _names("app debug immutable options task"))
"""Keywords of a chain's or a chord's ``apply_async()``; ``.set()`` knows no links of these."""

GROUP_OPTIONS = replace(CHAIN_OPTIONS, covered=CHAIN_OPTIONS.covered - {"task_id"})
"""The same of a group, which is many jobs."""

EAGER_OPTIONS = Section(
    "apply({}=)",
    covered=_names("args kwargs headers link link_error task_id throw"),
    differs=_each("retries", "an eager call begins without retries: it is accepted and changes nothing"),
    other=COVERED,
)
"""Keywords of ``apply()``; those that it does not know change nothing in Celery either."""

UPDATE_STATE = Section(
    "update_state({}=)",
    covered=_names("state meta"),
    differs={"task_id": "only the job that runs here can tell: another's id is named in a warning, no more"},
    other=Judgement(Verdict.DIFFERS, UNKNOWN_KEYWORD),
)

RETRY_OPTIONS = Section(
    "self.retry({}=)",
    covered=_names("args countdown eta exc kwargs max_retries"),
    differs={"throw": "with False the retry comes when the task's code has ended; what that returns is not kept"}
    | _each(
        "queue priority headers expires routing_key time_limit soft_time_limit link link_error",
        "a retry has the options of its job: it is named in a warning, and changes nothing",
    ),
    other=Judgement(Verdict.DIFFERS, UNKNOWN_KEYWORD),
)

TASK = Section(
    "task.{}",
    covered=_names(
        "AsyncResult MaxRetriesExceededError add_to_chord after_return apply apply_async apply_async_on_commit "
        "autoretry_for before_start chunks default_retry_delay delay delay_on_commit "
        "expires ignore_result map max_retries name on_failure on_retry on_success queue "
        "rate_limit replace request retry s si signature soft_time_limit starmap subtask throws time_limit "
        "update_state "
        "app run request_stack"
    ),
    missing={
        **_each("backend", "there is no result backend: AsyncResult and update_state() say and tell what is known"),
        **_each("send_event", "there are no events"),
        **_each("start_strategy Strategy Request", "how a worker takes a job can't be replaced"),
        **_each("retry_task", "use retry()"),
        **_each("signature_from_request subtask_from_request", "make a signature: task.s(…)"),
        **_each("push_request pop_request", "a request can't be made up: call the task, or apply() it"),
        **_each("add_trail add_around annotate from_config", "nothing of it exists here"),
    },
    other=None,
)
"""Members of a task; a class of tasks has others of its own, of which nothing is said."""

HOOKS = Section(
    "Task.{}()",
    covered=_names("__call__ after_return before_start on_failure on_retry on_success run delay apply retry"),
    differs={
        "on_bound": "a task is bound to no app: it is never called",
        "apply_async": "it is asked of calls and, when they are enqueued, of steps, which it can't leave out; not of "
        "schedules, of what the admin enqueues, and of errbacks",
    },
    missing=_each("start_strategy", "how a worker takes a job can't be replaced"),
    other=None,
)
"""Methods that a class-based task defines."""

REQUEST = Section(
    "request.{}",
    covered=_names(
        "args called_directly correlation_id eta expires get headers hostname id is_eager kwargs retries task timelimit"
    ),
    differs={
        "delivery_info": "it tells the queue (routing_key), the priority and redelivered; there is no exchange",
        **_each("group parent_id", "it is None: AsyncResult.parent and the workflow's page tell what stands before"),
        "root_id": "it is the job's own id, also of a step of a workflow",
    },
    missing={
        **_each("callbacks errbacks chain chord", "what comes after a job stands in the rows of its workflow"),
        **_each("origin reply_to", "there are no messages; headers= can tell who asked"),
        **_each("stack", "only the call that runs is known"),
        **_each("_protected loglevel logfile utc", "nothing of it exists here"),
    },
    other=Judgement(Verdict.LOOK, "headers are attributes of the request as well; nothing else of this name is"),
)

RESULT = Section(
    "AsyncResult.{}",
    covered=_names(
        "args children date_done failed forget get id info kwargs name parent queue ready result retries revoke state "
        "status successful task_id traceback wait as_tuple maybe_reraise maybe_throw"
    ),
    missing={
        **_each("collect iterdeps graph build_graph get_leaf", "walk .children"),
        **_each("then", "there are no promises: use link=, or a chain"),
        **_each("backend _cache _get_task_meta", "there is no result backend"),
        **_each("worker", "the job's page in the admin tells which worker ran it"),
        **_each("ignored on_ready as_list", "nothing of it exists here"),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

RESULT_CALL = Section(
    "AsyncResult.get({}=)",
    covered=_names("timeout propagate"),
    differs=_each("interval", "the database calls: nothing is polled at this interval")
    | _each(
        "no_ack follow_parents callback on_message on_interval disable_sync_subtasks",
        "it is accepted and changes nothing",
    ),
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

GROUP_RESULT = Section(
    "GroupResult.{}",
    covered=_names(
        "children completed_count delete failed forget get id join join_native parent ready restore results "
        "revoke save successful waiting"
    ),
    missing={
        **_each("iterate iter_native", "go through .results"),
        **_each("then on_ready", "there are no promises: use a chord"),
        **_each(
            "add remove discard update clear backend as_tuple maybe_throw maybe_reraise", "nothing of it exists here"
        ),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

_OF_ALL_SIGNATURES = _names("__call__ apply apply_async clone delay link link_error on_error options set")

_OF_NO_SIGNATURE = {
    **_each(
        "id update subtask_type reprcall app election flatten_links stamp stamp_links parent_id root_id AsyncResult",
        "a signature is an object, no dict: read .args, .kwargs, .options",
    ),
    **_each("unchain_tasks prepare_steps from_dict register_type TYPES skew replace", "nothing of it exists here"),
    **_each("partial", "use clone()"),
    **_each("run apply_chunks", "use apply_async()"),
    **_each("append_to_list_option append_to_link extend_list_option", "use link() and link_error()"),
}

SIGNATURE = Section(
    "signature.{}",
    covered=_OF_ALL_SIGNATURES | _names("args freeze immutable kwargs name set_immutable task type"),
    missing=_OF_NO_SIGNATURE | _each("body tasks", "only a chain, a group or a chord has it"),
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

_OF_ONE_TASK = _OF_NO_SIGNATURE | {
    **_each(
        "args kwargs immutable name set_immutable task type",
        "only a signature of a single task has it: read .tasks and .options",
    ),
    "freeze": "its id is known when it is enqueued: it is that of what apply_async() returns",
}

CHAIN = Section(
    "chain.{}",
    covered=_OF_ALL_SIGNATURES | {"tasks"},
    missing=_OF_ONE_TASK | _each("body", "what is made by | is a chain, also with a group before it: read .tasks[-1]"),
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

GROUP = Section(
    "group.{}",
    covered=_OF_ALL_SIGNATURES | {"tasks"},
    missing=_OF_ONE_TASK,
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

CHORD = Section(
    "chord.{}",
    covered=_OF_ALL_SIGNATURES | {"body", "tasks"},
    missing=_OF_ONE_TASK,
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

CHUNKS = Section(
    "chunks.{}",
    covered=_OF_ALL_SIGNATURES | {"group"},
    missing=_OF_ONE_TASK,
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

APP = Section(
    "app.{}",
    covered=_names(
        "AsyncResult Task add_periodic_task autodiscover_tasks close conf config_from_object control current_task "
        "finalize main "
        "on_after_configure on_after_finalize register_task set_current set_default signature task tasks"
    ),
    differs={
        "send_task": "the task must be one of this code base: another name is refused, as nobody here would run it",
        **_each("start worker_main", "it ends with a word on manage.py dbqueue_worker, which is what runs workers"),
    },
    missing={
        **_each("backend", "there is no result backend: AsyncResult says what is known"),
        **_each(
            "amqp broker_connection broker_read_connection connection connection_for_read "
            "connection_for_write pool producer_pool "
            "producer_or_acquire connection_or_acquire default_connection default_producer",
            "there is no broker",
        ),
        **_each(
            "steps user_options Worker WorkController Beat", "workers have no boot steps: use the signals of a worker"
        ),
        **_each("loader fixups", "there are no loaders: settings are Django's"),
        **_each("log", "logging is Django's LOGGING"),
        **_each("events", "there are no events: connect to signals"),
        **_each("config_from_envvar config_from_cmdline setup_security add_defaults", "settings are Django's"),
        **_each("gen_task_name", "give tasks names by name="),
        **_each("select_queues", "manage.py dbqueue_worker --queues"),
        **_each("timezone now uses_utc_timezone", "use django.utils.timezone"),
        **_each("canvas chain group chord chunks subtask", "import it from dbqueue.compat.celery"),
        "GroupResult": "import GroupResult",
        **_each("on_configure on_init set_as_current _get_current_object", "nothing of it exists here"),
        **_each("autofinalize thread_oid oid current_worker_task user_preload", "nothing of it exists here"),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

CONTROL = Section(
    "control.{}",
    covered=_names("inspect ping revoke terminate"),
    differs=_each(
        "purge discard_all", "jobs that wait are CANCELLED, and can be looked at and retried; Celery deletes them"
    ),
    missing={
        **_each("broadcast", "workers take no commands: what they do stands in rows (the admin pauses, drains, ends)"),
        **_each(
            "add_consumer cancel_consumer", "manage.py dbqueue_queue pause, drain and resume a queue for all workers"
        ),
        **_each("rate_limit time_limit", "limits are declared on the task"),
        **_each("pool_grow pool_shrink autoscale pool_restart", "a worker has the threads that it was started with"),
        **_each("shutdown", "the admin's page of workers, or a signal to the process, ends them"),
        **_each("enable_events disable_events heartbeat election", "there are no events"),
        **_each("revoke_by_stamped_headers terminate_by_stamped_headers", "look jobs up, and cancel them"),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

REVOKE_OPTIONS = Section(
    "control.revoke({}=)",
    covered=_names("task_id"),
    differs={
        "terminate": "CancelRequested is raised inside the task, and SQL is cancelled; no process is killed",
        "signal": "no signal is sent: it is accepted and changes nothing",
        **_each("destination reply timeout limit connection wait", "the row is told, whatever workers there are"),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

INSPECT = Section(
    "inspect().{}",
    covered=_names("active active_queues ping registered registered_tasks reserved scheduled"),
    differs={
        "stats": "it tells pid, hostname, uptime and the number of threads; nothing of a broker, a pool or rusage",
        "revoked": "always empty: a revoked job is CANCELLED in its row, and no worker has to remember it",
    },
    missing=_each("clock conf hello memdump memsample objgraph report", "nothing of it exists here")
    | _each("query_task", "AsyncResult(id) tells what is known of a job"),
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

CRONTAB = Section(
    "crontab({}=)",
    covered=_names("minute hour day_of_week day_of_month month_of_year"),
    differs=_each("app nowfun", "time is the database's: it is accepted and changes nothing"),
    other=Judgement(Verdict.MISSING, "no field of a crontab: TypeError, as in Celery"),
)

SCHEDULE = Section(
    "schedule({}=)",
    covered=_names("run_every"),
    differs=_each("relative", "slots are multiples of the interval since 1970 in UTC")
    | _each("app nowfun", "time is the database's: it is accepted and changes nothing"),
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

BEAT_ENTRY = Section(
    "beat_schedule: {}",
    covered=_names("task schedule args kwargs options"),
    differs=_each("relative", "slots are multiples of the interval since 1970 in UTC"),
    other=Judgement(Verdict.LOOK, "no key of an entry of beat_schedule"),
)

BEAT_OPTIONS = Section(
    "beat_schedule: options: {}",
    covered=_names("queue"),
    differs={
        "priority": HIGHER_FIRST,
        **_each(
            "expires headers countdown time_limit soft_time_limit link link_error",
            "a schedule has no place for it: say it on the task",
        ),
        **_each(
            "routing_key exchange serializer compression delivery_mode retry retry_policy ignore_result", NO_MESSAGE
        ),
    },
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

PERIODIC = Section(
    "add_periodic_task({}=)",
    covered=_names("schedule sig args kwargs name queue"),
    differs={name: reason for name, reason in BEAT_OPTIONS.differs.items() if name != "countdown"},
    other=Judgement(Verdict.LOOK, NOT_IN_TABLE),
)

ROUTE = Section(
    "task_routes: {}",
    differs={"priority": HIGHER_FIRST},
    other=Judgement(Verdict.DIFFERS, "a route tells a queue and a priority: the rest changes nothing (W041 names it)"),
)
"""What a route may say beside its queue."""

SETTINGS = Section(
    "{}",
    covered=_names(
        "beat_schedule imports include task_always_eager task_default_queue "
        "task_eager_propagates task_ignore_result task_track_started timezone task_routes"
    ),
    differs={
        "enable_utc": "a time without a zone is of UTC, whatever this says; crontabs go by CELERY_TIMEZONE",
        "task_soft_time_limit": SOFT_LIMIT,
        "task_time_limit": HARD_LIMIT,
        "task_acks_late": TASK_OPTIONS.differs["acks_late"],
        "task_reject_on_worker_lost": TASK_OPTIONS.differs["reject_on_worker_lost"],
        "task_default_priority": HIGHER_FIRST,
        "task_default_rate_limit": TASK_OPTIONS.differs["rate_limit"],
        "task_create_missing_queues": "any name is a queue: it is accepted and changes nothing",
        "task_publish_retry": "jobs are rows in the caller's transaction: it is accepted and changes nothing",
        "task_publish_retry_policy": "jobs are rows in the caller's transaction: it is accepted and changes nothing",
        "task_remote_tracebacks": "tracebacks stand in the rows: it is accepted and changes nothing",
        "task_store_errors_even_if_ignored": "errors are always kept: it is accepted and changes nothing",
        "task_store_eager_result": "an eager result is no row: it is accepted and changes nothing",
        "task_annotations": "options stand on the task: it is accepted and changes nothing",
        "task_allow_error_cb_on_chord_header": "error callbacks run once per failing member: it is accepted",
        "task_protocol": NO_MESSAGE,
        "task_compression": NO_MESSAGE,
        "task_send_sent_event": NO_EVENTS,
        "task_queue_max_priority": "priorities are -100 to 100 on every queue: it is accepted and changes nothing",
        "task_inherit_parent_priority": "steps of a workflow inherit it where nothing else is said; accepted, "
        "changes nothing",
        "result_backend": RESULT_BACKEND,
        "result_expires": "KEEP_SUCCESSFUL_DAYS and KEEP_FAILED_DAYS say for how long jobs are kept: "
        "accepted, changes nothing",
        "beat_scheduler": "the workers keep the clock: it is accepted and changes nothing; "
        "django-celery-beat's rows move by manage.py dbqueue_import_beat",
        "task_queues": "any name is a queue: it is accepted and changes nothing (kombu's Queue is missing, "
        "take it out)",
    },
    look={
        "task_serializer": "json is what there is; anything else needs arguments that JSON can hold",
        "result_serializer": "json is what there is; anything else needs results that JSON can hold",
        "event_serializer": "there are no events",
        "accept_content": "json is what there is",
        "result_accept_content": "json is what there is",
        "task_cls": "give base= to the tasks, or task_cls= to Celery()",
        "app": "not a setting that changes anything here",
    },
    prefixes={
        "broker": Judgement(Verdict.DIFFERS, NO_BROKER),
        "redis": Judgement(Verdict.DIFFERS, NO_BROKER),
        "amqp": Judgement(Verdict.DIFFERS, NO_BROKER),
        "result": Judgement(Verdict.DIFFERS, NO_RESULT_STORE),
        "cache": Judgement(Verdict.DIFFERS, NO_RESULT_STORE),
        "database": Judgement(Verdict.DIFFERS, NO_RESULT_STORE),
        "mongodb": Judgement(Verdict.DIFFERS, NO_RESULT_STORE),
        "worker": Judgement(Verdict.DIFFERS, THREADS),
        "event": Judgement(Verdict.DIFFERS, NO_EVENTS),
        "control": Judgement(Verdict.DIFFERS, NO_BROKER),
        "security": Judgement(Verdict.DIFFERS, NO_MESSAGE),
        "task_default_": Judgement(Verdict.DIFFERS, NO_MESSAGE),
        "beat": Judgement(
            Verdict.DIFFERS, "the workers keep the clock, within a second: it is accepted and changes nothing"
        ),
    },
    other=Judgement(
        Verdict.LOOK, "no setting of Celery's that is known here; if it is the project's own, nothing is to do"
    ),
)
"""Settings by their new names in lower case, without ``CELERY_``."""

APP_OPTIONS = Section(
    "Celery({}=)",
    covered=_names("main autofinalize changes config_source namespace set_as_current task_cls") | SETTINGS.covered,
    differs={
        **_each("broker broker_url", NO_BROKER),
        **_each("backend result_backend", RESULT_BACKEND),
        **_each("events fixups log loader", UNKNOWN_KEYWORD),
        **{
            name: SETTINGS.differs[name]
            for name in _names(
                "task_acks_late task_default_priority task_default_rate_limit task_soft_time_limit task_time_limit"
            )
        },
    },
    missing=_each("control amqp", "a control, or a transport, of one's own has no place"),
    other=Judgement(Verdict.DIFFERS, UNKNOWN_KEYWORD),
)
"""Keywords of ``Celery()``: settings that are read are among them."""

OLD_SETTINGS = {
    "acks_late": "task_acks_late",
    "acks_on_failure": "task_acks_on_failure",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "acks_on_timeout": "task_acks_on_timeout",
    "allow_error_cb_on_chord_header": "task_allow_error_cb_on_chord_header",
    "always_eager": "task_always_eager",
    "annotations": "task_annotations",
    "create_missing_queue_exchange_type": "task_create_missing_queue_exchange_type",
    "create_missing_queue_type": "task_create_missing_queue_type",
    "create_missing_queues": "task_create_missing_queues",
    "default_delivery_mode": "task_default_delivery_mode",
    "default_exchange": "task_default_exchange",
    "default_exchange_type": "task_default_exchange_type",
    "default_priority": "task_default_priority",
    "default_queue": "task_default_queue",
    "default_rate_limit": "task_default_rate_limit",
    "default_queue_type": "task_default_queue_type",
    "default_routing_key": "task_default_routing_key",
    "disable_rate_limits": "worker_disable_rate_limits",
    "eager_propagates_exceptions": "task_eager_propagates",
    "enable_remote_control": "worker_enable_remote_control",
    "ignore_result": "task_ignore_result",
    "inherit_parent_priority": "task_inherit_parent_priority",
    "max_cached_results": "result_cache_max",
    "message_compression": "task_compression",
    "queue_max_priority": "task_queue_max_priority",
    "queues": "task_queues",
    "redirect_stdouts": "worker_redirect_stdouts",
    "redirect_stdouts_level": "worker_redirect_stdouts_level",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "remote_tracebacks": "task_remote_tracebacks",
    "repr_maxlevels": "task_repr_maxlevels",
    "result_db_short_lived_sessions": "database_short_lived_sessions",
    "result_db_tablenames": "database_table_names",
    "result_dburi": "database_url",
    "result_engine_options": "database_engine_options",
    "retry_on_worker_lost": "task_retry_on_worker_lost",
    "routes": "task_routes",
    "send_events": "worker_send_task_events",
    "send_task_sent_event": "task_send_sent_event",
    "store_eager_result": "task_store_eager_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "task_result_expires": "result_expires",
    "track_started": "task_track_started",
}
"""Names of settings from before Celery 4, without ``CELERY_``, and what they are called since."""

CONFIG_SOURCE = Judgement(
    Verdict.LOOK, "settings that are read from here are not looked at: name the file to --check too"
)
NAMESPACE = Judgement(
    Verdict.LOOK,
    "without namespace='CELERY' old names are read, as in Celery, and here also new ones with CELERY_ before them",
)
OTHER_NAMESPACE = Judgement(Verdict.LOOK, "settings are read with this prefix; --check knows those with CELERY_ only")

PICKLE = Judgement(Verdict.MISSING, "pickle is not spoken here: arguments and results must be what JSON can hold")
OTHER_SERIALIZER = Judgement(Verdict.MISSING, CUSTOM_SERIALIZER)
ROUTER = Judgement(
    Verdict.MISSING,
    "task_routes is a dict here, or a list of dicts and pairs: routers that are code are not asked; use queue=",
)
DATABASE_SCHEDULER = Judgement(Verdict.DIFFERS, INSTALLED.differs["django_celery_beat"])
OWN_SCHEDULER = Judgement(
    Verdict.MISSING,
    "a scheduler of one's own has no place: the workers keep the clock; declare schedules by beat_schedule",
)
EXPANDED = Judgement(Verdict.LOOK, "keywords that stand elsewhere (**) can't be read here")
PERHAPS_A_TASK = Judgement(Verdict.LOOK, "if this is a task, the call is covered; reading alone doesn't tell")
AS_TEXT = Judgement(Verdict.LOOK, "Celery's name as text is not changed with the imports")
INTEGRATION = Judgement(
    Verdict.LOOK, "made for Celery by somebody else: it hears nothing from dbqueue unless it says so"
)
BASE = Judgement(
    Verdict.LOOK,
    "no class that was read, or none that is known to be a task's: if it is made of Celery's Task, its package has to "
    "be moved too, or declaring a task with it fails",
)
STATE = Judgement(
    Verdict.LOOK,
    "jobs on all threads of a worker share it, where Celery's have a process each: keep it in local variables, or "
    "run the worker with --threads 1 --processes N",
)
LOCAL = Judgement(
    Verdict.MISSING,
    "a function that is made inside of another is no task without a name=: it would be another one at each call",
)
ERRBACK = Judgement(
    Verdict.MISSING, "a failure is told to a signature of one task, which may enqueue the rest: this is refused"
)
LINKED_CHORD = Judgement(Verdict.MISSING, "a chord can't be linked to a task: let it come after it in a chain")
PERIODIC_CALL = Judgement(
    Verdict.MISSING, "a periodic task is a task or a signature of one: have a task enqueue the chain, group or chord"
)
FOREIGN_TASK = Judgement(
    Verdict.LOOK, "of a package that was not read: if this is a task of Celery's, that package has to be moved too"
)
AT_THE_START = Judgement(
    Verdict.LOOK, "schedules, and settings that tasks take over, are read at a worker's start: later changes are lost"
)
IN_A_COROUTINE = Judgement(
    Verdict.MISSING,
    "to enqueue is to write a row, which Django refuses in a coroutine: await task.adelay(…) or aapply_async(…)",
)
NOBODY_IMPORTS = Judgement(
    Verdict.LOOK,
    "no file that was read imports this one: `celery -A` did, manage.py does not, and its settings and schedules are "
    "lost; import it in the project's __init__.py",
)
BARE_IMPORT = Judgement(
    Verdict.DIFFERS, "write `from dbqueue.compat import celery`: `import dbqueue.compat.celery` binds another name"
)
EXC_TYPE = Judgement(
    Verdict.DIFFERS, "of a failure .info and .result are always the exception, never a dict that tells of one"
)
NO_DICT = Judgement(Verdict.MISSING, "a signature is an object, no dict: read .task, .args, .kwargs, .options")
FOR_TYPES = Judgement(Verdict.LOOK, "dbqueue.compat.celery has no such name; only type checkers read it here")
STAR = Judgement(Verdict.LOOK, "what this brings can't be read here: import by name")
FIXTURE = Judgement(Verdict.MISSING, "a fixture of Celery's pytest plugin: use dbqueue_jobs (docs/features.md)")
NOT_LITERAL = Judgement(Verdict.LOOK, "entries that are made by code can't be read here")

MEMBERS = {
    "App": APP,
    "Chain": CHAIN,
    "Chord": CHORD,
    "Chunks": CHUNKS,
    "Control": CONTROL,
    "Group": GROUP,
    "GroupResult": GROUP_RESULT,
    "Inspect": INSPECT,
    "Request": REQUEST,
    "Result": RESULT,
    "Signature": SIGNATURE,
    "Task": TASK,
}
"""Members by the kind of object that has them."""

_LINKS = _names("link link_error")

KEYWORDS = {
    ("App", "add_periodic_task"): PERIODIC,
    ("App", "send_task"): APPLY_OPTIONS,
    ("App", "signature"): APPLY_OPTIONS,
    ("Control", "revoke"): REVOKE_OPTIONS,
    ("Result", "get"): RESULT_CALL,
    ("Result", "wait"): RESULT_CALL,
    ("GroupResult", "get"): RESULT_CALL,
    ("GroupResult", "join"): RESULT_CALL,
    ("Signature", "apply"): EAGER_OPTIONS,
    ("Signature", "apply_async"): APPLY_OPTIONS,
    ("Signature", "set"): APPLY_OPTIONS,
    **{(kind, "apply_async"): CHAIN_OPTIONS for kind in ("Chain", "Chord")},
    **{(kind, "set"): replace(CHAIN_OPTIONS, covered=CHAIN_OPTIONS.covered - _LINKS) for kind in ("Chain", "Chord")},
    **{(kind, "apply_async"): GROUP_OPTIONS for kind in ("Group", "Chunks")},
    **{(kind, "set"): replace(GROUP_OPTIONS, covered=GROUP_OPTIONS.covered - _LINKS) for kind in ("Group", "Chunks")},
    ("Task", "apply"): EAGER_OPTIONS,
    ("Task", "apply_async"): APPLY_OPTIONS,
    ("Task", "retry"): RETRY_OPTIONS,
    ("Task", "signature"): APPLY_OPTIONS,
    ("Task", "subtask"): APPLY_OPTIONS,
    ("Task", "update_state"): UPDATE_STATE,
}
"""Keywords by kind and member."""

CALLS = {"Celery": APP_OPTIONS, "crontab": CRONTAB, "schedule": SCHEDULE}
"""Keywords of what is imported from Celery and called."""


READ_LIVE = _names("task_always_eager task_eager_propagates task_ignore_result task_track_started")
"""Settings that are read at each call, or at the end of each job."""


MOVED = ("dbqueue", "compat", "celery")
"""Where Celery's names are after the move."""


def before_the_move(path: tuple[str, ...]) -> tuple[str, ...]:
    """``celery.x`` for ``dbqueue.compat.celery.x``: what has moved is read as what it was. All others as they are."""
    return path[2:] if path[:3] == MOVED else path


def imported(path: tuple[str, ...]) -> tuple[str, Judgement]:
    """How ``celery.x.y``, imported or named, is shown, and its judgement. A module that exists is covered."""
    dotted = ".".join(path)
    if dotted in MODULES:
        return dotted, COVERED
    for length in range(len(path) - 1, 0, -1):
        section = MODULES.get(".".join(path[:length]))
        if section is not None:
            judgement = section.judge(path[length])
            assert judgement is not None, f"{section.title} says what becomes of every name"
            return ".".join(path[: length + 1]), judgement
    return dotted, Judgement(Verdict.MISSING, NOT_THERE)


def is_object(text: str) -> bool:
    """Whether it is the dotted name of something that a module of Celery's has. Those of modules are loggers' names."""
    module, _, name = text.rpartition(".")
    section = MODULES.get(module)
    return section is not None and text not in MODULES and name in section.covered | section.differs.keys()


def setting(name: str) -> Judgement:
    """Of a setting by its new name in lower case, without prefix."""
    judgement = SETTINGS.judge(name)
    assert judgement is not None, "settings say what becomes of every name"
    return judgement


def known_setting(name: str) -> str | None:
    """The new name of a setting, for one as it stands in Django's settings; None for what is none of Celery's."""
    lower = name.lower()
    for prefix, now in (("celery_", ""), ("celeryd_", "worker_"), ("celerybeat_", "beat_"), ("broker_", "broker_")):
        if name.isupper() and lower.startswith(prefix):
            rest = lower[len(prefix) :]
            if prefix == "celeryd_" and rest in ("task_time_limit", "task_soft_time_limit"):
                return rest
            return OLD_SETTINGS.get(rest, rest) if prefix == "celery_" else now + rest
    return None
