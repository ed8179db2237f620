"""Conformance items 29 and 30: limits that hold for the workers of all sides, and are used up by them.

When a job started is read off the events stream: its ids are Redis' own clock, by which the limiter's key expires.
"""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.node_side import NodeSide
    from tests.interop.our_sides import OurSide
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_LONG_SLEEP = 60
"""Seconds: longer than any test takes, so that a worker that goes on was woken."""
_LONG = 600_000
_MANUAL = str(2**53 - 1)


def started(keys: QueueKeys) -> list[int]:
    """When jobs became active, oldest first."""
    entries: Any = keys.redis.xrange(keys("events"))
    return [int(at.split("-")[0]) for at, fields in entries if fields["event"] == "active"]


def windows(starts: list[int], duration: int) -> list[list[int]]:
    """The starts by the fixed windows they fall into: one begins with the first start after the end of the last."""
    found: list[list[int]] = []
    for start in starts:
        if found and start < found[-1][0] + duration:
            found[-1].append(start)
        else:
            found.append([start])
    return found


async def _completed(side: Side, count: int, timeout: float = 30) -> None:
    async def so_many() -> bool:
        return (await side.counts())["completed"] == count

    await aeventually(so_many, timeout, f"{count} jobs completed")


# --- what is stored and told ------------------------------------------------------------------------------------------


async def test_one_side_reads_the_limits_that_the_other_set(pair: Pair) -> None:
    meta = pair.keys("meta")
    for side in (pair.a, pair.b):
        assert await side.call("get_global_concurrency") is None
        assert await side.call("get_global_rate_limit") is None
        assert await side.call("is_maxed") is False
    await pair.a.call("set_global_concurrency", 3)
    await pair.a.call("set_global_rate_limit", 5, 1500)
    limits = pair.keys.redis.hmget(meta, "concurrency", "max", "duration")
    assert limits == ["3", "5", "1500"]
    for side in (pair.a, pair.b):
        assert await side.call("get_global_concurrency") == 3
        assert await side.call("get_global_rate_limit") == {"max": 5, "duration": 1500}
    await pair.b.call("remove_global_concurrency")
    await pair.b.call("remove_global_rate_limit")
    assert pair.keys.redis.hmget(meta, "concurrency", "max", "duration") == [None] * 3
    assert await pair.a.call("get_global_concurrency") is None
    assert await pair.a.call("get_global_rate_limit") is None
    # None of all this is an event.
    assert pair.keys.events() == []


async def test_one_side_reads_and_removes_the_limit_by_hand_of_the_other(pair: Pair) -> None:
    assert await pair.b.call("get_rate_limit_ttl") == -2
    assert await pair.b.call("get_rate_limit_ttl", 1) == 0
    await pair.a.call("rate_limit", _LONG)
    assert pair.keys.text("limiter") == _MANUAL
    for asked in ((), (1,), (2**53 - 2,)):
        left = [await side.call("get_rate_limit_ttl", *asked) for side in (pair.a, pair.b)]
        assert _LONG / 2 < left[1] <= left[0] <= _LONG
    assert await pair.b.call("remove_rate_limit_key")
    assert not await pair.a.call("remove_rate_limit_key")
    assert not pair.keys.redis.exists(pair.keys("limiter"))


async def test_both_sides_tell_the_rest_of_a_window_by_the_same_rule(pair: Pair) -> None:
    pair.keys.redis.set(pair.keys("limiter"), 3, px=_LONG)

    async def limited(*asked: int) -> list[bool]:
        return [await side.call("get_rate_limit_ttl", *asked) > 0 for side in (pair.a, pair.b)]

    assert [await limited(), await limited(3), await limited(4)] == [[True] * 2, [True] * 2, [False] * 2]
    await pair.a.call("set_global_rate_limit", 4, 1000)
    assert [await limited(), await limited(3), await limited(4)] == [[False] * 2, [True] * 2, [False] * 2]
    pair.keys.redis.delete(pair.keys("limiter"))


async def test_both_sides_say_when_all_slots_are_taken(pair: Pair) -> None:
    await pair.a.call("set_global_concurrency", 1)
    await pair.a.add("n", {})
    worker = await pair.b.worker("gate", concurrency=2)
    (run,) = await worker.started()
    assert [await side.call("is_maxed") for side in (pair.a, pair.b)] == [True, True]
    await pair.a.call("set_global_concurrency", 2)
    assert [await side.call("is_maxed") for side in (pair.a, pair.b)] == [False, False]
    await worker.open(run.job_id)
    await _completed(pair.a, 1)


