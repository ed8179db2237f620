"""The invariant checker convicts every kind of lie, and leaves an honest keyspace alone."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually
from tests.support.invariants import check_invariants
from tests.support.keyspace import keyspace
from tests.support.node_peer import NodePeer, require_node

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis as redis_py

    from tests.support.redisbox import RedisBox

_BROKEN = pytest.mark.leaves_keys_broken("a lie is planted for the checker to find")
_MINUTE = 60_000


class Honest:
    """A queue with at least one job in every state, written key by key, without any of our code."""

    def __init__(self, redis: redis_py.Redis, prefix: str, name: str = "mail") -> None:
        self.redis = redis
        self.queue = f"{prefix}:{name}"
        seconds, micros = redis.time()
        self.now = seconds * 1000 + micros // 1000
        redis.set(self.key("id"), 20)
        redis.set(self.key("pc"), 3)
        redis.hset(self.key("meta"), mapping={"opts.maxLenEvents": "10000", "version": "bullmq:6.7.0"})
        redis.zadd(self.key("marker"), {"0": 0, "1": self.now + _MINUTE})
        self.event(event="added", jobId="1", name="n")
        self.event(event="completed", jobId="6", returnvalue="null", prev="active")
        self.event(event="progress", jobId="6", data="50")

        self.job("1")
        redis.lpush(self.key("wait"), "1")
        self.job("2", processedOn=str(self.now), ats="1")
        redis.lpush(self.key("active"), "2")
        redis.set(self.key("2:lock"), "token", px=30_000)
        redis.sadd(self.key("stalled"), "2")
        self.job("3", priority="5")
        redis.zadd(self.key("prioritized"), {"3": 5 * 2**32 + 2})
        self.job("4", delay=str(_MINUTE))
        redis.zadd(self.key("delayed"), {"4": (self.now + _MINUTE) * 4096})
        self.job("5")
        redis.zadd(self.key("waiting-children"), {"5": self.now})
        redis.sadd(self.key("5:dependencies"), self.key("1"))
        redis.hset(
            self.key("1"),
            mapping={"parentKey": self.key("5"), "parent": json.dumps({"id": "5", "queueKey": self.queue})},
        )
        finished = {"processedOn": str(self.now), "finishedOn": str(self.now), "ats": "1", "atm": "1"}
        self.job("6", **finished, returnvalue="null", progress="50")
        redis.zadd(self.key("completed"), {"6": self.now})
        redis.rpush(self.key("6:logs"), "a line")
        self.job("7", **finished, failedReason="no luck", stacktrace='["no luck"]')
        redis.zadd(self.key("failed"), {"7": self.now})

    def key(self, suffix: str) -> str:
        return f"{self.queue}:{suffix}"

    def job(self, job_id: str, **fields: str) -> None:
        usual = {"name": "n", "data": "{}", "opts": '{"attempts":0}', "timestamp": str(self.now)}
        whole: Any = {**usual, "delay": "0", "priority": "0", **fields}
        self.redis.hset(self.key(job_id), mapping=whole)

    def event(self, **fields: str) -> None:
        entry: Any = fields
        self.redis.xadd(self.key("events"), entry)


def _fail_to_wake(honest: Honest) -> None:
    honest.redis.zrem(honest.key("marker"), "0")


def _lose_the_hash(honest: Honest) -> None:
    honest.redis.delete(honest.key("3"))


def _delete_scheduler_hash(honest: Honest) -> None:
    honest.redis.zadd(honest.key("repeat"), {"daily": honest.now})


def _keep_scheduler_hash(honest: Honest) -> None:
    honest.redis.hset(honest.key("repeat:daily"), mapping={"name": "n", "ic": "1"})


def _write(honest: Honest, job_id: str, **fields: str) -> None:
    mapping: Any = fields
    honest.redis.hset(honest.key(job_id), mapping=mapping)


# A name, how the keys are made to lie, and what the sentence must say.
_LIES: dict[str, tuple[Callable[[Honest], Any], tuple[str, ...]]] = {
    "id in two states": (
        lambda h: h.redis.lpush(h.key("wait"), "2"),
        ("mail:wait and", "mail:active both hold id 2"),
    ),
    "id in a list and a zset": (
        lambda h: h.redis.zadd(h.key("completed"), {"7": h.now}),
        ("mail:completed and", "mail:failed both hold id 7"),
    ),
    "id twice in a list": (lambda h: h.redis.rpush(h.key("wait"), "1"), ("mail:wait holds id 1 2 times",)),
    "id in the legacy paused list and in wait": (
        lambda h: h.redis.rpush(h.key("paused"), "1"),
        ("mail:wait and", "mail:paused both hold id 1"),
    ),
    "id without hash": (_lose_the_hash, ("mail:prioritized holds id 3", "expected a hash")),
    "hash without name": (lambda h: h.redis.hdel(h.key("1"), "name"), ("mail:1 has no field name",)),
    "hash without state": (lambda h: h.redis.lrem(h.key("wait"), 1, "1"), ("mail:1 is a job hash in no state",)),
    "partial hash without state": (
        lambda h: h.redis.hset(h.key("9"), "progress", "1"),
        ("mail:9 is a job hash in no state",),
    ),
    "hash with an id field": (lambda h: _write(h, "1", id="1"), ("mail:1 has a field id",)),
    "counter that is no number": (lambda h: _write(h, "1", atm="two"), ("mail:1 has atm 'two'",)),
    "data that is no JSON": (lambda h: _write(h, "1", data="{"), ("mail:1 has data '{'",)),
    "return value not a number of JSON": (
        lambda h: _write(h, "6", returnvalue="NaN"),
        ("mail:6 has returnvalue 'NaN'",),
    ),
    "lock of a waiting job": (
        lambda h: h.redis.set(h.key("1:lock"), "token", px=30_000),
        ("mail:1:lock guards job 1 in wait",),
    ),
    "lock of no job": (
        lambda h: h.redis.set(h.key("19:lock"), "token", px=30_000),
        ("mail:19:lock guards job 19 in no state",),
    ),
    "lock that never expires": (lambda h: h.redis.persist(h.key("2:lock")), ("mail:2:lock never expires",)),
    "stalled id that is not active": (
        lambda h: h.redis.sadd(h.key("stalled"), "6"),
        ("mail:stalled holds id 6", "mail:active"),
    ),
    "delayed score in plain ms": (
        lambda h: h.redis.zadd(h.key("delayed"), {"4": h.now + _MINUTE}),
        ("mail:delayed has score", "for id 4"),
    ),
    "delayed job due too early": (
        lambda h: h.redis.zadd(h.key("delayed"), {"4": (h.now + 1000) * 4096}),
        ("mail:delayed has score", "for id 4"),
    ),
    "delayed job due too late": (
        lambda h: h.redis.zadd(h.key("delayed"), {"4": (h.now + 10 * _MINUTE) * 4096}),
        ("mail:delayed has score", "for id 4"),
    ),
    "delayed score with a fraction": (
        lambda h: (h.redis.zadd(h.key("delayed"), {"4": 4096.5}), h.redis.zadd(h.key("marker"), {"1": 1})),
        ("mail:delayed has score", "a whole number"),
    ),
    "priority score of another priority": (
        lambda h: h.redis.zadd(h.key("prioritized"), {"3": 6 * 2**32 + 2}),
        ("which means priority 6, expected 5",),
    ),
    "priority 0 among the prioritized": (
        lambda h: _write(h, "3", priority="0"),
        ("mail:prioritized has score", "whose priority is 0"),
    ),
    "priority place beyond the counter": (
        lambda h: h.redis.set(h.key("pc"), 1),
        ("whose place is 2, expected at most 1",),
    ),
    "priority among the standard jobs": (
        lambda h: _write(h, "1", priority="7"),
        ("mail:wait holds id 1 of priority 7",),
    ),
    "finished at another time": (
        lambda h: _write(h, "6", finishedOn="5"),
        ("mail:6 has finishedOn 5",),
    ),
    "completed without result": (
        lambda h: h.redis.hdel(h.key("6"), "returnvalue"),
        ("mail:6 is completed without returnvalue",),
    ),
    "failed without reason": (
        lambda h: h.redis.hdel(h.key("7"), "failedReason"),
        ("mail:7 is failed without failedReason",),
    ),
    "failed with a deferred failure": (lambda h: _write(h, "7", defa="child failed"), ("mail:7 is failed and still",)),
    "finished without attempt": (lambda h: h.redis.hdel(h.key("7"), "atm"), ("mail:7 is failed with atm absent",)),
    "waiting with an end": (lambda h: _write(h, "1", finishedOn="5"), ("mail:1 is in wait with finishedOn 5",)),
    "active without start time": (
        lambda h: h.redis.hdel(h.key("2"), "processedOn"),
        ("mail:2 is active without processedOn",),
    ),
    "active without start": (lambda h: h.redis.hdel(h.key("2"), "ats"), ("mail:2 is active with ats absent",)),
    "foreign marker": (lambda h: h.redis.zadd(h.key("marker"), {"2": 0}), ("mail:marker holds member '2'",)),
    "base marker with a time": (
        lambda h: h.redis.zadd(h.key("marker"), {"0": h.now}),
        ("mail:marker has score", "for '0', expected 0"),
    ),
    "delay marker too late": (
        lambda h: h.redis.zadd(h.key("marker"), {"1": h.now + 5 * _MINUTE}),
        ("mail:marker has score", "for '1'"),
    ),
    "delay marker that is a score": (
        lambda h: h.redis.zadd(h.key("marker"), {"1": h.now * 4096}),
        ("mail:marker has score", "expected a time in ms"),
    ),
    "counter that is no number at all": (lambda h: h.redis.set(h.key("id"), "x"), ("mail:id is x",)),
    "counter behind the ids": (lambda h: h.redis.set(h.key("id"), 6), ("mail:id is 6, expected at least 7",)),
    "limiter that never expires": (lambda h: h.redis.set(h.key("limiter"), 1), ("mail:limiter never expires",)),
    "stalled check that never expires": (
        lambda h: h.redis.set(h.key("stalled-check"), h.now),
        ("mail:stalled-check never expires",),
    ),
    "work that wakes nobody": (_fail_to_wake, ("mail:marker has no member '0'", "2 jobs could run")),
    "deduplication by a job that is gone": (
        lambda h: h.redis.set(h.key("de:once"), "15"),
        ("mail:de:once is owned by job 15",),
    ),
    "parent that waits for nothing": (
        lambda h: h.redis.delete(h.key("5:dependencies")),
        ("mail:waiting-children holds id 5",),
    ),
    "two names of one parent": (
        lambda h: _write(h, "1", parentKey="bull:other:5"),
        ("mail:1 has parentKey bull:other:5",),
    ),
    "a failure flag that is null": (
        lambda h: _write(h, "1", parent=json.dumps({"id": "5", "queueKey": h.queue, "fpof": None})),
        ("mail:1 has the flags {'fpof': None}",),
    ),
    "key of an unknown shape": (lambda h: h.redis.set(h.key("cache"), "x"), ("mail:cache is a string of a shape",)),
    "logs of no job": (lambda h: h.redis.rpush(h.key("18:logs"), "x"), ("mail:18:logs belongs to job 18",)),
    "structure of the wrong type": (
        lambda h: h.redis.zadd(h.key("paused"), {"1": 0}),
        ("mail:paused is a zset, expected a list",),
    ),
    "pause that Node does not see": (
        lambda h: h.redis.hset(h.key("meta"), "paused", "true"),
        ("mail:meta has paused 'true'",),
    ),
    "rate without a window": (
        lambda h: h.redis.hset(h.key("meta"), "max", "5"),
        ("mail:meta has max and no duration",),
    ),
    "scheduler without record": (_delete_scheduler_hash, ("mail:repeat holds id daily",)),
    "scheduler record that is not listed": (_keep_scheduler_hash, ("mail:repeat:daily is a scheduler",)),
    "event that stops every Node reader": (
        lambda h: h.event(event="completed", jobId="6", prev="active"),
        ("mail:events has an entry completed with returnvalue None",),
    ),
    "progress event without value": (
        lambda h: h.event(event="progress", jobId="6", data=""),
        ("mail:events has an entry progress with data ''",),
    ),
    "event without name": (lambda h: h.event(jobId="6"), ("mail:events has an entry", "expected a field event")),
}


@_BROKEN
@pytest.mark.parametrize("lie", _LIES.values(), ids=_LIES.keys())
def test_a_planted_lie_is_convicted(
    redis: redis_py.Redis, prefix: str, lie: tuple[Callable[[Honest], Any], tuple[str, ...]]
) -> None:
    honest = Honest(redis, prefix)
    assert check_invariants(redis, prefix) == []
    plant, expected = lie
    plant(honest)
    found = check_invariants(redis, prefix)
    assert any(all(part in sentence for part in expected) for sentence in found), found


@pytest.mark.parametrize("tail", ["", ":with:colons", "{tag}", ":{tag}:x", "[glob]*?"])
def test_a_prefix_may_hold_colons_and_braces(redis: redis_py.Redis, prefix: str, tail: str) -> None:
    inner = prefix + tail if tail != "" else prefix
    honest = Honest(redis, inner)
    try:
        assert check_invariants(redis, inner) == []
        redis.lpush(honest.key("wait"), "2")
        assert len(check_invariants(redis, inner)) == 1
    finally:
        redis.delete(*keyspace(redis, inner))


def test_the_relay_and_queues_of_longer_prefixes_are_left_alone(redis: redis_py.Redis, prefix: str) -> None:
    redis.set(f"{prefix}::relay:{{a}}:x", "1")
    redis.sadd(f"{prefix}::relay:namespaces", "a")
    # As a queue "inner" of this prefix, every one of these keys would be of an unknown shape.
    Honest(redis, f"{prefix}:inner")
    assert check_invariants(redis, prefix) == []


def test_what_the_reference_may_leave_behind_is_no_lie(redis: redis_py.Redis, prefix: str) -> None:
    honest = Honest(redis, prefix)
    # Recovered from a stall: at the front of wait whatever its priority.
    honest.job("8", priority="3", stc="1", ats="1", processedOn=str(honest.now))
    redis.rpush(honest.key("wait"), "8")
    # A throttle outlives its job.
    redis.set(honest.key("de:throttle"), "14", px=30_000)
    # Removed while active and unlocked: forgotten at the next stalled pass only.
    redis.sadd(honest.key("stalled"), "13")
    # Moved to delayed again: due later than timestamp + delay.
    honest.job("9", delay="1000", ats="1")
    redis.zadd(honest.key("delayed"), {"9": (honest.now + 1000) * 4096 + 5})
    # A three-part custom id, a retried job among the prioritized, a parent with a failed child.
    honest.job("a:b:failed")
    redis.lpush(honest.key("wait"), "a:b:failed")
    honest.job("11")
    redis.zadd(honest.key("waiting-children"), {"11": honest.now})
    redis.zadd(honest.key("11:unsuccessful"), {honest.key("12"): honest.now})
    assert check_invariants(redis, prefix) == []


def test_waiting_jobs_need_no_marker_while_nobody_may_take_them(redis: redis_py.Redis, prefix: str) -> None:
    honest = Honest(redis, prefix)
    redis.zrem(honest.key("marker"), "0")
    redis.hset(honest.key("meta"), "paused", "1")
    assert check_invariants(redis, prefix) == []
    redis.hdel(honest.key("meta"), "paused")
    assert len(check_invariants(redis, prefix)) == 1
    redis.set(honest.key("limiter"), 3, px=30_000)
    assert check_invariants(redis, prefix) == []
    redis.delete(honest.key("limiter"))
    redis.zadd(honest.key("marker"), {"0": 0})


def test_a_worker_that_polls_replaces_the_marker(redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    honest = Honest(redis, prefix)
    redis.zrem(honest.key("marker"), "0")
    other = redisbox.client()
    other.client_setname(f"{prefix}:bWFpbA==:w:one")
    assert check_invariants(redis, prefix) == []
    other.client_setname(f"{prefix}:b3RoZXI=:w:one")
    assert len(check_invariants(redis, prefix)) == 1
    other.close()
    redis.zadd(honest.key("marker"), {"0": 0})


def test_a_keyspace_dump_shows_types_values_and_expiry(redis: redis_py.Redis, prefix: str) -> None:
    redis.set(f"{prefix}:s", "é", px=30_000)
    redis.rpush(f"{prefix}:l", "a", "b")
    redis.sadd(f"{prefix}:m", "x", "y")
    redis.hset(f"{prefix}:h", mapping={"f": "1"})
    redis.zadd(f"{prefix}:z", {"a": 7354247765598208, "b": 1.5})
    redis.xadd(f"{prefix}:e", {"event": "added", "jobId": "1"})
    redis.set(f"{prefix}x:s", "another prefix", px=30_000)
    assert keyspace(redis, prefix) == {
        f"{prefix}:s": ("string", "é", True),
        f"{prefix}:l": ("list", ["a", "b"], False),
        f"{prefix}:m": ("set", {"x", "y"}, False),
        f"{prefix}:h": ("hash", {"f": "1"}, False),
        f"{prefix}:z": ("zset", {"a": 7354247765598208.0, "b": 1.5}, False),
        f"{prefix}:e": ("stream", [{"event": "added", "jobId": "1"}], False),
    }


def test_a_queue_that_node_worked_on_tells_no_lies(redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    require_node()
    asyncio.run(_node_works(redisbox, redis, prefix))
    assert check_invariants(redis, prefix) == []


async def _node_works(redisbox: RedisBox, redis: redis_py.Redis, prefix: str) -> None:
    """Lets Node bring jobs into every state, and looks for lies at each halt."""
    peer = await NodePeer.start(redisbox.unix_url, prefix)

    def honest() -> bool:
        assert check_invariants(redis, prefix) == []
        return True

    try:
        queue = await peer.queue("mail")
        ends = {"removeOnComplete": {"count": 5}}
        for options in (
            {},
            {"lifo": True},
            {"priority": 3},
            {"priority": 2, "delay": 60_000},
            {"delay": 120_000},
            {"jobId": "a:b:c"},
            {"deduplication": {"id": "once"}},
            {"deduplication": {"id": "often", "ttl": 60_000}},
        ):
            await peer.call(queue, "add", "value", {"value": 1}, {**ends, **options})
            assert honest()
        await peer.call(queue, "add", "fail", {}, {"attempts": 2, "backoff": 60_000})
        await peer.call(queue, "add", "fail", {}, {})
        await peer.call(queue, "add", "progress", {"progress": [1, {"half": True}]}, {})
        await peer.call(queue, "add", "log", {"rows": ["one", "two"]}, {"keepLogs": 1})
        gated = await peer.call(queue, "add", "gate", {}, {})
        await peer.call(queue, "upsertJobScheduler", "often", {"every": 60_000}, {"name": "value"})
        producer = await peer.flow_producer()
        await peer.call(
            producer,
            "add",
            {"name": "value", "queueName": "mail", "children": [{"name": "value", "queueName": "children"}]},
        )
        assert honest()
        worker = await peer.worker("mail", "by_name", concurrency=3, name="w-1")
        await peer.wait_event("gate", jobId=gated["id"])
        await peer.wait_events("worker", 2, name="failed", handle=worker)
        await aeventually(lambda: redis.llen(f"{prefix}:mail:wait") == 0 == redis.zcard(f"{prefix}:mail:prioritized"))
        assert honest()
        await peer.open(worker, gated["id"])
        await peer.wait_event("worker", name="completed", jobId=gated["id"])
        children = await peer.worker("children", "by_name")
        await peer.wait_event("worker", name="completed", handle=children)
        await aeventually(lambda: redis.zcard(f"{prefix}:mail:waiting-children") == 0)
        await aeventually(lambda: redis.llen(f"{prefix}:mail:active") == 0 == redis.llen(f"{prefix}:mail:wait"))
        assert honest()
        await peer.call(queue, "promoteJobs")
        await peer.call(queue, "retryJobs", {"state": "failed"})
        await peer.call(queue, "pause")
        await peer.call(queue, "add", "value", {}, {})
        assert honest()
        await peer.call(queue, "resume")
        assert honest()
    finally:
        await peer.close()
