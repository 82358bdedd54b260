"""The operator's pages in a real browser, on a live server with a strict content security policy, with a real worker.

After every test: no error on the console, no violation of the policy, no response of 400 or more, no request to another
server.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from unittest import mock

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.http import HttpRequest, HttpResponse
from django.test import modify_settings, override_settings
from django.urls import path

from dbqueue import group
from dbqueue.models import GROUP, BulkAction, Job, JobStatus, Schedule, Workflow
from dbqueue.search import Search
from dbqueue.store import store_for

from .shop import admin_tasks as tasks
from .shop import running_tasks
from .shop import workflow_tasks as flow
from .test_admin import a_worker
from .test_history import counted
from .workers import eventually, worker

if TYPE_CHECKING:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Page,
        Request,
        Response,
        expect,
        sync_playwright,
    )
else:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core IS NOT INSTALLED").Axe
    playwright = pytest.importorskip("playwright.sync_api", reason="PLAYWRIGHT IS NOT INSTALLED: no test in a browser")
    expect, sync_playwright = playwright.expect, playwright.sync_playwright

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

REPORT_VIOLATIONS = """
    addEventListener("securitypolicyviolation", (event) => {
        console.error("violates " + event.violatedDirective + ": " + event.blockedURI + " in " + event.sourceFile);
    });
