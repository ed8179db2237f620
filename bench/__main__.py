"""Run the benchmark: `python -m bench`, `python -m bench compare`, `python -m bench install`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from bench import plot, report
from bench.measures import QUICK, Sizes
from bench.peer import MAIN, PEERS
from bench.rows import ALIASES, BACKLOGS, ROWS
from bench.server import Bench


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="toromq beside its peers, on one server.")
    parser.add_argument(
        "what",
        nargs="?",
        choices=("run", "compare", "install"),
        default="run",
        help="run (default): us, our ceiling, Node and bullmq; compare: every peer, every row; "
        "install: put what peers need into the user's cache folder, and measure nothing",
    )
    parser.add_argument("--rounds", type=int, default=None, help="how often everything is measured (default 3 or 5)")
    parser.add_argument("--quick", action="store_true", help="one small round: does it run? The figures mean little")
    parser.add_argument("--all", action="store_true", help="every row, those included that take long")
    parser.add_argument("--aof", choices=("yes", "no"), default="yes", help="the server's append-only file")
    parser.add_argument("--row", choices=(*ROWS, *ALIASES), action="append", help="only this row; may be repeated")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this peer; may be repeated")
    parser.add_argument(
        "--backlog", type=int, default=100_000, metavar="JOBS", help="the longest backlog to measure (default 100,000)"
    )
    parser.add_argument(
        "--latency", type=float, default=0, metavar="MS", help="add this to every round trip of peers and server"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw them")
    options = parser.parse_args()
    compare = options.what != "run"
    peers = [name for name in PEERS if (name in options.peer if options.peer else compare or name in MAIN)]
    if options.what == "install":
        install(peers)
        return
    asked = [ALIASES.get(key, key) for key in options.row or ()]
    rows = [key for key in ROWS if (key in asked if asked else ROWS[key].main or options.all or compare)]
    rows = [key for key in rows if BACKLOGS.get(key, 0) <= options.backlog or key in asked]
    rounds = options.rounds or (5 if compare else 3)
    rounds, sizes = (1, QUICK) if options.quick else (max(1, rounds), Sizes())

    # Ended from outside, it still ends its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    load = os.getloadavg()[0]
    install(peers)
    begun = time.monotonic()
    bench = Bench(peers, aof=options.aof == "yes", latency=options.latency)
    try:
        lines = report.header(bench, rounds, load)
        # As long as the others: Node's compiler takes thousands of jobs to warm up.
        failed: dict[tuple[str, str], str] = {}
        measure(bench, warming(rows), peers, sizes, 1, failed)
        results = measure(bench, rows, peers, sizes, rounds, failed)
        if failed:
            lines["FAILED"] = "; ".join(f"{ROWS[key].title}: {why}" for (key, _), why in failed.items())
        if bench.delay:
            lines["latency"] = (
                f"{options.latency} ms added to each round trip by a proxy, which was busy for at most "
                f"{bench.delay.busiest:.0%} of one core"
            )
    finally:
        bench.close()
    lines["took"] = f"{time.monotonic() - begun:.0f} s"
    print(report.plain(lines, results))
    if options.json:
        settings = {**vars(options), "rounds": rounds, "peers": peers, "sizes": dataclasses.asdict(sizes)}
        units = {key: ROWS[key].figures for key in rows}
        written = {"header": lines, "settings": settings, "units": units, "results": results}
        options.json.write_text(json.dumps(written, indent=1, default=str) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(lines, results))
    if options.svg:
        options.svg.write_text(plot.svg(lines, results))


def install(peers: list[str]) -> None:
    """Put what peers need where it belongs."""
    for name in peers:
        say(f"{name}: what it needs")
        PEERS[name].command()
    say("")


def warming(rows: list[str]) -> list[str]:
    """The rows of the round that does not count: without those that take their time and warm nobody."""
    # Nor is anybody warmer after a million jobs than after a thousand.
    short = list(dict.fromkeys("backlog_1k" if key in BACKLOGS else key for key in rows))
    return [key for key in short if ROWS[key].warms] or short


def measure(
    bench: Bench, rows: list[str], peers: list[str], sizes: Sizes, rounds: int, failed: dict[tuple[str, str], str]
) -> report.Results:
    """Measure every row with every peer, peers in turn, another one first in each round, again and again.

    What a peer fails is noted in `failed` and not tried again; what we fail ends it all.
    """
    results: report.Results = {key: {name: [] for name in peers} for key in rows}
    for number in range(rounds):
        # What comes first in a row finds the server as the row before has left it.
        first = number % len(peers)
        for key in rows:
            for name in [*peers[first:], *peers[:first]]:
                say(f"round {number + 1} of {rounds}: {key}, {name}")
                row = ROWS[key]
                if key in PEERS[name].repeats and row.stand_in in results:
                    results[key][name] += results[row.stand_in][name][number : number + 1]
                elif PEERS[name].runs(key) and (key, name) not in failed:
                    cpu, begun = bench.delay.cpu() if bench.delay else 0, time.monotonic()
                    try:
                        results[key][name].append(row.measure(bench, name, sizes))
                    except SystemExit as error:
                        if PEERS[name].ours:
                            raise
                        failed[key, name] = str(error).removeprefix("bench: ").partition("\n")[0]
                        results[key][name].clear()
                        bench.dismiss(name)
                    if bench.delay:
                        bench.delay.note(cpu, time.monotonic() - begun)
    say("")
    return results


def say(text: str) -> None:
    """Show what goes on, to somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
