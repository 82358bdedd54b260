"""What ``benchmarks.peers`` prints."""

import re
import statistics
from collections.abc import Callable, Collection
from importlib.metadata import PackageNotFoundError, version

from benchmarks.report import heading, table

from .harness import Round
from .line_up import OWN
from .peer import Peer
from .stores import redis_version

Rounds = dict[str, dict[int, Round]]
"""What was measured, by name of the peer and number of the round."""

COLUMNS: dict[str, Callable[[Collection[Round]], str]] = {
    "drain, jobs/s": lambda rounds: spread(rounds, lambda r: r.drain.rate),
    "enqueue many, jobs/s": lambda rounds: spread(rounds, lambda r: r.many),
    "one at a time": lambda rounds: spread(rounds, lambda r: r.each),
    "latency p50, ms": lambda rounds: spread(rounds, lambda r: r.p50, 1),
    "p99, ms": lambda rounds: spread(rounds, lambda r: r.p99, 1),
    "CPU, µs a job": lambda rounds: spread(rounds, lambda r: r.drain.cpu),
    "MiB": lambda rounds: spread(rounds, lambda r: r.drain.memory),
    "connections": lambda rounds: str(max(r.drain.connections for r in rounds)),
    "lost": lambda rounds: f"{sum(r.lost for r in rounds):,}",
}


def spread(rounds: Collection[Round], value: Callable[[Round], float], places: int = 0) -> str:
    """The median, and in brackets the lowest and the highest where there are several."""
    return in_words([value(round) for round in rounds], places)


def in_words(values: list[float], places: int) -> str:
    middle, low, high = (f"{figure:,.{places}f}" for figure in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def print_heading(peers: list[Peer], rounds: int) -> None:
    title = f"No-op jobs that count themselves; {rounds} rounds, each of all peers in turn; median (lowest-highest)"
    print(heading(title) + ", ".join(versions(peers)) + "\n", flush=True)


def versions(peers: list[Peer]) -> list[str]:
    """Of everything that is measured and installed."""
    found = []
    for name in dict.fromkeys(name for peer in peers for name in peer.distributions):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue  # its row says so
    if any(peer.store == "redis" for peer in peers) and (server := redis_version()):
        found.append(f"redis-server {server}")
    return found


def print_results(peers: list[Peer], measured: Rounds, failures: dict[str, str], rounds: int) -> None:
    print_table(peers, measured, failures)
    for name in measured.keys() & failures.keys():
        print(f"\n{name}: {rounds - len(measured[name])} of {rounds} rounds are missing; {brief(failures[name])}")
    print_ratios(peers, measured)


def print_table(peers: list[Peer], measured: Rounds, failures: dict[str, str]) -> None:
    """A row for each peer, in order; one that was never measured says why."""
    rows = [["", *COLUMNS]]
    for peer in peers:
        rounds = list(measured.get(peer.name, {}).values())
        rows.append([peer.title, *(column(rounds) if rounds else "" for column in COLUMNS.values())])
    lines = table(rows).splitlines()
    width = max(len(row[0]) for row in rows) + 2
    for number, peer in enumerate(peers, 2):
        if peer.name not in measured:
            lines[number] = peer.title.ljust(width) + brief(failures[peer.name])
    print("\n".join(lines))


def brief(failure: str) -> str:
    """Its first line, and the one that names an exception; all of it was told when it happened."""
    first, *others = failure.strip().splitlines()
    named = [line for line in others if re.match(r"[\w.]+: ", line)]
    return " ".join([first, *named[-1:]])


def print_ratios(peers: list[Peer], measured: Rounds) -> None:
    """How many times a peer's drain dbqueue's was, in the same round."""
    own = measured.get(OWN.name, {})
    rows = [["dbqueue's drain, as a multiple of", "in the same round"]]
    for peer in peers:
        both = own.keys() & measured.get(peer.name, {}).keys()
        if peer is not OWN and both:
            ratios = [own[number].drain.rate / measured[peer.name][number].drain.rate for number in both]
            rows.append([peer.title, in_words(ratios, 1)])
    if len(rows) > 1:
        print("\n" + table(rows))
