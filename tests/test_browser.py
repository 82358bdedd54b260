"""The operator's pages in a real browser, on a live server with a strict content security policy, with a real worker.

After every test: no error on the console, no violation of the policy, no response of 400 or more, no request to another
server.
"""

from __future__ import annotations

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
from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.http import HttpRequest, HttpResponse
from django.test import modify_settings, override_settings
from django.urls import path

from dbqueue.models import Job, JobStatus

from .shop import admin_tasks as tasks
from .workers import eventually, worker

if TYPE_CHECKING:
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

    def new_context(self, *, javascript: bool = True) -> BrowserContext:
        context = self.browser.new_context(base_url=self.live_server_url, java_script_enabled=javascript)
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

    def log_in(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.goto("/admin/")
        page.get_by_label("Username:").fill("operator")
        page.get_by_label("Password:").fill("secret")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Site administration")).to_be_visible()
        return page

    def choose(self, page: Page, task: str) -> None:
        """From the start page to the form of ``task``."""
        page.goto("/admin/")
        page.get_by_role("row", name="Jobs").get_by_role("link", name="Add").first.click()
        page.get_by_label("Task:").select_option(task)
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
        page.set_viewport_size({"width": 360, "height": 740})
        for number, url in enumerate(
            (
                "/admin/dbqueue/job/",
                f"/admin/dbqueue/job/{job.id}/change/",
                "/admin/dbqueue/job/add/",
                f"/admin/dbqueue/job/add/?task={tasks.every_type.name}",
                "/admin/dbqueue/worker/?state=all",
            )
        ):
            page.goto(url)
            self.take_picture(page, f"phone-{number}")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, url
