"""Jobs while they run: deadlines, requests to end, progress and log lines, with real workers."""

import datetime
import gc
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from dbqueue import JobResult, current_context
from dbqueue.exceptions import DeadlineExceeded, JobCancelled
from dbqueue.models import Attempt, Job, JobStatus, LogLine
from dbqueue.outcome import REQUESTED, Outcome
from dbqueue.results import Context
from dbqueue.running import MOST_LINES, Running
from dbqueue.services.monitor import Monitor
from dbqueue.store import store_for
from dbqueue.testing import run_jobs

from .shop import running_tasks as tasks
from .shop.models import Mark
from .test_pool import claim as a_claim
from .workers import WorkerProcess, eventually, worker

pytestmark = pytest.mark.django_db(transaction=True)

DEADLINE = "dbqueue.exceptions.DeadlineExceeded"


@pytest.fixture
def one_worker() -> Iterator[WorkerProcess]:
    with worker("--threads", "4", "--grace", "1") as process:
        yield process


def ended(result: JobResult[Any]) -> JobResult[Any]:
    result.wait(30)
    return result


def started() -> None:
    eventually(lambda: Mark.objects.filter(label="started").exists())


# Deadlines


@pytest.mark.parametrize("task", [tasks.loop, tasks.slow_sql, tasks.sleep_async])
def test_a_task_is_interrupted_at_its_deadline_and_its_thread_goes_on(task: Any) -> None:
    with worker("--threads", "1") as process:
        result = ended(task.using(timeout=0.3).enqueue(60))

        assert result.status is JobStatus.FAILED
        assert [error.exception_class_path for error in result.errors] == [DEADLINE]
        [attempt] = Attempt.objects.all()
        assert (attempt.ended_at - attempt.started_at).total_seconds() < 10
        assert tasks.tell_pid.enqueue().get(timeout=15)
        assert "leaked" not in process.output


def test_a_deadline_is_an_error_like_others() -> None:
    with worker("--threads", "1"):
        result = ended(tasks.loop.using(timeout=0.1, max_attempts=2, backoff=0).enqueue(60))
        given_up = ended(tasks.loop.using(timeout=0.1, max_attempts=2, give_up_on=DeadlineExceeded).enqueue(60))

    assert [result.attempts, given_up.attempts] == [2, 1]


def test_a_task_may_end_well_after_its_deadline(one_worker: WorkerProcess) -> None:
    assert tasks.swallow.using(timeout=0.2).enqueue(60).get(timeout=15) == "DeadlineExceeded"
    assert tasks.swallow.using(timeout=30).enqueue(0.01).get(timeout=15) == "in time"


@pytest.mark.long
@pytest.mark.parametrize("before", ["python", "sql"])
def test_what_a_task_asks_the_database_after_its_deadline_is_let_be(one_worker: WorkerProcess, before: str) -> None:
    results = [tasks.clean_up_with_sql.using(timeout=0.3).enqueue(before) for _ in range(32)]
    assert [result.get(timeout=60) for result in results] == ["clean"] * 32


def test_what_can_not_be_interrupted_is_reported(one_worker: WorkerProcess) -> None:
    result = tasks.sleep_in_c.using(timeout=0.2).enqueue(2.5)
    eventually(lambda: "is overdue" in one_worker.output)
    assert ended(result).errors[0].exception_class_path == DEADLINE


def test_past_its_hard_timeout_a_job_ends_the_process_and_costs_others_nothing() -> None:
    with worker("--threads", "2", "--processes", "1") as process:
        stuck = tasks.sleep_in_c.using(hard_timeout=1).enqueue(60)
        others: list[JobResult[Any]] = [tasks.sleep_in_c.enqueue(30), *(tasks.tell_pid.enqueue() for _ in range(3))]
        assert process.wait(20) == 1

    stuck.refresh()
    assert stuck.status is JobStatus.FAILED
    assert stuck.errors[0].exception_class_path == DEADLINE
    assert "past its hard timeout" in process.output
    for other in others:
        other.refresh()
        assert (other.status, other.attempts) == (JobStatus.READY, 0)


