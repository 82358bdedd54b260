"""Which jobs may run beside which."""

import pytest

from dbqueue.suspects import Suspects

from .test_pool import claim


@pytest.mark.parametrize(
    ("held", "max_crashes", "below"),
    [
        ([], 3, None),
        ([0, 0], 3, None),
        ([0, 1], 3, 2),
        ([0, 2], 3, 1),
        ([2, 1], 3, 1),
        ([1], 2, 1),
        ([1], 1, 1),
        ([1, 3], 5, 4),
    ],
)
def test_what_may_be_claimed_beside_what_is_held(held: list[int], max_crashes: int, below: int | None) -> None:
    claims = [claim(number)._replace(crashes=crashes) for number, crashes in enumerate(held)]
    assert Suspects(max_crashes).bearable(claims) == below


@pytest.mark.parametrize(
    ("batch", "back"),
    [
        ([0, 0, 0], []),
        ([1, 1, 0], []),
        ([2, 0, 0], []),
        ([2, 2, 0], [1]),
        ([1, 2, 0], [1]),
        ([2, 1, 2, 1], [0, 2]),
    ],
)
def test_what_of_a_batch_goes_back(batch: list[int], back: list[int]) -> None:
    claims = [claim(number)._replace(crashes=crashes) for number, crashes in enumerate(batch)]
    assert [given.job_id for given in Suspects(3).not_together(claims)] == back


def test_a_suspect_does_not_wait_for_a_thread() -> None:
    at_once, waits, last, fresh = (
        claim(1)._replace(crashes=1),
        claim(2)._replace(crashes=1, ahead=True),
        claim(3)._replace(crashes=2, ahead=True),
        claim(4)._replace(ahead=True),
    )
    assert Suspects(3).not_together([at_once, waits, fresh]) == [waits]
    assert Suspects(3).not_together([last, fresh]) == [last]
