"""Small things that a queue tells and does, in both faces."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.integration.scripts.commands import NOW
from tests.support.redisbox import RedisBox
from toromq import PRIORITY_LIMIT, ConfigurationError, PendingChildrenError, RedisConnectionError, sync

if TYPE_CHECKING:
    import redis as redis_py

FACES = pytest.mark.parametrize("face", [toromq, sync], ids=["async", "sync"])


async def done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


@pytest.mark.leaves_keys_broken("ids are put into the states without all that jobs there have")
@FACES
async def test_each_state_is_counted_under_its_own_name(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix)
    states = {"waiting": "wait", "active": "active", "delayed": "delayed", "prioritized": "prioritized",
              "waiting-children": "waiting-children", "completed": "completed", "failed": "failed"}  # fmt: skip
    for number, (state, structure) in enumerate(states.items(), 1):
        for n in range(number):
            job_id = f"{state}-{n}"
            job = {"name": "n", "data": "{}", "opts": "{}", "timestamp": NOW, "delay": 0, "priority": 0}
            redis.hset(queue.to_key(job_id), mapping=job)
            if structure in ("wait", "active"):
                redis.lpush(queue.to_key(structure), job_id)
            else:
                redis.zadd(queue.to_key(structure), {job_id: NOW * 4096 if state == "delayed" else NOW})
            if structure == "active":
                redis.set(queue.to_key(f"{job_id}:lock"), "w:1", px=60_000)
    counts = {
        "waiting": await done(queue.get_waiting_count()),
        "active": await done(queue.get_active_count()),
        "delayed": await done(queue.get_delayed_count()),
        "prioritized": await done(queue.get_prioritized_count()),
        "waiting-children": await done(queue.get_waiting_children_count()),
        "completed": await done(queue.get_completed_count()),
        "failed": await done(queue.get_failed_count()),
    }
    assert counts == {state: number for number, state in enumerate(states, 1)}
    assert counts == await done(queue.get_job_counts(*states))
    assert await done(queue.count()) == 1 + 3 + 4 + 5
    await done(queue.close())


@FACES
async def test_a_queue_is_ready_once_redis_answers(face: Any, prefix: str) -> None:
    with RedisBox() as box:
        connection = toromq.Connection(box.url, command_timeout=300)
        queue = face.Queue("q", connection=connection, prefix=prefix)
        await done(queue.wait_until_ready())
        box.stop()
        with pytest.raises(RedisConnectionError):
            await done(queue.wait_until_ready())
        box.start()
        await done(queue.wait_until_ready())
        # Closing twice is harmless, by either name.
        await done(queue.disconnect())
        await done(queue.close())


@FACES
async def test_keys_and_jobs_are_named_by_the_prefix_and_the_queue(face: Any, redisbox: RedisBox, prefix: str) -> None:
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix)
    assert (queue.name, queue.prefix, queue.qualified_name) == ("q", prefix, f"{prefix}:q")
    assert queue.to_key("wait") == f"{prefix}:q:wait"
    job = await done(queue.add("n"))
    assert (job.queue_name, job.prefix, job.queue_qualified_name) == ("q", prefix, f"{prefix}:q")
    await done(queue.close())


@FACES
async def test_the_largest_priority_is_the_limit(face: Any, redisbox: RedisBox, prefix: str) -> None:
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix)
    await done(queue.add("n", priority=PRIORITY_LIMIT))
    with pytest.raises(ConfigurationError, match=f"priority: got {PRIORITY_LIMIT + 1}; allowed is a whole number"):
        await done(queue.add("n", priority=PRIORITY_LIMIT + 1))
    await done(queue.close())


@FACES
async def test_a_parent_can_t_be_completed_by_hand_while_children_are_pending(
    face: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix)
    worker = face.Worker("q", connection=redisbox.url, prefix=prefix)
    parent = await done(queue.add("parent"))
    fetched = await done(worker.get_next_job("token", block=False))
    child = await done(queue.add("child", parent=parent))
    with pytest.raises(PendingChildrenError) as refusal:
        await done(fetched.move_to_completed(1, "token", False))
    assert refusal.value.job_id == parent.id
    assert redis.get(queue.to_key(f"{parent.id}:lock")) == "token"
    await done(child.remove())
    await done(fetched.move_to_completed(1, "token", False))
    assert await done(parent.is_completed())
    await done(worker.close())
    await done(queue.close())
