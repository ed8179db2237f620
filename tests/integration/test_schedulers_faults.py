"""What goes wrong between two jobs of a scheduler: killed workers and servers, requests that never arrive, storms of
upserts. One job for each time, whatever happens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually
from tests.support.invariants import check_invariants
from tests.support.lossy import LossyProxy
from tests.support.redisbox import RedisBox
from toromq import Connection, Queue, ToroError, Worker

if TYPE_CHECKING:
    import redis as redispy

HOUR = 3_600_000
_PROGRAM = Path(__file__).parent / "programs" / "worker.py"


@pytest.fixture
async def queue(redisbox: RedisBox, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    async with Queue("q", connection=redisbox.url, prefix=prefix) as made:
        yield made


def slots(queue: Queue[Any, Any], client: redispy.Redis) -> Counter[str]:
    """How often each job of a scheduler was added, by its id."""
    entries: Any = client.xrange(queue.to_key("events"))
    return Counter(fields["jobId"] for _, fields in entries if fields["event"] == "added")


async def test_a_worker_that_is_killed_before_the_next_job_was_made(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    with LossyProxy(redisbox.url) as proxy:
        proxy.swallow("iterate_schedulers")
        options = json.dumps({"lock_duration": 500, "lock_renew_time": 100, "skip_stalled_check": True})
        program = [sys.executable, str(_PROGRAM), "nap", proxy.url, queue.prefix, "q", options]
        with subprocess.Popen(program, stdout=subprocess.DEVNULL) as killed:
            try:
                await aeventually(lambda: proxy.swallowed, 30)
                assert redis.lrange(queue.to_key("active"), 0, -1) == [job.id]
            finally:
                killed.kill()
    assert list(slots(queue, redis)) == [job.id]
    ran: list[str] = []

    async def work(job: Any) -> None:
        ran.append(job.id)

    async with Worker("q", work, connection=redisbox.url, prefix=queue.prefix, stalled_interval=200):
        await aeventually(lambda: ran)
    assert ran == [job.id]
    (following,) = await queue.get_delayed()
    assert slots(queue, redis) == {job.id: 1, following.id: 1}


async def test_a_job_whose_next_one_cannot_be_made_keeps_its_lock(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis
) -> None:
    job = await queue.upsert_job_scheduler("s", every=HOUR)
    assert job is not None
    renewed: list[list[str]] = []

    async def work(job: Any) -> None:
        raise AssertionError

    with LossyProxy(redisbox.url) as proxy:
        proxy.swallow("iterate_schedulers")
        options: dict[str, Any] = {"lock_duration": 600, "lock_renew_time": 200}
        worker: Worker[Any, Any] = Worker("q", work, connection=proxy.url, prefix=queue.prefix, **options)
        worker.on("locks_renewed", lambda event: renewed.append(event))
        async with worker:
            await aeventually(lambda: len(renewed) >= 3)
            assert redis.exists(queue.to_key(f"{job.id}:lock"))
            await worker.close(force=True)
    assert await job.get_state() == "waiting"


async def test_a_server_that_is_killed_leaves_one_job_for_each_time() -> None:
    with RedisBox(appendonly=True, extra=["--appendfsync", "always"]) as box:
        async with Queue("q", connection=box.url) as queue:
            ran: Counter[str] = Counter()

            async def work(job: Any) -> None:
                ran[job.id] += 1

            for n in range(10):
                await queue.upsert_job_scheduler(f"s{n}", every=40 + n)
            workers: list[Worker[Any, Any]] = [
                Worker("q", work, connection=box.url, concurrency=4, run_retry_delay=100) for _ in range(2)
            ]
            for worker in workers:
                worker.on("error", lambda _: None)
                await worker.__aenter__()
            for _ in range(3):
                before = sum(ran.values())
                await aeventually(lambda before=before: sum(ran.values()) > before + 50, 20)
                await asyncio.to_thread(box.restart, kill=True)
            before = sum(ran.values())
            await aeventually(lambda: sum(ran.values()) > before + 50, 20)
            for worker in workers:
                await worker.close()
            client = box.client()
            assert set(slots(queue, client).values()) == {1}
            # Each scheduler has its next job, or one that was handed back.
            schedulers = await queue.get_job_schedulers()
            assert len(schedulers) == 10
            states = [await queue.get_job_state(f"repeat:{found.key}:{found.next}") for found in schedulers]
            assert set(states) <= {"delayed", "waiting"}
            assert check_invariants(client, "bull") == []
            client.close()


async def test_a_storm_of_upserts_beside_workers_makes_one_job_for_each_time(
    queue: Queue[Any, Any], redisbox: RedisBox, redis: redispy.Redis
) -> None:
    """As many programs that start at once do it, each with the same schedulers."""
    ran: Counter[str] = Counter()

    async def work(job: Any) -> None:
        ran[job.id] += 1

    async def upsert() -> None:
        async with Queue("q", connection=redisbox.url, prefix=queue.prefix) as own:
            for _ in range(30):
                for n in range(3):
                    await own.upsert_job_scheduler(f"every{n}", every=50 + n)
                await own.upsert_job_scheduler("cron", pattern="* * * * * *")

    workers = [Worker("q", work, connection=redisbox.url, prefix=queue.prefix, concurrency=3) for _ in range(2)]
    async with workers[0], workers[1]:
        await asyncio.gather(*(upsert() for _ in range(8)))
        await aeventually(lambda: len(ran) > 20)
    assert set(ran.values()) == {1}
    # Nothing is pending but the next one of each.
    pending = await queue.get_jobs(["waiting", "delayed"])
    assert len(pending) == len({job.repeat_job_key for job in pending}) <= 4


async def test_upserts_while_redis_is_away_are_refused_with_what_was_tried(box: RedisBox) -> None:
    async with Queue("q", connection=Connection(box.url, command_timeout=300)) as queue:
        await queue.upsert_job_scheduler("s", every=HOUR)
        box.kill()
        with pytest.raises(ToroError, match=r"Redis at"):
            await queue.upsert_job_scheduler("s", every=HOUR)
        with pytest.raises(ToroError):
            await queue.get_job_schedulers()


@pytest.fixture
def box() -> Any:
    with RedisBox() as started:
        yield started
