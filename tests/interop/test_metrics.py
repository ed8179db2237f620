"""Conformance item 45: per-minute series that the workers of both sides feed and both sides read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio


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