# --- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
async def test_the_global_concurrency_holds_across_both_sides(pair: Pair, most: int) -> None:
    await pair.a.call("set_global_concurrency", most)
    for _ in range(2):
        await pair.a.worker({"name": "sleep", "ms": 1}, concurrency=4, drain_delay=_LONG_SLEEP)
        await pair.b.worker({"name": "sleep", "ms": 1}, concurrency=4, drain_delay=_LONG_SLEEP)
    for side in (pair.a, pair.b) * 3:
        await side.add_bulk([("n", {}, {})] * 10)
    await _completed(pair.a, 60)
    active = itertools.accumulate(
        {"active": 1, "completed": -1}.get(name, 0) for name in pair.keys.names()
    )
    assert max(active) == most


async def test_a_concurrency_of_none_stops_the_workers_of_both_sides(pair: Pair) -> None:
    await pair.a.call("set_global_concurrency", 0)
    for side in (pair.a, pair.b):
        assert await side.call("get_global_concurrency") == 0
        assert await side.call("is_maxed") is True
    workers = [await side.worker("value") for side in (pair.a, pair.b)]
    job_id = await pair.b.add("n", {})
    looks = _calls(pair.keys)
    # Nobody marks what may not start, so it is looked for.
    await aeventually(lambda: _calls(pair.keys) >= looks + 2, 20)
    assert (await pair.a.counts())["waiting"] == 1
    assert all(worker.runs() == [] for worker in workers)
    await pair.b.call("remove_global_concurrency")
    await _completed(pair.a, 1)
    assert sum(len(worker.runs(job_id)) for worker in workers) == 1


async def test_our_change_of_the_concurrency_wakes_idle_workers_of(ours: OurSide, side: Side, keys: QueueKeys) -> None:
    await ours.call("set_global_concurrency", 1)
    await ours.add_bulk([("n", {}, {})] * 4)
    worker = await side.worker("gate", concurrency=4, drain_delay=_LONG_SLEEP)
    await worker.started()
    await _asleep(keys)
    await ours.call("set_global_concurrency", 2)
    await worker.started(count=2)
    await _asleep(keys)
    await ours.call("remove_global_concurrency")
    for run in await worker.started(count=4):
        await worker.open(run.job_id)
    await _completed(ours, 4)


async def test_our_end_of_a_limit_wakes_idle_workers_of(ours: OurSide, side: Side, keys: QueueKeys) -> None:
    options = {"limiter": {"max": 10, "duration": 10}, "drain_delay": _LONG_SLEEP}
    workers = [await side.worker("value", **options) for _ in range(2)]
    await _asleep(keys, 2)
    await ours.call("rate_limit", _LONG)
    looks = _calls(keys)
    await ours.add("n", {})
    # One of them takes the marker, finds the limit and sleeps by a timer; the other was not disturbed.
    await aeventually(lambda: _calls(keys) >= looks + 2 and not keys.redis.exists(keys("marker")))
    assert await ours.call("remove_rate_limit_key")
    await _completed(ours, 1)
    assert sum(len(worker.runs()) for worker in workers) == 1


async def _asleep(keys: QueueKeys, count: int = 1) -> None:
    def asleep() -> bool:
        return keys.idle_workers() == count and not keys.redis.exists(keys("marker"))

    await aeventually(asleep, message=f"{count} workers block on a marker, and there is none")


