"""The machine, and the figures as tables."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path

from bench.peer import PEERS
from bench.rows import ROWS, Bench, Figures

#: Row, then peer, then one set of figures per round.
Results = dict[str, dict[str, list[Figures]]]
Table = list[list[str]]


def header(bench: Bench, rounds: int) -> dict[str, str]:
    """What one has to know to judge the figures."""
    server = bench.client.info("server")
    settings = ("appendonly", "appendfsync", "save", "maxmemory-policy", "io-threads")
    values = (f"{name} {bench.client.config_get(name).get(name) or '-'}" for name in settings)
    program = f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}"
    lines = {
        "machine": f"{os.cpu_count()} cores, {_cpu()}, {platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.2f} when it began",
        "server": f"{program}, {', '.join(values)}; TCP on loopback",
    }
    for name, process in bench.producers.items():
        versions = process.ask("hello")["versions"]
        lines[PEERS[name].title] = ", ".join(f"{package} {version}" for package, version in versions.items())
    lines["rounds"] = f"{rounds}, peers in turn, after one that does not count; median (lowest-highest)"
    return lines


def plain(lines: dict[str, str], results: Results) -> str:
    """All of it for a terminal."""
    text = [f"{name + ':':<15}{value}" for name, value in lines.items()]
    for table in _tables(results):
        text.append("")
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for title, *cells in table:
            aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            text.append("  ".join([title.ljust(widths[0]), *aligned]))
    return "\n".join([*text, "", *(f"{ROWS[key].title}: {ROWS[key].what}" for key in results)])


def markdown(lines: dict[str, str], results: Results) -> str:
    """All of it for a page."""
    text = [f"- {name}: {value}" for name, value in lines.items()]
    for head, *body in _tables(results):
        rule = ["---", *["---:"] * (len(head) - 1)]
        text += ["", *(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))]
    return "\n".join([*text, "", *(f"- {ROWS[key].title}: {ROWS[key].what}" for key in results)]) + "\n"


def _tables(results: Results) -> list[Table]:
    peers = list(next(iter(results.values())))
    ratio = {"toromq", "node"} <= set(peers)
    titles = [PEERS[name].title for name in peers]
    figures: Table = [["", "unit", *titles, *(["toromq / Node"] if ratio else [])]]
    cpu: Table = [["CPU per job or event: process + server", "unit", *titles]]
    for key, by_peer in results.items():
        row = ROWS[key]
        for figure in row.figures:
            title = row.title if len(row.figures) == 1 else f"{row.title}, {figure}"
            line = [title, row.unit, *(_cell(key, name, figure, by_peer[name]) for name in peers)]
            if ratio:
                ours, theirs = (_median(by_peer[name], figure) for name in ("toromq", "node"))
                line.append(f"{ours / theirs:.2f}{', less is better' if row.unit == 'ms' else ''}")
            figures.append(line)
        if "process_us" in by_peer[peers[0]][0]:
            sides = (
                [f"{_median(by_peer[name], f'{side}_us'):.0f}" for side in ("process", "server")] for name in peers
            )
            cpu.append([row.title, "us", *map(" + ".join, sides)])
    return [figures, cpu] if len(cpu) > 1 else [figures]


def _cell(key: str, name: str, figure: str, rounds: list[Figures]) -> str:
    values = [figures[figure] for figures in rounds]
    digits = 2 if ROWS[key].unit == "ms" else 0
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{'= ' if key in PEERS[name].lacks else ''}{middle} ({low}-{high})"


def _median(rounds: list[Figures], figure: str) -> float:
    return statistics.median(figures[figure] for figures in rounds)


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
