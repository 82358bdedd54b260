"""``python -m benchmarks.peers``: dbqueue beside its peers, in one table."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection

from benchmarks.project import on_postgresql

from . import count
from .harness import Load, Round, measure, set_up
from .line_up import OWN, PEERS
from .peer import Peer
from .stores import Database, Redis, Store, new_database, redis_program, redis_server
from .summary import print_heading, print_results

COMMAND = "benchmarks.peers"

EACH = 1_000
"""Jobs that are enqueued one at a time; a quarter as many as together, where that is less."""

FEWEST = 40
"""Jobs of a drain, however small ``--jobs`` is: a rate needs some."""


@dataclass
class Bench:
    """What the rounds share, and what was measured: by peer, and by number of the round."""

    scratch: str
    scale: float
    timed: int
    redis: str = ""
    rounds: dict[str, dict[int, Round]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, peers: list[Peer], rounds: int) -> None:
        """Every peer in turn, and then again. A peer that fails in a round is tried again in the next."""
        with ExitStack() as held:
            ready = [peer for peer in peers if self._is_ready(peer, held)]
            for number in range(rounds):
                for peer in ready:
                    self._attempt(peer, number)

    def _is_ready(self, peer: Peer, held: ExitStack) -> bool:
        """Make what the peer's rounds begin with: a database to copy, or a Redis for all."""
        if missing := peer.missing():
            self.failures[peer.name] = missing
        elif peer.store == "redis" and not redis_program():
            self.failures[peer.name] = "no redis-server is installed here"
        else:
            try:
                if peer.store == "redis":
                    self.redis = self.redis or held.enter_context(redis_server())
                else:
                    held.enter_context(new_database(self._template(peer)))
                    set_up(peer, Database(self._template(peer), peer.unfinished))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is told, and the others are measured
                self._failed(peer, exc)
        return peer.name not in self.failures

    def _attempt(self, peer: Peer, number: int) -> None:
        try:
            with ExitStack() as held:
                files = count.make_files(Path(held.enter_context(tempfile.TemporaryDirectory())))
                store = self._store(peer, held)
                measured = measure(peer, store, self._load(peer), files)
        except Exception as exc:  # noqa: BLE001 - as above
            self._failed(peer, exc)
        else:
            self.rounds.setdefault(peer.name, {})[number] = measured
            self._tell(f"round {number + 1}, {peer.name}: {measured.drain.rate:,.0f} jobs/s")

    def _store(self, peer: Peer, held: ExitStack) -> Store:
        if peer.store == "redis":
            redis = Redis(self.redis, peer.unfinished.split())
            redis.empty()
            return redis
        name = f"{self._template(peer)}_round"
        held.enter_context(new_database(name, self._template(peer)))
        return Database(name, peer.unfinished)

    def _template(self, peer: Peer) -> str:
        return f"{self.scratch}_{peer.folder}"

    def _load(self, peer: Peer) -> Load:
        many = max(FEWEST, round(peer.jobs * self.scale))
        return Load(many, min(EACH, many // 4), self.timed)

    def _failed(self, peer: Peer, exc: Exception) -> None:
        self.failures[peer.name] = f"failed: {exc}"
        self._tell(f"{peer.name} {self.failures[peer.name]}")

    def _tell(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = parsed()
    # So that a `kill` ends what was started here as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    with on_postgresql(COMMAND):
        print_heading(peers, options.rounds)
        bench = Bench(str(connection.settings_dict["NAME"]), options.jobs / OWN.jobs, options.timed)
        bench.run(peers, options.rounds)
        print_results(peers, bench.rounds, bench.failures, options.rounds)
        connection.close()
    own = bench.rounds.get(OWN.name, {}).values()
    return 1 if OWN.name in bench.failures or any(measured.lost for measured in own) else 0


def parsed() -> argparse.Namespace:
    def names(value: str) -> list[str]:
        chosen = value.split(",")
        if unknown := set(chosen) - {peer.name for peer in PEERS}:
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {all_names}")
        return chosen

    all_names = ",".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(prog=f"python -m {COMMAND}", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, each of all peers in turn (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=OWN.jobs,
        help="jobs of dbqueue's drain; the others', of 5 to 10 s by default, are scaled alike (default: %(default)s)",
    )
    parser.add_argument(
        "--timed", type=int, default=100, help="jobs whose latency is measured, in a round (default: %(default)s)"
    )
    parser.add_argument("--only", type=names, default=[], help=f"some of {all_names}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
