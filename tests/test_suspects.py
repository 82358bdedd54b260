"""A job on its last chance runs alone."""

import pytest

from dbqueue.claim import Claim
from dbqueue.suspects import Isolation

from .test_pool import claim


def batch(*crashes: int, ahead: bool = False) -> list[Claim]:
    return [claim(number)._replace(crashes=count, ahead=ahead) for number, count in enumerate(crashes)]


def ids(claims: list[Claim]) -> list[int]:
    return [claim.job_id for claim in claims]


@pytest.mark.parametrize(
    ("max_crashes", "crashes", "run", "waits"),
    [
        (3, (0, 0), [0, 1], []),
        (3, (1, 1, 0), [0, 1, 2], []),
        (3, (1, 2, 0), [0, 2], [1]),
        (2, (1, 0), [1], [0]),
        (1, (1, 0), [1], [0]),
        (5, (3, 4), [0], [1]),
    ],
)
def test_the_first_on_its_last_chance_waits(
    max_crashes: int, crashes: tuple[int, ...], run: list[int], waits: list[int]
) -> None:
    isolation = Isolation(max_crashes)
    admitted, back = isolation.admit(batch(*crashes))
    assert (ids(admitted), back) == (run, [])
    assert ids(list(isolation.waiting.values())) == waits
    assert isolation.is_taken(dict) == bool(waits)


def test_suspects_go_back_where_they_would_wait_for_a_thread() -> None:
    isolation = Isolation(3)
    admitted, back = isolation.admit(batch(2, 2, 1, 0, ahead=True))
    assert (ids(admitted), ids(back), ids(list(isolation.waiting.values()))) == ([3], [1, 2], [0])


def test_it_runs_when_nothing_else_does_and_keeps_its_place_until_it_has_ended() -> None:
    isolation = Isolation(3)
    [alone] = batch(2)
    isolation.admit([alone])
    assert isolation.next(idle=False) is None
    assert isolation.next(idle=True) == alone

    isolation.let_go()

    assert isolation.next(idle=True) is None
    assert isolation.is_taken(lambda: {(alone.job_id, alone.lease)})
    assert not isolation.is_taken(dict)
