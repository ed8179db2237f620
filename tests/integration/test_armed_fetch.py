"""A fetch that lies behind an idle worker's wait: what it brings is run once, whatever becomes of the wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.eventually import aeventually
from tests.support.lossy import LossyProxy
from tests.support.place import ASLEEP, Place
from toromq import RateLimitError, Worker

if TYPE_CHECKING:
    import redis as redis_py

    from tests.support.redisbox import RedisBox

@pytest.fixture
async def place(redisbox: RedisBox, prefix: str, redis: redis_py.Redis) -> AsyncIterator[Place]:
    made = Place(redisbox.url, prefix, redis)
    yield made
    await made.queue.close()


async def _id(place: Place, data: Any = None, **options: Any) -> str:
    return str((await place.queue.add("n", data, **options)).id)


async def test_a_job_comes_with_the_answer_to_the_wait(place: Place) -> None:
    place.gate.clear()
    async with place.worker():
        await place.asleep()
        job = await _id(place)
        await aeventually(lambda: place.runs)
        # What that connection did last is no wait but the fetch behind it.
        assert place.client()["cmd"] == "evalsha"
        place.gate.set()
        await place.all_completed([job])
        await place.asleep()


@pytest.mark.parametrize("options", [{"lock_duration": 60_000}, {"skip_lock_renewal": True}], ids=str)
async def test_nothing_is_armed_that_takes_too_much_of_a_locks_life(place: Place, options: dict[str, Any]) -> None:
    place.gate.clear()
    async with place.worker(**options):
        await place.asleep()
        job = await _id(place)
        await aeventually(lambda: place.runs)
        assert place.client()["cmd"] == "bzpopmin"
        place.gate.set()
        await place.all_completed([job])


async def test_nothing_is_armed_for_who_may_not_end_a_connection(
    place: Place, redisbox: RedisBox, redis: redis_py.Redis
) -> None:
    user = f"u{place.prefix}"
    redis.acl_setuser(user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-client|kill"])
    place.gate.clear()
    async with place.worker(url=redisbox.url.replace("//", f"//{user}:any@")):
        await place.asleep()
        job = await _id(place)
        await aeventually(lambda: place.runs)
        assert place.client()["cmd"] == "bzpopmin"
        place.gate.set()
        await place.all_completed([job])
    redis.acl_deluser(user)
    assert place.errors == []


async def test_a_delayed_job_that_is_due_wakes_what_has_all_the_slots(place: Place) -> None:
    async with place.worker():
        await place.asleep()
        late = await _id(place, delay=600_000)
        await place.asleep()
        soon = await _id(place, delay=100)
        await place.all_completed([soon])
        assert place.stored("delayed") == [late]
        # More of them than one call promotes.
        added = await place.queue.add_bulk([("n", None, {"delay": 50})] * 1100)
        await place.all_completed([soon, *(str(job.id) for job in added)])


async def test_slots_that_are_set_aside_are_given_to_nobody_else(place: Place) -> None:
    place.gate.clear()
    async with place.worker(concurrency=4):
        ids = [await _id(place)]
        await aeventually(lambda: place.running["w"] == 1)
        await place.asleep()
        # One ends while a fetch for the three other slots is out: its end fetches for one.
        bulk = [str(job.id) for job in await place.queue.add_bulk([("n", None)] * 9)]
        ids += bulk
        await aeventually(lambda: place.running["w"] == 4)
        assert len(place.stored("active")) == 4
        place.gate.set()
        await place.all_completed(ids)
        assert place.most["w"] == 4


async def test_a_lower_concurrency_counts_from_then_on(place: Place) -> None:
    place.gate.clear()
    async with place.worker(concurrency=6) as worker:
        for concurrency in (2, 5, 1):
            await place.asleep()
            before = place.client()["id"]
            worker.concurrency = concurrency
            if concurrency != 5:
                # What was armed for more is ended.
                await aeventually(lambda before=before: place.client().get("id", before) != before)
            await place.asleep()
            place.runs.clear()
            place.most.clear()
            ids = [str(job.id) for job in await place.queue.add_bulk([("n", None)] * 12)]
            await aeventually(lambda expected=concurrency: place.running["w"] == expected)
            assert len(place.stored("active")) == concurrency
            place.gate.set()
            await aeventually(lambda: len(place.runs) == len(ids) and not place.stored("active"))  # noqa: B023 - at once
            assert place.most["w"] == concurrency
            assert set(place.runs.values()) == {1}
            place.gate.clear()


async def test_many_workers_share_and_none_takes_too_much(place: Place) -> None:
    rng = random.Random(7)
    limits = {"a": 1, "b": 2, "c": 3}
    ids: list[str] = []
    async with contextlib.AsyncExitStack() as workers:
        for name, most in limits.items():
            await workers.enter_async_context(place.worker(name, concurrency=most))
        for _ in range(60):
            # Now one, now more than there are slots, into a queue that is empty at times.
            options = {"priority": rng.choice((0, 0, 3)), "delay": rng.choice((0, 0, 0, 5))}
            bulk: Any = [("n", rng.choice((0, 0, 2, 9)), options)] * rng.choice((1, 1, 1, 2, 5, 11))
            ids += [str(job.id) for job in await place.queue.add_bulk(bulk)]
            await asyncio.sleep(rng.choice((0, 0.001, 0.01)))
            assert len(place.stored("active")) <= sum(limits.values())
        await place.all_completed(ids)
    for name, most in limits.items():
        assert 0 < place.most[name] <= most
    assert place.errors == []


async def test_a_connection_that_is_killed_while_armed_costs_no_job(place: Place) -> None:
    rng = random.Random(3)
    async with place.worker(concurrency=3):
        ids = []
        for _ in range(60):
            if rng.random() < 0.5:
                await place.asleep()
            client = place.client()
            kill: Any = place.redis.client_kill_filter
            # Before the job, after it, or in one moment with it, as far as there is such a thing.
            when = rng.choice(("before", "after", "amid"))
            if when == "before" and "id" in client:
                kill(_id=client["id"])
            adding = asyncio.ensure_future(_id(place))
            if when == "amid" and "id" in client:
                kill(_id=client["id"])
            ids.append(await adding)
            if when == "after" and "id" in client:
                kill(_id=client["id"])
        await place.all_completed(ids)


async def test_an_answer_that_is_lost_while_armed_costs_no_job(place: Place, redisbox: RedisBox) -> None:
    ids: list[str] = []
    async with LossyProxy(redisbox.url) as proxy:
        for lost in range(1, 6):
            # No marker is left of a job before, so what is lost is an answer with a job in it.
            proxy.lose_answer_to("BZPOPMIN")
            place.redis.delete(place.key("marker"))
            async with place.worker(url=proxy.url, concurrency=2):
                await place.asleep()
                assert proxy.lost == lost - 1
                ids.append(await _id(place))
                await aeventually(lambda lost=lost: proxy.lost == lost)
                ids.append(await _id(place))
                await place.all_completed(ids)


@pytest.mark.parametrize("how", ["TIMEOUT", "ERROR"])
async def test_a_wait_that_somebody_else_ends_is_begun_again(place: Place, how: str) -> None:
    async with place.worker():
        ids = []
        for _ in range(3):
            await place.asleep()
            client: Any = place.redis
            client.client_unblock(place.client()["id"], error=how == "ERROR")
            ids.append(await _id(place))
            await place.all_completed(ids)
    assert all("UNBLOCKED" in str(error) for error in place.errors)
    assert bool(place.errors) == (how == "ERROR")


async def test_a_script_that_is_gone_while_armed_is_loaded_again(place: Place) -> None:
    async with place.worker():
        ids = []
        for _ in range(3):
            await place.asleep()
            place.redis.script_flush()
            ids.append(await _id(place))
            await place.all_completed(ids)
    assert place.errors == []


@pytest.mark.parametrize("force", [False, True])
async def test_a_close_while_armed_loses_nothing(place: Place, force: bool) -> None:
    rng = random.Random(11)
    ids: list[str] = []
    for _ in range(25):
        worker = place.worker(concurrency=rng.choice((1, 4)))
        await worker.__aenter__()
        await place.asleep()
        adding = asyncio.ensure_future(_id(place))
        await asyncio.sleep(rng.random() / 1000)
        await worker.close(force=force)
        ids.append(await adding)
        # It was run, or waits for another worker; nobody holds it.
        assert place.stored("active") == []
        assert sorted(place.stored("completed") + place.stored("wait")) == sorted(ids)
        assert place.client()["cmd"] == ""
        assert not [key for key in place.redis.scan_iter(place.key("*:lock"))]
    async with place.worker():
        await aeventually(lambda: len(place.stored("completed")) == len(ids))
    # A job that was begun as its worker was forced to close begins once more.
    assert force or set(place.runs.values()) == {1}
    assert place.errors == []


async def test_a_pause_while_armed_begins_nothing(place: Place) -> None:
    rng = random.Random(5)
    async with place.worker(concurrency=2) as worker:
        ids: list[str] = []
        for _ in range(25):
            await place.asleep()
            adding = asyncio.ensure_future(_id(place))
            await asyncio.sleep(rng.random() / 1000)
            await worker.pause()
            ids.append(await adding)
            assert place.stored("active") == []
            ran = place.runs.total()
            ids.append(await _id(place))
            assert (place.runs.total(), len(place.stored("wait"))) == (ran, len(ids) - ran)
            await worker.resume()
            await place.all_completed(ids)


async def test_a_limit_that_nobody_set_ends_what_is_armed(place: Place) -> None:
    begun: list[str] = []

    async def processor(job: Any) -> None:
        begun.append(str(job.id))
        if len(begun) == 1:
            raise RateLimitError

    async with Worker("q", processor, connection=place.url, prefix=place.prefix, concurrency=3, name="w", **ASLEEP):
        await place.asleep()
        job = await _id(place)
        await aeventually(lambda: place.stored("completed") == [job])
    assert begun == [job] * 2


@pytest.mark.parametrize("lock_duration", [1_000_000, 100], ids=["armed", "not armed"])
async def test_waits_get_longer_while_nothing_comes(place: Place, lock_duration: int) -> None:
    worker = place.worker(lock_duration=lock_duration)
    worker._options.update(drain_delay=0.05, longest_drain_delay=300)
    with place.redis.monitor() as monitor:

        async def waits() -> list[float]:
            """How long is waited from here on, until it is the longest."""
            said: list[float] = []
            while said[-1:] != [300]:
                command: Any = await asyncio.to_thread(monitor.next_command)
                words = str(command["command"]).split()
                if words[:2] == ["BZPOPMIN", place.key("marker")]:
                    said.append(float(words[2]))
            return said

        async with worker:
            assert await asyncio.wait_for(waits(), 20) == [0.05, 300]
            job = await _id(place)
            # A job or a marker is something: it begins anew.
            said = await asyncio.wait_for(waits(), 20)
            assert (set(said[:-1]), said[-1]) == ({0.05}, 300)
            await place.all_completed([job])
