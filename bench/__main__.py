"""Run the benchmark: `python -m bench`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from bench import report
from bench.peer import PEERS
from bench.rows import QUICK, ROWS, Bench, Sizes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="toromq beside its peers, on one server.")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="one small round: does it run? The figures mean little")
    parser.add_argument("--aof", choices=("yes", "no"), default="yes", help="the server's append-only file")
    parser.add_argument("--row", choices=ROWS, action="append", help="only this row; may be repeated")
    parser.add_argument("--peer", choices=PEERS, action="append", help="only this peer; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    options = parser.parse_args()
    rounds, sizes = (1, QUICK) if options.quick else (max(1, options.rounds), Sizes())
    rows = [key for key in ROWS if not options.row or key in options.row]
    peers = [name for name in PEERS if not options.peer or name in options.peer]

    # Ended from outside, it still ends its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    bench = Bench(peers, aof=options.aof == "yes")
    try:
        lines = report.header(bench, rounds)
        # As long as the others: Node's compiler takes thousands of jobs to warm up.
        measure(bench, rows, peers, sizes, 1)
        results = measure(bench, rows, peers, sizes, rounds)
    finally:
        bench.close()
    lines["took"] = f"{time.monotonic() - begun:.0f} s"
    print(report.plain(lines, results))
    if options.json:
        options.json.write_text(json.dumps({"header": lines, "results": results}, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(lines, results))


def measure(bench: Bench, rows: list[str], peers: list[str], sizes: Sizes, rounds: int) -> report.Results:
    """Measure every row with every peer, peers in turn, again and again."""
    results: report.Results = {key: {name: [] for name in peers} for key in rows}
    for number in range(rounds):
        for key in rows:
            for name in peers:
                say(f"round {number + 1} of {rounds}: {key}, {name}")
                row = ROWS[key]
                if key in PEERS[name].lacks and row.stand_in in results:
                    results[key][name].append(results[row.stand_in][name][number])
                else:
                    results[key][name].append(row.measure(bench, name, sizes))
    say("")
    return results


def say(text: str) -> None:
    """Show what goes on, to somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
