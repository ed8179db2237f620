"""`data_type` and `result_type` on both sides of a queue, in both faces."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

import toromq
from tests.support.eventually import aeventually, eventually
from toromq import SerializationError, sync

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox


@dataclass
class DataclassOrder:
    number: int


class PydanticOrder(pydantic.BaseModel):
    number: int


class MsgspecOrder(msgspec.Struct):
    number: int


KINDS = [DataclassOrder, PydanticOrder, MsgspecOrder]


@pytest.mark.parametrize("kind", KINDS)
async def test_async_queues_and_workers_give_and_take_values_of_the_type(
    kind: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    place = {"connection": redisbox.url, "prefix": prefix, "data_type": kind, "result_type": kind}
    queue: toromq.Queue[Any, Any] = toromq.Queue("orders", **place)
    seen: list[Any] = []
    results: list[Any] = []

    async def process(job: toromq.Job[Any, Any]) -> Any:
        seen.append(job.data)
        return kind(number=job.data.number + 1)

    worker: toromq.Worker[Any, Any] = toromq.Worker("orders", process, **place)
    worker.on("completed", lambda job, result: results.append(result))
    async with queue, worker:
        added = await queue.add("order", kind(number=1))
        await queue.add_bulk([("order", {"number": 5})])
        await aeventually(lambda: len(results) == 2)
        assert added.data == kind(number=1)
        stored = await queue.get_job(str(added.id))
        assert stored is not None
        assert (stored.data, stored.returnvalue) == (kind(number=1), kind(number=2))
        await stored.update_data(kind(number=9))
        assert stored.data == kind(number=9)
    assert seen == [kind(number=1), kind(number=5)]
    assert results == [kind(number=2), kind(number=6)]
    assert redis.hget(f"{prefix}:orders:{added.id}", "returnvalue") == '{"number":2}'


@pytest.mark.parametrize("kind", KINDS)
def test_blocking_queues_and_workers_give_and_take_values_of_the_type(
    kind: Any, redisbox: RedisBox, prefix: str
) -> None:
    place = {"connection": redisbox.url, "prefix": prefix, "data_type": kind, "result_type": kind}
    queue: sync.Queue[Any, Any] = sync.Queue("orders", **place)
    results: list[Any] = []
    worker: sync.Worker[Any, Any] = sync.Worker("orders", lambda job: kind(number=job.data.number + 1), **place)
    worker.on("completed", lambda job, result: results.append((job.data, result)))
    with queue, worker:
        queue.add("order", kind(number=1))
        eventually(lambda: results)
    assert results == [(kind(number=1), kind(number=2))]


@pytest.mark.parametrize("kind", KINDS)
async def test_data_that_is_not_valid_is_refused_before_anything_is_sent(
    kind: Any, redisbox: RedisBox, redis: redis_py.Redis, prefix: str
) -> None:
    place = {"connection": redisbox.url, "prefix": prefix, "data_type": kind}
    queue: toromq.Queue[Any, Any] = toromq.Queue("orders", **place)
    blocking: sync.Queue[Any, Any] = sync.Queue("orders", **place)
    with pytest.raises(SerializationError, match=r"^data.*number"):
        await queue.add("order", {"number": "seven"})
    with pytest.raises(SerializationError, match=r"^jobs\[1\]\.data.*number"):
        await queue.add_bulk([("order", {"number": 1}), ("order", {})])
    with pytest.raises(SerializationError, match=r"^data.*number"):
        await asyncio.to_thread(blocking.add, "order", {"number": "seven"})
    assert redis.keys(f"{prefix}:*") == []
    await queue.close()
    blocking.close()


@pytest.mark.parametrize("processor", ["async", "def"])
async def test_a_job_with_other_data_fails_before_its_processor_sees_it(
    processor: str, redisbox: RedisBox, prefix: str
) -> None:
    ran: list[str] = []
    failed: list[tuple[str, str]] = []

    async def process(job: Any) -> None:
        ran.append(job.id)

    def process_in_a_thread(job: Any) -> None:
        ran.append(job.id)

    queue: toromq.Queue[Any, Any] = toromq.Queue("orders", connection=redisbox.url, prefix=prefix)
    worker: toromq.Worker[Any, Any] = toromq.Worker(
        "orders",
        process if processor == "async" else process_in_a_thread,
        connection=redisbox.url,
        prefix=prefix,
        data_type=DataclassOrder,
    )
    worker.on("failed", lambda job, error: failed.append((job.id, str(error))))
    async with queue, worker:
        bad = await queue.add("order", {"number": None}, attempts=5)
        good = await queue.add("order", {"number": 1})
        await aeventually(lambda: failed and ran)
    assert ran == [good.id]
    assert failed == [(bad.id, f"job {bad.id}: the stored data.number: got NoneType; allowed is int")]


async def test_a_result_of_another_type_fails_the_job_for_good(redisbox: RedisBox, prefix: str) -> None:
    failed: list[str] = []

    async def process(job: Any) -> Any:
        return {"number": "many"}

    place = {"connection": redisbox.url, "prefix": prefix}
    queue: toromq.Queue[Any, Any] = toromq.Queue("orders", **place)
    worker: toromq.Worker[Any, Any] = toromq.Worker("orders", process, result_type=PydanticOrder, **place)
    worker.on("failed", lambda job, error: failed.append(str(error)))
    async with queue, worker:
        await queue.add("order", None, attempts=5)
        await aeventually(lambda: failed)
    assert failed[0].startswith("returnvalue: number: Input should be a valid integer")
