"""The same series by Node and by us, each on keys of its own: what is stored after each step must not tell who did it.

Where it does on purpose, the difference stands here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurSide
from tests.interop.sides import Side

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_SLOT: Final = 4096
# A time to come, so that all that follows from it is the same for both.
_START: Final = 2_067_033_600_000
_PATTERN: Final = {"pattern": "30 2 * * *", "tz": "Europe/Stockholm", "start_date": _START}


class Twins:
    """The same queue twice: one for us, one for Node."""

    def __init__(self, sides: tuple[Side, Side], keys: tuple[QueueKeys, QueueKeys]) -> None:
        self.both = tuple(zip(sides, keys, strict=True))
        self.now = time.time_ns() // 1_000_000

    async def upsert(self, **given: Any) -> None:
        """Does it on both, and compares all keys."""
        made = [await side.upsert_scheduler("s", **given) for side, _ in self.both]
        self.compare()
        assert (made[0] is None) == (made[1] is None)

    async def call(self, operation: str, *arguments: Any) -> None:
        for side, _ in self.both:
            await side.call(operation, *arguments)
        self.compare()

    async def run(self, *, error: str | None = None) -> None:
        """Lets the next job run, whenever it is due, and compares all keys before its end and after."""
        ids = []
        for side, keys in self.both:
            (due,) = keys.scores("repeat").values()
            job_id = f"repeat:s:{due}"
            if keys.redis.zscore(keys("delayed"), job_id) is not None:
                await side.on_job(job_id, "promote")
            ids.append(await side.fetch_by_hand("w:1"))
            assert ids[-1] == job_id
        self.compare()
        for (side, _), job_id in zip(self.both, ids, strict=True):
            await side.finish_by_hand(job_id, "w:1", error=error, value={"r": 1})
        self.compare()

    def compare(self) -> None:
        ours, nodes = (dict(_leaves(self._picture(keys))) for _, keys in self.both)
        places = sorted(ours.keys() | nodes.keys())
        absent = "absent"
        differences = {
            place: (ours.get(place, absent), nodes.get(place, absent))
            for place in places
            if ours.get(place, absent) != nodes.get(place, absent)
        }
        assert differences == {}

    def _picture(self, keys: QueueKeys) -> dict[str, Any]:
        found = {self._moments(key): self._told(value) for key, value in keys.picture().items()}
        # Markers that are left depend on who blocks on them when.
        found.pop("marker", None)
        found.pop("stalled-check", None)
        return found

    def _told(self, value: Any, name: str = "") -> Any:
        """A value in which what two clocks say is the same."""
        if isinstance(value, dict):
            told = {self._moments(key): self._told(item, key) for key, item in value.items()}
            if "ic" in value and value.get("offset"):
                told["offset"] = self._minutes(value["offset"] - self.now % _DAY)
            return told
        if name == "stacktrace":
            return len(value)
        if isinstance(value, list):
            return [self._told(item) for item in value]
        if isinstance(value, float) and value > _SLOT**3:
            return self._told(round(value / _SLOT if value > 4e15 else value))
        if name == "delay" and isinstance(value, int | str) and str(value).isdigit():
            number = int(value)
            return self._minutes(number - self.now) if number > 10**12 else self._minutes(number)
        if isinstance(value, str) and value.startswith(("{", "[")):
            return self._told(json.loads(value))
        if isinstance(value, int) and not isinstance(value, bool) and value > 10**12:
            return self._minutes(value - self.now)
        return self._moments(value) if isinstance(value, str) else value

    def _moments(self, text: str) -> str:
        return re.sub(r"(?<=:)\d{13}(?!\d)", lambda found: self._minutes(int(found[0]) - self.now), text)

    @staticmethod
    def _minutes(duration: float) -> str:
        return f"{round(duration / _MINUTE)} min"


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


@pytest_asyncio.fixture
async def twins(peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> AsyncIterator[Twins]:
    ours = OurSide(redisbox.unix_url, f"{prefix}:ours", "mail")
    await peer.use(redisbox.unix_url, f"{prefix}:node")
    nodes = await NodeSide(peer, redisbox.unix_url, f"{prefix}:node", "mail").start()
    keys = tuple(QueueKeys(redis, f"{prefix}:{name}", "mail") for name in ("ours", "node"))
    yield Twins((ours, nodes), (keys[0], keys[1]))
    await ours.close()


_FIRST: Final[list[dict[str, Any]]] = [
    {"every": _DAY},
    {"every": _DAY, "offset": 5 * _MINUTE},
    {"every": _DAY, "offset": _DAY},
    {"every": _DAY, "start_date": _START},
    {"every": _DAY, "start_date": _START, "offset": 7},
    {"every": _DAY, "start_date": 1_600_000_000_000},
    {"every": _DAY, "limit": 2, "end_date": _START},
    {"every": _DAY, "limit": 1},
    {"every": _DAY, "limit": 0},
    {"every": _DAY, "name": "other", "data": {"a": [1, "é", None], "b": {"c": 1.5}}},
    {"every": _DAY, "data": {}},
    {"every": _DAY, "opts": {"priority": 5, "attempts": 3, "backoff": {"type": "exponential", "delay": 9}}},
    {"every": _DAY, "opts": {"lifo": True, "remove_on_complete": True, "remove_on_fail": {"count": 3, "age": 60}}},
    {"every": _DAY, "opts": {"attempts": 0, "keep_logs": 4, "stack_trace_limit": 1, "size_limit": 500}},
    _PATTERN,
    {**_PATTERN, "limit": 2, "end_date": _START + 90 * _DAY},
    {**_PATTERN, "end_date": _START + 1},
    {**_PATTERN, "opts": {"priority": 2}, "data": [1]},
    {**_PATTERN, "hash_seed": "seed", "pattern": "H H * * *"},
    {"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True},
    {"pattern": "@yearly", "tz": "Asia/Tokyo", "start_date": _START},
]


@pytest.mark.parametrize("given", _FIRST, ids=str)
async def test_a_series(twins: Twins, given: dict[str, Any]) -> None:
    await twins.upsert(**given)
    if given.get("limit") == 0 or given.get("end_date") == _START + 1:
        return
    await twins.run()
    if given.get("limit") == 1:
        return
    await twins.run(error="no")
    # An end behind the next time, or a limit, ends it for both.
    await twins.call("remove_job_scheduler", "s")


_THEN: Final[list[dict[str, Any]]] = [
    {"every": _DAY, "data": {"new": 1}},
    {"every": _DAY, "offset": 9},
    {"every": 2 * _DAY},
    {"every": 2 * _DAY, "offset": 11},
    {"every": _DAY, "start_date": _START + 5 * _DAY},
    {"every": _DAY, "name": "n", "opts": {"priority": 3}, "limit": 7},
    _PATTERN,
    {**_PATTERN, "tz": "Asia/Tokyo"},
    {**_PATTERN, "data": 5},
]


@pytest.mark.parametrize("then", _THEN, ids=str)
@pytest.mark.parametrize(
    "first",
    [
        {"every": _DAY},
        {"every": _DAY, "opts": {"priority": 2}},
        {"every": _DAY, "start_date": _START},
        {"every": _DAY, "start_date": _START, "offset": 7, "end_date": _START + 9 * _DAY, "data": {"old": 1}},
        _PATTERN,
    ],
    ids=str,
)
@pytest.mark.parametrize("runs", [0, 1])
async def test_an_upsert_on_top_of_another(
    twins: Twins, first: dict[str, Any], then: dict[str, Any], runs: int
) -> None:
    if runs and first == _PATTERN and then.get("tz") == _PATTERN["tz"]:
        # The time of the job that was promoted, which is kept. Node writes a new job over it, which then is in two
        # states; we go on to the next time.
        return
    await twins.upsert(**first)
    for _ in range(runs):
        await twins.run()
    await twins.upsert(**then)
    await twins.run()
    await twins.call("remove_job_scheduler", "s")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"every": _DAY}, {"every": _DAY, "data": {"new": 1}}),
        ({"every": _DAY}, {"every": 2 * _DAY}),
        ({"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True}, {"pattern": "0 0 1 1 *", "tz": "UTC", "data": 1}),
        ({"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True}, {"every": _DAY, "start_date": _START}),
    ],
    ids=str,
)
async def test_an_upsert_while_the_job_runs(twins: Twins, first: dict[str, Any], then: dict[str, Any]) -> None:
    await twins.upsert(**first)
    for side, _ in twins.both:
        await side.fetch_by_hand("w:1")
    twins.compare()
    await twins.upsert(**then)
    await twins.call("remove_job_scheduler", "s")


async def test_the_next_job_of_one_that_was_drained(twins: Twins) -> None:
    await twins.upsert(every=_DAY, start_date=_START)
    for _, keys in twins.both:
        job_id = f"repeat:s:{_START}"
        keys.redis.delete(keys(job_id))
        keys.redis.zrem(keys("delayed"), job_id)
    await twins.upsert(every=_DAY)
    await twins.run()
