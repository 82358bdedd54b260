"""Tasks that the tests enqueue."""

from dbqueue import task


@task
def add(x: int, y: int) -> int:
    return x + y
