"""Job schedulers across implementations: one side sets up, the other side's worker makes the next jobs, and back.

Items 38 to 41 and 56. What an upsert writes is compared with Node's in test_same_schedulers.py.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.interop.sides import RefusedError
from tests.support.eventually import aeventually

if TYPE_CHECKING:
    from tests.interop.conftest import Pair
    from tests.interop.keys import QueueKeys
    from tests.interop.sides import Side

pytestmark = pytest.mark.asyncio

_HOUR: Final = 3_600_000


def now() -> int:
    return time.time_ns() // 1_000_000


def slot_of(job_id: str) -> int:
    return int(job_id.rpartition(":")[2])


def record(keys: QueueKeys, scheduler: str = "s") -> dict[str, str]:
    found: Any = keys.redis.hgetall(keys(f"repeat:{scheduler}"))
    return dict(found)


def pending(keys: QueueKeys) -> list[str]:
    """The ids of all jobs that wait or are delayed."""
    return [job_id for name in ("wait", "paused", "prioritized", "delayed") for job_id in keys.list(name)]


# --- one side sets up, the other makes the next jobs ------------------------------------------------------------------


async def test_the_other_sides_worker_makes_the_next_jobs(pair: Pair) -> None:
    options = {"attempts": 2, "backoff": {"type": "fixed", "delay": 100}, "remove_on_fail": 7}
    given = {"every": 100, "limit": 14, "name": "n", "data": {"a": [1, {"é": None}]}}
    first = await pair.a.upsert_scheduler("s", **given, opts=options)
    worker = await pair.b.worker("echo")
    runs = await worker.started(count=5)
    await worker.close()
    # And the side that began goes on.
    own = await pair.a.worker("echo")
    await own.said("completed", count=14 - len(worker.runs()))
    assert len(own.runs()) > 1
    ids = [run.job_id for run in (*worker.runs(), *own.runs())]
    assert len(set(ids)) == len(ids) == 14
    assert ids[0] == first
    slots = [slot_of(job_id) for job_id in ids]
    assert slots == sorted(slots)
    assert {slot % 100 for slot in slots} == {slots[0] % 100}
    assert {(run.name, json.dumps(run.data)) for run in runs} == {("n", json.dumps(given["data"]))}
    assert (record(pair.keys)["ic"], record(pair.keys)["offset"]) == ("14", str(slots[0] % 100))
    assert pair.keys.scores("repeat") == {"s": slots[-1]}
    for count, job_id in enumerate(ids, 1):
        opts = pair.keys.hash(job_id)["opts"]
        assert (opts.pop("jobId"), opts.pop("repeatJobKey")) == (job_id, "s")
        assert (opts.pop("delay") >= 0, opts.pop("timestamp") > 0) == (True, True)
        assert opts == {
            "repeat": {"every": 100, "limit": 14, "count": count},
            "attempts": 2, "backoff": {"type": "fixed", "delay": 100}, "removeOnFail": 7,
        }  # fmt: skip
        assert pair.keys.hash(job_id)["rjk"] == "s"
    assert pending(pair.keys) == []
    assert worker.outcomes("error") == own.outcomes("error") == []


async def test_what_the_next_job_is_like_does_not_depend_on_whose_worker_made_it(pair: Pair, node: Side) -> None:
    """By the first job of Node's, whose options are as they were given, without defaults."""
    options = {"backoff": 100, "priority": 3, "keep_logs": 4, "lifo": True, "stack_trace_limit": 0}
    first = await node.upsert_scheduler("s", every=_HOUR, offset=0, data={"a": 1}, opts=options)
    assert first is not None
    worker = await pair.b.worker("echo")
    await worker.said("completed", job_id=first)
    (made,) = pending(pair.keys)
    fields = pair.keys.hash(made)
    opts = fields.pop("opts")
    delay = int(fields.pop("delay"))
    assert opts == {
        "jobId": made, "repeatJobKey": "s", "timestamp": opts["timestamp"], "delay": delay, "priority": 3, "kl": 4,
        "repeat": {"every": _HOUR, "count": 2}, "attempts": 0, "lifo": True, "stackTraceLimit": 0,
        "backoff": {"type": "fixed", "delay": 100},
    }  # fmt: skip
    # Node takes the time once for the options, and once more for the rest.
    assert 0 <= slot_of(made) - opts["timestamp"] - delay < 1000
    assert fields == {"name": "s", "data": '{"a":1}', "timestamp": True, "priority": "3", "rjk": "s"}
    due = str(slot_of(made))
    assert pair.keys.events(made) == [("added", {"name": "s"}), ("delayed", {"delay": due})]


