"""Conformance items 7-9: who runs first, when both sides have put jobs into the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interop.conftest import Pair

pytestmark = pytest.mark.asyncio


async def _order(pair: Pair, count: int) -> list[str]:
    worker = await pair.b.worker("echo")
    await worker.said("completed", count=count)
    return [run.data["label"] for run in worker.runs()]


async def test_jobs_of_both_sides_run_in_the_order_they_came(pair: Pair) -> None:
    labels = [f"job {number}" for number in range(20)]
    for number, label in enumerate(labels):
        await (pair.a if number % 2 else pair.b).add("n", {"label": label})
    assert await _order(pair, 20) == labels


async def test_lifo_jobs_of_both_sides_overtake_the_line(pair: Pair) -> None:
    await pair.a.add("n", {"label": "first"})
    await pair.b.add("n", {"label": "second"})
    await pair.a.add("n", {"label": "overtakes"}, lifo=True)
    await pair.b.add("n", {"label": "overtakes that"}, lifo=True)
    await pair.a.add("n", {"label": "last"})
    assert await _order(pair, 5) == ["overtakes that", "overtakes", "first", "second", "last"]


async def test_priorities_of_both_sides_share_one_order(pair: Pair) -> None:
    plan = [
        (pair.a, "low, first", 9),
        (pair.b, "high, first", 1),
        (pair.a, "high, second", 1),
        (pair.b, "standard, first", 0),
        (pair.b, "low, second", 9),
        (pair.a, "standard, second", 0),
        (pair.a, "lowest", 2_097_151),
        (pair.b, "high, third", 1),
    ]
    for side, label, priority in plan:
        await side.add("n", {"label": label}, priority=priority)
    assert list(pair.keys.scores("prioritized").values()) == [
        priority * 2**32 + place for priority, place in [(1, 2), (1, 3), (1, 6), (9, 1), (9, 4), (2_097_151, 5)]
    ]
    assert await _order(pair, 8) == [
        "standard, first",
        "standard, second",
        "high, first",
        "high, second",
        "high, third",
        "low, first",
        "low, second",
        "lowest",
    ]


async def test_delayed_jobs_of_one_millisecond_keep_their_order(pair: Pair) -> None:
    seconds, micros = pair.keys.redis.time()
    timestamp = seconds * 1000 + micros // 1000
    due = timestamp + 400
    labels = [f"job {number}" for number in range(6)]
    for number, label in enumerate(labels[:4]):
        await (pair.a if number % 2 else pair.b).add("n", {"label": label}, timestamp=timestamp, delay=400)
    await pair.a.add_bulk([("n", {"label": label}, {"timestamp": timestamp, "delay": 400}) for label in labels[4:]])
    assert list(pair.keys.scores("delayed").values()) == [due * 4096 + place for place in range(6)]
    assert [fields["delay"] for name, fields in pair.keys.events() if name == "delayed"] == [str(due)] * 6
    assert await _order(pair, 6) == labels


async def test_the_delay_marker_names_the_earliest_delayed_job_of_either_side(pair: Pair) -> None:
    seconds, micros = pair.keys.redis.time()
    timestamp = seconds * 1000 + micros // 1000
    await pair.a.add("n", {}, timestamp=timestamp, delay=50_000)
    await pair.b.add("n", {}, timestamp=timestamp, delay=40_000)
    await pair.a.add("n", {}, timestamp=timestamp, delay=60_000)
    assert pair.keys.redis.zscore(pair.keys("marker"), "1") == timestamp + 40_000
