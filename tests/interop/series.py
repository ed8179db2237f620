"""The same queue several times, each for clients of its own: one series of jobs of a scheduler is told of each."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.interop.keys import QueueKeys
from tests.interop.sides import Side

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_SLOT: Final = 4096
_ID: Final = re.compile(r"(?<=repeat:s:)\d{13}(?!\d)")


@dataclass
class Lane:
    """One of the queues, and the clients that work on it in turn."""

    keys: QueueKeys
    sides: Sequence[Side]
    fetched: dict[str, Side] = field(default_factory=dict)

    def side(self, turn: int) -> Side:
        """Whose turn it is."""
        return self.sides[turn % len(self.sides)]


class Series:
    """Scheduler ``s`` of all lanes. Each operation is done on every one, and then all keys are compared.

    What clocks say is told in minutes from the beginning; of jobs for times in the same minute, which is the earlier.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.now = time.time_ns() // 1_000_000

    async def upsert(self, turn: int = 0, **given: Any) -> None:
        """Sets it up."""
        self._pass_a_moment()
        made = [await lane.side(turn).upsert_scheduler("s", **given) for lane in self.lanes]
        self.compare()
        assert len({job_id is None for job_id in made}) == 1

    async def call(self, operation: str, *arguments: Any, turn: int = 0) -> None:
        """Does anything else to the queue."""
        for lane in self.lanes:
            await lane.side(turn).call(operation, *arguments)
        self.compare()

    async def begin(self, turn: int = 0) -> None:
        """Makes the next job active, whenever it is due; or another that waits before it."""
        self._pass_a_moment()
        for lane in self.lanes:
            (due,) = lane.keys.scores("repeat").values() or (0,)
            job_id = f"repeat:s:{due}"
            if lane.keys.redis.zscore(lane.keys("delayed"), job_id) is not None:
                await lane.side(turn).on_job(job_id, "promote")
            fetched = await lane.side(turn).fetch_by_hand("w:1")
            lane.fetched[fetched] = lane.side(turn)
        self.compare()

    async def end(self, *, error: str | None = None) -> None:
        """Ends the jobs that were begun, in the order in which they were."""
        self._pass_a_moment()
        for lane in self.lanes:
            for job_id, side in lane.fetched.items():
                await side.finish_by_hand(job_id, "w:1", error=error, value={"r": 1})
            lane.fetched.clear()
        self.compare()

    async def run(self, *, error: str | None = None) -> None:
        """Both."""
        await self.begin()
        await self.end(error=error)

    def compare(self) -> None:
        """Fails with the places where what is stored differs."""
        first, *others = (dict(_leaves(self._picture(lane.keys))) for lane in self.lanes)
        for other in others:
            places = sorted(first.keys() | other.keys())
            absent = "absent"
            differences = {
                place: (first.get(place, absent), other.get(place, absent))
                for place in places
                if first.get(place, absent) != other.get(place, absent)
            }
            assert differences == {}

    def _pass_a_moment(self) -> None:
        """No two steps share a millisecond, so that no two jobs have the same time by chance."""
        began = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 <= began:
            time.sleep(0.0005)

    def _picture(self, keys: QueueKeys) -> dict[str, Any]:
        stored = keys.picture()
        # Markers that are left depend on who blocks on them when.
        for name in ("marker", "stalled-check"):
            stored.pop(name, None)
        found = sorted(set(_ID.findall(json.dumps(stored))))
        names: dict[str, str] = {}
        for minute, same in itertools.groupby(found, lambda due: self._minutes(int(due) - self.now)):
            names |= {due: f"{minute}, {n}" for n, due in enumerate(same)}
        return {_named(key, names): self._told(value, names) for key, value in stored.items()}

    def _told(self, value: Any, names: dict[str, str], place: str = "") -> Any:
        """A value in which what two clocks say is the same."""
        if isinstance(value, dict):
            told = {_named(key, names): self._told(item, names, key) for key, item in value.items()}
            if value.get("delay") and "timestamp" in value:
                # When that ends is the same for all, and how far away it is depends on who asked when.
                told["delay"] = self._minutes(int(value["timestamp"]) + int(value["delay"]) - self.now)
            if "ic" in value and value.get("offset"):
                told["offset"] = self._minutes(value["offset"] - self.now % DAY)
            return told
        if place == "stacktrace":
            return len(value)
        if isinstance(value, list):
            return [self._told(item, names) for item in value]
        if isinstance(value, float) and value > 10**12:
            return self._minutes((value / _SLOT if value > 4e15 else value) - self.now)
        if place == "delay" and str(value).isdigit():
            number = int(value)
            return self._minutes(number - self.now) if number > 10**12 else self._minutes(number)
        if isinstance(value, int) and not isinstance(value, bool) and value > 10**12:
            return self._minutes(value - self.now)
        return _named(value, names) if isinstance(value, str) else value

    @staticmethod
    def _minutes(duration: float) -> str:
        return f"{round(duration / MINUTE)} min"


def _named(text: str, names: dict[str, str]) -> str:
    return _ID.sub(lambda found: names[found[0]], text)


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a picture, by its place."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{place} / {name}")
    elif isinstance(value, list) and value:
        for n, item in enumerate(value):
            yield from _leaves(item, f"{place} / {n}")
    else:
        yield place, value
