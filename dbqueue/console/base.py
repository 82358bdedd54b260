"""What the pages have in common: the right database, lists that many rows don't slow down, and no editing."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.functional import cached_property

from .. import conf
from ..store import Store, store_for

MOST_COUNTED = 10_000
"""Rows that a list counts, and pages through."""

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
        return f"{int(self):,}+"


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


class ExactFilter(admin.SimpleListFilter):
    """A filter on one column's exact value, with choices that no query has to find."""

    column: str

    def known(self) -> Iterable[tuple[str, Any]]:
        """The choices, each with what the page shows for it."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: "admin.ModelAdmin[Any]") -> list[tuple[str, Any]]:
        choices = list(self.known())
        value = self.value()
        if value and value not in dict(choices):
            choices.append((value, value))
        return choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        value = self.value()
        if not value:
            return None
        # No name has a control character, and PostgreSQL refuses to look for NUL.
        return queryset.filter(**{self.column: value}) if value.isprintable() else queryset.none()


class LeanChangeList(ChangeList):
    """A list that leaves in the database what it doesn't show."""

    unread = ("args", "kwargs", "return_value")

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        return super().get_queryset(*args, **kwargs).defer(*self.unread)


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

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only the filters of the page: any other column would be searched from end to end."""
        return lookup in {getattr(one, "parameter_name", None) for one in self.list_filter}

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method != "POST":
            return super().changeform_view(request, object_id, form_url, extra_context)
        # Django opens the default database's transaction; the queue may be in another.
        with store().atomic():
            return super().changeform_view(request, object_id, form_url, extra_context)

    def _may(self, request: HttpRequest, action: str) -> bool:
        codename = get_permission_codename(action, self.opts)
        return request.user.has_perm(f"{self.opts.app_label}.{codename}")

    def _url(self, page: str, *args: object) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=args, current_app=self.admin_site.name)
