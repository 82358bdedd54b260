"""Which jobs may run beside which, so that the death of a worker tells of what it died.

All that had begun in a worker that dies has one crash more, and is suspected. Claimed together again, the killer and
its neighbours would die together until all of them are FAILED.
"""

from collections.abc import Iterable

from .claim import Claim


class Suspects:
    """The rule, for jobs of which ``max_crashes`` crashes are too many."""

    def __init__(self, max_crashes: int) -> None:
        self._last_chance = max(1, max_crashes - 1)

    def bearable(self, held: Iterable[Claim]) -> int | None:
        """Below how many crashes a job must be to run beside what is held; None: any number.

        Beside a job that one more crash would end, only what nobody suspects; beside other suspects, none of those.
        """
        most = max((claim.crashes for claim in held), default=0)
        if most == 0:
            return None
        return 1 if most >= self._last_chance else self._last_chance

    def not_together(self, claims: list[Claim]) -> list[Claim]:
        """Those of a batch that can't be run beside the others of it, or that would have to wait for a thread.

        Of the suspects on their last chance one is left, and only where there are no others.
        """
        suspects = [claim for claim in claims if claim.crashes]
        on_last_chance = [claim for claim in suspects if claim.crashes >= self._last_chance]
        if len(suspects) > len(on_last_chance):
            return [claim for claim in suspects if claim.ahead or claim in on_last_chance]
        return [claim for place, claim in enumerate(on_last_chance) if place > 0 or claim.ahead]
