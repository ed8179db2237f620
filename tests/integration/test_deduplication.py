"""Deduplication as a program sees it: what comes back from an add, who owns an id, and when it is free again."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import toromq
from tests.support.deduplication import MODES
from tests.support.eventually import aeventually
from toromq import Deduplication, sync

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox


async def done(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@pytest.fixture(params=[toromq, sync], ids=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def queue(face: Any, redisbox: RedisBox, prefix: str) -> Any:
    made = face.Queue("q", connection=redisbox.url, prefix=prefix)
    yield made
    await done(made.close())


@pytest.mark.parametrize("mode", MODES)
async def test_an_option_is_stored_by_the_names_of_every_other_client(
    queue: Any, redis: redis_py.Redis, prefix: str, mode: str
) -> None:
    options = {"id": "K", **MODES[mode]}
    job = await done(queue.add("n", deduplication=options))
    stored = {"keepLastIfActive" if name == "keep_last_if_active" else name: options[name] for name in options}
    assert json.loads(redis.hget(f"{prefix}:q:{job.id}", "opts") or "")["de"] == stored
    assert redis.hget(f"{prefix}:q:{job.id}", "deid") == "K"
    assert (job.deduplication_id, job.opts["de"], job.is_duplicate) == ("K", stored, False)
    found = await done(queue.get_job(job.id))
    assert (found.deduplication_id, found.is_duplicate) == ("K", False)


async def test_a_job_that_gives_way_has_the_id_of_the_one_that_is_there(queue: Any) -> None:
    first = await done(queue.add("n", 1, deduplication=Deduplication.simple("K")))
    second = await done(queue.add("n", 2, deduplication=Deduplication.simple("K")))
    other = await done(queue.add("n", 3, deduplication=Deduplication.simple("L")))
    assert (second.id, second.is_duplicate, second.data) == (first.id, True, 2)
    assert (other.is_duplicate, other.id == first.id) == (False, False)
    assert (await done(queue.get_job(first.id))).data == 1
    assert await done(queue.get_deduplication_job_id("K")) == first.id
    assert await done(queue.get_deduplication_job_id("nobody's")) is None


async def test_a_job_whose_own_id_is_taken_says_so(queue: Any) -> None:
    first = await done(queue.add("n", job_id="x"))
    second = await done(queue.add("n", job_id="x"))
    assert [(job.id, job.is_duplicate) for job in (first, second)] == [("x", False), ("x", True)]


async def test_the_jobs_of_a_bulk_see_each_other(queue: Any) -> None:
    ids = ["K", "L", "K", None, "L", None]
    rules = [{"deduplication": {"id": id} if id else None} for id in ids]
    jobs = await done(queue.add_bulk([("n", n, rule) for n, rule in enumerate(rules)]))
    assert [job.is_duplicate for job in jobs] == [False, False, True, False, True, False]
    assert (jobs[2].id, jobs[4].id) == (jobs[0].id, jobs[1].id)
    assert len({job.id for job in jobs}) == 4


async def test_a_bulk_of_many_batches_leaves_one_job_of_each_id(queue: Any) -> None:
    jobs = await done(queue.add_bulk([("n", n, {"deduplication": {"id": str(n % 7)}}) for n in range(900)]))
    assert [job.is_duplicate for job in jobs] == [False] * 7 + [True] * 893
    assert (await done(queue.get_job_counts("waiting"))) == {"waiting": 7}
    assert {job.id for job in jobs} == {job.id for job in jobs[:7]}


async def test_listeners_hear_of_jobs_that_were_added(queue: Any) -> None:
    heard: list[Any] = []
    queue.on("waiting", heard.append)
    first = await done(queue.add("n", deduplication={"id": "K"}))
    await done(queue.add("n", deduplication={"id": "K"}))
    await done(queue.add_bulk([("n", {}, {"deduplication": {"id": "K"}})]))
    assert [job.id for job in heard] == [first.id]


async def test_a_default_of_the_queue_counts_for_every_job(face: Any, redisbox: RedisBox, prefix: str) -> None:
    defaults: Any = {"deduplication": Deduplication.throttle("K", timedelta(minutes=5))}
    queue = face.Queue("q", connection=redisbox.url, prefix=prefix, default_job_options=defaults)
    jobs = [await done(queue.add("n")), await done(queue.add("n")), await done(queue.add("n", deduplication=None))]
    assert [job.is_duplicate for job in jobs] == [False, True, False]
    await done(queue.close())


async def test_debounced_jobs_leave_the_last(queue: Any, redis: redis_py.Redis, prefix: str) -> None:
    rule = Deduplication.debounce("K", 60_000)
    jobs = [await done(queue.add("n", n, delay=60_000, deduplication=rule)) for n in range(3)]
    assert [job.is_duplicate for job in jobs] == [False] * 3
    assert redis.zrange(f"{prefix}:q:delayed", 0, -1) == [jobs[2].id]
    assert (await done(queue.get_job(jobs[2].id))).data == 2
    assert await done(queue.get_job(jobs[0].id)) is None


async def test_the_last_job_added_while_one_runs_follows_it(redisbox: RedisBox, prefix: str) -> None:
    queue: toromq.Queue[Any, Any] = toromq.Queue("q", connection=redisbox.url, prefix=prefix)
    seen: list[Any] = []
    rule = Deduplication.keep_last("K")
    first = await queue.add("n", 0, deduplication=rule)

    async def work(job: toromq.Job[Any, Any]) -> None:
        seen.append(job.data)
        if job.data == 0:
            added = [await queue.add("n", n, deduplication=rule) for n in (1, 2, 3)]
            assert [(job.id, job.is_duplicate) for job in added] == [(first.id, True)] * 3

    async with toromq.Worker("q", work, connection=redisbox.url, prefix=prefix):
        await aeventually(lambda: len(seen) >= 2)
        assert seen == [0, 3]

        async def free() -> bool:
            return await queue.get_deduplication_job_id("K") is None

        await aeventually(free)
    assert (await queue.add("n", 4, deduplication=rule)).is_duplicate is False
    await queue.close()


async def test_an_id_is_free_again_when_its_key_was_removed(queue: Any) -> None:
    first = await done(queue.add("n", deduplication={"id": "K", "ttl": timedelta(hours=1)}))
    assert await done(queue.remove_deduplication_key("K")) is True
    assert await done(queue.remove_deduplication_key("K")) is False
    second = await done(queue.add("n", deduplication={"id": "K"}))
    assert second.is_duplicate is False
    # Only the owner gives it up.
    assert await done(first.remove_deduplication_key()) is False
    assert await done(queue.get_deduplication_job_id("K")) == second.id
    assert await done(second.remove_deduplication_key()) is True
    assert await done(queue.get_deduplication_job_id("K")) is None
    plain = await done(queue.add("n"))
    assert await done(plain.remove_deduplication_key()) is False


async def test_a_window_that_ends_by_itself_outlives_its_job(queue: Any, redisbox: RedisBox, prefix: str) -> None:
    first = await done(queue.add("n", deduplication=Deduplication.throttle("K", 600_000)))
    second = await done(queue.add("n", deduplication=Deduplication.simple("L")))

    async def work(_: Any) -> None:
        """Ends at once."""

    async with toromq.Worker("q", work, connection=redisbox.url, prefix=prefix):

        async def ended() -> bool:
            states = [await done(queue.get_job_state(job.id)) for job in (first, second)]
            return states == ["completed", "completed"]

        await aeventually(ended)
    assert (await done(queue.add("n", deduplication={"id": "K"}))).is_duplicate is True
    assert (await done(queue.add("n", deduplication={"id": "L"}))).is_duplicate is False