def test_a_supervisor_replaces_a_process_that_a_job_got_stuck_in() -> None:
    with worker("--threads", "1", "--processes", "2"):
        stuck = ended(tasks.sleep_in_c.using(hard_timeout=0.5, max_attempts=2, backoff=0).enqueue(60))
        assert (stuck.status, stuck.attempts) == (JobStatus.FAILED, 2)
        assert tasks.tell_pid.enqueue().get(timeout=30)


def test_the_context_tells_the_deadline() -> None:
    told = tasks.tell_deadline.using(timeout=60).enqueue()
    untold = tasks.tell_no_deadline.enqueue()
    run_jobs()
    told.refresh()
    untold.refresh()
    assert told.return_value == [True, True]
    assert untold.return_value == [None, None, False]
    assert current_context() is None


def test_an_interrupt_never_reaches_what_comes_after_the_task() -> None:
    """Interrupts are sent at any moment of thousands of tiny calls; none escapes, and no value is mixed up."""
    current: list[Running] = []
    done = threading.Event()

    def disturb() -> None:
        chance = random.Random(7)
        while not done.is_set():
            for running in current[-1:]:
                if running.began and chance.random() < 0.5:
                    running.interrupt(DeadlineExceeded)
            time.sleep(chance.random() / 20_000)

    def work(number: int) -> int:
        return sum(sum(range(20)) for _ in range(number % 300))

    disturber = threading.Thread(target=disturb)
    disturber.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.disable()  # whose callbacks and destructors swallow whatever is raised inside them
    outcomes = {"value": 0, "interrupted": 0}
    try:
        number = 0
        # A busy machine gives the disturber fewer turns.
        while number < 3000 or (min(outcomes.values()) <= 100 and number < 100_000):
            number += 1
            running = Running(a_claim(number))
            current.append(running)
            try:
                assert running.call(partial(work, number)) == 190 * (number % 300)
                outcomes["value"] += 1
            except DeadlineExceeded:
                outcomes["interrupted"] += 1
            for _ in range(20):  # what would be hit
                sum(range(20))
    finally:
        gc.enable()
        sys.setswitchinterval(interval)
        done.set()
        disturber.join()

    assert sum(outcomes.values()) == number
    assert outcomes["value"] > 100
    assert outcomes["interrupted"] > 100


# Requests to end


def test_a_waiting_job_is_cancelled_at_once() -> None:
    result = tasks.tell_pid.enqueue()
    assert result.cancel()
    assert result.status is JobStatus.CANCELLED
    assert not result.cancel()
    with pytest.raises(JobCancelled):
        result.get()


def test_a_running_task_learns_that_it_is_to_end(one_worker: WorkerProcess) -> None:
    result = tasks.stop_when_asked.using(max_attempts=5).enqueue()
    started()
    assert result.cancel()
    ended(result)
    assert (result.status, result.reason, result.attempts) == (JobStatus.CANCELLED, REQUESTED, 1)
    assert result.errors[0].exception_class_path == "dbqueue.exceptions.CancelRequested"


def test_what_a_task_returns_after_the_request_stands(one_worker: WorkerProcess) -> None:
    result = tasks.finish_when_asked.enqueue()
    started()
    result.cancel()
    assert result.get(timeout=15) == "finished all the same"


def test_with_interrupt_it_is_raised_inside_the_task(one_worker: WorkerProcess) -> None:
    result = tasks.loop_for_ever.enqueue()
    started()
    result.cancel(interrupt=True)
    assert ended(result).status is JobStatus.CANCELLED
    assert tasks.tell_pid.enqueue().get(timeout=15)


def test_a_task_that_goes_on_after_its_deadline_can_still_be_interrupted(one_worker: WorkerProcess) -> None:
    result = tasks.go_on_for_ever.using(timeout=0.2).enqueue()
    started()
    result.cancel(interrupt=True)
    assert ended(result).status is JobStatus.CANCELLED


def test_a_second_request_may_add_the_interrupt_and_takes_none_back(one_worker: WorkerProcess) -> None:
    result = tasks.loop_for_ever.enqueue()
    started()
    result.cancel()
    eventually(lambda: Job.objects.filter(cancel_requested_at__isnull=False, status=JobStatus.RUNNING).exists())
    result.cancel(interrupt=True)
    result.cancel()
    assert ended(result).status is JobStatus.CANCELLED


