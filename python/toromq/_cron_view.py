"""The next times of a cron pattern, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from toromq import _native
from toromq.errors import ConfigurationError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What a date can be written as in every zone.
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH + timedelta(days=2)) // timedelta(milliseconds=1)
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH - timedelta(days=2)) // timedelta(milliseconds=1)


def preview(pattern: str, tz: str, start: datetime | None, count: int, seed: str | None) -> Iterator[str]:
    """Lines that say when `pattern` fires after `start`, which is on the wall clock of `tz` unless it is aware.

    Raises:
        ConfigurationError: the pattern or the zone can't be understood; or it never fires.
    """
    after = _moment_of(tz, datetime.now(UTC) if start is None else start)
    if not _FIRST <= after <= _LAST:
        raise ConfigurationError(f"start: got {start}; allowed are times from 0001-01-03 to 9999-12-29")
    fires = _native.cron_next(pattern, tz, after, count, seed)
    fires = [fire for fire in fires if fire[0] <= _LAST]
    if not fires:
        raise ConfigurationError(f'cron pattern "{pattern}": it never fires')
    offset = _offset(tz, after)
    yield f'"{pattern}" in {tz}, after {_wall(after, offset)}:'
    for ms, here, stands_in in fires:
        if here != offset:
            verb, by = ("forward", here - offset) if here > offset else ("back", offset - here)
            yield f"  (the clocks are put {verb} by {_length(by)})"
            offset = here
        moved = "   in place of a time that the clocks skip that day" if stands_in else ""
        yield f"  {_wall(ms, here)}   {_EPOCH + timedelta(milliseconds=ms):%Y-%m-%dT%H:%M:%SZ}{moved}"
    if len(fires) < count:
        yield "  and none after that"
    if seed is None and re.search(r"(^|[\s,/-])H", pattern):
        yield "H was chosen at random. A job scheduler chooses by its id, or by its hash_seed: give that as --seed."


def _moment_of(tz: str, start: datetime) -> int:
    if start.tzinfo is not None:
        return (start - _EPOCH) // timedelta(milliseconds=1)
    wall = (start.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
    guess = wall - _offset(tz, wall) * 1000
    return wall - _offset(tz, guess) * 1000


def _offset(tz: str, ms: int) -> int:
    """How many seconds the clocks of a zone are ahead of UTC."""
    return _native.cron_next("* * * * * *", tz, ms - 1000, 1, None)[0][1]


def _wall(ms: int, offset: int) -> str:
    there = (_EPOCH + timedelta(milliseconds=ms)).astimezone(timezone(timedelta(seconds=offset)))
    return f"{_DAYS[there.weekday()]} {there.isoformat(' ', 'seconds')}"


# Not the locale's: dates are written in one way here.
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _length(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