async def test_the_worker_of_either_side_makes_the_next_job_first(pair: Pair) -> None:
    first = await pair.a.upsert_scheduler("s", every=_HOUR)
    assert first is not None
    worker = await pair.b.worker("gate")
    await worker.started(first)
    (made,) = pending(pair.keys)
    assert slot_of(made) == slot_of(first) + _HOUR
    await worker.open(first)
    await worker.said("completed", job_id=first)
    names = [(name, fields.get("jobId")) for name, fields in pair.keys.events()]
    assert names.index(("added", made)) < names.index(("completed", first))


async def test_two_workers_of_different_sides_make_one_job_for_each_time(pair: Pair) -> None:
    workers = [await side.worker("echo", concurrency=3) for side in (pair.a, pair.b)]
    for n in range(5):
        await pair.a.upsert_scheduler(f"a{n}", every=60 + n, limit=10)
        await pair.b.upsert_scheduler(f"b{n}", every=60 + n, limit=10)

    def runs() -> list[str]:
        return [run.job_id for worker in workers for run in worker.runs()]

    await aeventually(lambda: len(runs()) >= 100, 30)
    assert len(runs()) == len(set(runs())) == 100
    assert pending(pair.keys) == []


# --- replacing --------------------------------------------------------------------------------------------------------


async def test_a_series_goes_on_with_a_job_that_is_there_already(ours: Side, node: Side, keys: QueueKeys) -> None:
    """Where Node's own worker leaves a series to stand still; what ours makes of it, Node goes on with."""
    first = await node.upsert_scheduler("s", every=200)
    assert first is not None
    # As left behind by somebody who set the scheduler back.
    there = f"repeat:s:{slot_of(first) + 200}"
    fields: Any = keys.redis.hgetall(keys(first))
    keys.redis.hset(keys(there), mapping={**fields, "opts": fields["opts"].replace(first, there)})
    keys.redis.zadd(keys("delayed"), {there: (slot_of(first) + 200) * 4096})
    worker = await ours.worker("echo")
    await worker.started(first)
    await worker.close()
    assert keys.scores("repeat")["s"] >= slot_of(there)
    other = await node.worker("echo")
    await other.started(count=3)
    await other.close()
    ids = [run.job_id for run in (*worker.runs(), *other.runs())]
    assert len(set(ids)) == len(ids)
    assert there in ids


@pytest.mark.parametrize("where", ["delayed", "wait", "prioritized", "wait, paused"])
async def test_an_upsert_replaces_the_other_sides_job(pair: Pair, where: str) -> None:
    given: dict[str, Any] = {"every": _HOUR, "opts": {"priority": 2} if where == "prioritized" else {}}
    if where == "delayed":
        given["start_date"] = now() + _HOUR
    if where.endswith("paused"):
        await pair.a.call("pause")
        if pair.b.implementation == "node":
            # It looks for the job among those that an old client put aside, and makes a second one.
            return
    first = await pair.a.upsert_scheduler("s", **given)
    second = await pair.b.upsert_scheduler("s", **given, data={"new": 1}, name="new")
    assert first is not None
    assert pending(pair.keys) == [first] == [second]
    assert pair.keys.list(where.partition(",")[0]) == [first]
    fields = pair.keys.hash(first)
    assert (fields["data"], fields["name"]) == ('{"new":1}', "new")
    assert record(pair.keys)["ic"] == "1"
    assert "removed" not in pair.keys.names()


async def test_an_upsert_while_the_other_sides_job_runs(pair: Pair) -> None:
    first = await pair.a.upsert_scheduler("s", every=_HOUR, data={"v": 1})
    assert first is not None
    worker = await pair.b.worker("gate")
    await worker.started(first)
    second = await pair.a.upsert_scheduler("s", every=_HOUR, data={"v": 2})
    assert second is not None
    assert slot_of(second) == slot_of(first) + _HOUR
    assert pending(pair.keys) == [second]
    assert pair.keys.hash(second)["data"] == '{"v":2}'
    await worker.open(first)
    await worker.said("completed", job_id=first)
    assert pending(pair.keys) == [second]
    assert record(pair.keys)["ic"] == "2"


async def test_an_upsert_before_the_next_job_was_made_makes_it(pair: Pair) -> None:
    """Nobody's worker has made it yet: the job is active by hand of a client that makes none."""
    first = await pair.a.upsert_scheduler("s", every=_HOUR)
    assert first is not None
    keys = pair.keys
    keys.redis.lrem(keys("wait"), 1, first)
    keys.redis.lpush(keys("active"), first)
    keys.redis.hset(keys(first), mapping={"processedOn": now(), "ats": 1})
    second = await pair.b.upsert_scheduler("s", every=_HOUR)
    assert second is not None
    assert slot_of(second) == slot_of(first) + _HOUR
    # Put back and run again, the first one brings forth no second.
    keys.redis.lrem(keys("active"), 1, first)
    keys.redis.rpush(keys("wait"), first)
    keys.redis.zadd(keys("marker"), {"0": 0})
    worker = await pair.a.worker("echo")
    await worker.said("completed", job_id=first)
    assert pending(keys) == [second]


