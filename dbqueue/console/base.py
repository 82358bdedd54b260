"""What the pages have in common: the right database, lists that many rows don't slow down, and no editing."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from .. import conf
from ..exceptions import TookTooLong
from ..models import is_id
from ..store import MOST_COUNTED, Store, store_for

M = TypeVar("M", bound=Model)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator[Any]
else:
    # Django's own can't be subscripted when they run.
    class _ModelAdmin(admin.ModelAdmin, Generic[M]): ...

    _Paginator = Paginator


def store() -> Store:
    """The store of the database that the settings name."""
    return store_for(conf.read()[0].database)


class AtLeast(int):
    """A count that stopped there; pages show it as "10,000+"."""

    def __str__(self) -> str:
        return f"{number_format(int(self), force_grouping=True)}+"


def counted(number: int) -> str:
    """A count that went no further than MOST_COUNTED + 1, for a reader."""
    return str(AtLeast(MOST_COUNTED)) if number > MOST_COUNTED else number_format(number, force_grouping=True)


class CappedPaginator(_Paginator):
    """Counts no further than MOST_COUNTED, so that a list of any length opens at once."""

    @cached_property
    def count(self) -> int:
        return AtLeast(MOST_COUNTED) if self.is_capped else self._counted

    @property
    def is_capped(self) -> bool:
        """Whether there is more than the count says."""
        return self._counted > MOST_COUNTED

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        counted: int = rows.order_by().values("pk")[: MOST_COUNTED + 1].count()
        return counted


class LostRace(Exception):
    """Somebody else was faster, and nothing was done. Its text is for the user, who did nothing wrong."""


PATIENCE = 5.0
"""Seconds that a statement of a page may take, where the database can be told."""


class PromptChangeList(ChangeList):
    """A list that asks the database at once, while somebody looks at the clock."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """That of the page: by any other the table would be sorted from end to end."""
        return list(self.model_admin.get_ordering(request))

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: Any = list(self.result_list)


class QueueAdmin(_ModelAdmin[M]):
    """A list that ten million rows don't slow down, and pages that edit nothing."""

    list_per_page = 100
    ordering = ("-id",)
    sortable_by = ()
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ("dbqueue/admin.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PromptChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only the filters of the page: any other column would be searched from end to end."""
        return lookup in {getattr(one, "parameter_name", None) for one in self.list_filter}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "POST":
            _drop_what_is_no_id(request)
            return super().changelist_view(request, extra_context)
        return self.promptly(request, lambda: super(QueueAdmin, self).changelist_view(request, extra_context))

    def promptly(self, request: HttpRequest, respond: Callable[[], HttpResponse]) -> HttpResponse:
        """What it responds, or a page that says that the database took too long."""
        try:
            with store().in_a_hurry(PATIENCE):
                return respond()
        except TookTooLong:
            context = {
                **self.admin_site.each_context(request),
                "title": _("This took too long"),
                "opts": self.opts,
                "media": self.media,
                "seconds": PATIENCE,
                "back": request.path,
            }
            request.current_app = self.admin_site.name
            return TemplateResponse(request, "admin/dbqueue/too_long.html", context, status=503)

    # Of all that is called here nothing stands in Django's error reports: it may be what a job is called with.
    @sensitive_variables()
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        hide_what_is_typed(request)
        if request.method != "POST":
            return self.promptly(
                request,
                lambda: super(QueueAdmin, self).changeform_view(request, object_id, form_url, extra_context),
            )
        try:
            # Django opens the default database's transaction; the queue may be in another.
            with store().atomic():
                return super().changeform_view(request, object_id, form_url, extra_context)
        except LostRace as exc:
            return self._lost(request, object_id, exc)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method != "POST":
            return self.promptly(
                request, lambda: super(QueueAdmin, self).delete_view(request, object_id, extra_context)
            )
        try:
            return super().delete_view(request, object_id, extra_context)
        except LostRace as exc:
            return self._lost(request, object_id, exc)

    def _lost(self, request: HttpRequest, object_id: str | None, exc: LostRace) -> HttpResponse:
        """Back to the page, which shows how it is now; where that has gone, Django leads on from there."""
        self.message_user(request, str(exc), messages.WARNING)
        return HttpResponseRedirect(self._url("change", object_id) if object_id else self._url("changelist"))

    def _may(self, request: HttpRequest, action: str) -> bool:
        codename = get_permission_codename(action, self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def _url(self, page: str, *args: object) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)

    def url_of(self, model: str, page: str, *args: object) -> str:
        """Of another model's page; empty, where this site has none."""
        try:
            return reverse(f"admin:{self.opts.app_label}_{model}_{page}", args=args, current_app=self.admin_site.name)
        except NoReverseMatch:
            return ""


def hide_what_is_typed(request: HttpRequest) -> None:
    """From Django's error reports."""
    request.sensitive_post_parameters = "__ALL__"  # type: ignore[attr-defined]


def _drop_what_is_no_id(request: HttpRequest) -> None:
    """Of a selection: Django would look for it."""
    posted = request.POST.copy()
    posted.setlist(ACTION_CHECKBOX_NAME, [one for one in posted.getlist(ACTION_CHECKBOX_NAME) if is_id(one)])
    request.POST = posted  # type: ignore[assignment]