# --- how many in a time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the workers'", "the queue's"])
async def test_a_rate_limit_is_kept_and_used_up_by_five_workers(
    toromq: OurSide, node: NodeSide, keys: QueueKeys, whose: str
) -> None:
    most, duration, rounds = 20, 400, 12
    await toromq.add_bulk([("n", {}, {})] * most * rounds)
    options: dict[str, Any] = {"concurrency": 4}
    if whose == "the workers'":
        options["limiter"] = {"max": most, "duration": duration}
    else:
        await node.call("set_global_rate_limit", most, duration)
    # A worker alone can use up the limit, but none before all have had their first jobs of a window.
    script = {"name": "sleep", "ms": duration // 16}
    for number in range(2):
        await toromq.doomed_worker(script, workers=2, name=f"ours-{number}", **options)
    await node.worker(script, name="theirs", **options)
    await _completed(toromq, most * rounds, 60)

    starts = started(keys)
    assert len(starts) == most * rounds
    by_window = windows(starts, duration)
    assert max(map(len, by_window)) <= most
    # Of any offset: what is left of one window and the next one whole.
    for first in range(len(starts)):
        within = [start for start in starts[first : first + 2 * most] if start < starts[first] + duration]
        assert len(within) <= 2 * most - 1
    # All that may start does: every window but the last is full, give or take what the machine stopped in.
    assert sum(map(len, by_window[:-1])) >= 0.95 * most * (len(by_window) - 1), list(map(len, by_window))
    # The next window begins when the last one ends. The middle of all, for the machine may be busy at times.
    pace = statistics.median(later[0] - window[0] for window, later in itertools.pairwise(by_window))
    assert duration <= pace <= duration / 0.95
    by_whom = {keys.redis.hget(keys(job_id), "pb") for job_id in keys.list("completed")}
    assert by_whom == {"ours-0", "ours-1", "theirs"}


async def test_our_workers_alone_begin_each_window_when_the_last_one_ends(ours: OurSide, keys: QueueKeys) -> None:
    # Beside a worker of Node that is in time nobody would see that ours are late.
    most, duration, rounds = 5, 400, 9
    await ours.add_bulk([("n", {}, {})] * most * rounds)
    for _ in range(2):
        await ours.worker("value", limiter={"max": most, "duration": duration}, concurrency=3)
    await _completed(ours, most * rounds)
    by_window = windows(started(keys), duration)
    assert max(map(len, by_window)) <= most
    assert len(by_window) <= rounds + 1
    pace = statistics.median(later[0] - window[0] for window, later in itertools.pairwise(by_window))
    assert duration <= pace <= duration / 0.95


async def test_two_sides_share_one_window(pair: Pair) -> None:
    most, duration = 3, 100
    options = {"limiter": {"max": most, "duration": duration}, "concurrency": 5}
    for side in (pair.a, pair.b):
        await side.worker("value", **options)
        await side.add_bulk([("n", {}, {})] * 6)
    await _completed(pair.a, 12)
    by_window = windows(started(pair.keys), duration)
    assert max(map(len, by_window)) <= most


async def test_a_limit_by_hand_of_one_side_stops_workers_of_the_other(pair: Pair) -> None:
    options = {"limiter": {"max": 100, "duration": 10}, "maximum_rate_limit_delay": 20}
    await pair.a.call("rate_limit", _LONG)
    job_id = await pair.a.add("n", {})
    worker = await pair.b.worker("value", **options)
    looks = _calls(pair.keys)
    await aeventually(lambda: _calls(pair.keys) >= looks + 5)
    assert worker.runs() == []
    await pair.a.call("remove_rate_limit_key")
    await worker.said("completed", job_id=job_id)


def _calls(keys: QueueKeys) -> int:
    stats: Any = keys.redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_limit_by_hand_stops_nobody_who_knows_of_no_maximum(pair: Pair) -> None:
    await pair.a.call("rate_limit", _LONG)
    job_id = await pair.a.add("n", {})
    worker = await pair.b.worker("value", drain_delay=_LONG_SLEEP)
    await worker.said("completed", job_id=job_id)
    assert await pair.a.call("remove_rate_limit_key")


@pytest.mark.parametrize("limiter", [None, {"max": 1000, "duration": 10}], ids=["no maximum", "a maximum"])
async def test_a_job_that_ran_into_a_limit_keeps_its_place_and_its_attempts(
    pair: Pair, limiter: dict[str, int] | None
) -> None:
    duration = 60
    options = {"limiter": limiter} if limiter else {}
    script = {"name": "rate_limit", "ms": duration, "times": 2}
    ids = await pair.a.add_bulk([("n", {}, {}), ("n", {}, {}), ("n", {}, {"priority": 2}), ("n", {}, {"priority": 2})])
    worker = await pair.b.worker(script, **options)
    await _completed(pair.a, 4)
    # What the other side's process tells of its runs may come after what Redis tells.
    await worker.started(ids[-1], count=3)
    assert [run.job_id for run in worker.runs()] == [job_id for job_id in ids for _ in range(3)]
    assert {run.attempts_made for run in worker.runs()} == {0}
    for job_id in ids:
        fields = pair.keys.hash(job_id)
        assert (fields["atm"], fields["ats"]) == ("1", "3")
        assert fields.keys().isdisjoint(("failedReason", "stacktrace"))
        bounce = [("active", {"prev": "waiting"}), ("waiting", {"prev": "active"})]
        assert pair.keys.events(job_id)[2:-1] == [*bounce, *bounce, bounce[0]]
        assert await pair.a.view(job_id) == await pair.b.view(job_id)
    # It took as long as the limits lasted, whether or not anybody knew of a maximum.
    assert started(pair.keys)[-1] - started(pair.keys)[0] >= 2 * len(ids) * duration
    await worker.close()
    pair.keys.redis.delete(pair.keys("limiter"))
