"""A flow drawn for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from toromq._flow_nodes import JobNode

_COLORS: Final = {
    "completed": 32, "failed": 31, "active": 36, "waiting": 33, "prioritized": 33, "delayed": 35,
    "waiting-children": 34,
}  # fmt: skip
_POLICIES: Final = {
    "fpof": "fails its parent", "cpof": "lets its parent run", "idof": "ignored by its parent",
    "rdof": "forgotten by its parent",
}  # fmt: skip
_LONGEST_REASON: Final = 80
_FANCY: Final = ("├─ ", "│  ", "└─ ", "   ", "…")
_PLAIN: Final = ("|- ", "|  ", "`- ", "   ", "...")


def drawn(tree: JobNode[Any], depth: int, *, colors: bool, fancy: bool) -> Iterator[str]:
    """The lines of a tree that was read with states, up to `depth` levels."""
    branch, trunk, last, space, more = _FANCY if fancy else _PLAIN
    # From the last line to the first: what stands before a job's line, and before those below it.
    waiting: list[tuple[str, str, int, JobNode[Any] | str]] = [("", "", 1, tree)]
    while waiting:
        before, below, level, node = waiting.pop()
        if isinstance(node, str):
            yield f"{before}{node}"
            continue
        yield f"{before}{_line(node, colors, more)}"
        lines: list[JobNode[Any] | str] = [*node.children]
        left = (node.children_count or 0) - len(node.children)
        if left > 0:
            option = "--depth" if level >= depth else "--max-children"
            lines.append(f"{more} {left} more: {option}, or removed since")
        parts = [(below + branch, below + trunk, level + 1, line) for line in lines[:-1]]
        parts += [(below + last, below + space, level + 1, line) for line in lines[-1:]]
        waiting += reversed(parts)


def _line(node: JobNode[Any], colors: bool, more: str) -> str:
    job = node.job
    state: str = node.state or "unknown"
    if colors and state in _COLORS:
        state = f"\x1b[{_COLORS[state]}m{state}\x1b[0m"
    parts = [f"{_printable(f'{job.name} {job.id} ({job.queue_name})')} {state}"]
    parent: Any = job.parent or {}
    policy = next((text for flag, text in _POLICIES.items() if parent.get(flag)), None)
    if node.state == "failed" and policy is None and parent:
        policy = "its parent waits on"
    reason = job.deferred_failure or (job.failed_reason if node.state == "failed" else None)
    if reason is not None:
        first = _printable((reason.splitlines() or [""])[0])
        cut = first if len(first) <= _LONGEST_REASON else first[:_LONGEST_REASON] + more
        parts.append(f"{'will fail: ' if job.deferred_failure else ''}{cut}")
    line = ": ".join(parts)
    return f"{line} [{policy}]" if policy else line


def _printable(text: str) -> str:
    """A text that stays on its line and tells the terminal nothing: others wrote it."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