async def test_a_changed_interval_of_the_other_sides_scheduler(pair: Pair) -> None:
    await pair.a.upsert_scheduler("s", every=_HOUR, start_date=now() + _HOUR)
    phase = record(pair.keys)["offset"]
    before = now()
    second = await pair.b.upsert_scheduler("s", every=2 * _HOUR)
    assert second is not None
    assert before <= slot_of(second) <= now()
    assert pending(pair.keys) == [second]
    assert record(pair.keys)["offset"] == phase
    assert record(pair.keys)["every"] == str(2 * _HOUR)


async def test_an_upsert_after_missed_slots_falls_onto_the_same_grid(pair: Pair) -> None:
    """What each side makes of the same record at nearly the same time."""
    keys = pair.keys
    found = []
    for side in (pair.a, pair.b):
        keys.redis.zadd(keys("repeat"), {"s": now() - 10 * _HOUR - 77})
        keys.redis.hset(keys("repeat:s"), mapping={"name": "s", "every": _HOUR, "ic": 3, "offset": 77})
        job_id = await side.upsert_scheduler("s", every=_HOUR)
        assert job_id is not None
        found.append((slot_of(job_id) % _HOUR, record(keys)["offset"], record(keys)["ic"]))
        await side.call("obliterate", force=True)
    assert found == [(0, "0", "3")] * 2


# --- removing ---------------------------------------------------------------------------------------------------------


async def test_one_side_removes_the_scheduler_of_the_other(pair: Pair) -> None:
    job_id = await pair.a.upsert_scheduler("s", every=_HOUR, start_date=now() + _HOUR)
    assert job_id is not None
    await pair.b.call("remove_job_scheduler", "s")
    assert pair.keys.events(job_id)[-1] == ("removed", {"prev": "delayed"})
    assert pending(pair.keys) == []
    assert not pair.keys.redis.exists(pair.keys("repeat"), pair.keys("repeat:s"), pair.keys(job_id))
    assert await pair.a.schedulers() == []


async def test_a_job_that_waits_outlives_its_scheduler(pair: Pair) -> None:
    job_id = await pair.a.upsert_scheduler("s", every=_HOUR)
    await pair.b.call("remove_job_scheduler", "s")
    assert pair.keys.list("wait") == [job_id]
    worker = await pair.b.worker("echo")
    await worker.said("completed", job_id=job_id)
    assert pending(pair.keys) == []
    assert worker.outcomes("error") == []


async def test_its_next_job_goes_only_with_it(pair: Pair) -> None:
    job_id = await pair.a.upsert_scheduler("s", every=_HOUR, start_date=now() + _HOUR)
    assert job_id is not None
    with pytest.raises(RefusedError) as refused:
        await pair.b.on_job(job_id, "remove")
    assert refused.value.code == -8
    assert pending(pair.keys) == [job_id]


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_limit_ends_at_the_same_run(pair: Pair, limit: int) -> None:
    await pair.a.upsert_scheduler("s", every=50, limit=limit)
    worker = await pair.b.worker("echo")
    await worker.said("completed", count=limit)
    last = worker.runs()[-1].job_id
    assert pending(pair.keys) == []
    # The record stays, and tells of the last one.
    assert pair.keys.scores("repeat") == {"s": slot_of(last)}
    assert record(pair.keys)["ic"] == str(limit)
    # An upsert begins to count anew, behind the last one.
    again = await pair.a.upsert_scheduler("s", every=50, limit=limit)
    assert again is not None
    assert pair.keys.hash(again)["opts"]["repeat"]["count"] == 1
    assert record(pair.keys)["ic"] == str(limit)
    await worker.said("completed", count=2 * limit)


