"""Conformance item 45: per-minute series that the workers of both sides feed and both sides read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_MINUTE = 60_000


async def _metrics(side: Side, *arguments: Any) -> dict[str, Any]:
    """A series as either side tells it, by the names of the wire."""
    told = await side.call("get_metrics", *arguments)
    if isinstance(told, dict):
        return told
    meta = {"count": told.meta.count, "prevTS": told.meta.prev_ts, "prevCount": told.meta.prev_count}
    return {"meta": meta, "data": told.data, "count": told.count}


def _store(keys: QueueKeys, target: str, count: int, prev_ts: int, prev_count: int, *points: int) -> None:
    key = keys(f"metrics:{target}")
    keys.redis.hset(key, mapping={"count": count, "prevTS": prev_ts, "prevCount": prev_count})
    if points:
        keys.redis.rpush(f"{key}:data", *points)


async def test_both_sides_read_a_series_alike(pair: Pair) -> None:
    assert await _metrics(pair.a, "completed") == await _metrics(pair.b, "completed")
    _store(pair.keys, "completed", 9, 1_700_000_000_000, 8, 0, 0, 5, 1, 2)
    for bounds in ((), (0, -1), (1, 2), (0, 0), (-2, -1), (3, 1), (2, 100)):
        told = await _metrics(pair.a, "completed", *bounds)
        assert told == await _metrics(pair.b, "completed", *bounds)
        assert told["count"] == 5
    assert (await _metrics(pair.a, "completed", -2, -1))["data"] == [1, 2]
    assert await _metrics(pair.a, "failed") == await _metrics(pair.b, "failed")


@pytest.mark.parametrize("queue_name", ["mail", 'a"b\\c d'])
@pytest.mark.parametrize("labels", [None, {"env": "prod"}, {"a": 'x"y\\z\n', "b": ""}], ids=["none", "one", "odd"])
async def test_our_text_for_prometheus_is_that_of_node(
    ours: OurSide, node: NodeSide, keys: QueueKeys, labels: dict[str, str] | None
) -> None:
    await node.add_bulk([("n", {}, {}), ("n", {}, {}), ("n", {}, {"priority": 1}), ("n", {}, {"delay": 600_000})])
    _store(keys, "completed", 9, 1_700_000_000_000, 8)
    _store(keys, "failed", 3, 1_700_000_000_000, 3)
    arguments = () if labels is None else (labels,)
    told = await ours.call("export_prometheus_metrics", *arguments)
    assert told == await node.call("export_prometheus_metrics", *arguments)
    assert 'state="waiting"' in told


# --- what workers write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["completed", "failed"])
async def test_workers_of_both_sides_feed_one_series(pair: Pair, target: str) -> None:
    script = {"completed": "value", "failed": "fail"}[target]
    for side in (pair.a, pair.b, pair.a):
        await side.add_bulk([("n", {}, {})] * 3)
        worker = await side.worker(script, metrics=5)
        await worker.said(target, count=3)
        await worker.close()
    assert pair.keys.redis.hget(pair.keys(f"metrics:{target}"), "count") == "9"
    # Nobody counts without the option.
    await pair.a.add("n", {})
    worker = await pair.b.worker(script)
    await worker.said(target)
    told = await _metrics(pair.a, target)
    assert told == await _metrics(pair.b, target)
    assert told["meta"]["count"] == 9
    # Nothing, unless the test began in one minute and ended in another.
    assert sum(told["data"]) == told["meta"]["prevCount"]
    assert not pair.keys.redis.exists(pair.keys(f"metrics:{({'completed', 'failed'} - {target}).pop()}"))


@pytest.mark.parametrize(
    ("ago", "count", "previous", "points", "most"),
    [
        pytest.param(None, None, None, [], 5, id="the first job"),
        pytest.param(0, 5, 2, [1], 5, id="in the same minute"),
        pytest.param(1, 5, 2, [1], 5, id="in the next minute"),
        pytest.param(3, 5, 0, [], 5, id="three minutes later"),
        pytest.param(3, 5, 0, [7, 8, 9, 10], 5, id="more points than are kept"),
        pytest.param(30, 5, 1, [7, 8], 4, id="more minutes than are kept"),
        pytest.param(2, 5, 1, [7], 1, id="one point"),
        pytest.param(-5, 5, 1, [7], 4, id="a clock that was ahead"),
    ],
)
async def test_the_minutes_of_a_series_roll_over_alike(
    side: Side, keys: QueueKeys, ago: int | None, count: int | None, previous: int | None, points: list[int], most: int
) -> None:
    then = 0
    if ago is not None:
        assert count is not None
        assert previous is not None
        then = time.time_ns() // 1_000_000 - ago * _MINUTE
        _store(keys, "completed", count, then, previous, *points)
    job_id = await side.add("n", {})
    worker = await side.worker("value", metrics=most)
    await worker.said("completed", job_id=job_id)
    now = int(keys.redis.hget(keys(job_id), "finishedOn") or 0)
    # The rule of the wire.
    before = count or 0
    expected = {"count": before + 1, "prevTS": then, "prevCount": previous or 0}
    minutes = min(now // _MINUTE - then // _MINUTE, most)
    if ago is None:
        expected["prevTS"] = now
    elif minutes > 0:
        points = ([0] * (minutes - 1) + [before - (previous or 0)] + points)[:most]
        expected |= {"prevTS": now, "prevCount": before}
    assert await _metrics(side, "completed") == {"meta": expected, "data": points, "count": len(points)}
