"""Tasks whose signatures the admin's form must turn into fields."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import TYPE_CHECKING, Any, Literal, NewType

from dbqueue import Context, task

from .models import Mark

if TYPE_CHECKING:
    from .nowhere import OnlyForTheTypeChecker  # type: ignore[import-not-found]

OrderId = NewType("OrderId", int)
NOON = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    RED = "#f00"
    GREEN = "#0f0"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


@task
def every_type(  # type: ignore[no-untyped-def]
    whole: int,
    real: float,
    price: decimal.Decimal,
    text: str,
    flag: bool,
    day: datetime.date,
    clock: datetime.time,
    moment: datetime.datetime,
    span: datetime.timedelta,
    key: uuid.UUID,
    level: Literal["low", "high"],
    digit: Literal[1, "1"],
    colour: Colour,
    size: Size,
    order: OrderId,
    numbers: list[int],
    table: dict[str, int],
    anything: Any,
    unhinted,
) -> dict[str, Any]:
    """Take one value of each type.

    <script>alert("documentation")</script>
    """
    return dict(locals())


@task
def with_defaults(
    whole: int = 5,
    real: float = 1,
    text: str = "one\ntwo",
    flag: bool = True,
    moment: datetime.datetime = NOON,
    colour: Colour = Colour.GREEN,
    numbers: tuple[int, ...] = (1, 2),
    sentinel: Any = object,
    day: datetime.date = datetime.date(2030, 1, 31),
) -> list[Any]:
    return [whole, real, text, flag, str(moment), str(colour), list(numbers), str(sentinel), str(day)]


@task
def optional(
    whole: int | None,
    text: str | None = "x",
    flag: bool | None = None,
    level: Literal["low", None] = "low",
    anything: list[int] | None = None,
) -> list[Any]:
    return [whole, text, flag, level, anything]


@task
def placed(first: int, second: datetime.date = datetime.date(2030, 1, 1), /, *rest: int, word: str = "w") -> list[Any]:
    return [first, str(second), list(rest), word]


@task
def unstorable_default(first: Any = object, /, *rest: int) -> None: ...


@task
def keywords(known: int, **more: Any) -> dict[str, Any]:
    return {"known": known, **more}


@task
def half_known(whole: int, other: OnlyForTheTypeChecker = None) -> int:
    return whole


@task
def named_like_options(queue_name: str, priority: int, task: str) -> list[Any]:
    return [queue_name, priority, task]


@task(takes_context=True, queue_name="mail", priority=7)
def with_context(context: Context, word: str) -> list[Any]:
    return [context.attempt, word]


@task(admin_enqueue=False)
def not_offered() -> None: ...


@task
def without_arguments() -> None: ...


@task
def fail_with(message: str) -> None:
    """Fail, saying ``message``."""
    raise ValueError(message)


@task
def divide(dividend: int, divisor: decimal.Decimal, *, rounding: Literal["down", "up"] = "down") -> dict[str, Any]:
    """Divide and round.

    The divisor may have decimals; the quotient is whole.
    """
    exact = dividend / decimal.Decimal(divisor)
    towards = decimal.ROUND_FLOOR if rounding == "down" else decimal.ROUND_CEILING
    return {"rounded": rounding, "quotient": int(exact.to_integral_value(towards))}


@task
def about_a_mark(mark: Mark | None = None) -> Any:
    return mark


@task(sensitive=("pin", "rest"))
def with_secrets(
    user: str, pin: int = 4711, password: str | None = None, config: dict[str, Any] | None = None, **rest: Any
) -> dict[str, Any]:
    """Tell what it was called with."""
    if user == "fails":
        raise ValueError(f"{user} {pin} {password!r} {config}")
    return {"user": user, "pin": pin, "said": f"it was {password}", "config": config, **rest}


@task
def takes_a_token(host: str, token: str) -> None: ...


@task(unique=True)
def only_once() -> None:
    """There is never more than one that waits."""
