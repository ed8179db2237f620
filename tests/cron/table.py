"""The table of times at which cron patterns fire, and what the engine says to the same questions.

``golden.tsv`` holds answers of the npm package cron-parser, which Node's workers use. A line ``# zone after`` opens a
group; each other line is a pattern, a tab, the seconds from one time it fires to the next, the first from ``after``;
then, where the pattern has an ``H``, a tab and the hash seed. In place of seconds stands ``refused``; ``-`` where
cron-parser finds no further time. ``differences.tsv`` has the rows in which the engine says something else, in the same
form, with the engine's answers; each block of it begins with its reason, on lines with ``##``.

``python -m tests.cron.make_golden`` asks Node again, and writes the table anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toromq import ConfigurationError, _native

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER: Final = Path(__file__).parent
GOLDEN: Final = FOLDER / "golden.tsv"
DIFFERENCES: Final = FOLDER / "differences.tsv"
REFUSED: Final = "refused"
NONE: Final = "-"
FIRES: Final = 3


@dataclass(frozen=True)
class Question:
    """A pattern, where it is meant, and from when on."""

    zone: str
    after: str
    pattern: str
    seed: str | None = None

    @property
    def after_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(datetime.fromisoformat(self.after).timestamp() * 1000)


def read(path: Path) -> dict[Question, str]:
    """The rows of a file."""
    rows: dict[Question, str] = {}
    zone = after = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            _, zone, after = line.split(" ")
        elif not line.startswith("##"):
            pattern, fires, *seed = line.split("\t")
            rows[Question(zone, after, pattern, *seed)] = fires
    return rows


def write(path: Path, rows: Iterable[tuple[Question, str]]) -> None:
    """Writes rows, those of one zone and start under one line."""
    lines: list[str] = []
    group = ""
    for question, fires in rows:
        heading = f"# {question.zone} {question.after}"
        if heading != group:
            lines.append(heading)
            group = heading
        lines.append("\t".join([question.pattern, fires, *([] if question.seed is None else [question.seed])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def steps(after: int, fires: Iterable[int | None]) -> str:
    """Times in milliseconds as the table has them."""
    found: list[str] = []
    for fire in fires:
        if fire is None:
            found.append(NONE)
            break
        found.append(f"{(fire - after) / 1000:.3f}".rstrip("0").rstrip("."))
        after = fire
    return " ".join(found)


def ours(question: Question) -> str:
    """What the engine answers."""
    after = question.after_ms
    try:
        found = _native.cron_next(question.pattern, question.zone, after, FIRES, question.seed)
    except ConfigurationError:
        return REFUSED
    fires: list[int | None] = [ms for ms, _, _ in found]
    return steps(after, fires if len(fires) == FIRES else [*fires, None])


def iso(moment: datetime) -> str:
    """A moment as the table has it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
