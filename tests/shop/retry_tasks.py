"""Tasks that fail, each in its way."""

import sys

from dbqueue import Context, Discard, Retry, Snooze, task


@task
def fails() -> None:
    raise ValueError("it fails")


@task
def raises_key_error() -> None:
    raise KeyError("gone")


@task
def exits() -> None:
    sys.exit(3)


@task(max_attempts=2, backoff=lambda failures, error: 76 + failures if isinstance(error, ValueError) else 0)
def fails_with_backoff() -> None:
    raise ValueError


@task(max_attempts=2, backoff=lambda failures, error: -1)
def fails_with_broken_backoff() -> None:
    raise ValueError


@task
def asks_for_retry(delay: float | None) -> None:
    raise Retry("not ready yet", delay=delay)


@task
def snoozes(delay: float) -> None:
    raise Snooze(delay)


@task
def discards(reason: str) -> None:
    raise Discard(reason)


@task(takes_context=True)
def succeeds_at(context: Context, attempt: int) -> int:
    if context.attempt < attempt:
        raise ValueError("not yet")
    return context.attempt
