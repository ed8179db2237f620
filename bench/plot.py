"""The figures as one SVG: a group of bars for each line of the table, as long as the medians are."""

from __future__ import annotations

from html import escape

from bench.peer import PEERS
from bench.report import Results, lines_of, spread

_COLOURS = ("#c8102e", "#f2a6b0", "#3c873a", "#306998", "#8a6d3b", "#6b4c9a", "#2a9d8f", "#b5651d", "#888888")
_BAR, _GAP, _HEAD, _LEFT, _WIDE, _RIGHT = 16, 20, 24, 170, 460, 190


def svg(lines: dict[str, str], results: Results) -> str:
    """Draw it. A thin line goes from the lowest to the highest round."""
    peers = list(next(iter(results.values())))
    y = 16.0
    parts = []
    for name in ("machine", "load", "WARNING", "server"):
        if name in lines:
            parts.append(_text(10, y, f"{name}: {lines[name]}"))
            y += 16
    for title, key, figure, unit in lines_of(results):
        y += _GAP
        parts.append(_text(10, y, f"{title} [{unit}]", bold=True))
        y += _HEAD - _BAR / 2
        measured = {name: spread(results[key][name], figure) for name in peers}
        longest = max((values[2] for values in measured.values() if values), default=0) or 1
        for number, name in enumerate(peers):
            parts.append(_text(_LEFT - 8, y + 4, PEERS[name].title, end=True))
            values = measured[name]
            if values is None:
                parts.append(_text(_LEFT, y + 4, "-"))
            else:
                middle, low, high = (max(0.0, value) / longest * _WIDE for value in values)
                colour = _COLOURS[number % len(_COLOURS)]
                parts.append(
                    f'<rect x="{_LEFT}" y="{y - _BAR / 2 + 2:.1f}" width="{middle:.1f}" height="{_BAR - 4}" '
                    f'fill="{colour}"/>'
                    f'<path d="M{_LEFT + low:.1f} {y:.1f}H{_LEFT + high:.1f}" stroke="#000" stroke-width="1.5"/>'
                )
                repeated = "= " if key in PEERS[name].repeats else ""
                parts.append(_text(_LEFT + max(middle, high) + 6, y + 4, f"{repeated}{values[0]:,.4g}"))
            y += _BAR
    size = f'width="{_LEFT + _WIDE + _RIGHT}" height="{y + 10:.0f}"'
    style = 'font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}\n' + "\n".join(parts) + "\n</svg>\n"


def _text(x: float, y: float, text: str, *, bold: bool = False, end: bool = False) -> str:
    extra = (' font-weight="bold"' if bold else "") + (' text-anchor="end"' if end else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>'
