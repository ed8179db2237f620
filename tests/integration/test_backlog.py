"""A backlog, run as fast as it goes: what speed must not cost. The benchmark's drain is the same without looking."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import toromq.sync
from toromq import Queue, Worker

if TYPE_CHECKING:
    import redis as redispy

    from tests.support.redisbox import RedisBox

_JOBS = 2_000
# Beyond what one exchange brings, within it, and the least.
_CONCURRENCIES = (200, 20, 1)
# What happens to every job, in this order.
_STORY = [("added", ""), ("waiting", ""), ("active", "waiting"), ("completed", "active")]


@contextlib.contextmanager
def _looking(client: redispy.Redis, key: str) -> Iterator[list[int]]:
    """Notes all the time how long a list is, on a connection of its own."""
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(client.llen(key))  # type: ignore[arg-type]

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


async def _drain(place: dict[str, Any], processor: Callable[[Any], Any], concurrency: int, kind: str) -> None:
    drained: Any = asyncio.Event() if kind != "blocking" else threading.Event()
    factory: Any = toromq.sync.Worker if kind == "blocking" else Worker
    worker = factory("q", processor, concurrency=concurrency, **place)
    worker.on("drained", drained.set)
    if kind == "blocking":
        with worker:
            assert await asyncio.to_thread(drained.wait, 60)
    else:
        async with worker:
            await asyncio.wait_for(drained.wait(), 60)


@pytest.mark.parametrize("concurrency", _CONCURRENCIES)
@pytest.mark.parametrize("kind", ["async def", "def", "blocking"])
async def test_every_job_of_a_backlog_runs_once_in_order_and_no_more_are_active_than_may_be(
    redisbox: RedisBox, prefix: str, redis: redispy.Redis, kind: str, concurrency: int
) -> None:
    place: dict[str, Any] = {"connection": redisbox.url, "prefix": prefix}
    async with Queue("q", **place, max_len_events=5 * _JOBS) as queue:
        added = [job.id for job in await queue.add_bulk([("n", number) for number in range(_JOBS)])]
    ran: list[str] = []

    async def run(job: Any) -> None:
        ran.append(job.id)

    def run_in_thread(job: Any) -> None:
        ran.append(job.id)

    with _looking(redis, f"{prefix}:q:active") as active:
        await _drain(place, run if kind == "async def" else run_in_thread, concurrency, kind)

    assert Counter(ran) == Counter(added)
    assert concurrency > 1 or ran == added
    assert max(active) in range(1, concurrency + 1)
    entries: list[Any] = redis.xrange(f"{prefix}:q:events")  # type: ignore[assignment]
    events = [fields for _, fields in entries if fields["event"] != "drained"]
    story: dict[str, list[tuple[str, str]]] = {job_id: [] for job_id in added}
    for fields in events:
        story[fields["jobId"]].append((fields["event"], fields.get("prev", "")))
    assert [job_id for job_id, told in story.items() if told != _STORY] == []
    # They were taken in order, whichever began first, and the events alone say how many were active at once.
    assert [fields["jobId"] for fields in events if fields["event"] == "active"] == added
    steps = ({"active": 1, "completed": -1}.get(fields["event"], 0) for fields in events)
    assert max(itertools.accumulate(steps)) <= concurrency
