"""How values look on the pages."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..encoding import storable_text
from ..models import JobStatus

NOTHING = "-"

MEANINGS: "dict[str, str | Promise]" = {
    JobStatus.SCHEDULED: gettext_lazy("Its time has not come: enqueued for later, or waiting to be tried again."),
    JobStatus.READY: gettext_lazy("The next free worker takes it."),
    JobStatus.BLOCKED: gettext_lazy("Over a concurrency limit: ready when another job of the same key ends."),
    JobStatus.WAITING: gettext_lazy("A step of a workflow whose turn has not come."),
    JobStatus.RUNNING: gettext_lazy("A worker has it."),
    JobStatus.SUCCESSFUL: gettext_lazy("It has ended well."),
    JobStatus.FAILED: gettext_lazy("Its last attempt failed. It can be retried."),
    JobStatus.CANCELLED: gettext_lazy("Somebody, a failed step, or its deadline ended it. It can be retried."),
}
"""What each state means, for who has not read of it."""

SHOWN_LENGTH = 20_000
"""Characters of one value that a page shows."""


def badge(name: str, label: object) -> str:
    """A state: its text, and a class to colour it."""
    return format_html('<span class="dbqueue-state dbqueue-{}">{}</span>', name.lower(), label)


def moment(value: datetime.datetime | None, zone: datetime.tzinfo | None = None) -> str:
    """A time in this time zone or the current one, to the second, and of one width in every language."""
    if value is None:
        return NOTHING
    local = timezone.localtime(value, zone) if timezone.is_aware(value) else value
    day, clock = f"{local:%Y-%m-%d}", f"{local:%H:%M:%S}"
    # Lists have no room for the day where it is this one.
    kind = mark_safe(' class="dbqueue-today"') if local.date() == _today(local.tzinfo) else ""
    return format_html(
        '<time datetime="{}"><span{}>{}</span> <span>{}</span></time>', local.isoformat(), kind, day, clock
    )


def _today(zone: datetime.tzinfo | None) -> datetime.date:
    return datetime.datetime.now(zone).date()


def clock(value: datetime.datetime) -> str:
    """The same as text, to the minute."""
    return f"{timezone.localtime(value) if timezone.is_aware(value) else value:%Y-%m-%d %H:%M}"


def dotted(name: str) -> str:
    """A name that may be broken into lines behind its dots."""
    return format_html_join(mark_safe(".<wbr>"), "{}", ((part,) for part in name.split(".")))


def span(value: datetime.timedelta | None) -> str:
    """A duration in its two largest units. Clocks that disagree can't make it negative."""
    if value is None:
        return NOTHING
    seconds = max(0.0, value.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def seconds(value: float | None) -> str:
    """The same for a number of seconds."""
    return NOTHING if value is None else span(datetime.timedelta(seconds=value))


def progress(told: Mapping[str, Any]) -> str:
    """A bar where the whole is known, and what the task said."""
    done, total, message = told.get("done", 0), told.get("total"), told.get("message", "")
    if not total:
        return format_html("{} {}", done, message)
    return format_html('<progress value="{}" max="{}"></progress> {} / {} {}', done, total, done, total, message)


def as_json(value: Any) -> str:
    return format_html('<pre class="dbqueue-code">{}</pre>', shortened(json_text(value, indent=2)))


def json_text(value: Any, indent: int | None = None) -> str:
    """For a reader, also of what somebody else has written: surrogates as escapes, and a word for what has no text."""
    try:
        return storable_text(json.dumps(value, indent=indent, ensure_ascii=False))
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, or nested too deeply
        return _("(can't be shown: %s)") % exc


def shortened(text: str) -> str:
    """The beginning of a long text, and how much more there is."""
    more = len(text) - SHOWN_LENGTH
    if more <= 0:
        return text
    return text[:SHOWN_LENGTH] + ngettext("… and %d character more", "… and %d characters more", more) % more