async def test_an_end_date_lets_one_slot_after_it_run(pair: Pair) -> None:
    worker = await pair.b.worker("echo")
    # Long before it, as computers go, the first job has begun and made the second one, which is due after it.
    end = now() + 1900
    await pair.a.upsert_scheduler("s", every=2000, end_date=end)
    await worker.said("completed", count=2)

    async def over() -> bool:
        return pending(pair.keys) == [] and (await pair.a.counts())["active"] == 0

    await aeventually(over)
    slots = [slot_of(run.job_id) for run in worker.runs()]
    assert slots[-2] <= end < slots[-1]


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_job_is_no_scheduler(pair: Pair, limit: int) -> None:
    for side in (pair.a, pair.b):
        if limit < 0 and side.implementation != "node":
            continue
        assert await side.upsert_scheduler("s", every=_HOUR, limit=limit) is None
        assert not pair.keys.redis.exists(pair.keys("repeat"))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"every": 1000, "pattern": "* * * * *"},
        {"every": 1000, "end_date": 1_000_000_000_000},
        {"pattern": "* * * * *", "immediately": True, "start_date": 4_000_000_000_000},
        {"pattern": "* * * * * * *"},
        {"pattern": "0 0 31 2 *"},
        {"pattern": "* * * * *", "tz": "Nowhere/Else"},
    ],
    ids=str,
)
async def test_all_refuse_the_same(side: Side, keys: QueueKeys, given: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        await side.upsert_scheduler("s", **given)
    assert not keys.redis.exists(keys("repeat"), keys("id"))


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_all_read_the_same(pair: Pair, node: Side) -> None:
    start, end = now() + _HOUR, now() + 50 * _HOUR
    options = {"attempts": 3, "backoff": {"type": "fixed", "delay": 5}, "remove_on_complete": True, "keep_logs": 2}
    await pair.a.upsert_scheduler("one", every=90_000, start_date=start, end_date=end, limit=5, data=[], opts=options)
    await pair.b.upsert_scheduler("two", every=_HOUR, offset=500, name="other")
    await pair.a.upsert_scheduler("three:of:a kind", every=_HOUR, data="text")
    expected = await node.schedulers()
    assert sorted(found["key"] for found in expected) == ["one", "three:of:a kind", "two"]
    assert [found["next"] for found in expected] == sorted((found["next"] for found in expected), reverse=True)
    for side in (pair.a, pair.b):
        assert await side.schedulers() == expected
        assert await side.schedulers(0, -1, True) == expected[::-1]
        assert await side.schedulers(1, 1) == expected[1:2]
        assert [await side.scheduler(found["key"]) for found in expected] == expected
        assert await side.scheduler("nobody") is None
        if side.implementation != "node":
            assert await side.call("is_job_scheduler", "one") is True
            assert await side.call("is_job_scheduler", "nobody") is False
        assert await side.call("get_job_schedulers_count") == 3


@pytest.mark.leaves_keys_broken("half a scheduler is what it is about")
async def test_half_a_scheduler_is_removed_by_whoever_lists_it(side: Side, keys: QueueKeys) -> None:
    job_id = await side.upsert_scheduler("half", every=_HOUR, start_date=now() + _HOUR)
    await side.upsert_scheduler("whole", every=_HOUR)
    keys.redis.delete(keys("repeat:half"))
    assert [found["key"] for found in await side.schedulers()] == ["whole"]
    assert keys.scores("repeat").keys() == {"whole"}
    assert job_id not in pending(keys)


# --- patterns ---------------------------------------------------------------------------------------------------------


def _moment(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("pattern", "tz", "start", "expected"),
    [
        ("30 2 * * *", "Europe/Stockholm", "2035-03-24T00:00", ["24T01:30", "25T01:30", "26T00:30", "27T00:30"]),
        ("30 2 * * *", "Europe/Stockholm", "2035-10-27T00:00", ["27T00:30", "28T00:30", "29T01:30", "30T01:30"]),
        ("0 15 3 * * *", "America/New_York", "2035-03-10T12:00", ["11T07:15", "12T07:15", "13T07:15", "14T07:15"]),
        ("0 0 L * *", "Asia/Tokyo", "2035-01-31T00:00", ["31T15:00"]),
        ("0 * * * *", "UTC", "2035-10-27T22:30", ["27T23:00", "28T00:00", "28T01:00", "28T02:00"]),
    ],
)
async def test_a_pattern_passes_the_change_of_clocks(
    pair: Pair, pattern: str, tz: str, start: str, expected: list[str]
) -> None:
    """The next time is counted from that of the job, so jobs that are promoted go through the days at once."""
    begin = _moment(start)
    month = start[:8]
    job_id = await pair.a.upsert_scheduler("s", pattern=pattern, tz=tz, start_date=begin, data={"d": 1})
    workers = [await pair.b.worker("echo"), await pair.a.worker("echo")]
    if len(expected) == 1:
        expected, month = [], ""
        assert job_id is not None
    for day in expected:
        assert job_id is not None
        assert slot_of(job_id) == _moment(month + day)
        opts = pair.keys.hash(job_id)["opts"]
        assert (opts["prevMillis"], opts["repeat"]["pattern"], opts["repeat"]["tz"]) == (slot_of(job_id), pattern, tz)
        assert opts["repeat"]["startDate"] == begin
        await pair.a.on_job(job_id, "promote")
        current = job_id
        await aeventually(lambda current=current: pair.keys.redis.zscore(pair.keys("completed"), current))
        (job_id,) = pending(pair.keys)
    assert all(worker.outcomes("error") == [] for worker in workers)
