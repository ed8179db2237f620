"""The machine, and the figures as tables."""

from __future__ import annotations

import math
import os
import platform
import statistics
from pathlib import Path

from bench.measures import Figures
from bench.peer import PEERS
from bench.rows import RATIOS, ROWS
from bench.server import Bench

#: Row, then peer, then one set of figures per round; none for a peer that can't run the row.
Results = dict[str, dict[str, list[Figures]]]
Table = list[list[str]]

# What else runs takes from all, but not from all alike.
_BUSY = 0.5
_NONE = "-"
_MORE_IS_BETTER = frozenset({"jobs/s", "events/s", "%"})


def header(bench: Bench, rounds: int, load: float) -> dict[str, str]:
    """What one has to know to judge the figures."""
    server = bench.client.info("server")
    settings = ("appendonly", "appendfsync", "save", "maxmemory-policy", "io-threads")
    values = (f"{name} {bench.client.config_get(name).get(name) or '-'}" for name in settings)
    program = f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}"
    lines = {
        "machine": f"{os.cpu_count()} cores, {_cpu()}, {platform.system()} {platform.release()}",
        "load": f"{load:.2f} when it began",
        "server": f"{program}, {', '.join(values)}; TCP on loopback",
    }
    if load > _BUSY:
        lines["WARNING"] = f"the machine was busy (a load above {_BUSY}): these figures are not worth keeping"
    for name in bench.names:
        versions = bench.producer(name).ask("hello")["versions"]
        lines[PEERS[name].title] = ", ".join(f"{package} {version}" for package, version in versions.items())
    lines["rounds"] = f"{rounds}, peers in turn, after one that does not count; median (lowest-highest)"
    return lines


def plain(lines: dict[str, str], results: Results) -> str:
    """All of it for a terminal."""
    width = max(map(len, lines), default=0) + 2
    text = [f"{name + ':':<{width}}{value}" for name, value in lines.items()]
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


def lines_of(results: Results) -> list[tuple[str, str, str, str]]:
    """Every line of the main table: its title, row, figure and unit."""
    lines = []
    for key in results:
        row = ROWS[key]
        for figure, unit in row.figures.items():
            lines.append((row.title if len(row.figures) == 1 else f"{row.title}, {figure}", key, figure, unit))
    return lines


def spread(rounds: list[Figures], figure: str) -> tuple[float, float, float] | None:
    """Median, lowest and highest; None where nothing was measured."""
    values = [figures[figure] for figures in rounds]
    if not values or any(map(math.isnan, values)):
        return None
    return statistics.median(values), min(values), max(values)


def less_is_better(figure: str, unit: str) -> bool:
    """Which way a figure is read."""
    return unit not in _MORE_IS_BETTER or figure == "CPU"


def digits(unit: str) -> int:
    """How many digits behind the point say something."""
    return 0 if unit in ("jobs/s", "events/s", "jobs", "bytes") else 2


def _tables(results: Results) -> list[Table]:
    peers = list(next(iter(results.values())))
    titles = [PEERS[name].title for name in peers]
    tables = [_figures(results, peers), _cpu_per_job(results, peers), _commands(results, peers)]
    ratios: Table = [["ratios within this run", *titles]]
    for ratio in RATIOS:
        cells = []
        for name in peers:
            over = (ratio.over[0], name, ratio.over[1])
            under = (ratio.under[0], "ceiling" if ratio.of_ceiling else name, ratio.under[1])
            cells.append(_percent(results, over, under))
        if any(cell != _NONE for cell in cells):
            ratios.append([ratio.title, *cells])
    return [table for table in (*tables, ratios) if len(table) > 1]


def _figures(results: Results, peers: list[str]) -> Table:
    compared = {"toromq", "node"} <= set(peers)
    head = ["", "unit", *(PEERS[name].title for name in peers), *(["toromq / Node"] if compared else [])]
    table = [head]
    for title, key, figure, unit in lines_of(results):
        line = [title, unit, *(_cell(key, name, figure, results[key][name], unit) for name in peers)]
        if compared:
            ours, theirs = (spread(results[key][name], figure) for name in ("toromq", "node"))
            less = ", less is better" if less_is_better(figure, unit) else ""
            line.append(f"{ours[0] / theirs[0]:.2f}{less}" if ours and theirs and theirs[0] else _NONE)
        table.append(line)
    return table


def _cpu_per_job(results: Results, peers: list[str]) -> Table:
    table = [["CPU per job or event: process + server", "unit", *(PEERS[name].title for name in peers)]]
    for key, by_peer in results.items():
        if _has(by_peer, "process_us"):
            cells = (_pair(by_peer[name], "process_us", "server_us", "{:.0f} + {:.0f}") for name in peers)
            table.append([ROWS[key].title, "us", *cells])
    return table


def _commands(results: Results, peers: list[str]) -> Table:
    table = [["Redis commands per job or event (script calls)", *(PEERS[name].title for name in peers)]]
    for key, by_peer in results.items():
        if _has(by_peer, "scripts"):
            cells = (_pair(by_peer[name], "commands", "scripts", "{:.1f} ({:.2f})") for name in peers)
            table.append([ROWS[key].title, *cells])
    return table


def _has(by_peer: dict[str, list[Figures]], figure: str) -> bool:
    return any(figure in figures for rounds in by_peer.values() for figures in rounds)


def _pair(rounds: list[Figures], one: str, other: str, form: str) -> str:
    first, second = spread(rounds, one), spread(rounds, other)
    return form.format(first[0], second[0]) if first and second else _NONE


def _percent(results: Results, over: tuple[str, str, str], under: tuple[str, str, str]) -> str:
    (a, b) = (spread(results.get(row, {}).get(peer, []), figure) for row, peer, figure in (over, under))
    return f"{a[0] / b[0] * 100:.0f} %" if a and b and b[0] else _NONE


def _cell(key: str, name: str, figure: str, rounds: list[Figures], unit: str) -> str:
    values = spread(rounds, figure)
    if values is None:
        return _NONE
    middle, low, high = (f"{value:,.{digits(unit)}f}" for value in values)
    return f"{'= ' if key in PEERS[name].repeats else ''}{middle} ({low}-{high})"


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
