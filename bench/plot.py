"""The figures as one SVG: a group of bars for each line of the table, as long as the medians are."""

from __future__ import annotations

from html import escape

from bench.peer import PEERS
from bench.report import Results, digits, less_is_better, lines_of, spread

# One for each peer, in their order.
_COLOURS = {
    "toromq": "#c8102e",
    "ceiling": "#f2a6b0",
    "node": "#3c873a",
    "bullmq": "#306998",
    "rq": "#8a6d3b",
    "dramatiq": "#6b4c9a",
    "huey": "#2a9d8f",
    "saq": "#b5651d",
    "arq": "#888888",
    "taskiq": "#c9a227",
    "celery": "#7fb04f",
}
_BAR, _GAP, _HEAD, _LEFT, _WIDE, _RIGHT = 16, 20, 24, 170, 460, 190


def svg(lines: dict[str, str], results: Results) -> str:
    """Draw it. A thin line goes from the lowest to the highest round; what a peer can't do has no bar."""
    peers = list(next(iter(results.values())))
    y = 16.0
    parts = []
    for name, text in lines.items():
        parts.append(_text(10, y, f"{name}: {text}"))
        y += 16
    for title, key, figure, unit in lines_of(results):
        y += _GAP
        less = ", less is better" if less_is_better(figure, unit) else ""
        parts.append(_text(10, y, f"{title} [{unit}]{less}", bold=True))
        y += _HEAD - _BAR / 2
        spreads = {name: spread(results[key][name], figure) for name in peers}
        measured = {name: values for name, values in spreads.items() if values}
        longest = max((values[2] for values in measured.values()), default=0) or 1
        for name, values in measured.items():
            parts.append(_text(_LEFT - 8, y + 4, PEERS[name].title, end=True))
            middle, low, high = (max(0.0, value) / longest * _WIDE for value in values)
            parts.append(
                f'<rect x="{_LEFT}" y="{y - _BAR / 2 + 2:.1f}" width="{middle:.1f}" height="{_BAR - 4}" '
                f'fill="{_COLOURS[name]}"/>'
                f'<path d="M{_LEFT + low:.1f} {y:.1f}H{_LEFT + high:.1f}" stroke="#000" stroke-width="1.5"/>'
            )
            repeated = "= " if key in PEERS[name].repeats else ""
            said = f"{repeated}{values[0]:,.{digits(unit)}f}"
            parts.append(_text(_LEFT + max(middle, high) + 6, y + 4, said))
            y += _BAR
    size = f'width="{_LEFT + _WIDE + _RIGHT}" height="{y + 10:.0f}"'
    style = 'font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}\n' + "\n".join(parts) + "\n</svg>\n"


def _text(x: float, y: float, text: str, *, bold: bool = False, end: bool = False) -> str:
    extra = (' font-weight="bold"' if bold else "") + (' text-anchor="end"' if end else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>'
