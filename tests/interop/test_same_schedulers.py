"""The same series by Node and by us, each on keys of its own: what is stored after each step must not tell who did it.

Where it does on purpose, the difference stands here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from tests.interop.keys import QueueKeys
from tests.interop.node_side import NodeSide
from tests.interop.our_sides import OurSide
from tests.interop.series import DAY, MINUTE, Lane, Series

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.node_peer import NodePeer
    from tests.support.redisbox import RedisBox

pytestmark = pytest.mark.asyncio

# A time to come, so that all that follows from it is the same for both.
_START: Final = 2_067_033_600_000
_PATTERN: Final = {"pattern": "30 2 * * *", "tz": "Europe/Stockholm", "start_date": _START}


@pytest_asyncio.fixture
async def twins(peer: NodePeer, redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> AsyncIterator[Series]:
    ours = OurSide(redisbox.unix_url, f"{prefix}:ours", "mail")
    await peer.use(redisbox.unix_url, f"{prefix}:node")
    nodes = await NodeSide(peer, redisbox.unix_url, f"{prefix}:node", "mail").start()
    sides = {"ours": ours, "node": nodes}
    yield Series([Lane(QueueKeys(redis, f"{prefix}:{name}", "mail"), [side]) for name, side in sides.items()])
    await ours.close()


_FIRST: Final[list[dict[str, Any]]] = [
    {"every": DAY},
    {"every": DAY, "offset": 5 * MINUTE},
    {"every": DAY, "offset": DAY},
    {"every": DAY, "start_date": _START},
    {"every": DAY, "start_date": _START, "offset": 7},
    {"every": DAY, "start_date": 1_600_000_000_000},
    {"every": DAY, "limit": 2, "end_date": _START},
    {"every": DAY, "limit": 1},
    {"every": DAY, "limit": 0},
    {"every": DAY, "name": "other", "data": {"a": [1, "é", None], "b": {"c": 1.5}}},
    {"every": DAY, "data": {}},
    {"every": DAY, "opts": {"priority": 5, "attempts": 3, "backoff": {"type": "exponential", "delay": 9}}},
    {"every": DAY, "opts": {"lifo": True, "remove_on_complete": True, "remove_on_fail": {"count": 3, "age": 60}}},
    {"every": DAY, "opts": {"attempts": 0, "keep_logs": 4, "stack_trace_limit": 1, "size_limit": 500}},
    _PATTERN,
    {**_PATTERN, "limit": 2, "end_date": _START + 90 * DAY},
    {**_PATTERN, "end_date": _START + 1},
    {**_PATTERN, "opts": {"priority": 2}, "data": [1]},
    {**_PATTERN, "hash_seed": "seed", "pattern": "H H * * *"},
    {"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True},
    {"pattern": "@yearly", "tz": "Asia/Tokyo", "start_date": _START},
]


@pytest.mark.parametrize("given", _FIRST, ids=str)
async def test_a_series(twins: Series, given: dict[str, Any]) -> None:
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
    {"every": DAY, "data": {"new": 1}},
    {"every": DAY, "offset": 9},
    {"every": 2 * DAY},
    {"every": 2 * DAY, "offset": 11},
    {"every": DAY, "start_date": _START + 5 * DAY},
    {"every": DAY, "name": "n", "opts": {"priority": 3}, "limit": 7},
    _PATTERN,
    {**_PATTERN, "tz": "Asia/Tokyo"},
    {**_PATTERN, "data": 5},
]


@pytest.mark.parametrize("then", _THEN, ids=str)
@pytest.mark.parametrize(
    "first",
    [
        {"every": DAY},
        {"every": DAY, "opts": {"priority": 2}},
        {"every": DAY, "start_date": _START},
        {"every": DAY, "start_date": _START, "offset": 7, "end_date": _START + 9 * DAY, "data": {"old": 1}},
        _PATTERN,
    ],
    ids=str,
)
@pytest.mark.parametrize("runs", [0, 1])
async def test_an_upsert_on_top_of_another(
    twins: Series, first: dict[str, Any], then: dict[str, Any], runs: int
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
        ({"every": DAY}, {"every": DAY, "data": {"new": 1}}),
        ({"every": DAY}, {"every": 2 * DAY}),
        ({"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True}, {"pattern": "0 0 1 1 *", "tz": "UTC", "data": 1}),
        ({"pattern": "0 0 1 1 *", "tz": "UTC", "immediately": True}, {"every": DAY, "start_date": _START}),
    ],
    ids=str,
)
async def test_an_upsert_while_the_job_runs(twins: Series, first: dict[str, Any], then: dict[str, Any]) -> None:
    await twins.upsert(**first)
    await twins.begin()
    await twins.upsert(**then)
    await twins.call("remove_job_scheduler", "s")


async def test_the_next_job_of_one_that_was_drained(twins: Series) -> None:
    await twins.upsert(every=DAY, start_date=_START)
    for lane in twins.lanes:
        job_id = f"repeat:s:{_START}"
        lane.keys.redis.delete(lane.keys(job_id))
        lane.keys.redis.zrem(lane.keys("delayed"), job_id)
    await twins.upsert(every=DAY)
    await twins.run()