"""

SCREENSHOTS = os.environ.get("DBQUEUE_TEST_SCREENSHOTS")
"""A folder, to look at the pages."""


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


@pytest.fixture(autouse=True, scope="module")
def chromium(request: pytest.FixtureRequest) -> None:
    """Says loudly where there is none; fails where exactly these tests were asked for."""
    if CHROMIUM is None:
        say = pytest.fail if request.config.option.markexpr == "browser" else pytest.skip
        say("THERE IS NO CHROMIUM HERE: THE PAGES WERE NOT TESTED IN A BROWSER. Install it, then: make test-browser")


urlpatterns = [
    path("admin/", admin.site.urls),
    # Browsers ask for it, and a page that is not there would be an error.
    path("favicon.ico", lambda request: HttpResponse(status=204)),
]


@override_settings(ROOT_URLCONF="tests.test_browser")
@modify_settings(MIDDLEWARE={"prepend": "tests.test_browser.strict_policy"})
class OperatorTests(StaticLiveServerTestCase):
    browser: ClassVar[Browser]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Playwright's loop runs in this thread, which makes Django refuse the ORM here. Nothing on that loop uses it.
        cls.enterClassContext(mock.patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="true"))
        playwright = cls.enterClassContext(sync_playwright())
        cls.browser = cls.enterClassContext(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS))

    def setUp(self) -> None:
        User.objects.create_superuser("operator", password="secret")
        self.wrong: list[str] = []
        self.page = self.log_in(self.new_context())

    def tearDown(self) -> None:
        assert self.wrong == []

    def new_context(self, *, javascript: bool = True, bypass_csp: bool = False) -> BrowserContext:
        context = self.browser.new_context(
            base_url=self.live_server_url, java_script_enabled=javascript, bypass_csp=bypass_csp
        )
        self.addCleanup(context.close)
        context.set_default_timeout(15_000)
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("console", self.note_console)
        context.on("weberror", lambda error: self.wrong.append(f"script: {error.error}"))
        context.on("request", self.note_request)
        context.on("response", self.note_response)
        return context

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def note_request(self, request: Request) -> None:
        if not request.url.startswith(f"{self.live_server_url}/"):
            self.wrong.append(f"off-origin: {request.url}")

    def note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")

    def log_in(self, context: BrowserContext, name: str = "operator") -> Page:
        page = context.new_page()
        page.goto("/admin/")
        page.get_by_label("Username:").fill(name)
        page.get_by_label("Password:").fill("secret")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Site administration")).to_be_visible()
        return page

    def choose(self, page: Page, task: str) -> None:
        """From the start page to the form of ``task``."""
        page.goto("/admin/")
        page.get_by_role("row", name="Jobs").get_by_role("link", name="Add").first.click()
        page.get_by_label("Task:").fill(task)
        self.take_picture(page, "choose")
        page.get_by_role("button", name="Continue").click()

    def enqueue(self, page: Page) -> None:
        page.get_by_role("button", name="Enqueue", exact=True).click()
        expect(page.locator(".messagelist .success")).to_contain_text("Enqueued: tests.shop.admin_tasks.")

    def wait_for(self, page: Page, status: JobStatus) -> None:
        """Load the job's page until it shows this state."""

        def shows_it() -> bool:
            page.goto(page.url)
            return page.locator(".field-state .dbqueue-state").inner_text() == str(status.label)

        eventually(shows_it)

    def take_picture(self, page: Page, name: str) -> None:
        if SCREENSHOTS:
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{scheme}.png", full_page=True, animations="disabled")

    @contextmanager
    def running_worker(self) -> Iterator[None]:
        with worker(DJANGO_ALLOW_ASYNC_UNSAFE=""):
            yield

    def enqueue_and_see_its_result(self, page: Page, pictures: str) -> None:
        self.choose(page, tasks.divide.name)
        page.get_by_label("dividend:").fill("7")
        page.get_by_label("divisor:").fill("2.5")
        page.get_by_label("rounding:").select_option("up")
        page.get_by_label("Queue name:").fill("mail")
        page.get_by_label("Priority:").fill("10")
        self.take_picture(page, f"{pictures}-enqueue")
        self.enqueue(page)
        self.wait_for(page, JobStatus.SUCCESSFUL)
        expect(page.locator(".field-result")).to_contain_text('{ "rounded": "up", "quotient": 3 }')
        expect(page.locator("#attempts")).to_contain_text("Attempt 1 Successful")
        self.take_picture(page, f"{pictures}-successful")

    def test_a_job_goes_from_the_form_to_its_result(self) -> None:
        with self.running_worker():
            self.enqueue_and_see_its_result(self.page, "job")

    def test_the_same_without_javascript(self) -> None:
        with self.running_worker():
            self.enqueue_and_see_its_result(self.log_in(self.new_context(javascript=False)), "without-script")

    def test_a_failed_job_shows_its_traceback_and_is_retried(self) -> None:
        page = self.page
        with self.running_worker():
            self.choose(page, tasks.fail_with.name)
            page.get_by_label("message:").fill("<b>no luck</b>")
            self.enqueue(page)
            self.wait_for(page, JobStatus.FAILED)
            expect(page.locator("#attempts pre")).to_contain_text("ValueError: <b>no luck</b>")
            self.take_picture(page, "failed")
            page.get_by_role("button", name="Retry").click()
            expect(page.locator(".messagelist .success")).to_have_text("1 job retried.")
            eventually(lambda: Job.objects.get().attempt == 2)
            self.wait_for(page, JobStatus.FAILED)
        expect(page.locator("#attempts h3")).to_have_text(["Attempt 2 Failed", "Attempt 1 Failed"])
        expect(page.locator("#attempts pre").nth(1)).not_to_be_visible()
        self.take_picture(page, "retried")
        page.get_by_text("Traceback", exact=True).nth(1).click()
        expect(page.locator("#attempts pre").nth(1)).to_be_visible()
        assert LogEntry.objects.filter(change_message="Retried.").count() == 1

    def test_a_job_that_waits_is_cancelled(self) -> None:
        page = self.page
        self.choose(page, tasks.without_arguments.name)
        page.get_by_label("Run after:").fill("2040-01-01T12:00:00")
        self.enqueue(page)
        expect(page.locator(".field-state")).to_contain_text("Scheduled")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".messagelist .success")).to_have_text("1 job cancelled.")
        expect(page.locator(".field-state")).to_contain_text("Cancelled")
        assert Job.objects.get().status == JobStatus.CANCELLED

    def test_errors_stand_at_their_fields_and_what_was_typed_stays(self) -> None:
        page = self.page
        self.choose(page, tasks.every_type.name)
        page.get_by_label("whole:").fill("7")
        page.get_by_label("anything:").fill("hello")
        page.get_by_role("button", name="Enqueue", exact=True).click()
        expect(page.locator(".field-arg_anything .errorlist")).to_contain_text("This is not JSON")
        expect(page.locator(".field-arg_real .errorlist")).to_have_text("This field is required.")
        expect(page.locator(".field-arg_whole .errorlist")).to_have_count(0)
        expect(page.get_by_label("whole:")).to_have_value("7")
        self.take_picture(page, "errors")
        assert not Job.objects.exists()

    def test_the_browsers_own_pickers_send_what_the_form_reads(self) -> None:
        page = self.page
        self.choose(page, tasks.with_defaults.name)
        page.get_by_label("moment:").fill("2031-02-03T04:05:06")
        page.get_by_label("day:").fill("2031-02-03")
        page.get_by_label("flag").uncheck()
        self.enqueue(page)
        assert Job.objects.get().kwargs == {"moment": "2031-02-03T04:05:06-06:00", "day": "2031-02-03", "flag": False}

    def test_selected_jobs_are_cancelled_from_the_list(self) -> None:
        page = self.page
        for _ in range(3):
            tasks.divide.enqueue(1, 2)  # type: ignore[arg-type]
        tasks.without_arguments.using(queue_name="mail").enqueue()
        page.goto("/admin/dbqueue/job/")
        page.get_by_role("link", name=tasks.divide.name).first.focus()
        self.take_picture(page, "list")
        page.get_by_text("By task").click()
        page.locator("#changelist-filter").get_by_role("link", name=tasks.divide.name).click()
        page.locator("#action-toggle").check()
        page.get_by_label("Action:").select_option("cancel_selected")
        page.locator("#changelist-form .actions button[name=index]").click()
        expect(page.locator(".messagelist .success")).to_have_text("3 jobs cancelled.")
        page.goto("/admin/dbqueue/job/")
        page.locator("#searchbar").fill("without_arg")
        page.locator("#searchbar").press("Enter")
        expect(page.locator("#result_list tbody tr")).to_have_count(1)
        expect(page.locator("#result_list .field-state")).to_have_text("Ready")
        assert Job.objects.filter(status=JobStatus.CANCELLED).count() == 3

    def test_the_living_worker_is_listed(self) -> None:
        page = self.page
        with self.running_worker():
            tasks.without_arguments.enqueue()
            eventually(lambda: Job.objects.get().status == JobStatus.SUCCESSFUL)
            page.goto("/admin/dbqueue/worker/")
            expect(page.locator("#result_list tbody tr")).to_have_count(1)
            expect(page.locator(".field-state")).to_have_text("Alive")
            self.take_picture(page, "workers")
            page.locator("#result_list th a").click()
            expect(page.locator(".field-served")).to_contain_text("all")
        page.goto("/admin/dbqueue/worker/")
        expect(page.locator("#result_list tbody tr")).to_have_count(0)
        page.get_by_role("link", name="Stopped").click()
        expect(page.locator("#result_list tbody tr")).to_have_count(1)

    def test_no_page_scrolls_sideways_on_a_phone(self) -> None:
        page = self.page
        job = tasks.divide.enqueue(1, "x" * 300)  # type: ignore[arg-type]
        with self.running_worker():
            eventually(lambda: Job.objects.get().status == JobStatus.FAILED)
        long = "myproject.integrations.payments.tasks.synchronise_open_invoices"
        store = store_for("default")
        Job.objects.create(task=long, enqueued_at=store.clock())
        wide = store.start_bulk(BulkAction.RETRY, Search(task=long, error=f"{long}.Error"), user_id=1, user_name="o")
        page.set_viewport_size({"width": 360, "height": 740})
        for number, url in enumerate(
            (
                "/admin/dbqueue/job/",
                f"/admin/dbqueue/job/{job.id}/change/",
                "/admin/dbqueue/job/add/",
                f"/admin/dbqueue/job/add/?task={tasks.every_type.name}",
                "/admin/dbqueue/worker/?state=all",
                "/admin/dbqueue/overview/",
                "/admin/dbqueue/queue/",
                "/admin/dbqueue/schedule/",
                "/admin/dbqueue/job/bulk/?state=FAILED",
                "/admin/dbqueue/bulkoperation/",
                f"/admin/dbqueue/bulkoperation/{wide.pk}/change/",
                f"/admin/dbqueue/job/bulk/?task={long}&error={long}.Error",
                f"/admin/dbqueue/job/{job.id}/edit/",
                f"/admin/dbqueue/job/add/?task={tasks.with_secrets.name}",
                "/admin/dbqueue/schedule/add/",
                f"/admin/dbqueue/schedule/add/?task={tasks.with_secrets.name}",
            )
        ):
            page.goto(url)
            self.take_picture(page, f"phone-{number}")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, url

    def test_the_overview_keeps_itself_up_to_date(self) -> None:
        page = self.page
        page.goto("/admin/dbqueue/overview/")
        expect(page.locator(".dbqueue-tile-ready .dbqueue-figure")).to_have_text("0")
        tasks.without_arguments.enqueue()
        expect(page.locator(".dbqueue-tile-ready .dbqueue-figure")).to_have_text("1", timeout=15_000)
        expect(page.locator("[data-part=warnings]")).to_contain_text("no worker is alive")
        with self.running_worker():
            eventually(lambda: Job.objects.get().status == JobStatus.SUCCESSFUL)
            expect(page.locator("[data-part=chart-ended]")).to_contain_text("1 succeeded", timeout=40_000)
            self.take_picture(page, "overview")

    def test_the_page_of_a_job_keeps_itself_up_to_date_until_it_has_ended(self) -> None:
        page = self.page
        job = tasks.fail_with.enqueue("no luck")
        page.goto(f"/admin/dbqueue/job/{job.id}/change/")
        expect(page.locator(".field-state")).to_contain_text("Ready")
        with self.running_worker():
            expect(page.locator(".field-state")).to_contain_text("Failed", timeout=20_000)
        expect(page.locator("#attempts")).to_contain_text("no luck")
        expect(page.get_by_role("button", name="Retry")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".messagelist .success")).to_have_text("1 job retried.")

    def test_the_overview_rests_while_it_is_paused_and_says_when_the_session_has_ended(self) -> None:
        page = self.page
        page.goto("/admin/dbqueue/overview/")
        page.get_by_role("button", name="Pause").click()
        tasks.without_arguments.enqueue()
        page.wait_for_timeout(7_000)
        expect(page.locator(".dbqueue-tile-ready .dbqueue-figure")).to_have_text("0")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".dbqueue-tile-ready .dbqueue-figure")).to_have_text("1", timeout=15_000)
        page.context.clear_cookies()
        expect(page.get_by_role("status")).to_contain_text("your session has ended", timeout=15_000)

    def test_a_page_rests_while_it_is_hidden_or_has_the_focus_and_keeps_open_what_is_open(self) -> None:
        page = self.page
        page.goto("/admin/dbqueue/overview/")
        ready = page.locator(".dbqueue-tile-ready .dbqueue-figure")
        page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away, configurable: true })")
        page.evaluate("window.away = true")
        tasks.without_arguments.enqueue()
        page.wait_for_timeout(6_500)
        expect(ready).to_have_text("0")
        page.evaluate("window.away = false")
        expect(ready).to_have_text("1", timeout=15_000)

        page.get_by_text("Show as a table").click()  # which has the focus now
        tasks.without_arguments.enqueue()
        page.wait_for_timeout(6_500)
        expect(ready).to_have_text("1")
        page.evaluate("document.activeElement.blur()")
        store_for("default").add_history(counted(77))
        expect(ready).to_have_text("2", timeout=15_000)
        expect(page.locator("#dbqueue-figures table")).to_contain_text("77")
        expect(page.locator("#dbqueue-figures table")).to_be_visible()

    def test_the_page_of_a_job_looks_again_soon(self) -> None:
        """What took a moment is not shown as running for five seconds."""
        page = self.page
        job = tasks.without_arguments.enqueue()
        looks: list[str] = []
        page.clock.install()
        page.on("request", lambda request: looks.append(request.url) if request.resource_type == "fetch" else None)
        page.goto(f"/admin/dbqueue/job/{job.id}/change/")
        for _ in range(40):
            page.clock.run_for(100)
            page.wait_for_timeout(50)
        assert len(looks) >= 2

    def test_without_javascript_a_page_stays_as_it_is_unless_somebody_asks(self) -> None:
        page = self.log_in(self.new_context(javascript=False))
        steps = (tasks.fail_with.si("m") | tasks.fail_with.si("m")).enqueue()
        loads: list[str] = []
        page.on("request", lambda request: loads.append(request.url) if request.is_navigation_request() else None)
        page.goto(f"/admin/dbqueue/workflow/{steps.workflow_id}/change/")
        page.wait_for_timeout(6_000)
        assert len(loads) == 1
        page.get_by_role("link", name="Load it every 10 seconds").click()
        eventually(lambda: page.wait_for_timeout(100) or len(loads) >= 3)  # type: ignore[func-returns-value]
        page.get_by_role("link", name="Stop loading").click()
        expect(page.get_by_role("link", name="Load again")).to_be_visible()

    def test_the_overview_is_whole_without_javascript(self) -> None:
        page = self.log_in(self.new_context(javascript=False))
        tasks.without_arguments.enqueue()
        page.goto("/admin/dbqueue/overview/")
        expect(page.locator(".dbqueue-tile-ready .dbqueue-figure")).to_have_text("1", timeout=15_000)
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        page.get_by_role("link", name="7 days").click()
        expect(page.locator(".dbqueue-chart")).to_have_count(3)

    def test_all_failed_jobs_are_retried_by_a_worker(self) -> None:
        page = self.page
        for _ in range(3):
            tasks.fail_with.enqueue("no luck")
        with self.running_worker():
            eventually(lambda: Job.objects.filter(status=JobStatus.FAILED).count() == 3)
            page.goto("/admin/dbqueue/job/")
            page.get_by_role("navigation", name="States").get_by_role("link", name="Failed").click()
            page.get_by_role("link", name="Change all that match").click()
            expect(page.locator("#content-main")).to_contain_text("These jobs match: state Failed. There are 3.")
            self.take_picture(page, "bulk")
            page.get_by_label("Action:").select_option("retry")
            page.get_by_role("button", name="Apply to 3 jobs").click()
            expect(page.locator(".field-state")).to_contain_text("Done")
            self.take_picture(page, "bulk-done")
            eventually(lambda: set(Job.objects.values_list("attempt", flat=True)) == {2})
        assert LogEntry.objects.count() == 1

    def test_a_workflow_is_followed_and_a_branch_tried_again(self) -> None:
        page = self.page
        node = flow.give.s(1) | group(flow.inc.s(), flow.thrice.s().set(max_attempts=1)) | flow.total.s()
        result = node.enqueue()
        page.goto(f"/admin/dbqueue/workflow/{result.workflow_id}/change/")
        expect(page.locator(".field-state")).to_contain_text("In progress")
        expect(page.locator(".dbqueue-tree circle")).to_have_count(5)
        with self.running_worker():
            # It follows by itself.
            done = "4 of 4 ended, 1 failed, 1 cancelled"
            expect(page.locator(".field-how_far")).to_contain_text(done, timeout=20_000)
            expect(page.locator(".dbqueue-tree .dbqueue-dot-failed")).to_have_count(1)
            self.take_picture(page, "workflow")
            failed = Job.objects.get(task=flow.thrice.name)
            for _ in range(2):
                page.get_by_role("button", name=f"Retry step {failed.pk}").click()
                expect(page.locator(".messagelist .success")).to_have_text("1 job retried.")
                eventually(lambda: Workflow.objects.get().finished_at is not None)
                page.reload()
            expect(page.locator(".dbqueue-tree .dbqueue-dot-successful")).to_have_count(5)
        assert result.get(0) == 3
        page.locator(".dbqueue-tree a").first.click()
        expect(page.locator("#content")).to_contain_text("give")
        page.goto("/admin/dbqueue/workflow/")
        expect(page.locator("#result_list")).to_contain_text("give | group(inc, thrice) | total")
        assert LogEntry.objects.count() == 2

    def test_a_job_is_cloned_and_its_arguments_are_changed(self) -> None:
        page = self.page
        tasks.with_secrets.enqueue("ann", 1234, password="hush", config={"size": 1})
        job = Job.objects.get()
        page.goto(f"/admin/dbqueue/job/{job.pk}/change/")
        expect(page.locator("#content-main")).to_contain_text("No worker is alive")
        page.get_by_role("link", name="Edit arguments").click()
        expect(page.get_by_label("user:")).to_have_value("ann")
        expect(page.get_by_label("password:")).to_have_value("")
        self.take_picture(page, "edit")
        page.get_by_label("user:").fill("<b>bob</b>")
        page.get_by_role("button", name="Change the arguments").click()
        expect(page.locator(".messagelist .success")).to_have_text("The arguments are changed.")
        job.refresh_from_db()
        assert (job.kwargs["user"], job.kwargs["password"], job.kwargs["pin"]) == ("<b>bob</b>", "hush", 1234)
        page.get_by_role("link", name="Clone and edit").click()
        expect(page.get_by_label("user:")).to_have_value("<b>bob</b>")
        page.get_by_label("Priority:").fill("5")
        self.enqueue(page)
        clone = Job.objects.exclude(pk=job.pk).get()
        assert clone.kwargs == {"user": "<b>bob</b>", "config": {"size": 1}}  # a secret is not copied
        assert (clone.priority, clone.status) == (5, JobStatus.READY)
        assert LogEntry.objects.earliest("pk").change_message == "Other arguments: user."
        assert LogEntry.objects.count() == 2

    def test_a_job_runs_before_its_time_tells_of_itself_and_is_interrupted(self) -> None:
        page = self.page
        job = running_tasks.report_and_wait.using(run_after=datetime.timedelta(days=1)).enqueue()
        url = f"/admin/dbqueue/job/{job.id}/change/"
        with self.running_worker():
            page.goto(url)
            page.get_by_role("button", name="Run now").click()
            expect(page.locator(".messagelist .success")).to_have_text("1 job made ready.")
            self.wait_for(page, JobStatus.RUNNING)

            def tells() -> bool:
                page.goto(url)
                return page.locator(".field-how_far").count() == 1

            eventually(tells)
            expect(page.locator(".field-how_far")).to_contain_text("3 / 10 on the way")
            expect(page.locator("#log")).to_contain_text("begun")
            self.take_picture(page, "progress")
            page.get_by_role("button", name="Cancel and interrupt").click()
            expect(page.locator(".messagelist .success")).to_contain_text("1 running job was asked to stop.")
            self.wait_for(page, JobStatus.CANCELLED)
        expect(page.locator("#timeline")).to_contain_text("Cancelled")
        expect(page.locator("#attempts h3")).to_have_text("Attempt 1 Cancelled")
        expect(page.locator("#attempts .dbqueue-error")).to_have_count(0)
        self.take_picture(page, "interrupted")
        assert LogEntry.objects.count() == 2

    def test_who_may_only_look_finds_nothing_to_press(self) -> None:
        viewer = User.objects.create_user("viewer", password="secret", is_staff=True)
        looks = ("view_job", "view_worker", "view_queue", "view_schedule", "view_bulkoperation")
        viewer.user_permissions.set(Permission.objects.filter(codename__in=looks))
        job = tasks.fail_with.enqueue("m")
        tasks.fail_with.using(run_after=datetime.timedelta(days=1)).enqueue("m")
        steps = (tasks.fail_with.si("m") | tasks.fail_with.si("m")).enqueue()
        page = self.log_in(self.new_context(), "viewer")
        for url in (
            "/admin/dbqueue/overview/",
            "/admin/dbqueue/job/",
            f"/admin/dbqueue/job/{job.id}/change/",
            f"/admin/dbqueue/job/{int(job.id) + 1}/change/",
            "/admin/dbqueue/queue/",
            "/admin/dbqueue/worker/",
            "/admin/dbqueue/schedule/",
            "/admin/dbqueue/bulkoperation/",
            f"/admin/dbqueue/workflow/{steps.workflow_id}/change/",
        ):
            page.goto(url)
            expect(page.locator("#content-main")).to_be_visible()
            forms = page.locator("#content form[method=post]")
            for form in forms.all():
                # A list has Django's own form, whose only action here is a download.
                assert form.get_attribute("id") in ("changelist-form", "job_form", "workflow_form", None), url
                offered = form.locator("select[name=action] option").evaluate_all("all => all.map(one => one.value)")
                assert set(offered) <= {"", "export_selected"}, url
            expect(page.locator(".object-tools a, .object-tools button:visible")).to_have_count(
                1 if "/change/" in url else 0  # the history of a job
            )

    def test_a_queue_is_paused_with_a_reason_and_resumed(self) -> None:
        page = self.page
        tasks.without_arguments.enqueue()
        page.goto("/admin/dbqueue/queue/")
        page.get_by_label("Reason to pause or drain default").fill("the <b>mail</b> server is down")
        page.get_by_role("button", name="Pause default").click()
        expect(page.locator("#queues")).to_contain_text("It is paused. the <b>mail</b> server is down")
        self.take_picture(page, "queues")
        page.get_by_role("button", name="Resume default").click()
        expect(page.locator("#queues")).not_to_contain_text("It is paused")

    def test_the_list_of_schedules_shows_all_its_columns(self) -> None:
        store = store_for("default")
        now, task = store.clock(), "example_project.showcase.tasks.count_findings"
        job = Job.objects.create(task=task, enqueued_at=now, status=JobStatus.SUCCESSFUL)
        for name, overrides in ((task, ["cron", "timezone"]), ("every morning", [])):
            Schedule.objects.create(
                name=name,
                task=task,
                cron="0 5 * * *",
                timezone="America/Argentina/Buenos_Aires",
                overrides=overrides,
                next_at=now + datetime.timedelta(days=1),
                last_slot=now - datetime.timedelta(days=1),
                last_job_id=job.pk,
            )
        for width in (1440, 1280):
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.goto("/admin/dbqueue/schedule/")
            self.take_picture(self.page, f"schedules-{width}")
            hidden = self.page.locator("#changelist-form .results").evaluate("all => all.scrollWidth - all.clientWidth")
            assert hidden <= 0, f"{hidden} pixels are cut off at {width}"

    def test_no_page_keeps_anybody_out(self) -> None:
        """By the rules of axe-core, light and dark."""
        wrong: list[tuple[object, ...]] = []
        # axe-core tries styles, which the policy would forbid it.
        page = self.log_in(self.new_context(bypass_csp=True))
        job = tasks.fail_with.enqueue("no luck")
        with self.running_worker():
            eventually(lambda: Job.objects.get().status == JobStatus.FAILED)
        store = store_for("default")
        waits = tasks.fail_with.using(run_after=datetime.timedelta(days=1)).enqueue("later")
        schedule = Schedule.objects.create(
            name="s", task=tasks.fail_with.name, every=60, args=["m"], next_at=store.clock()
        )
        operation = store.start_bulk(BulkAction.RETRY, Search(), user_id=1, user_name="operator")
        steps = (flow.give.s(1) | group(flow.inc.s(), flow.inc.s()) | flow.total.s()).enqueue()
        ended = (flow.give.s(1) | flow.inc.s()).enqueue()
        ended.cancel()
        busy = a_worker()
        runs = store.claim(busy, 1)[0].job_id
        store.add_history(counted(2, outcome="FAILED", error="builtins.KeyError", task=tasks.fail_with.name))
        tasks.fail_with.using(queue_name="nobody").enqueue("waits")
        for url in (
            f"/admin/dbqueue/worker/{busy}/change/",
            f"/admin/dbqueue/job/{runs}/change/",
            f"/admin/dbqueue/job/{job.id}/delete/",
            f"/admin/dbqueue/workflow/{ended.workflow_id}/delete/",
            "/admin/dbqueue/job/?state=FAILED",
            "/admin/dbqueue/job/?state=RUNNING",
            "/admin/dbqueue/job/?q=args.message:m",
            "/admin/dbqueue/workflow/",
            f"/admin/dbqueue/workflow/{steps.workflow_id}/change/",
            f"/admin/dbqueue/job/{Job.objects.get(task=GROUP).pk}/change/",
            "/admin/dbqueue/overview/",
            "/admin/dbqueue/job/",
            f"/admin/dbqueue/job/{job.id}/change/",
            "/admin/dbqueue/job/add/",
            f"/admin/dbqueue/job/add/?task={tasks.every_type.name}",
            "/admin/dbqueue/job/bulk/?state=FAILED",
            "/admin/dbqueue/bulkoperation/",
            "/admin/dbqueue/queue/",
            "/admin/dbqueue/worker/?state=all",
            "/admin/dbqueue/schedule/",
            "/admin/dbqueue/schedule/add/",
            f"/admin/dbqueue/schedule/add/?task={tasks.with_secrets.name}",
            f"/admin/dbqueue/schedule/{schedule.pk}/change/",
            f"/admin/dbqueue/bulkoperation/{operation.pk}/change/",
            f"/admin/dbqueue/job/{job.id}/edit/",
            f"/admin/dbqueue/job/{waits.id}/change/",
            f"/admin/dbqueue/job/add/?task={tasks.with_secrets.name}",
        ):
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.goto(url)
                found = Axe().run(page, options={"preload": False}).response["violations"]
                said = [(one["id"], node["target"]) for one in found for node in one["nodes"]]
                wrong += [(url, scheme, *one) for one in said]
        assert not wrong, "\n".join(map(str, wrong))