def test_a_job_to_be_cancelled_is_not_tried_again(one_worker: WorkerProcess) -> None:
    result = tasks.fail_slowly.using(max_attempts=5, backoff=60).enqueue()
    started()
    result.cancel()
    ended(result)
    assert result.status is JobStatus.CANCELLED
    assert "it fails" in result.errors[0].traceback


@pytest.mark.parametrize("how", ["release", "rescue", "retry"])
def test_a_request_is_kept_when_the_job_comes_back(how: str) -> None:
    store = store_for("default")
    result = tasks.tell_pid.enqueue()
    register = {"hostname": "h", "pid": 1, "queues": "", "threads": 1}
    worker_id = store.register(name="worker", **register)  # type: ignore[arg-type]
    [claim] = store.claim(worker_id, 1)
    assert store.request_cancel([claim.job_id]) == ([], [claim.job_id])

    match how:
        case "release":
            store.release([claim])
        case "rescue":
            store.unregister(worker_id)
            store.rescue(5)
        case "retry":
            store.finish([Outcome.retried(claim, ValueError(), 60)])

    result.refresh()
    assert (result.status, result.reason) == (JobStatus.CANCELLED, REQUESTED)
    store.retry([claim.job_id])
    result.refresh()
    assert result.status in (JobStatus.READY, JobStatus.SCHEDULED)
    assert Job.objects.get().cancel_requested_at is None


# Progress and log


def test_progress_and_log_lines_reach_the_row(one_worker: WorkerProcess) -> None:
    result = tasks.report_and_wait.enqueue()

    eventually(lambda: Job.objects.get().progress and result.log)
    result.refresh()
    assert result.progress is not None
    assert (result.progress["done"], result.progress["total"], result.progress["message"]) == (3, 10, "on the way")
    assert result.log == ["begun"]
    result.cancel()
    ended(result)


def test_the_last_word_is_always_written(one_worker: WorkerProcess) -> None:
    results = [tasks.report.enqueue(5) for _ in range(20)]
    for result in results:
        ended(result)
    eventually(lambda: LogLine.objects.count() == 20 * 6)
    for result in results:
        result.refresh()
        assert result.progress is not None
        assert result.progress["done"] == 5
        assert result.log == [*(f"line {number} of 5" for number in range(1, 6)), "a\\x00b%"]


def test_inline_runs_write_them_too() -> None:
    result = tasks.report.enqueue(MOST_LINES + 10)
    run_jobs()
    result.refresh()
    assert result.progress is not None
    assert result.progress["done"] == MOST_LINES + 10
    assert len(result.log) == MOST_LINES + 1
    assert result.log[-1].startswith("More than 1000 lines")


def test_log_lines_go_with_their_job() -> None:
    result = tasks.report.enqueue(3)
    run_jobs()
    assert store_for("default").delete([int(result.id)]) == 1
    assert not LogLine.objects.exists()


def test_a_line_that_can_not_be_formatted_is_kept_as_it_is() -> None:
    running = Running(a_claim(1))
    context = Context(a_claim(1), "default", running)
    context.log("%d rows", "x")
    context.log("50 %!", 1)
    assert [line.text for line in running.lines] == ["%d rows ('x',)", "50 %! (1,)"]


