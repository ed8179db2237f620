"""Adds whose request or reply was lost on the way: never two jobs of one add, and never none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.support.eventually import aeventually
from tests.support.keyspace import keyspace
from tests.support.lossy import LossyProxy
from toromq import Deduplication, ParentNotFoundError, Queue, Worker

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

    Lost = Literal["request", "reply"]

LOST = pytest.mark.parametrize("lost", ["request", "reply"])


@pytest.fixture
async def proxy(redisbox: RedisBox) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(redisbox.url) as made:
        yield made


@pytest.fixture
async def queue(proxy: LossyProxy, prefix: str) -> AsyncIterator[Queue[Any, Any]]:
    """A queue behind the proxy, which has its script and its numbers."""
    made: Queue[Any, Any] = Queue("q", connection=proxy.url, prefix=prefix)
    await made.add("first", job_id="first")
    yield made
    await made.close()


async def lives_and_goes(queue: Queue[Any, Any], redisbox: RedisBox, job_id: str) -> None:
    """Adds a job, runs it, and has it removed."""

    async def work(_: Any) -> None:
        """Ends at once."""

    await queue.add("n", job_id=job_id, remove_on_complete=True)
    async with Worker("q", work, connection=redisbox.url, prefix=queue.prefix):

        async def gone() -> bool:
            return await queue.get_job(job_id) is None

        await aeventually(gone)


@LOST
@pytest.mark.parametrize("options", [{}, {"job_id": "x"}, {"delay": 60_000}, {"priority": 2}], ids=str)
async def test_a_job_is_added_once(queue: Queue[Any, Any], proxy: LossyProxy, lost: Lost, options: Any) -> None:
    with proxy.losing(lost):
        job = await queue.add("n", 1, **options)
    assert job.is_duplicate is False
    assert (await queue.get_job(job.id)) is not None
    assert await queue.count() == 2


@LOST
async def test_the_jobs_of_a_bulk_are_added_once(
    queue: Queue[Any, Any], proxy: LossyProxy, redis: redis_py.Redis, prefix: str, lost: Lost
) -> None:
    options = [{}, {"job_id": "x"}, {"deduplication": {"id": "K"}}, {"deduplication": {"id": "K"}}, {"job_id": "x"}]
    with proxy.losing(lost):
        jobs = await queue.add_bulk([("n", n, given) for n, given in enumerate(options)])
    assert jobs[3].id == jobs[2].id
    assert jobs[3].is_duplicate is True
    assert redis.lrange(f"{prefix}:q:wait", 0, -1) == [jobs[2].id, "x", jobs[0].id, "first"]


@LOST
async def test_an_id_that_has_lived_before_lives_again(
    queue: Queue[Any, Any], proxy: LossyProxy, redisbox: RedisBox, lost: Lost
) -> None:
    for _ in range(3):
        await lives_and_goes(queue, redisbox, "daily")
        with proxy.losing(lost):
            job = await queue.add("n", job_id="daily", delay=60_000)
        assert (job.id, job.is_duplicate) == ("daily", False)
        assert await queue.get_job_state("daily") == "delayed"
        await queue.remove("daily")


@LOST
async def test_an_id_that_has_lived_while_the_producer_rested_lives_again(
    queue: Queue[Any, Any], proxy: LossyProxy, redisbox: RedisBox, redis: redis_py.Redis, lost: Lost
) -> None:
    async with Queue("q", connection=redisbox.url, prefix=queue.prefix) as other:
        await lives_and_goes(other, redisbox, "daily")
    (last, _) = redis.xrevrange(f"{queue.prefix}:q:events", count=1)[0]
    ended = int(str(last).partition("-")[0])

    def is_past() -> bool:
        seconds, micros = redis.time()
        return seconds * 1000 + micros // 1000 > ended + 600

    # More than what is left to differences between clocks.
    await aeventually(is_past)
    with proxy.losing(lost):
        await queue.add("n", job_id="daily", delay=60_000)
    assert await queue.get_job_state("daily") == "delayed"


@LOST
async def test_an_id_that_has_lived_before_the_producer_lives_again(
    queue: Queue[Any, Any], proxy: LossyProxy, redisbox: RedisBox, lost: Lost
) -> None:
    await lives_and_goes(queue, redisbox, "daily")
    late: Queue[Any, Any] = Queue("q", connection=proxy.url, prefix=queue.prefix)
    # Makes it reserve numbers, and nothing more.
    with pytest.raises(ParentNotFoundError):
        await late.add("n", parent={"id": "none", "queue": f"{queue.prefix}:q"})
    with proxy.losing(lost):
        await late.add("n", job_id="daily", delay=60_000)
    assert await queue.get_job_state("daily") == "delayed"
    await late.close()


@LOST
@pytest.mark.parametrize(
    "rule",
    [
        Deduplication.simple("K"),
        Deduplication.throttle("K", 60_000),
        Deduplication.throttle("K", 60_000, extend=True),
        Deduplication.keep_last("K"),
        {"id": "K", "reschedule": True},
    ],
    ids=lambda rule: " ".join(rule),
)
async def test_a_job_that_gives_way_does_so_once(
    queue: Queue[Any, Any], proxy: LossyProxy, redis: redis_py.Redis, prefix: str, lost: Lost, rule: Any
) -> None:
    owner = await queue.add("n", delay=60_000, deduplication=rule)
    with proxy.losing(lost):
        job = await queue.add("n", delay=90_000, deduplication=rule)
    assert (job.id, job.is_duplicate) == (owner.id, True)
    events = keyspace(redis, prefix)[f"{prefix}:q:events"].value
    assert [entry["jobId"] for entry in events if entry["event"] == "deduplicated"] == [owner.id]
    assert await queue.count() == 2


@LOST
async def test_a_job_that_takes_the_place_of_another_does_so_once(
    queue: Queue[Any, Any], proxy: LossyProxy, redis: redis_py.Redis, prefix: str, lost: Lost
) -> None:
    rule = Deduplication.debounce("K", 60_000)
    first = await queue.add("n", 1, delay=60_000, deduplication=rule)
    with proxy.losing(lost):
        second = await queue.add("n", 2, delay=60_000, deduplication=rule)
    assert (second.is_duplicate, second.id == first.id) == (False, False)
    assert redis.zrange(f"{prefix}:q:delayed", 0, -1) == [second.id]
    assert await queue.get_deduplication_job_id("K") == second.id


@LOST
async def test_the_last_job_is_kept_once_although_its_owner_ends_meanwhile(
    queue: Queue[Any, Any], proxy: LossyProxy, redisbox: RedisBox, lost: Lost
) -> None:
    rule = Deduplication.keep_last("K")
    seen: list[Any] = []
    await queue.remove("first")
    owner = await queue.add("n", "owner", deduplication=rule)

    async def work(job: Any) -> None:
        seen.append(job.data)
        if job.data == "owner":
            with proxy.losing(lost):
                kept = await queue.add("n", "kept", deduplication=rule)
            assert (kept.id, kept.is_duplicate) == (owner.id, True)

    async with Worker("q", work, connection=redisbox.url, prefix=queue.prefix):

        async def over() -> bool:
            return (await queue.get_job_counts("completed"))["completed"] == 2

        await aeventually(over)
    assert seen == ["owner", "kept"]


@LOST
async def test_a_child_is_added_once(
    queue: Queue[Any, Any], proxy: LossyProxy, redis: redis_py.Redis, prefix: str, lost: Lost
) -> None:
    parent = await queue.add("n")
    with proxy.losing(lost):
        child = await queue.add("n", parent=parent)
    assert redis.smembers(f"{prefix}:q:{parent.id}:dependencies") == {f"{prefix}:q:{child.id}"}
    assert await queue.count() == 3


@LOST
async def test_a_refusal_is_told_all_the_same(queue: Queue[Any, Any], proxy: LossyProxy, lost: Lost) -> None:
    with proxy.losing(lost), pytest.raises(ParentNotFoundError):
        await queue.add("n", parent={"id": "none", "queue": f"{queue.prefix}:q"})
    assert await queue.count() == 1