@pytest.mark.parametrize(
    "arguments", [(-1,), ("5",), (float("nan"),), (True,), (1, "2"), (1, -2), (1, 2, 5), (1, 2, "x" * 201)]
)
def test_what_is_no_progress(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        Context(a_claim(1), "default", Running(a_claim(1))).progress(*arguments)


def test_a_late_word_of_an_older_attempt_changes_nothing() -> None:
    store = store_for("default")
    result = tasks.tell_pid.enqueue()
    worker_id = store.register(name="w", hostname="h", pid=1, queues="", threads=1)
    [first] = store.claim(worker_id, 1)
    late = Running(first)
    store.release([first])
    store.claim(worker_id, 1)

    late.tell_progress(1, 2, "late")
    store.write_reports([late])

    result.refresh()
    assert result.progress is None


def test_the_thread_waits_for_who_cancels_its_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that it must not leave its connection to the next job."""
    cancelling, cancelled = threading.Event(), threading.Event()

    def cancel_slowly(wrapper: Any) -> None:
        cancelling.set()
        time.sleep(2)
        cancelled.set()

    monkeypatch.setattr("dbqueue.running._cancel_statement", cancel_slowly)
    for number in range(20):  # the interrupt may come before the statement
        running = Running(a_claim(number))

        def meet_the_deadline(running: Running = running) -> None:
            threading.Timer(0.05, running.ask, [DeadlineExceeded]).start()
            tasks.slow_sql.func(0.2)

        with pytest.raises(DeadlineExceeded):
            running.call(meet_the_deadline)
        if cancelling.is_set():
            break
    assert cancelled.is_set()


def test_a_task_that_logs_all_the_time_leaves_no_lock_behind(capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    noise = logging.getLogger("tests.noise")
    noise.addHandler(handler)
    gc.disable()  # whose callbacks swallow whatever is raised inside them
    try:
        for number in range(60):
            running = Running(a_claim(number))

            def work(running: Running = running) -> None:
                threading.Timer(0.005, running.ask, [DeadlineExceeded]).start()
                tasks.log_in_a_loop.func(10)

            with pytest.raises(DeadlineExceeded):
                running.call(work)
            thread = threading.Thread(target=noise.warning, args=["free"], daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive(), "the handler's lock was left behind"
    finally:
        gc.enable()
        noise.removeHandler(handler)
        capfd.readouterr()


def test_a_task_asks_for_another_try_at_its_deadline(one_worker: WorkerProcess) -> None:
    result = tasks.ask_for_more_time.using(timeout=0.2, max_attempts=3).enqueue()
    eventually(lambda: Attempt.objects.exists())
    result.refresh()
    assert (result.status, result.attempts) == (JobStatus.SCHEDULED, 1)


def test_an_except_exception_does_not_swallow_it(one_worker: WorkerProcess) -> None:
    result = ended(tasks.swallow_errors.using(timeout=0.2).enqueue(60))
    assert result.errors[0].exception_class_path == DEADLINE


def test_a_deadline_is_kept_while_the_row_is_locked(one_worker: WorkerProcess) -> None:
    result = ended(tasks.hold_the_write_lock.using(timeout=0.5).enqueue(60))
    assert result.errors[0].exception_class_path == DEADLINE
    assert not Mark.objects.filter(label="locked").exists()


def test_two_jobs_that_got_stuck_have_both_failed() -> None:
    with worker("--threads", "2") as process:
        stuck = [tasks.get_stuck.using(hard_timeout=1).enqueue() for _ in range(2)]
        eventually(lambda: Mark.objects.filter(label="started").count() == 2)
        # When it goes on, both are too late.
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 1
    for result in stuck:
        result.refresh()
        assert (result.status, result.attempts) == (JobStatus.FAILED, 1)


def test_a_job_that_ends_while_the_monitor_asks_is_written_once() -> None:
    store = store_for("default")
    running = Running(a_claim(int(tasks.tell_pid.enqueue().id)))
    Job.objects.update(lease=1)
    monitor = Monitor(store, lambda: [running], lambda: None)
    running.log("a line")

    monitor.leave(running)
    monitor.run_once()

    assert [line.text for line in LogLine.objects.all()] == ["a line"]


def test_a_row_that_somebody_else_wrote_ends_its_own_job_alone(one_worker: WorkerProcess) -> None:
    odd = tasks.tell_pid.using(run_after=datetime.timedelta(hours=1)).enqueue()
    Job.objects.filter(pk=odd.id).update(options=[1], run_after="2020-01-01T00:00:00Z")
    worse = tasks.tell_pid.using(run_after=datetime.timedelta(hours=1)).enqueue()
    Job.objects.filter(pk=worse.id).update(options={"timeout": "x"}, run_after="2020-01-01T00:00:00Z")
    assert ended(odd).is_finished
    assert ended(worse).is_finished
    assert tasks.tell_pid.enqueue().get(timeout=15)
